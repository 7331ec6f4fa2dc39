//! Which blocks stay on the device and which pass through slots.

use crate::StageView;

/// The blocks of a stage, divided. Both lists are in order of first use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// Blocks with a slot of their own.
    pub resident: Vec<u32>,
    /// Blocks that pass through shared slots.
    pub streamed: Vec<u32>,
}

impl Split {
    /// Every block resident.
    #[must_use]
    pub fn resident(view: &StageView) -> Self {
        Self { resident: view.distinct(), streamed: Vec::new() }
    }

    /// Every block streamed.
    #[must_use]
    pub fn streamed(view: &StageView) -> Self {
        Self { resident: Vec::new(), streamed: view.distinct() }
    }

    /// `count` of the alike blocks streamed, the others resident. A count above their number takes
    /// the blocks that are one of their kind too. The streamed blocks are spread evenly, or are the
    /// last ones if the residents shall be `leading`.
    #[must_use]
    pub fn count(view: &StageView, count: usize, leading: bool) -> Self {
        let blocks = view.distinct();
        let (alike, odd): (Vec<u32>, Vec<u32>) = blocks.iter().partition(|b| view.repeated(**b));
        let resident = match count.checked_sub(alike.len()) {
            Some(more) => odd.get(more..).unwrap_or_default().to_vec(),
            None => [odd, stay(&alike, alike.len() - count, leading)].concat(),
        };
        Self::of(&blocks, &resident)
    }

    /// As few streamed bytes as `room` bytes allow when `slots` shared slots come out of them.
    /// Absent where not even the slots fit.
    ///
    /// Residents are spread evenly among the streamed blocks, so that the link has the same time for
    /// every copy: with the first K blocks resident, as other tools do, the copies of all others
    /// follow each other and the device waits up to 1.45 times as long.
    #[must_use]
    pub fn fit(view: &StageView, room: u64, slots: u64) -> Option<Self> {
        let all = Self::resident(view);
        if view.held_by(&all.resident) <= room {
            return Some(all);
        }
        let mut sizes: Vec<u64> = by_key(&all.resident, |b| view.slab(b)).into_iter().map(|b| view.slab(b)).collect();
        sizes.dedup();
        let splits = sizes.into_iter().filter_map(|size| Self::with_slot(view, &all.resident, room, slots, size));
        splits.min_by_key(|split| split.streamed.iter().map(|b| view.slab(*b)).sum::<u64>())
    }

    /// The split for slots of a given size. Blocks that are larger must be resident; those that are
    /// far smaller would waste a slot and are cheap to hold; the others share what is left.
    fn with_slot(view: &StageView, blocks: &[u32], room: u64, slots: u64, size: u64) -> Option<Self> {
        let mut left = room.checked_sub(view.round(size).checked_mul(slots)?)?;
        let (mut resident, mut rest) = (Vec::new(), Vec::new());
        for block in blocks {
            if view.slab(*block) > size {
                left = left.checked_sub(view.held(*block))?;
                resident.push(*block);
            } else {
                rest.push(*block);
            }
        }
        let small: Vec<u32> = rest.iter().copied().filter(|b| view.slab(*b) <= size / 2).collect();
        for block in by_key(&small, |b| view.slab(b)) {
            let Some(less) = left.checked_sub(view.held(block)) else { break };
            left = less;
            resident.push(block);
        }
        let taken = BlockSet::of(&resident);
        rest.retain(|b| !taken.contains(*b));
        resident.extend(spread_within(view, &rest, left));
        Some(Self::of(blocks, &resident))
    }

    /// The split with the given residents; `blocks` gives the order.
    #[must_use]
    pub fn of(blocks: &[u32], resident: &[u32]) -> Self {
        let set = BlockSet::of(resident);
        let (resident, streamed) = blocks.iter().partition(|b| set.contains(**b));
        Self { resident, streamed }
    }
}

fn stay(alike: &[u32], count: usize, leading: bool) -> Vec<u32> {
    if leading { alike[..count].to_vec() } else { spread(alike, count) }
}

/// Blocks in the order of a key, equals in the order of their numbers. The only sort of the crate:
/// each kind of sort would add kilobytes to every policy.
pub(crate) fn by_key(blocks: &[u32], key: impl Fn(u32) -> u64) -> Vec<u32> {
    let mut rows: Vec<(u64, u32)> = blocks.iter().map(|b| (key(*b), *b)).collect();
    rows.sort_unstable();
    rows.into_iter().map(|(_, block)| block).collect()
}

/// Blocks that are asked for often.
pub(crate) struct BlockSet(Vec<bool>);

impl BlockSet {
    pub(crate) fn of(blocks: &[u32]) -> Self {
        let mut set = vec![false; blocks.iter().max().map_or(0, |b| *b as usize + 1)];
        blocks.iter().for_each(|b| set[*b as usize] = true);
        Self(set)
    }

    /// The blocks in the order of their numbers.
    pub(crate) fn sorted(&self) -> Vec<u32> {
        self.0.iter().zip(0..).filter(|(there, _)| **there).map(|(_, block)| block).collect()
    }

    pub(crate) fn contains(&self, block: u32) -> bool {
        self.0.get(block as usize).is_some_and(|b| *b)
    }
}

/// About as many of the blocks as fit into `room`, spread evenly. Blocks of unlike sizes may leave
/// room for one more: more picks do not always weigh more, and the search halves.
fn spread_within(view: &StageView, blocks: &[u32], room: u64) -> Vec<u32> {
    let (mut fits, mut fails) = (0, blocks.len() + 1);
    while fails - fits > 1 {
        let middle = (fits + fails) / 2;
        if view.held_by(&spread(blocks, middle)) <= room {
            fits = middle;
        } else {
            fails = middle;
        }
    }
    spread(blocks, fits)
}

/// `count` of the items, as evenly spread as whole numbers allow.
#[must_use]
pub fn spread<T: Copy>(items: &[T], count: usize) -> Vec<T> {
    let n = items.len();
    let picked = |i: &usize| (i + 1) * count / n > i * count / n;
    (0..n).filter(picked).map(|i| items[i]).collect()
}

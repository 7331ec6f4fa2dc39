//! Streaming in a circle: shared slots are filled in turn, and the last blocks of a pass make way for
//! the first of the next.

use crate::split::{BlockSet, by_key};
use crate::{AT_ONCE, Loads, Split, StagePlan, StageView, counted, round_up};

/// A stretch of positions that use the same streamed block while no other streamed block is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Visit {
    block: u32,
    last: u32,
}

impl Loads {
    /// No copies.
    #[must_use]
    pub const fn none() -> Self {
        Self { block: Vec::new(), slot: Vec::new(), after: Vec::new() }
    }

    /// Adds a copy.
    pub fn push(&mut self, block: u32, slot: u32, after: u32) {
        self.block.push(block);
        self.slot.push(slot);
        self.after.push(after);
    }

    /// The number of copies.
    #[must_use]
    pub fn len(&self) -> usize {
        self.block.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.block.is_empty()
    }

    /// The copies as rows: block, slot, after.
    pub fn rows(&self) -> impl Iterator<Item = (u32, u32, u32)> {
        let rows = self.block.iter().zip(&self.slot).zip(&self.after);
        rows.map(|((block, slot), after)| (*block, *slot, *after))
    }
}

impl StagePlan {
    /// Residents in slots of their own, the streamed blocks through `slots` shared slots in the order
    /// in which they are used. While one of them is used, `slots - 1` are on their way or waiting.
    ///
    /// A block's copy starts when the block that was in its slot has been used for the last time,
    /// across the end of a pass too. If the number of slots does not divide the number of streamed
    /// blocks, each pass finds its blocks in other slots than the last, and the schedule repeats only
    /// after some passes.
    #[must_use]
    pub fn rolling(view: &StageView, split: &Split, slots: u32) -> Self {
        let slots = slots.max(1);
        if split.streamed.len() <= slots as usize {
            return Self::all_resident(view);
        }
        let visits = visits(&view.stage.blocks, &split.streamed);
        let mut plan = Self::empty(view);
        plan.cycle_passes = slots / gcd(visits.len() as u32, slots);
        plan.slot_bytes = shared_slots(view, &visits, slots, plan.cycle_passes);
        let mut firsts: Vec<(u32, u32)> = visits.iter().map(|v| v.block).zip(0..slots).collect();
        for block in &split.resident {
            firsts.push((*block, plan.slot_bytes.len() as u32));
            plan.slot_bytes.push(view.slab(*block));
        }
        plan.prologue = in_order_of_use(view, &firsts);
        plan.cycle = circle(&visits, slots, plan.cycle_passes, view.stage.blocks.len() as u32);
        plan.slot_flags = vec![0; plan.slot_bytes.len()];
        plan
    }

    /// Every block of the stage in a slot of its own.
    #[must_use]
    pub fn all_resident(view: &StageView) -> Self {
        let mut plan = Self::empty(view);
        for (block, slot) in view.distinct().into_iter().zip(0..) {
            plan.slot_bytes.push(view.slab(block));
            plan.slot_flags.push(0);
            plan.prologue.push(block, slot, AT_ONCE);
        }
        plan
    }

    /// No slots yet, and the activations that the stage needs.
    #[must_use]
    pub fn empty(view: &StageView) -> Self {
        Self {
            slot_bytes: Vec::new(),
            slot_flags: Vec::new(),
            prologue: Loads::none(),
            cycle: Loads::none(),
            cycle_passes: 1,
            activations: view.stage.activation_peak,
        }
    }

    /// Marks every slot that is loaded once as outliving the stage.
    #[must_use]
    pub fn kept(mut self) -> Self {
        self.slot_flags = self.shared().into_iter().map(|shared| u8::from(!shared)).collect();
        self
    }

    /// For each slot whether blocks pass through it.
    #[must_use]
    pub fn shared(&self) -> Vec<bool> {
        let mut shared = vec![false; self.slot_bytes.len()];
        self.cycle.slot.iter().for_each(|slot| shared[*slot as usize] = true);
        shared
    }

    /// The blocks that are copied again and again, in the order of their numbers.
    #[must_use]
    pub fn streamed(&self) -> Vec<u32> {
        BlockSet::of(&self.cycle.block).sorted()
    }

    /// The blocks that are copied once.
    #[must_use]
    pub fn residents(&self) -> Vec<u32> {
        let shared = self.shared();
        self.prologue.rows().filter(|(_, slot, _)| !shared[*slot as usize]).map(|(block, ..)| block).collect()
    }

    /// The number of slots that blocks pass through.
    #[must_use]
    pub fn shared_slots(&self) -> usize {
        self.shared().into_iter().filter(|shared| *shared).count()
    }

    /// The plan in a few words, such as `12 blocks resident, 30 streamed through 2 slots`.
    #[must_use]
    pub fn summary(&self) -> String {
        let resident = counted(self.residents().len(), "block");
        match self.streamed().len() {
            0 => format!("{resident} resident"),
            streamed => {
                format!("{resident} resident, {streamed} streamed through {}", counted(self.shared_slots(), "slot"))
            }
        }
    }

    /// Bytes that the slots which outlive the stage take from the budget.
    #[must_use]
    pub fn kept_bytes(&self, granularity: u64) -> u64 {
        let slots = self.slot_bytes.iter().zip(&self.slot_flags).filter(|(_, flags)| **flags & 1 != 0);
        slots.fold(0, |sum: u64, (bytes, _)| sum.saturating_add(round_up(*bytes, granularity)))
    }

    /// Bytes that the slots take from the budget.
    #[must_use]
    pub fn held(&self, view: &StageView) -> u64 {
        self.slot_bytes.iter().fold(0, |sum: u64, bytes| sum.saturating_add(view.round(*bytes)))
    }
}

fn visits(positions: &[u32], streamed: &[u32]) -> Vec<Visit> {
    let streamed = BlockSet::of(streamed);
    let mut visits: Vec<Visit> = Vec::new();
    for (block, last) in positions.iter().copied().zip(0..) {
        if !streamed.contains(block) {
            continue;
        }
        match visits.last_mut() {
            Some(visit) if visit.block == block => visit.last = last,
            _ => visits.push(Visit { block, last }),
        }
    }
    visits
}

/// Each shared slot is as large as the largest block that passes through it.
fn shared_slots(view: &StageView, visits: &[Visit], slots: u32, passes: u32) -> Vec<u64> {
    let mut bytes = vec![0; slots as usize];
    for (visit, turn) in visits.iter().cycle().zip(0..visits.len() * passes as usize) {
        let slot: &mut u64 = &mut bytes[turn % slots as usize];
        *slot = view.slab(visit.block).max(*slot);
    }
    bytes
}

/// Loads of the given blocks into the given slots, in the order in which the stage uses the blocks.
pub(crate) fn in_order_of_use(view: &StageView, firsts: &[(u32, u32)]) -> Loads {
    let mut place = vec![0; view.job.blocks.slab.len()];
    for (block, rank) in view.distinct().into_iter().zip(0..) {
        place[block as usize] = rank;
    }
    let rows: Vec<u32> = (0..firsts.len() as u32).collect();
    let mut loads = Loads::none();
    for row in by_key(&rows, |row| place[firsts[row as usize].0 as usize]) {
        let (block, slot) = firsts[row as usize];
        loads.push(block, slot, AT_ONCE);
    }
    loads
}

/// Turn k uses slot k mod `slots`; when it ends, the block of turn k + `slots` moves in.
fn circle(visits: &[Visit], slots: u32, passes: u32, positions: u32) -> Loads {
    let mut loads = Loads::none();
    for pass in 0..passes {
        for (i, visit) in visits.iter().enumerate() {
            let turn = pass as usize * visits.len() + i;
            let next = visits[(turn + slots as usize) % visits.len()];
            loads.push(next.block, (turn % slots as usize) as u32, pass * positions + visit.last);
        }
    }
    loads
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

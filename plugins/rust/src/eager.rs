//! The eager schedule: whenever the link is free, the next block that is missing moves into the slot
//! of the block that was used last.
//!
//! In a circle the block just used is the one whose next use is farthest away, so this is Belady's
//! rule. When copies dominate it moves fewer bytes than fixed residents do. Which blocks are where
//! differs from pass to pass; the passes are walked here, with the times that the machine is said to
//! need, until the slots hold what they held before, and the walk becomes the plan's cycle. Where they
//! never do, the cycle is as long as the job, and its end, which a job does not reach, puts everything
//! back.

use crate::rolling::in_order_of_use;
use crate::split::BlockSet;
use crate::{Loads, NO_BLOCK, Split, StagePlan, StageView};

/// The most passes that are walked. A job with more of them puts everything back once in so many
/// passes, which costs less than one copy a pass.
const PASSES: u32 = 128;

/// The most steps over streamed blocks that are walked, and so the most copies of a plan's cycle: plans
/// are stored, checked and handed over.
const STEPS: u32 = 8192;

/// The longest repetition that is looked for.
const PERIOD: usize = 64;

impl StagePlan {
    /// The eager schedule in `room` bytes. Blocks that are much smaller than the others, or larger than
    /// what most slots should be, are resident; all others share what is left. Absent where two slots
    /// do not fit, and for the reasons of [`StagePlan::eager`].
    #[must_use]
    pub fn eager_within(view: &StageView, room: u64, copy_ns: &[u64]) -> Option<Self> {
        let split = Split::fit(view, room, 2)?;
        let size = split.streamed.iter().map(|b| view.slab(*b)).max()?;
        let odd = |b: &u32| view.slab(*b) > size || view.slab(*b) <= size / 2;
        let resident: Vec<u32> = split.resident.into_iter().filter(odd).collect();
        let left = room.checked_sub(view.held_by(&resident))?;
        let slots = u32::try_from(left / view.round(size).max(1)).ok()?;
        Self::eager(view, &Split::of(&view.distinct(), &resident), slots, copy_ns)
    }

    /// The schedule for the streamed blocks of `split` in `slots` shared slots, when copying block b
    /// takes `copy_ns[b]`. Absent where a block is used at two places of a pass, and where the blocks
    /// fit into the slots.
    #[must_use]
    pub fn eager(view: &StageView, split: &Split, slots: u32, copy_ns: &[u64]) -> Option<Self> {
        if slots < 2 || split.streamed.len() <= slots as usize {
            return None;
        }
        let mut walk = Walk::new(view, &split.streamed, slots, copy_ns)?;
        walk.run();
        let passes = u32::try_from(view.stage.passes).unwrap_or(PASSES).clamp(1, walk.passes);
        let (from, to) = walk.repetition().unwrap_or((0, passes));
        Some(walk.plan(view, split, from, to))
    }
}

/// A copy as it was decided: `after` counts positions from the first pass on.
#[derive(Clone, Copy)]
struct Copy {
    block: u32,
    slot: u32,
    after: u32,
    /// The last position of its first use.
    used: u32,
}

struct Walk<'a> {
    /// For each position the streamed block, or [`NO_BLOCK`].
    blocks: Vec<u32>,
    compute_ns: &'a [u64],
    copy_ns: &'a [u64],
    /// The position after which a block is not used again in its pass.
    last: Vec<u32>,
    /// Streamed blocks in order of use.
    order: Vec<u32>,
    /// Where each block is, and since when; slot by block.
    slot: Vec<Option<u32>>,
    ready: Vec<u64>,
    /// Used blocks that are still there: block, position and time of the end of its use.
    used: Vec<(u32, u32, u64)>,
    /// The block whose turn comes next to be looked at, counted over all passes.
    wanted: usize,
    first: Vec<Option<u32>>,
    copies: Vec<Copy>,
    link_free: u64,
    now: u64,
    /// How many passes are walked.
    passes: u32,
}

impl<'a> Walk<'a> {
    fn new(view: &StageView<'a>, streamed: &[u32], slots: u32, copy_ns: &'a [u64]) -> Option<Self> {
        let set = BlockSet::of(streamed);
        let keep = |b: &u32| if set.contains(*b) { *b } else { NO_BLOCK };
        let blocks: Vec<u32> = view.stage.blocks.iter().map(keep).collect();
        let mut last = vec![0; copy_ns.len()];
        let mut order: Vec<u32> = Vec::new();
        for (block, position) in blocks.iter().copied().zip(0..).filter(|(b, _)| *b != NO_BLOCK) {
            last[block as usize] = position;
            if order.last() != Some(&block) {
                order.push(block);
            }
        }
        let once = order.len() == streamed.len();
        let mut slot = vec![None; copy_ns.len()];
        let mut first = vec![None; slots as usize];
        for (block, s) in order.iter().zip(0..slots) {
            slot[*block as usize] = Some(s);
            first[s as usize] = Some(*block);
        }
        let passes = (STEPS / streamed.len().max(1) as u32).clamp(1, PASSES);
        once.then(|| Self {
            passes,
            blocks,
            compute_ns: &view.stage.compute_ns,
            copy_ns,
            last,
            order,
            slot,
            ready: vec![0; copy_ns.len()],
            used: Vec::new(),
            wanted: slots as usize,
            first,
            copies: Vec::new(),
            link_free: 0,
            now: 0,
        })
    }

    fn run(&mut self) {
        for pass in 0..self.passes {
            for position in 0..self.blocks.len() {
                self.step(pass, position);
            }
        }
    }

    fn step(&mut self, pass: u32, position: usize) {
        let block = self.blocks[position];
        let mut start = self.now;
        if block != NO_BLOCK {
            if self.slot[block as usize].is_none() {
                // The next missing block is this one; the block just used makes way.
                self.copy_next();
            }
            start = start.max(self.ready[block as usize]);
        }
        let end = start.saturating_add(self.compute_ns[position]);
        let at = pass * self.blocks.len() as u32 + position as u32;
        while self.link_free < end && self.copy_next() {}
        self.now = end;
        if block != NO_BLOCK && self.last[block as usize] == position as u32 {
            self.used.push((block, at, end));
        }
    }

    /// Decides the next copy, if there is room for it.
    fn copy_next(&mut self) -> bool {
        let Some(block) = self.next_missing() else { return false };
        let Some((victim, used_at, used_end)) = self.used.last().copied() else { return false };
        let n = self.blocks.len() as u32;
        // A block that is needed again before the missing one stays. Its next use is one pass after
        // its last; that of the missing block follows from its turn.
        let pass = (self.wanted / self.order.len()) as u32;
        let used = pass * n + self.last[block as usize];
        if used_at + n <= used {
            return false;
        }
        self.used.pop();
        let slot = self.slot[victim as usize].take();
        let start = self.link_free.max(used_end);
        self.link_free = start.saturating_add(self.copy_ns[block as usize]);
        self.ready[block as usize] = self.link_free;
        self.slot[block as usize] = slot;
        let least = self.copies.last().map_or(0, |c| c.after);
        self.copies.push(Copy { block, slot: slot.unwrap_or(0), after: used_at.max(least), used });
        self.wanted += 1;
        true
    }

    /// The next block in order of use that is in no slot. Every block before it is there or has been
    /// decided on.
    fn next_missing(&mut self) -> Option<u32> {
        for _ in 0..self.order.len() {
            let block = self.order[self.wanted % self.order.len()];
            if self.slot[block as usize].is_none() {
                return Some(block);
            }
            self.wanted += 1;
        }
        None
    }

    /// The shortest stretch of passes, as first and last, after which the slots hold what they held
    /// before; of equals the latest, when the start has been forgotten.
    fn repetition(&self) -> Option<(u32, u32)> {
        let mut states = self.states();
        // Copies into the last state may not have been decided yet.
        states.pop();
        let period = |p: usize| (0..states.len() - p).rev().find(|i| states[*i] == states[i + p]).map(|i| (i, i + p));
        let (from, to) = (1..states.len().min(PERIOD)).find_map(period)?;
        Some((from as u32, to as u32))
    }

    /// What the slots hold before each pass, as the checker sees it: a copy counts from the position
    /// that it waits for.
    fn states(&self) -> Vec<Vec<Option<u32>>> {
        let n = self.blocks.len() as u32;
        let mut content = self.first.clone();
        let mut copies = self.copies.iter().peekable();
        let state = |pass: u32| {
            while let Some(copy) = copies.next_if(|c| c.after < pass * n) {
                content[copy.slot as usize] = Some(copy.block);
            }
            content.clone()
        };
        (0..=self.passes).map(state).collect()
    }

    fn plan(&self, view: &StageView, split: &Split, from: u32, to: u32) -> StagePlan {
        let n = self.blocks.len() as u32;
        let content = self.states().swap_remove(from as usize);
        let size = split.streamed.iter().map(|b| view.slab(*b)).max().unwrap_or(0);
        let mut plan = StagePlan::empty(view);
        plan.cycle_passes = to - from;
        plan.slot_bytes = vec![size; content.len()];
        let mut place: Vec<(u32, u32)> = content.iter().zip(0..).filter_map(|(b, s)| Some(((*b)?, s))).collect();
        for block in &split.resident {
            place.push((*block, plan.slot_bytes.len() as u32));
            plan.slot_bytes.push(view.slab(*block));
        }
        plan.slot_flags = vec![0; plan.slot_bytes.len()];
        plan.prologue = in_order_of_use(view, &place);
        plan.cycle = self.cycle(from * n, to * n, &content);
        plan
    }

    /// The copies between two positions, without those for later use, and at the end those that put
    /// back what the slots held at the start. A walk that repeats has none of the latter.
    fn cycle(&self, from: u32, to: u32, start: &[Option<u32>]) -> Loads {
        let repeats = self.states()[(to / self.blocks.len() as u32) as usize] == start;
        let (mut loads, mut content) = (Loads::none(), start.to_vec());
        for copy in self.copies.iter().filter(|c| (from..to).contains(&c.after) && (repeats || c.used < to)) {
            loads.push(copy.block, copy.slot, copy.after - from);
            content[copy.slot as usize] = Some(copy.block);
        }
        for (slot, block) in start.iter().enumerate().filter(|(slot, block)| content[*slot] != **block) {
            loads.push(block.unwrap_or(NO_BLOCK), slot as u32, to - from - 1);
        }
        loads
    }
}

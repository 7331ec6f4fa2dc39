//! A stage's cyclic schedule, walked symbolically: which slot each task finds its block in, and which
//! task each load is for.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, POSITION_LIMIT, SLOTS_ALWAYS};
use crate::job::{BlockId, Job, Stage};
use crate::plan::{AT_ONCE, Load, StagePlan};

/// The task that a load is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// The position of the first task that uses the loaded block, counted from the start of the
    /// cycle in which the load is issued; at least the cycle's length if it wraps around.
    pub position: u32,
}

/// A schedule with every reference followed.
#[derive(Clone, Debug, Default)]
pub struct Resolved {
    /// The slot of each position of a cycle; absent for tasks without weights.
    pub slots: Vec<Option<u32>>,
    /// For each cyclic load the position whose task needs it. A load that nothing needs has none.
    pub consumers: Vec<Option<Consumer>>,
    /// Findings that do not stop the plan.
    pub advice: Vec<Finding>,
}

/// Follows one stage's schedule through a cycle.
///
/// # Errors
/// Every reason why the schedule cannot run: unknown blocks or slots, blocks that do not fit, loads out
/// of order, tasks without their block, a cycle that does not close.
pub fn resolve(job: &Job, stage: &Stage, plan: &StagePlan) -> Result<Resolved, Vec<Finding>> {
    let errors = sizes(stage, plan);
    if !errors.is_empty() {
        return Err(errors);
    }
    let walk = Walk { job, stage, plan, positions: positions(stage, plan) };
    let errors = walk.references();
    if !errors.is_empty() {
        return Err(errors);
    }
    walk.follow()
}

/// What no honest plan has, found before anything is walked: checking a plan must stay cheap however large its numbers
/// are, or a policy could make its host count for hours.
fn sizes(stage: &Stage, plan: &StagePlan) -> Vec<Finding> {
    let tasks = stage.tasks_per_pass();
    if plan.cycle_passes == 0 || plan.cycle_passes > 4096 {
        let got = u64::from(plan.cycle_passes);
        return vec![Finding::Count { what: "passes in a cycle (1 to 4096)".into(), got, expected: 1 }];
    }
    let positions = tasks.saturating_mul(plan.cycle_passes as usize);
    // Each position can use one load of the cycle, and each slot be filled once before it.
    let loads = positions.saturating_add(plan.slots.len());
    [
        ("slots", plan.slots.len(), tasks.saturating_mul(2).max(SLOTS_ALWAYS)),
        ("positions in a cycle", positions, POSITION_LIMIT),
        ("loads before the first pass", plan.prologue.len(), loads),
        ("loads in a cycle", plan.cycle.len(), loads),
    ]
    .into_iter()
    .filter(|(_, got, limit)| got > limit)
    .map(|(what, got, limit)| Finding::TooMany {
        stage: stage.name.clone(),
        what: what.to_owned(),
        got: got as u64,
        limit: limit as u64,
    })
    .collect()
}

fn positions(stage: &Stage, plan: &StagePlan) -> Vec<Option<BlockId>> {
    let pass: Vec<_> = stage.blocks().collect();
    (0..plan.cycle_passes).flat_map(|_| pass.iter().copied()).collect()
}

/// So many findings of a kind say enough about a stage. A plan of a few bytes can have millions.
const FINDINGS_MOST: usize = 64;

struct Walk<'a> {
    job: &'a Job,
    stage: &'a Stage,
    plan: &'a StagePlan,
    positions: Vec<Option<BlockId>>,
}

impl Walk<'_> {
    fn references(&self) -> Vec<Finding> {
        let mut errors = Vec::new();
        let used: BTreeSet<BlockId> = self.stage.blocks().flatten().collect();
        let loads = self.plan.prologue.iter().chain(&self.plan.cycle);
        errors.extend(loads.filter_map(|load| self.reference(load, &used)).take(FINDINGS_MOST));
        errors.extend(self.order().into_iter().take(FINDINGS_MOST));
        errors
    }

    fn reference(&self, load: &Load, used: &BTreeSet<BlockId>) -> Option<Finding> {
        let stage = || self.stage.name.clone();
        if !used.contains(&load.block) {
            return Some(Finding::UnknownBlock { stage: stage(), block: load.block.0 });
        }
        let Some(slot) = self.plan.slots.get(load.slot as usize) else {
            return Some(Finding::UnknownSlot { stage: stage(), slot: load.slot });
        };
        let block = self.job.block(load.block);
        (block.slab > slot.bytes).then(|| Finding::SlotTooSmall {
            stage: stage(),
            block: block.name.clone(),
            slot: load.slot,
            needs: block.slab,
            has: slot.bytes,
        })
    }

    /// Loads are taken from one queue: a load in front of another must not wait for a later task,
    /// or the task that needs the second would wait for ever.
    fn order(&self) -> Vec<Finding> {
        let finding =
            |load: usize, after: u32| Finding::Position { stage: self.stage.name.clone(), load: load as u32, after };
        let prologue = self.plan.prologue.iter().enumerate().filter(|(_, l)| l.after != AT_ONCE);
        let mut findings: Vec<_> = prologue.map(|(i, l)| finding(i, l.after)).take(FINDINGS_MOST).collect();
        let mut least = 0;
        for (i, load) in self.plan.cycle.iter().enumerate() {
            let wrong = load.after < least || load.after as usize >= self.positions.len();
            if wrong && findings.len() < FINDINGS_MOST {
                findings.push(finding(i, load.after));
            }
            least = least.max(load.after);
        }
        findings
    }

    fn follow(&self) -> Result<Resolved, Vec<Finding>> {
        let mut content = Content::new(self.plan.slots.len());
        for load in &self.plan.prologue {
            content.put(load);
        }
        let start = content.slots.clone();
        let (slots, mut errors) = self.cycle(&mut content);
        errors.extend(
            start
                .iter()
                .zip(&content.slots)
                .zip(0..)
                .filter(|((a, b), _)| a != b)
                .map(|(_, slot)| Finding::NotCyclic { stage: self.stage.name.clone(), slot }),
        );
        if !errors.is_empty() {
            return Err(errors);
        }
        let uses = self.uses(&slots);
        let consumers = self.plan.cycle.iter().map(|load| self.consumer(load, &uses)).collect();
        let idle = content.slots.iter().zip(0..).filter(|(block, _)| block.is_none());
        let advice = idle.map(|(_, slot)| Finding::IdleSlot { stage: self.stage.name.clone(), slot }).collect();
        Ok(Resolved { slots, consumers, advice })
    }

    fn cycle(&self, content: &mut Content) -> (Vec<Option<u32>>, Vec<Finding>) {
        let mut loads = self.plan.cycle.iter().peekable();
        let (mut slots, mut errors) = (Vec::with_capacity(self.positions.len()), Vec::new());
        for (position, block) in self.positions.iter().enumerate() {
            let slot = block.and_then(|b| content.holder(b));
            if let (Some(block), None, ..FINDINGS_MOST) = (block, slot, errors.len()) {
                errors.push(self.not_loaded(position, *block));
            }
            slots.push(slot);
            while let Some(load) = loads.next_if(|load| load.after as usize <= position) {
                content.put(load);
            }
        }
        (slots, errors)
    }

    fn not_loaded(&self, position: usize, block: BlockId) -> Finding {
        let tasks = &self.stage.passes[0].tasks;
        Finding::NotLoaded {
            stage: self.stage.name.clone(),
            task: tasks[position % tasks.len()].name.clone(),
            block: self.job.block(block).name.clone(),
        }
    }

    /// The positions that find each block in each slot, in order.
    fn uses(&self, slots: &[Option<u32>]) -> BTreeMap<(BlockId, u32), Vec<u32>> {
        let mut uses: BTreeMap<_, Vec<u32>> = BTreeMap::new();
        for ((block, slot), position) in self.positions.iter().zip(slots).zip(0..) {
            if let (Some(block), Some(slot)) = (block, slot) {
                uses.entry((*block, *slot)).or_default().push(position);
            }
        }
        uses
    }

    /// The next use after the load, in this cycle or else in the next.
    fn consumer(&self, load: &Load, uses: &BTreeMap<(BlockId, u32), Vec<u32>>) -> Option<Consumer> {
        let uses = uses.get(&(load.block, load.slot))?;
        let later = uses.get(uses.partition_point(|position| *position <= load.after));
        let next_cycle = || uses.first().map(|first| first + self.positions.len() as u32);
        later.copied().or_else(next_cycle).map(|position| Consumer { position })
    }
}

/// What the slots hold, and which slots hold a block: looking through all slots for each task would make a plan of many
/// slots dear to check.
struct Content {
    slots: Vec<Option<BlockId>>,
    holders: BTreeMap<BlockId, BTreeSet<u32>>,
}

impl Content {
    fn new(slots: usize) -> Self {
        Self { slots: vec![None; slots], holders: BTreeMap::new() }
    }

    /// The first slot that holds a block.
    fn holder(&self, block: BlockId) -> Option<u32> {
        self.holders.get(&block)?.first().copied()
    }

    fn put(&mut self, load: &Load) {
        let Some(slot) = self.slots.get_mut(load.slot as usize) else { return };
        if let Some(before) = slot.replace(load.block) {
            self.holders.entry(before).or_default().remove(&load.slot);
        }
        self.holders.entry(load.block).or_default().insert(load.slot);
    }
}

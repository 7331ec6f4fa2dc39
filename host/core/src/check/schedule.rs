//! A stage's cyclic schedule, walked symbolically: which slot each task finds its block in, and which
//! task each load is for.

use super::{Finding, SLOT_LIMIT};
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
    let walk = Walk { job, stage, plan, positions: positions(stage, plan) };
    let errors = walk.references();
    if !errors.is_empty() {
        return Err(errors);
    }
    walk.follow()
}

fn positions(stage: &Stage, plan: &StagePlan) -> Vec<Option<BlockId>> {
    // A hostile plan could ask for a cycle of four billion passes; no honest one is longer than
    // twice the number of slots.
    let passes = plan.cycle_passes.clamp(1, 4096) as usize;
    let pass: Vec<_> = stage.blocks().collect();
    (0..passes).flat_map(|_| pass.iter().copied()).collect()
}

struct Walk<'a> {
    job: &'a Job,
    stage: &'a Stage,
    plan: &'a StagePlan,
    positions: Vec<Option<BlockId>>,
}

impl Walk<'_> {
    fn references(&self) -> Vec<Finding> {
        let name = || self.stage.name.clone();
        let mut errors = Vec::new();
        if self.plan.slots.len() > SLOT_LIMIT {
            return vec![Finding::UnknownSlot { stage: name(), slot: SLOT_LIMIT as u32 }];
        }
        if self.plan.cycle_passes == 0 || self.plan.cycle_passes > 4096 {
            let got = u64::from(self.plan.cycle_passes);
            errors.push(Finding::Count { what: "passes in a cycle (1 to 4096)".into(), got, expected: 1 });
        }
        let used = self.stage.distinct_blocks();
        for load in self.plan.prologue.iter().chain(&self.plan.cycle) {
            errors.extend(self.reference(load, &used));
        }
        errors.extend(self.order());
        errors
    }

    fn reference(&self, load: &Load, used: &[BlockId]) -> Option<Finding> {
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
        let mut findings: Vec<_> = prologue.map(|(i, l)| finding(i, l.after)).collect();
        let mut least = 0;
        for (i, load) in self.plan.cycle.iter().enumerate() {
            if load.after < least || load.after as usize >= self.positions.len() {
                findings.push(finding(i, load.after));
            }
            least = least.max(load.after);
        }
        findings
    }

    fn follow(&self) -> Result<Resolved, Vec<Finding>> {
        let mut content: Vec<Option<BlockId>> = vec![None; self.plan.slots.len()];
        for load in &self.plan.prologue {
            content[load.slot as usize] = Some(load.block);
        }
        let start = content.clone();
        let (slots, mut errors) = self.cycle(&mut content);
        errors.extend(
            start
                .iter()
                .zip(&content)
                .zip(0..)
                .filter(|((a, b), _)| a != b)
                .map(|(_, slot)| Finding::NotCyclic { stage: self.stage.name.clone(), slot }),
        );
        if !errors.is_empty() {
            return Err(errors);
        }
        let consumers = self.plan.cycle.iter().map(|load| self.consumer(load, &slots)).collect();
        let idle = content.iter().zip(0..).filter(|(block, _)| block.is_none());
        let advice = idle.map(|(_, slot)| Finding::IdleSlot { stage: self.stage.name.clone(), slot }).collect();
        Ok(Resolved { slots, consumers, advice })
    }

    fn cycle(&self, content: &mut [Option<BlockId>]) -> (Vec<Option<u32>>, Vec<Finding>) {
        let mut loads = self.plan.cycle.iter().peekable();
        let (mut slots, mut errors) = (Vec::with_capacity(self.positions.len()), Vec::new());
        for (position, block) in self.positions.iter().enumerate() {
            let slot = block.and_then(|b| content.iter().position(|c| *c == Some(b)));
            if let (Some(block), None) = (block, slot) {
                errors.push(self.not_loaded(position, *block));
            }
            slots.push(slot.map(|s| s as u32));
            while let Some(load) = loads.next_if(|load| load.after as usize <= position) {
                content[load.slot as usize] = Some(load.block);
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

    fn consumer(&self, load: &Load, slots: &[Option<u32>]) -> Option<Consumer> {
        let n = self.positions.len();
        (load.after as usize + 1..load.after as usize + 1 + n)
            .find(|p| self.positions[p % n] == Some(load.block) && slots[p % n] == Some(load.slot))
            .map(|p| Consumer { position: p as u32 })
    }
}

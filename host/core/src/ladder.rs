//! Climbing down a plan's ladder: what is left to do when memory fails and the policy cannot answer.

use crate::job::{BlockId, Job, Stage};
use crate::plan::{AT_ONCE, Load, Plan, Slot, StagePlan};
use crate::units::Bytes;

/// A stage's blocks in the order of their use: each with the last position that needs it.
type Uses = Vec<(BlockId, u32)>;

/// The plan of a rung: from a stage on, every stage streams all its blocks through at most `slots` slots that the
/// blocks take in turn. Where a stage has no more blocks than that, each has a slot of its own. Homes, knobs,
/// activations and triggers stay as they are, and so do stages that have ended; nothing is kept after a stage.
///
/// The result is not checked against any budget, and need not be smaller than the plan it came from.
#[must_use]
pub fn step_down(job: &Job, plan: &Plan, from_stage: usize, slots: u32) -> Plan {
    let stages = job.stages.iter().zip(&plan.stages).enumerate();
    let stages =
        stages.map(|(i, (stage, old))| if i >= from_stage { in_turn(job, stage, old, slots) } else { let_go(old) });
    Plan { stages: stages.collect(), retain: Vec::new(), ..plan.clone() }
}

fn let_go(plan: &StagePlan) -> StagePlan {
    let slots = plan.slots.iter().map(|slot| Slot { keep: false, ..*slot }).collect();
    StagePlan { slots, ..plan.clone() }
}

fn in_turn(job: &Job, stage: &Stage, plan: &StagePlan, slots: u32) -> StagePlan {
    let uses = uses(stage);
    let count = (slots.max(1) as usize).min(uses.len());
    let load = |to: usize, after: u32| Load { block: uses[to].0, slot: (to % count) as u32, after };
    // The slot of a use is free for the next one in turn, or at the end of the pass for the first one in turn.
    let next = |from: usize| if from + count < uses.len() { from + count } else { from % count };
    let cycle = uses.iter().enumerate().map(|(from, (_, last))| load(next(from), *last));
    StagePlan {
        slots: (0..count).map(|n| Slot { bytes: largest(job, &uses, n, count), keep: false }).collect(),
        prologue: (0..count).map(|n| load(n, AT_ONCE)).collect(),
        cycle: if count < uses.len() { cycle.collect() } else { Vec::new() },
        cycle_passes: 1,
        activations: plan.activations,
    }
}

fn uses(stage: &Stage) -> Uses {
    let mut uses = Uses::new();
    for (block, position) in stage.blocks().zip(0..) {
        match (block, uses.last_mut()) {
            (Some(block), Some(last)) if last.0 == block => last.1 = position,
            (Some(block), _) => uses.push((block, position)),
            (None, _) => {}
        }
    }
    uses
}

fn largest(job: &Job, uses: &Uses, slot: usize, count: usize) -> Bytes {
    let blocks = uses.iter().skip(slot).step_by(count);
    blocks.map(|(block, _)| job.block(*block).slab).max().unwrap_or(Bytes::ZERO)
}

//! Whether a plan may run. Checking never changes a plan and never guesses: it returns notes, and a
//! plan with an error among them never runs.

mod budget;
mod kept;
mod schedule;

use serde::{Deserialize, Serialize};

pub use schedule::{Consumer, Resolved, resolve};

use crate::job::Job;
use crate::machine::Machine;
use crate::plan::{Plan, Tier};
use crate::situation::Budget;
use crate::units::Bytes;

/// How bad a note is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The plan runs; a better one is likely.
    Advice,
    /// The plan must not run.
    Error,
}

/// One finding about a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Finding {
    /// The plan was made for other knobs than the job.
    #[error("the plan's knobs are not those that the job was lowered with")]
    OtherKnobs,
    /// The plan has not one entry for each block or stage of the job.
    #[error("the plan has {got} {what}, the job {expected}")]
    Count {
        /// What was counted.
        what: String,
        /// In the plan.
        got: u64,
        /// In the job.
        expected: u64,
    },
    /// A block's home is the device itself.
    #[error("block {block} has the device as its home; a home is pinned, host or disk")]
    HomeOnDevice {
        /// The block's index.
        block: u32,
    },
    /// A load names a block that the stage does not use.
    #[error("stage '{stage}': a load names block {block}, which the stage does not use")]
    UnknownBlock {
        /// The stage.
        stage: String,
        /// The block's index.
        block: u32,
    },
    /// A load names a slot that does not exist.
    #[error("stage '{stage}': slot {slot} does not exist")]
    UnknownSlot {
        /// The stage.
        stage: String,
        /// The slot's index.
        slot: u32,
    },
    /// A block is larger than its slot.
    #[error("stage '{stage}': block '{block}' needs {needs} but slot {slot} has {has}")]
    SlotTooSmall {
        /// The stage.
        stage: String,
        /// The block.
        block: String,
        /// The slot's index.
        slot: u32,
        /// Bytes of the block.
        needs: Bytes,
        /// Bytes of the slot.
        has: Bytes,
    },
    /// A load's position is outside the cycle, or before that of the load in front of it.
    #[error("stage '{stage}': load {load} waits for position {after}, which is out of order or outside the cycle")]
    Position {
        /// The stage.
        stage: String,
        /// The load's index in the cycle.
        load: u32,
        /// The position.
        after: u32,
    },
    /// A task's block is not on the device when the task runs.
    #[error("stage '{stage}': block '{block}' is in no slot when task '{task}' runs")]
    NotLoaded {
        /// The stage.
        stage: String,
        /// The task.
        task: String,
        /// The block.
        block: String,
    },
    /// The slots do not hold the same blocks after a cycle as before it.
    #[error("stage '{stage}': slot {slot} does not hold the same block after a cycle as before it")]
    NotCyclic {
        /// The stage.
        stage: String,
        /// The slot's index.
        slot: u32,
    },
    /// A stage sets less aside for activations than its tasks need.
    #[error("stage '{stage}': {has} are set aside for activations, task '{task}' needs {needs}")]
    Activations {
        /// The stage.
        stage: String,
        /// The task with the largest peak.
        task: String,
        /// What it needs.
        needs: Bytes,
        /// What is set aside.
        has: Bytes,
    },
    /// A stage needs more device memory than the budget.
    #[error("stage '{stage}' needs {needs} of device memory, the budget is {budget}")]
    DeviceBudget {
        /// The stage.
        stage: String,
        /// What it needs.
        needs: Bytes,
        /// The budget.
        budget: Bytes,
    },
    /// The plan keeps more in host memory than the budget.
    #[error("the plan needs {needs} of {tier} memory, the budget is {budget}")]
    HostBudget {
        /// `host` or `pinned`.
        tier: String,
        /// What it needs.
        needs: Bytes,
        /// The budget.
        budget: Bytes,
    },
    /// A slot is never loaded.
    #[error("stage '{stage}': slot {slot} is never loaded")]
    IdleSlot {
        /// The stage.
        stage: String,
        /// The slot's index.
        slot: u32,
    },
    /// A stage has more of something than any use could be made of.
    #[error("stage '{stage}': the plan has {got} {what}, at most {limit} make sense")]
    TooMany {
        /// The stage.
        stage: String,
        /// What was counted.
        what: String,
        /// In the plan.
        got: u64,
        /// The limit.
        limit: u64,
    },
    /// A slot is to outlive its stage, but would not hold then what it is said to hold.
    #[error(
        "stage '{stage}': slot {slot} is kept, so it must be loaded once, before the first pass, with a block that no \
         other kept slot of the stage has"
    )]
    Kept {
        /// The stage.
        stage: String,
        /// The slot's index.
        slot: u32,
    },
    /// The memo is too long.
    #[error("the memo has {got} bytes, at most {limit} are kept")]
    MemoTooLong {
        /// Its length.
        got: u64,
        /// The limit.
        limit: u64,
    },
}

impl Finding {
    /// How bad it is.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        match self {
            Self::IdleSlot { .. } => Severity::Advice,
            _ => Severity::Error,
        }
    }
}

/// The most bytes that a policy can ask to be reminded of.
pub const MEMO_LIMIT: usize = 4096;

/// So many slots a stage may always have, and two for each task of a pass; far above any sensible plan, low enough that
/// a hostile one is cheap.
pub const SLOTS_ALWAYS: usize = 1024;

/// The most task positions in a cycle, for the same reason.
pub const POSITION_LIMIT: usize = 1 << 22;

/// Everything that is to be said about a plan, errors and advice.
#[must_use]
pub fn check(plan: &Plan, job: &Job, machine: &Machine, budget: &Budget) -> Vec<Finding> {
    let mut findings = shape(plan, job);
    if !findings.is_empty() {
        // Indices do not match: nothing else could be said without guessing.
        return findings;
    }
    for (stage, stage_plan) in job.stages.iter().zip(&plan.stages) {
        match resolve(job, stage, stage_plan) {
            Ok(resolved) => findings.extend(resolved.advice),
            Err(errors) => findings.extend(errors),
        }
        findings.extend(kept::kept(stage, stage_plan));
        findings.extend(budget::activations(stage, stage_plan));
    }
    findings.extend(budget::device(plan, job, machine, budget));
    findings.extend(budget::host(plan, job, machine, budget));
    findings
}

/// Whether any finding is an error.
#[must_use]
pub fn has_errors(findings: &[Finding]) -> bool {
    findings.iter().any(|f| f.severity() == Severity::Error)
}

pub use budget::{DISK_RING, fixed_and_stage, host_reservations, least_host, offered, program};

fn shape(plan: &Plan, job: &Job) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut count = |what: &str, got: usize, expected: usize| {
        if got != expected {
            findings.push(Finding::Count { what: what.into(), got: got as u64, expected: expected as u64 });
        }
    };
    count("block homes", plan.homes.len(), job.blocks.len());
    count("stages", plan.stages.len(), job.stages.len());
    if plan.knobs != job.knobs {
        findings.push(Finding::OtherKnobs);
    }
    if plan.memo.len() > MEMO_LIMIT {
        findings.push(Finding::MemoTooLong { got: plan.memo.len() as u64, limit: MEMO_LIMIT as u64 });
    }
    let on_device = plan.homes.iter().zip(0..).filter(|(tier, _)| **tier == Tier::Device);
    findings.extend(on_device.map(|(_, block)| Finding::HomeOnDevice { block }));
    findings
}

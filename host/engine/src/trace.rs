//! What happened, in the same words for a forecast and a run.

use loadline_core::{BlockId, Bytes, Nanos, Tier};
use serde::{Deserialize, Serialize};

/// Where something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// The device computes.
    Compute,
    /// A block travels to the device.
    Load,
}

/// A task that ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpan {
    /// The pass.
    pub pass: u64,
    /// The position in the pass.
    pub task: u32,
    /// Start.
    pub start: Nanos,
    /// End.
    pub end: Nanos,
}

/// A block that was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferSpan {
    /// The block.
    pub block: BlockId,
    /// Where it came from.
    pub from: Tier,
    /// Start.
    pub start: Nanos,
    /// End.
    pub end: Nanos,
}

/// One stage that ran.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageTrace {
    /// The stage's index.
    pub stage: u32,
    /// Start of its first load or task.
    pub start: Nanos,
    /// End of its last task.
    pub end: Nanos,
    /// Time that the device waited for weights.
    pub stall: Nanos,
    /// The part of the stall at each position of a pass, summed over all passes.
    #[serde(default)]
    pub waits: Vec<Nanos>,
    /// Device bytes allocated at the stage's peak, as far as the engine allocated them.
    pub allocated: Bytes,
    /// Tasks, in order; empty unless recorded.
    pub tasks: Vec<TaskSpan>,
    /// Loads, in order; empty unless recorded.
    pub loads: Vec<TransferSpan>,
    /// Time that the compute lane was busy.
    pub compute: Nanos,
    /// Time that the load lane was busy.
    pub load: Nanos,
}

impl StageTrace {
    /// How long the stage took.
    #[must_use]
    pub fn length(&self) -> Nanos {
        self.end.saturating_sub(self.start)
    }
}

/// A whole run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// The stages that ran.
    pub stages: Vec<StageTrace>,
}

//! What a run tells, and what it gives.

use std::path::Path;

use loadline_core::{Bytes, Nanos};
use loadline_engine::Trace;

use crate::deviation::{Answer, Redecision};
use crate::planning::Planned;

/// What a run tells while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress<'a> {
    /// A plan was made.
    Planned(&'a str),
    /// A stage starts.
    StageStarts {
        /// Its name.
        stage: &'a str,
        /// Its passes.
        passes: u64,
        /// The pass that it starts with.
        first: u64,
    },
    /// A task of a stage has ended.
    Task {
        /// The pass.
        pass: u64,
        /// The task.
        task: usize,
        /// Tasks in a pass.
        of: usize,
    },
    /// There is no checkpoint to resume from; the run starts at the beginning.
    NothingToResume(&'a Path),
    /// A stage has ended.
    StageEnded,
    /// The running plan was in question.
    Redecided(&'a Redecision),
    /// The last safe point is on the disk.
    Saved,
    /// The frames are being written.
    Writing,
}

/// One stage as measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageMeasured {
    /// Its name.
    pub name: String,
    /// How long it took.
    pub time: Nanos,
    /// The high water of live device bytes; zero if the program does not count.
    pub device_peak: Bytes,
    /// Time that the device waited for weights.
    pub stall: Nanos,
}

/// A run as measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Whether an earlier process did the first part: then the stages hold only what ran since.
    pub resumed: bool,
    /// The pass that the first of the stages began with; what it did before is in no figure.
    pub first_pass: u64,
    /// The stages that ran.
    pub stages: Vec<StageMeasured>,
    /// The digest of everything that the engine did.
    pub digest: u64,
    /// Every time that the running plan was in question.
    pub redecisions: Vec<Redecision>,
}

impl Measured {
    /// The high water of live device bytes over all stages.
    #[must_use]
    pub fn device_peak(&self) -> Bytes {
        self.stages.iter().map(|s| s.device_peak).max().unwrap_or(Bytes::ZERO)
    }

    /// Whether any plan but the first has run: then the figures are no measure of its forecast.
    #[must_use]
    pub fn was_replanned(&self) -> bool {
        self.redecisions.iter().any(|r| matches!(r.answer, Answer::Plan | Answer::Rung { .. }))
    }

    /// The time of all stages.
    #[must_use]
    pub fn time(&self) -> Nanos {
        self.stages.iter().map(|s| s.time).sum()
    }
}

/// What a run gives.
pub struct Outcome {
    /// The plan with its forecast.
    pub planned: Planned,
    /// What was measured.
    pub measured: Measured,
    /// Everything that happened, if it was recorded.
    pub trace: Trace,
}

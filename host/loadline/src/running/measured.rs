//! What a run tells, and what it gives.

use std::path::Path;

use loadline_core::{Bytes, Nanos};
use loadline_device::disk::Report;
use loadline_engine::Trace;
use serde::{Deserialize, Serialize};

use crate::card::CardSample;
use crate::deviation::{Answer, Redecision};
use crate::planning::Planned;

/// What a run tells while it runs.
#[derive(Clone, Debug)]
pub enum Progress<'a> {
    /// A plan was made.
    Planned(&'a str),
    /// A plan begins to run: the first one, or another that the run goes on with.
    Begins(&'a Planned),
    /// A stage starts.
    StageStarts {
        /// Its name.
        stage: &'a str,
        /// Its passes.
        passes: u64,
        /// The pass that it starts with.
        first: u64,
        /// What memory there is.
        memory: Footing,
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
    /// How things stand: after the first task of a stage, and then some times a second where tasks are short.
    Pulse(&'a Pulse),
    /// The GPU, as its management library sees it, beside pulses.
    Card(&'a CardSample),
    /// There is no checkpoint to resume from; the run starts at the beginning.
    NothingToResume(&'a Path),
    /// A stage has ended, or is left for another plan.
    StageEnded(&'a StageMeasured),
    /// The running plan was in question.
    Redecided(&'a Redecision),
    /// The last safe point is on the disk.
    Saved,
    /// How weights are read, once that is known, and again when it has changed.
    Reads(&'a Report),
    /// Weights are copied into the folder for it: what there is of the copy, and how much it will be.
    Copying {
        /// The copy.
        file: &'a Path,
        /// Bytes that are there.
        done: Bytes,
        /// Bytes in the end.
        of: Bytes,
    },
    /// The frames are being written.
    Writing,
}

/// How things stand in a run behind a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    /// The stage.
    pub stage: usize,
    /// The pass.
    pub pass: u64,
    /// The task that has ended.
    pub task: usize,
    /// The pass that the stage was taken up at.
    pub first: u64,
    /// The time, from when the device was started.
    pub now: Nanos,
    /// When the stage began, or was taken up.
    pub since: Nanos,
    /// Time that the stage's tasks took.
    pub compute: Nanos,
    /// What was loaded for the stage.
    pub loaded: Loaded,
    /// Device bytes that the engine has allocated or set aside.
    pub reserved: Bytes,
    /// Live device bytes; zero, as the three figures below, if the program does not count.
    pub device: Bytes,
    /// The most of them in the stage.
    pub device_peak: Bytes,
    /// Live host bytes.
    pub host: Bytes,
    /// The most of them in the stage.
    pub host_peak: Bytes,
}

/// What memory there is when a stage starts; live bytes are zero if the program does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footing {
    /// Device bytes that nobody has; on a processor that is RAM.
    pub free: Option<Bytes>,
    /// Live device bytes: what earlier stages and jobs have left.
    pub device: Bytes,
    /// Live host bytes.
    pub host: Bytes,
}

/// What has come to the device since a stage began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Blocks, each as often as it came.
    pub blocks: u64,
    /// Bytes of weight files, of blocks whose home is the disk.
    pub from_disk: Bytes,
    /// Bytes of blocks whose home is host memory, which come from the disk the first time.
    pub from_host: Bytes,
    /// Time that the load lane was busy.
    pub time: Nanos,
}

/// A place in a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskAt {
    /// The pass, from 0.
    pub pass: u64,
    /// The task's position in it.
    pub task: usize,
}

/// Numbers of the two kinds of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Of the device.
    pub device: u64,
    /// Of the host.
    pub host: u64,
}

/// Memory that a stage took, beside its peak on the device; zero if the program does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageMemory {
    /// The first task with whose end the peak was reached; none if no task ended. Reports say it in words.
    #[serde(skip)]
    pub peak_at: Option<TaskAt>,
    /// The most device bytes that the engine had allocated and set aside.
    pub reserved: Bytes,
    /// The high water of live host bytes.
    pub host_peak: Bytes,
    /// Allocations of at least 4 KiB.
    pub allocations: Counts,
    /// Device bytes that nobody had when the stage began; on a processor that is RAM.
    pub free_before: Option<Bytes>,
    /// The same when it had ended and its slots were given back.
    pub free_after: Option<Bytes>,
    /// Live device bytes then: what stays for later stages.
    pub left: Bytes,
}

impl StageMemory {
    /// What both took, where another plan went on with a stage.
    pub(super) fn and(self, later: Self, later_is_higher: bool) -> Self {
        let sum = |a: u64, b: u64| a.saturating_add(b);
        Self {
            peak_at: if later_is_higher { later.peak_at } else { self.peak_at },
            reserved: self.reserved.max(later.reserved),
            host_peak: self.host_peak.max(later.host_peak),
            allocations: Counts {
                device: sum(self.allocations.device, later.allocations.device),
                host: sum(self.allocations.host, later.allocations.host),
            },
            free_before: self.free_before,
            ..later
        }
    }
}

/// What a task took at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskHigh {
    /// The stage.
    pub stage: usize,
    /// The pass.
    pub pass: u64,
    /// The task's position in it.
    pub task: usize,
    /// When it ended, from when the device was started.
    pub end: Nanos,
    /// The high water of live device bytes while it ran.
    pub device: Bytes,
}

/// One stage as measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StageMeasured {
    /// Its name.
    pub name: String,
    /// How long it took.
    pub time: Nanos,
    /// The high water of live device bytes; zero if the program does not count.
    pub device_peak: Bytes,
    /// Time that the device waited for weights.
    pub stall: Nanos,
    /// What else is known of its memory.
    pub memory: StageMemory,
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
    /// What each task took at most, in the order of their ends; empty unless traces are recorded.
    pub highs: Vec<TaskHigh>,
    /// The GPU at some moments, as its management library saw it; empty where there is none, or no library.
    pub cards: Vec<CardSample>,
    /// How weights were read; nothing where no reader tells.
    pub disk: Report,
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

//! How a run stands, as data.

use loadline_core::{Bytes, Nanos, Reservation};
use serde::{Deserialize, Serialize};

use crate::card::CardSample;

/// The version of the files; it changes when a field changes its meaning.
pub const SCHEMA: &str = "loadline-live/1";

/// How a run stands. Figures of a stage are those of the stage that runs, since it began or was taken up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`SCHEMA`].
    pub schema: String,
    /// The process.
    pub pid: u32,
    /// The model.
    pub model: String,
    /// The machine's device.
    pub device_name: String,
    /// The file or folder that is made.
    pub output: String,
    /// Which job of how many, from 1; none if there is no list.
    pub job: Option<Place>,
    /// What the run is doing.
    pub phase: Phase,
    /// The policy that made the plan.
    pub policy: String,
    /// All stages of the job.
    pub stages: Vec<StageStatus>,
    /// The stage that runs.
    pub stage: usize,
    /// The pass that runs, from 0.
    pub pass: u64,
    /// Tasks of this pass that have ended.
    pub task: usize,
    /// Tasks in a pass.
    pub tasks: usize,
    /// The task that ended last, as its block is called.
    pub block: String,
    /// The device's memory.
    pub device: Memory,
    /// The GPU as its management library sees it; nothing of a processor.
    #[serde(default)]
    pub card: Option<CardSample>,
    /// The host's.
    pub host: Memory,
    /// How weights are read, in words; empty until some are.
    #[serde(default)]
    pub reads: String,
    /// Weights that are copied into the folder for it, before anything runs.
    #[serde(default)]
    pub copying: Option<Copying>,
    /// Bytes of weight files that the stage has read, of blocks that live on the disk.
    pub disk_read_bytes: Bytes,
    /// Bytes of blocks that came from host memory.
    pub host_read_bytes: Bytes,
    /// The lane that computes.
    pub compute: Lane,
    /// The lane that loads.
    pub load: Lane,
    /// Since the job began in this process.
    pub elapsed_ns: Nanos,
    /// Time that a pass of this stage takes, as measured; none until one has ended.
    pub pass_ns: Option<Nanos>,
    /// What is left to do.
    pub left: Left,
    /// Every time that the running plan was in question, the last one last.
    pub redecisions: Vec<String>,
}

/// A place in a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// From 1.
    pub n: usize,
    /// Of so many.
    pub of: usize,
}

/// A copy that is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copying {
    /// So much is there.
    pub done_bytes: Bytes,
    /// Of so much.
    pub of_bytes: Bytes,
}

/// What a run is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Nothing runs yet: the model is opened, or a plan is made.
    #[default]
    Planning,
    /// Stages run.
    Running,
    /// The result is being written.
    Writing,
}

/// One stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StageStatus {
    /// Its name.
    pub name: String,
    /// Its passes.
    pub passes: u64,
    /// Its forecast.
    pub forecast_ns: Nanos,
    /// How long it took, once it has ended. A stage that an earlier process did has none.
    pub measured_ns: Option<Nanos>,
    /// Device bytes of its forecast.
    pub forecast_bytes: Bytes,
    /// The high water of live device bytes, once it has ended.
    pub measured_bytes: Option<Bytes>,
}

/// One kind of memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// What the job may use.
    pub budget_bytes: Bytes,
    /// What the plan sets aside in this stage, by name.
    pub reservations: Vec<Reservation>,
    /// Live bytes, as counted where they are allocated.
    pub live_bytes: Bytes,
    /// The most of them in this stage.
    pub peak_bytes: Bytes,
}

impl Memory {
    /// What the plan sets aside.
    #[must_use]
    pub fn reserved(&self) -> Bytes {
        self.reservations.iter().map(|r| r.bytes).sum()
    }
}

/// A lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lane {
    /// So long was it busy.
    pub busy_ns: Nanos,
    /// Of so long.
    pub of_ns: Nanos,
}

impl Lane {
    /// From 0 to 1.
    #[must_use]
    pub fn share(&self) -> f64 {
        if self.of_ns == Nanos::ZERO { 0.0 } else { (self.busy_ns.as_f64() / self.of_ns.as_f64()).min(1.0) }
    }
}

/// What is left of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// As the forecast has it.
    pub forecast_ns: Nanos,
    /// At the speed of this stage so far; later stages take as many times their forecast as everything so far did.
    /// None until a task has ended.
    pub measured_ns: Option<Nanos>,
}

//! Loadline: plan a diffusion model's run under a hard memory budget, forecast it, and run it.
//!
//! [`Model`] opens a folder or a catalog entry, [`Planner`] asks a policy for a plan and forecasts it, [`Session`]
//! runs plans on
//! this machine. This is the only place where the stacks of decorators are named: the simulated one in
//! `planning::forecast`, the real one in `running::session`.
// Opening models, writing checkpoints and results is what this crate is for.
#![allow(clippy::disallowed_methods)]

pub mod admission;
mod calibration;
pub mod capacity;
pub mod card;
pub mod deviation;
pub mod doctor;
mod error;
pub mod explain;
mod gpu;
pub mod leaderboard;
pub mod live;
mod memory_report;
mod model;
mod planning;
pub mod presets;
pub mod quality;
mod recording;
mod report;
mod running;
pub mod scenarios;
pub mod stepdown;
pub mod synth;
pub mod workshop;

pub use calibration::{
    RUNS_LEAST, Scattered, StageErrors, StageSample, TraceFile, calibrated, errors, levels, nearest_rank, run_record,
    samples,
};
pub use error::{Error, ErrorClass};
pub use gpu::{Gpu, GpuFacts, On};
pub use loadline_core as core;
pub use loadline_models::catalog;
pub use loadline_models::schedule::{SamplerOptions, ScheduleKind};
pub use loadline_models::weights::{TensorEntry, WeightIndex};
pub use loadline_policy::settings::Setting as PolicySetting;
pub use loadline_policy::{Code, Limits as PolicyLimits, Policy};
pub use loadline_profile as profile;
pub use loadline_profile::catalog as profiles;
pub use memory_report::{BlockReport, MeasuredReport, MemoryReport, Spot, StageReport};
pub use model::{Limits, Model, Support, weight_file};
pub use planning::{
    Asked, Bench, Certificate, KnobChoice, Planned, Planner, Shelf, forecast, forecast_timed, perfetto, policies,
};
pub use recording::{RecordOptions, RecordProgress, device_name, record, record_gpu};
pub use report::{disk_json, forecast_json, gap, refusal_json, rehearsal_json, run_json};
pub use running::{
    Counts, Footing, JobSpec, Loaded, Measured, Outcome, Progress, Pulse, ResultSink, Session, SessionOptions,
    StageMeasured, StageMemory, TaskAt, TaskHigh, check_writable, same_place, use_local_kernels, write_whole,
};

/// How weights are read; see [`loadline_device::disk`].
pub use loadline_device::disk::{BUFFERS, DiskOptions, DiskReads, Refused, Report as DiskReport, Way};
/// Where a session looks for what the system says of memory.
pub use loadline_device::{Sight, System};

/// Counting allocators for programs that want true numbers from a run; see [`loadline_device::memory`].
pub use loadline_device::memory;

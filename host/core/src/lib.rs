//! The vocabulary of Loadline and everything that can be decided without touching a machine.
//!
//! A [`ModelSpec`] says what a model weighs, a [`Job`] what a request costs, a [`Machine`] what a
//! computer can do, a [`Plan`] what will happen, and [`check`](check::check) whether it may.
//! This crate has no I/O, no clock, no threads and no randomness: the same inputs give the same
//! bytes on every machine. It is not the place for a model's architecture (`loadline-models`) nor for
//! executing anything (`loadline-engine`).

mod bound;
pub mod check;
mod dtype;
mod forecast;
mod hash;
mod job;
mod ladder;
mod machine;
mod model;
mod plan;
mod request;
mod site;
mod situation;
mod units;

pub use bound::{Binding, Bound, cyclic_bound, stage_bound, stage_bound_timed};
pub use dtype::{DType, F8_SCALE_BYTES, UnknownDType};
pub use forecast::{Estimate, Forecast, LaneUse, Provenance, Reservation, StageForecast};
pub use hash::ContentHash;
pub use job::{ActClass, ActMemory, BlockId, Job, JobBlock, OpCost, OpKind, Pass, Stage, StageKind, Task};
pub use ladder::step_down;
pub use machine::{
    Contention, Curve, Device, DiskSpec, HostSpec, Level, LinkSpec, Machine, MissingRate, OpRate, Quantiles,
};
pub use model::{BlockSpec, Component, ModelSpec, TensorSpec};
pub use plan::{AT_ONCE, Knobs, Load, Plan, PolicyId, Slot, StagePlan, StepDown, Tier, Trigger, TriggerKind};
pub use request::{Cfg, Request, Size, TileSize};
pub use site::{Op, Site, SitePoint, SiteTable};
pub use situation::{Budget, Cause, Decision, LoadedBlock, Refusal, SettingValue, Settings, Situation};
pub use units::{Bytes, Nanos, ParseBytesError};

/// Every slab and every tensor inside a slab starts at a multiple of this many bytes, the width of
/// the widest vector register and of a cache line, so that kernels read aligned rows.
pub const SLAB_ALIGN: u64 = 64;

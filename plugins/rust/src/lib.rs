//! Write a memory policy for Loadline.
//!
//! A policy is asked once, before anything runs, and again when reality deviates. It sees a
//! [`Situation`] and answers with a [`Plan`] for every stage of the job. The smallest useful one:
//!
//! ```
//! use loadline_policy_sdk::*;
//!
//! struct Simple;
//!
//! impl Policy for Simple {
//!     fn describe(&self) -> Description {
//!         describe("simple", "1.0.0", "Two slots, the rest resident.", "")
//!     }
//!
//!     fn decide(&self, s: &Situation, _: &mut dyn Host) -> Result<Decision, Refusal> {
//!         let mut stages = Vec::new();
//!         for (i, view) in s.stages().enumerate() {
//!             let plan = s.room(&view, s.budget.device).and_then(|room| StagePlan::within(&view, room, 2));
//!             stages.push(plan.ok_or_else(|| s.too_small(i, s.budget.device))?);
//!         }
//!         Ok(Decision::Plan(s.plan(stages)))
//!     }
//! }
//!
//! export_policy!(Simple);
//! ```
//!
//! Nothing here has floating point, hashing or allocation order in it, so a policy answers the same
//! on every machine. What costs time is `forecast`: each call simulates the whole job.

pub mod bindings;
mod draft;
mod eager;
mod homes;
mod policy;
mod rolling;
mod settings;
mod split;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
mod text;
mod view;

pub use bindings::exports::loadline::policy::policy::Decision;
pub use bindings::loadline::policy::types::{
    Blocks, Budget, Column, Description, Entry, ForecastReply, Job, Loaded, Loads, Machine, Plan, Refusal, Situation,
    Stage, StagePlan, StepDown, Trigger, Value,
};
pub use homes::{common, copy_times, homes, kept};
pub use policy::{Host, Imports, Level, Policy, report_panics};
pub use settings::value;
pub use split::{Split, spread};
pub use text::{counted, duration, size};
pub use view::{StageView, round_up};

/// A position without weights, and a loaded block that the job does not use.
pub const NO_BLOCK: u32 = u32::MAX;

/// A copy that waits for nothing.
pub const AT_ONCE: u32 = u32::MAX;

/// Why a policy is asked. The set is open.
pub mod cause {
    /// A job starts.
    pub const START: u32 = 0;
    /// Device memory ran out although the plan allowed it.
    pub const OUT_OF_MEMORY: u32 = 1;
    /// Another process took device memory.
    pub const PRESSURE: u32 = 2;
    /// Host memory runs out.
    pub const HOST_LOW: u32 = 3;
    /// The disk is slower than forecast.
    pub const DISK_SLOW: u32 = 4;
    /// The run is slower than forecast.
    pub const DRIFT: u32 = 5;
    /// A trigger of the plan fired.
    pub const TRIGGER: u32 = 6;
    /// The next job is known.
    pub const NEXT_JOB: u32 = 7;
    /// Nothing is left to do.
    pub const IDLE: u32 = 8;
}

/// Where bytes live.
pub mod tier {
    /// Page-locked host memory.
    pub const PINNED: u8 = 1;
    /// Ordinary host memory.
    pub const HOST: u8 = 2;
    /// The weight files.
    pub const DISK: u8 = 3;
}

/// What a trigger watches.
pub mod watch {
    /// Device bytes in use rise above the threshold.
    pub const DEVICE_ABOVE: u32 = 0;
    /// Free host bytes fall below the threshold.
    pub const HOST_FREE_BELOW: u32 = 1;
}

/// A description; `settings` is a JSON Schema, or empty.
#[must_use]
pub fn describe(name: &str, version: &str, summary: &str, settings: &str) -> Description {
    Description { name: name.into(), version: version.into(), summary: summary.into(), settings: settings.into() }
}

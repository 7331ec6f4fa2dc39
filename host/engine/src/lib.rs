//! The one execution loop of both worlds.
//!
//! [`Engine`] walks a checked plan and tells a [`Device`] what to do next. It makes no choices: the plan is specific
//! enough that nothing is left to decide. A device is the smallest thing that the engine cannot do itself: time,
//! memory, copies, kernels. The simulator is one device, a real machine another, and the same decorators
//! stand around both: [`Metered`], [`Budgeted`], [`Audited`], and [`Faulty`], which breaks on purpose.
//!
//! The engine does not plan, does not know policies, and touches no file and no clock.

mod audited;
mod budgeted;
pub mod contract;
mod device;
mod engine;
mod faulty;
mod metered;
mod trace;

pub use audited::Audited;
pub use budgeted::Budgeted;
pub use device::{
    Ahead, At, Buffer, Device, DeviceError, Leap, LoadOrder, Room, Span, Surroundings, TaskOrder, Totals,
};
pub use engine::{Engine, EngineError, Flow, Observer, SafePoint, Silent, Start};
pub use faulty::{Fault, Faulty, Hinder, Injection, Moment};
pub use metered::{Metered, Usage};
pub use trace::{Lane, StageTrace, TaskSpan, Trace, TransferSpan};

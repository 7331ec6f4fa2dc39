//! What is done when a run does not go as planned: noticing it, asking the policy again, climbing down.
//!
//! The same code stands beside a real run and beside a rehearsal on the simulator: a [`Sentry`] looks around at every
//! safe point, a [`Helm`] finds the plan to go on with, and [`rehearse`] lets things go wrong on purpose.

mod helm;
mod injection;
mod rehearsal;
mod sentry;

pub use helm::{Answer, Redecision};
pub(crate) use helm::{Course, Helm, Turn};
pub use injection::{ParseInjectionError, injection};
pub use loadline_engine::{Fault, Injection, Moment};
pub use rehearsal::{Rehearsal, rehearse};
pub use sentry::PATIENCE;
pub(crate) use sentry::Sentry;

//! Plans realised on this machine.

mod checkpoint;
mod compute;
mod host;
mod noise;
mod output;
mod session;

pub use output::{ResultSink, Sink};
pub use session::{JobSpec, Measured, Outcome, Progress, Session, SessionOptions, StageMeasured};

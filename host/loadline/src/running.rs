//! Plans realised on this machine.

mod checkpoint;
mod compute;
mod host;
mod noise;
mod output;
mod session;

pub use output::ResultSink;
pub use session::{JobSpec, Measured, Outcome, Progress, Session, SessionOptions, StageMeasured, use_local_kernels};

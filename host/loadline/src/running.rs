//! Plans realised on this machine.

mod checkpoint;
mod compute;
mod host;
mod noise;
mod output;
mod preflight;
mod session;
mod suspect;
mod watch;

pub use output::ResultSink;
pub use preflight::check_writable;
pub use session::{JobSpec, Measured, Outcome, Progress, Session, SessionOptions, StageMeasured, use_local_kernels};

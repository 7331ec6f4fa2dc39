//! Plans realised on this machine.

mod checkpoint;
mod compute;
mod digest;
mod host;
mod identity;
mod noise;
mod output;
mod preflight;
mod session;
mod watch;
mod weights;

pub use output::{ResultSink, write_whole};
pub use preflight::{check_writable, same_place};
pub use session::{JobSpec, Measured, Outcome, Progress, Session, SessionOptions, StageMeasured, use_local_kernels};

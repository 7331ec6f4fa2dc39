//! Plans realised on this machine.

mod checkpoint;
mod compute;
mod digest;
mod host;
mod identity;
mod measured;
mod noise;
mod output;
mod preflight;
mod session;
mod state;
mod voyage;
mod watch;
mod weights;

pub use measured::{Measured, Outcome, Progress, StageMeasured};
pub use output::{ResultSink, write_whole};
pub use preflight::{check_writable, same_place};
pub use session::{JobSpec, Session, SessionOptions, use_local_kernels};

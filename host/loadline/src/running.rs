//! Plans realised on this machine.

mod checkpoint;
mod compute;
mod digest;
mod gauge;
mod host;
mod identity;
mod local;
mod measured;
mod noise;
mod offload;
mod output;
mod preflight;
mod session;
mod state;
mod voyage;
mod watch;
mod weights;

pub use measured::{
    Counts, Footing, Loaded, Measured, Outcome, Progress, Pulse, StageMeasured, StageMemory, TaskAt, TaskHigh,
};
#[cfg(feature = "cuda")]
pub(crate) use output::read_tensor_of;
pub use output::{ResultSink, write_whole};
pub use preflight::{check_writable, same_place};
pub use session::{JobSpec, Session, SessionOptions, use_local_kernels};

//! An NVIDIA GPU as a device.
//!
//! Three queues, ordered by events of the GPU alone: one computes, one copies into slots, and one runs the functions
//! that read weights from disk or host memory into page-locked buffers. The thread that walks the plan only queues; it
//! waits where the engine asks for what was measured, at safe points and at the ends of stages.
//!
//! ```text
//! read     [read block 7 into buffer 0] [read block 8 into buffer 1] ...   waits until a buffer has been copied from
//! copy     [wait: task 3 has ended] [buffer 0 -> slot 1] ...               waits until slot and bytes are there
//! compute  [task 3] [wait: block 7 has arrived] [task 4 with slot 1] ...   waits until weights have arrived
//! ```
//!
//! What a task computes is a [`CudaCompute`]'s business, which queues kernels on the stream that it shares with this
//! device. Weights cross the bus in their storage type, in one slab a block, laid out as the plan's job says.

mod device;
mod feed;
mod homes;
mod marks;
mod reads;
mod ring;

use loadline_core::Bytes;
use loadline_cuda::driver::{CudaError, DevicePtr};
use loadline_engine::{DeviceError, TaskOrder};

pub use device::{CudaDevice, Moment};

/// A range of device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its first byte.
    pub start: DevicePtr,
    /// How many.
    pub bytes: u64,
}

/// What computes the tasks on a GPU.
pub trait CudaCompute {
    /// Queues one task on the stream that the device was given. Its weights are a slab, which has arrived by the time
    /// that what is queued here runs, and stays as it is until the last of it has.
    ///
    /// # Errors
    /// If the activations would exceed what is set aside, or something cannot be queued.
    fn run(&mut self, order: &TaskOrder, weights: Option<Region>) -> Result<(), DeviceError>;

    /// Gives it memory for everything but weights, or takes it away; what lives on is its to keep elsewhere before this
    /// comes back.
    ///
    /// # Errors
    /// If what lives on cannot be moved.
    fn set_aside(&mut self, activations: Option<Region>) -> Result<(), DeviceError>;
}

/// What host memory a device may use for its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostLimits {
    /// Bytes that may be page-locked; zero for none. Where they are fewer than the pinned homes take, each home gets
    /// its share.
    pub pinned: Bytes,
    /// Bytes of the buffers that blocks from disk pass through. Two that hold the largest block let reading and copying
    /// overlap; one is used if there is no room for two.
    pub staging: Bytes,
}

/// The engine's word for an error of the driver's.
#[must_use]
pub fn device_error(error: CudaError) -> DeviceError {
    match error {
        CudaError::OutOfMemory { requested } => DeviceError::OutOfDeviceMemory { requested: Bytes(requested) },
        lost @ CudaError::Lost { .. } => DeviceError::Lost(lost.to_string()),
        other => DeviceError::Compute(other.to_string()),
    }
}

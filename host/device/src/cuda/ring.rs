//! Page-locked buffers that bytes pass through on their way to the GPU.

use std::sync::Arc;

use loadline_core::Bytes;
use loadline_cuda::driver::{Context, CudaError, Event, Pinned};
use loadline_engine::DeviceError;

use super::{HostLimits, device_error};
use crate::memory::{self, Domain};

/// What passes from memory that is not locked goes in pieces of this size: large enough that a call between two copies
/// costs nothing beside them.
pub(super) const PIECE: usize = 16 << 20;

/// A buffer, and the event that its last copy to the GPU has ended.
pub(super) struct Buffer {
    pub(super) memory: Arc<Pinned>,
    pub(super) copied: Event,
}

/// The buffers, which are used in turn.
#[derive(Default)]
pub(super) struct Ring {
    buffers: Vec<Buffer>,
    next: usize,
    counted: bool,
}

impl Ring {
    /// Buffers of at least so many bytes: two if the limits have room for them, and one otherwise. Where nothing may be
    /// locked they are ordinary memory, which the driver stages again.
    pub(super) fn new(context: &Context, bytes: usize, limits: HostLimits) -> Result<Self, DeviceError> {
        let two = bytes <= PIECE || Bytes(2 * bytes as u64) <= limits.staging;
        let count = if two { 2 } else { 1 };
        let mut locked = limits.pinned >= Bytes((count * bytes) as u64);
        let mut buffers = Vec::new();
        for _ in 0..count {
            let failed = DeviceError::OutOfHostMemory { requested: Bytes(bytes as u64) };
            let mut memory = Pinned::allocate(context, bytes).ok_or(failed)?;
            match if locked { memory.pin(bytes) } else { Ok(()) } {
                Err(CudaError::PinRefused { .. }) => locked = false,
                other => other.map_err(device_error)?,
            }
            let copied = Event::untimed(context).map_err(device_error)?;
            buffers.push(Buffer { memory: Arc::new(memory), copied });
        }
        let counted = memory::claim(Domain::Host, count * bytes);
        Ok(Self { buffers, next: 0, counted })
    }

    /// The size of each buffer.
    pub(super) fn piece(&self) -> usize {
        self.buffers.first().map_or(0, |buffer| buffer.memory.bytes())
    }

    /// Bytes of all of them.
    pub(super) fn bytes(&self) -> u64 {
        (self.piece() * self.buffers.len()) as u64
    }

    /// Bytes of them that are locked.
    pub(super) fn locked(&self) -> u64 {
        self.buffers.iter().map(|buffer| buffer.memory.pinned() as u64).sum()
    }

    /// The buffer whose turn it is.
    pub(super) fn turn(&mut self) -> &Buffer {
        let at = self.next;
        self.next = (at + 1) % self.buffers.len();
        &self.buffers[at]
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.counted {
            memory::release(Domain::Host, self.bytes() as usize);
        }
    }
}

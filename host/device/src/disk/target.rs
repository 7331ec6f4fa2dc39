//! Where a block goes.

use std::any::Any;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::slab::Slab;

/// Memory that a block goes to, and what keeps it there.
pub struct Target {
    pub(super) start: NonNull<u8>,
    pub(super) bytes: usize,
    _owner: Arc<dyn Any + Send + Sync>,
}

// SAFETY: plain memory that the owner keeps; who writes when is `BlockReader::begin`'s contract.
unsafe impl Send for Target {}

impl Target {
    /// Any memory.
    ///
    /// # Safety
    /// So many bytes from `start` are memory that was written before, as long as `owner` lives.
    #[must_use]
    pub unsafe fn new(start: NonNull<u8>, bytes: usize, owner: Arc<dyn Any + Send + Sync>) -> Self {
        Self { start, bytes, _owner: owner }
    }

    /// A slab.
    #[must_use]
    pub fn slab(slab: &Arc<Slab>) -> Self {
        Self { start: slab.start(), bytes: slab.bytes(), _owner: Arc::<Slab>::clone(slab) }
    }

    /// A part of it.
    ///
    /// # Safety
    /// Nobody else uses the part while the slice is there, and no read into it is in flight.
    #[allow(clippy::mut_from_ref)] // the caller's promise stands in for the borrow
    pub(super) unsafe fn part(&self, place: usize, bytes: usize) -> &mut [u8] {
        assert!(place.checked_add(bytes).is_some_and(|end| end <= self.bytes), "a part outside its target");
        // SAFETY: inside the target, which was written before; the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(place).as_ptr(), bytes) }
    }
}

//! The ring: aligned buffers that reads land in before they go to their place.

use std::ptr::NonNull;

use super::RING_BYTES;
use crate::mapping::{map, unmap};
use crate::memory::{self, Domain};

/// Buffers of one size in one mapping of [`RING_BYTES`], counted as host memory while they are there.
#[derive(Debug)]
pub(super) struct Buffers {
    start: NonNull<u8>,
    count: usize,
    free: Vec<usize>,
    counted: bool,
}

// SAFETY: the mapping is plain memory that belongs to whoever has the ring.
unsafe impl Send for Buffers {}

impl Buffers {
    /// The ring in so many parts, or nothing if the system has no memory for it.
    pub(super) fn new(count: usize) -> Option<Self> {
        let start = map(RING_BYTES)?;
        let counted = memory::claim(Domain::Host, RING_BYTES);
        // The first buffer comes out first, so that a short read touches few pages.
        Some(Self { start, count, free: (0..count).rev().collect(), counted })
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The bytes of each.
    pub(super) fn bytes(&self) -> usize {
        RING_BYTES / self.count
    }

    pub(super) fn take(&mut self) -> Option<usize> {
        self.free.pop()
    }

    pub(super) fn give_back(&mut self, buffer: usize) {
        self.free.push(buffer);
    }

    /// The first byte of a buffer.
    pub(super) fn start(&self, buffer: usize) -> NonNull<u8> {
        assert!(buffer < self.count, "a buffer outside the ring");
        // SAFETY: the mapping holds so many buffers.
        unsafe { self.start.add(buffer * self.bytes()) }
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        if self.counted {
            memory::release(Domain::Host, RING_BYTES);
        }
        // SAFETY: mapped in `new` with this size; the reader has waited for every read into it.
        unsafe { unmap(self.start, RING_BYTES) };
    }
}

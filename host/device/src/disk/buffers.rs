//! The ring: aligned buffers that reads land in before they go to their place.

use std::ptr::NonNull;

use super::{BUFFERS, READ_BYTES};
use crate::mapping::{map, unmap};
use crate::memory::{self, Domain};

/// Buffers of [`READ_BYTES`] in one mapping, counted as host memory while they are there.
#[derive(Debug)]
pub(super) struct Buffers {
    start: NonNull<u8>,
    free: Vec<usize>,
    counted: bool,
}

// SAFETY: the mapping is plain memory that belongs to whoever has the ring.
unsafe impl Send for Buffers {}

const BYTES: usize = READ_BYTES * BUFFERS;

impl Buffers {
    /// The ring, or nothing if the system has no memory for it.
    pub(super) fn new() -> Option<Self> {
        let start = map(BYTES)?;
        let counted = memory::claim(Domain::Host, BYTES);
        // The first buffer comes out first, so that a short read touches few pages.
        Some(Self { start, free: (0..BUFFERS).rev().collect(), counted })
    }

    pub(super) fn take(&mut self) -> Option<usize> {
        self.free.pop()
    }

    pub(super) fn give_back(&mut self, buffer: usize) {
        self.free.push(buffer);
    }

    /// The first byte of a buffer.
    pub(super) fn start(&self, buffer: usize) -> NonNull<u8> {
        assert!(buffer < BUFFERS, "a buffer outside the ring");
        // SAFETY: the mapping holds so many buffers.
        unsafe { self.start.add(buffer * READ_BYTES) }
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        if self.counted {
            memory::release(Domain::Host, BYTES);
        }
        // SAFETY: mapped in `new` with this size; the reader has waited for every read into it.
        unsafe { unmap(self.start, BYTES) };
    }
}

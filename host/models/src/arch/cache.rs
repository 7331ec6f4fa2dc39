//! What the causal convolutions of a video VAE remember from chunk to chunk.

use crate::ops::Tensor;

/// The frames that every causal convolution remembers, in the order in which a chunk meets them.
///
/// A chunk walks all levels; [`rewind`](Self::rewind) starts the next chunk, a new cache the next tile.
#[derive(Default)]
pub struct FeatureCache<D> {
    entries: Vec<Remembered<D>>,
    next: usize,
    chunk: usize,
}

/// What one convolution remembers.
pub(crate) enum Remembered<D> {
    /// It saw the first chunk and skipped it: upsampling in time starts with the second.
    Skipped,
    /// The last frames of its input.
    Frames(Tensor<D>),
}

impl<D: Clone> FeatureCache<D> {
    /// An empty cache.
    #[must_use]
    pub fn new() -> Self {
        Self { entries: Vec::new(), next: 0, chunk: 0 }
    }

    /// Starts the next chunk.
    pub fn rewind(&mut self) {
        self.next = 0;
        self.chunk += 1;
    }

    /// Whether this is the first chunk.
    #[must_use]
    pub fn first_chunk(&self) -> bool {
        self.chunk == 0
    }

    /// Takes what the next convolution remembers, and the place to put the new memory.
    pub(crate) fn take(&mut self) -> (usize, Option<Remembered<D>>) {
        let place = self.next;
        self.next += 1;
        if place < self.entries.len() {
            let memory = std::mem::replace(&mut self.entries[place], Remembered::Skipped);
            (place, Some(memory))
        } else {
            (place, None)
        }
    }

    pub(crate) fn put(&mut self, place: usize, memory: Remembered<D>) {
        match self.entries.get_mut(place) {
            Some(entry) => *entry = memory,
            None => self.entries.push(memory),
        }
    }
}

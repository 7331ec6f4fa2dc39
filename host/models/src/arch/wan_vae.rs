//! The causal 3-D VAEs of Wan 2.1 and 2.2, level by level, chunk by chunk.
//!
//! Source of the formulas: diffusers `AutoencoderKLWan`. Every causal convolution remembers the last frames of its
//! input in a feature cache, so that a video is decoded in chunks and yet as if in one piece. The first chunk
//! is one latent frame and gives one frame; each later latent frame gives four.

mod decoder;
mod encoder;
mod layers;
mod tiles;

pub use decoder::{DECODER_FRONT, decode_front, decode_level, decode_tail, decoder_blocks};
pub use encoder::{encode_front, encode_level, encode_tail, encoder_blocks};
pub use tiles::{Blend, Picture, Tile, tiles};

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
        Self {
            entries: Vec::new(),
            next: 0,
            chunk: 0,
        }
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

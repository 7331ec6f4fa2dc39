//! What the causal convolutions of a video VAE remember from chunk to chunk.

use loadline_core::{ActClass, DType};

use crate::ops::{Backend, OpError, Ops, Piece, Saved, Sink, Tensor};

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

    /// Hands out everything that is remembered, and the number of the chunk that comes next.
    ///
    /// # Errors
    /// If the backend fails.
    pub fn save<B: Backend<Data = D>>(&self, ops: &mut Ops<B>, sink: Sink<'_>) -> Result<(), OpError> {
        let counts = [self.entries.len() as f32, self.chunk as f32];
        sink(Piece { name: "cache", shape: &[2], dtype: DType::F32, values: &counts });
        for (i, entry) in self.entries.iter().enumerate() {
            if let Remembered::Frames(frames) = entry {
                ops.hand_out(&format!("cache.{i}"), frames, sink)?;
            }
        }
        Ok(())
    }

    /// Takes back what [`save`](Self::save) handed out, in the compute type.
    ///
    /// # Errors
    /// If a tensor's values do not fit its shape, or the budget is exceeded.
    pub fn restore<B: Backend<Data = D>>(ops: &mut Ops<B>, compute: DType, saved: Saved<'_>) -> Result<Self, OpError> {
        let header = saved("cache").map(|(_, values)| values).unwrap_or_default();
        let [count, chunk] = [0, 1].map(|i| header.get(i).map_or(0, |v| *v as usize));
        let mut cache = Self { entries: Vec::new(), next: 0, chunk };
        for i in 0..count {
            let entry = match saved(&format!("cache.{i}")) {
                Some((shape, values)) => Remembered::Frames(ops.within(ActClass::FeatureCache, |ops| {
                    let frames = ops.restored(&shape, &values)?;
                    ops.cast(frames, compute)
                })?),
                None => Remembered::Skipped,
            };
            cache.entries.push(entry);
        }
        Ok(cache)
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

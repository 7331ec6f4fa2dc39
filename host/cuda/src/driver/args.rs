//! Arguments of kernels.

use core::ffi::c_void;

use super::memory::DevicePtr;

/// The arguments of a launch, in the order in which the kernel declares them.
#[derive(Clone, Debug, Default)]
pub struct Args {
    /// The values, each from a word of its own on.
    words: Vec<u64>,
    /// The first word of each.
    starts: Vec<usize>,
}

impl Args {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        // Most kernels have fewer, so that a launch allocates twice and not more often.
        Self { words: Vec::with_capacity(24), starts: Vec::with_capacity(24) }
    }

    /// Adds an address.
    #[must_use]
    pub fn ptr(self, value: DevicePtr) -> Self {
        self.u64(value.0)
    }

    /// Adds an unsigned number of 32 bits.
    #[must_use]
    pub fn u32(self, value: u32) -> Self {
        self.u64(u64::from(value))
    }

    /// Adds a signed number of 32 bits.
    #[must_use]
    pub fn i32(self, value: i32) -> Self {
        self.u64(u64::from(value as u32))
    }

    /// Adds a float of 32 bits.
    #[must_use]
    pub fn f32(self, value: f32) -> Self {
        self.u64(u64::from(value.to_bits()))
    }

    /// Adds an unsigned number of 64 bits.
    #[must_use]
    pub fn u64(mut self, value: u64) -> Self {
        self.starts.push(self.words.len());
        // GPUs and the processors beside them are little-endian: a smaller number is the beginning of its word.
        self.words.push(value);
        self
    }

    /// Adds a structure by value, given as words.
    #[must_use]
    pub fn words(mut self, value: &[u64]) -> Self {
        self.starts.push(self.words.len());
        self.words.extend_from_slice(value);
        self
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Pointers to the values, as the driver wants them.
    pub(super) fn pointers(&self) -> Vec<*mut c_void> {
        let at = |start: &usize| std::ptr::from_ref(&self.words[*start]).cast_mut().cast();
        self.starts.iter().map(at).collect()
    }
}

//! What kernels work on: activations, weights as they are stored, and the structures in which launches bring them.

use crate::driver::DevicePtr;

/// The element type of activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// 32-bit floats; products are fused multiply-adds in f32, never TF32.
    F32,
    /// Brain floats; products run on the tensor cores with f32 sums.
    Bf16,
}

impl Element {
    /// Bytes of an element.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }

    /// Elements of an access of 16 bytes.
    pub(super) const fn run(self) -> u64 {
        16 / self.bytes()
    }

    /// One of two kernels.
    pub(super) fn of<T>(self, f32: T, bf16: T) -> T {
        match self {
            Self::F32 => f32,
            Self::Bf16 => bf16,
        }
    }
}

/// How a weight is stored. The layouts in blocks are those of ggml.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // GGUF's own names
pub enum Stored {
    F32 = 1,
    Bf16 = 2,
    F16 = 3,
    /// 8-bit floats with 4 exponent bits and no infinity, and behind them one f32 that all of them are multiplied by.
    F8E4M3 = 4,
    Q4_0 = 16,
    Q4_1 = 17,
    Q5_0 = 18,
    Q5_1 = 19,
    Q8_0 = 20,
    Q2K = 21,
    Q3K = 22,
    Q4K = 23,
    Q5K = 24,
    Q6K = 25,
}

impl Stored {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::F32,
        Self::Bf16,
        Self::F16,
        Self::F8E4M3,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// Elements of a block, 1 where elements stand alone, and the bytes of a block.
    #[must_use]
    pub const fn block(self) -> (u64, u64) {
        match self {
            Self::F32 => (1, 4),
            Self::Bf16 | Self::F16 => (1, 2),
            Self::F8E4M3 => (1, 1),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q8_0 => (32, 34),
            Self::Q2K => (256, 84),
            Self::Q3K => (256, 110),
            Self::Q4K => (256, 144),
            Self::Q5K => (256, 176),
            Self::Q6K => (256, 210),
        }
    }

    /// Whether elements share blocks.
    #[must_use]
    pub const fn in_blocks(self) -> bool {
        self.block().0 > 1
    }

    /// Whether products take weights of this type beside such activations as they are.
    pub(super) fn is(self, element: Element) -> bool {
        self == element.of(Self::F32, Self::Bf16)
    }
}

/// A weight where it lies on the device, dense and row-major.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    /// Its first byte.
    pub at: DevicePtr,
    /// Elements of the whole tensor.
    pub elements: u64,
    /// How they are stored.
    pub stored: Stored,
}

/// What is applied to each value of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x`.
    None = 0,
    /// `x * sigmoid(x)`.
    Silu = 1,
    /// GELU in its tanh form.
    GeluTanh = 2,
    /// GELU in its exact form.
    GeluErf = 3,
    /// `x * sigmoid(1.702 x)`.
    QuickGelu = 4,
}

/// f32 rows that are applied to rows of activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerRow {
    /// The first.
    pub at: DevicePtr,
    /// Whether each row has one of its own; otherwise there is one for all.
    pub each: bool,
}

/// Device memory that a call writes and nobody reads afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scratch {
    /// Its first byte, a multiple of 16.
    pub at: DevicePtr,
    /// How many bytes.
    pub bytes: u64,
}

/// Why a call cannot be launched: its operands do not fit together. That is a mistake of whoever made the call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kernel}: {detail}")]
pub struct Misfit {
    /// What was called.
    pub kernel: &'static str,
    /// What does not fit.
    pub detail: String,
}

/// `Ok` where it holds.
pub(super) fn require(kernel: &'static str, holds: bool, detail: impl FnOnce() -> String) -> Result<(), Misfit> {
    if holds { Ok(()) } else { Err(Misfit { kernel, detail: detail() }) }
}

/// A size as kernels take it.
pub(super) fn narrow(kernel: &'static str, size: u64) -> Result<u32, Misfit> {
    u32::try_from(size)
        .ok()
        .filter(|size| *size < 1 << 31)
        .ok_or_else(|| Misfit { kernel, detail: format!("a side of {size} is more than a kernel counts") })
}

/// Whether accesses of 16 bytes may start there.
pub(super) fn aligned(at: DevicePtr) -> bool {
    at.0.is_multiple_of(16)
}

/// A structure as a kernel declares it: fields one after the other, each aligned to its size.
#[derive(Clone, Debug, Default)]
pub(super) struct Packed {
    bytes: Vec<u8>,
}

impl Packed {
    fn aligned(mut self, to: usize) -> Self {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
        self
    }

    pub(super) fn u16(mut self, value: u16) -> Self {
        self.bytes.extend(value.to_le_bytes());
        self
    }

    pub(super) fn u32(self, value: u32) -> Self {
        let mut packed = self.aligned(4);
        packed.bytes.extend(value.to_le_bytes());
        packed
    }

    pub(super) fn f32(self, value: f32) -> Self {
        self.u32(value.to_bits())
    }

    pub(super) fn u64(self, value: u64) -> Self {
        let mut packed = self.aligned(8);
        packed.bytes.extend(value.to_le_bytes());
        packed
    }

    pub(super) fn ptr(self, value: DevicePtr) -> Self {
        self.u64(value.0)
    }

    /// An address that may be missing.
    pub(super) fn maybe(self, value: Option<DevicePtr>) -> Self {
        self.u64(value.map_or(0, |at| at.0))
    }

    /// A weight that may be missing: address, elements, type.
    pub(super) fn weight(self, weight: Option<Weight>) -> Self {
        let (at, elements, stored) = weight.map_or((0, 0, 0), |w| (w.at.0, w.elements, w.stored as u32));
        self.u64(at).u64(elements).u32(stored).aligned(8)
    }

    /// The words, ready for a launch.
    pub(super) fn words(self) -> Vec<u64> {
        let packed = self.aligned(8);
        let (words, _) = packed.bytes.as_chunks::<8>();
        words.iter().map(|word| u64::from_le_bytes(*word)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_aligned_as_a_compiler_would() {
        let weight = Weight { at: DevicePtr(7), elements: 9, stored: Stored::F16 };
        let packed = Packed::default().u32(1).ptr(DevicePtr(2)).weight(Some(weight)).u32(5).u32(6).u16(8);
        assert_eq!(packed.words(), [1, 2, 7, 9, 3, 5 | 6 << 32, 8]);
        assert_eq!(Packed::default().weight(None).maybe(None).words(), [0; 4]);
    }
}

//! Element types: what activations and weights are stored as. Arithmetic is
//! always f32, so all that matters here is widening and the one rounding.

use std::ops::Range;

use half::{bf16, f16};

use crate::packed::Packed;

/// Runs the same expression for each storage type.
macro_rules! with_weights {
    ($weights:expr, |$values:ident| $body:expr) => {
        match $weights {
            $crate::element::Weights::F32($values) => $body,
            $crate::element::Weights::Bf16($values) => $body,
            $crate::element::Weights::F16($values) => $body,
        }
    };
}
pub(crate) use with_weights;

mod sealed {
    /// Keeps [`super::Element`] to the types that the kernels are tested with.
    pub trait Widen: Copy + Send + Sync + 'static {
        /// The exact f32 value.
        fn widen(self) -> f32;

        /// The values themselves if they are bf16.
        fn halves(values: &[Self]) -> Option<&[half::bf16]>
        where
            Self: Sized,
        {
            let _ = values;
            None
        }
    }
}
pub(crate) use sealed::Widen;

/// Two bf16 that follow each other.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Pair([bf16; 2]);

// SAFETY: two 16-bit numbers without padding, for which all-zero bits are valid.
unsafe impl bytemuck::Zeroable for Pair {}
// SAFETY: as above; any bits are valid numbers.
unsafe impl bytemuck::Pod for Pair {}

impl Pair {
    /// Two zeros.
    pub(crate) const ZERO: Self = Self([bf16::ZERO; 2]);

    #[inline(always)]
    pub(crate) fn new(first: bf16, second: bf16) -> Self {
        Self([first, second])
    }

    /// An even number of values as pairs.
    pub(crate) fn all(values: &[bf16]) -> &[Self] {
        bytemuck::cast_slice(values)
    }
}

/// What packed operands are made of.
pub(crate) trait Word: Copy {
    /// The 32 bits that the register tile reads.
    fn word(self) -> f32;
}

impl<W: Widen> Word for W {
    #[inline(always)]
    fn word(self) -> f32 {
        self.widen()
    }
}

impl Word for Pair {
    #[inline(always)]
    fn word(self) -> f32 {
        f32::from_bits(bytemuck::cast(self.0))
    }
}

impl Widen for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
}

impl Widen for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    fn halves(values: &[Self]) -> Option<&[bf16]> {
        Some(values)
    }
}

impl Widen for f16 {
    /// Without a branch, so that loops over it vectorise: the exponent and
    /// mantissa are moved into place and rescaled by 2^112, the difference of
    /// the two biases; infinity and NaN get f32's largest exponent instead.
    #[inline(always)]
    fn widen(self) -> f32 {
        let bits = u32::from(self.to_bits());
        let magnitude = (bits & 0x7fff) << 13;
        let finite = (f32::from_bits(magnitude) * f32::from_bits(0x7780_0000)).to_bits();
        let special = magnitude | 0x7f80_0000;
        let merged = if magnitude < 0x0f80_0000 { finite } else { special };
        f32::from_bits(merged | ((bits & 0x8000) << 16))
    }
}

/// An activation's element type: `f32` or `bf16`.
pub trait Element: Widen {
    /// Rounds to nearest, ties to even; NaN stays NaN.
    fn narrow(value: f32) -> Self;
}

impl Element for f32 {
    #[inline(always)]
    fn narrow(value: f32) -> Self {
        value
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn narrow(value: f32) -> Self {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
        // The carry of rounding could turn a NaN into infinity or zero.
        let quiet = bits | 0x0040_0000;
        let merged = if value.is_nan() { quiet } else { rounded };
        Self::from_bits((merged >> 16) as u16)
    }
}

/// Weights as a checkpoint stores them. Kernels widen a panel at a time, never
/// the whole tensor.
#[derive(Debug, Clone, Copy)]
pub enum Weights<'a> {
    /// 32-bit floats.
    F32(&'a [f32]),
    /// Brain floats: the upper half of an f32.
    Bf16(&'a [bf16]),
    /// IEEE half-precision floats.
    F16(&'a [f16]),
}

impl<'a> Weights<'a> {
    /// The elements if they are bf16.
    pub(crate) fn halves(self) -> Option<&'a [bf16]> {
        if let Self::Bf16(values) = self { Some(values) } else { None }
    }
}

impl Weights<'_> {
    /// The elements of a range.
    pub(crate) fn part(self, range: Range<usize>) -> Self {
        match self {
            Self::F32(values) => Self::F32(&values[range]),
            Self::Bf16(values) => Self::Bf16(&values[range]),
            Self::F16(values) => Self::F16(&values[range]),
        }
    }

    /// Adds each value to its counterpart.
    #[inline(always)]
    pub(crate) fn add_to(self, out: &mut [f32]) {
        with_weights!(self, |values| out.iter_mut().zip(values).for_each(|(out, w)| *out += w.widen()));
    }

    /// Multiplies each counterpart by a value.
    #[inline(always)]
    pub(crate) fn scale(self, out: &mut [f32]) {
        with_weights!(self, |values| out.iter_mut().zip(values).for_each(|(out, w)| *out *= w.widen()));
    }
}

impl Weights<'_> {
    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        with_weights!(*self, |values| values.len())
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The weights of a linear layer: plain, or packed with scales.
#[derive(Debug, Clone, Copy)]
pub enum Matrix<'a> {
    /// Elements that mean something one by one.
    Plain(Weights<'a>),
    /// Rows of blocks. They are decoded a panel at a time, to bf16 where products are of bf16 pairs and to f32
    /// otherwise.
    Packed(Packed<'a>),
}

impl<'a> From<Weights<'a>> for Matrix<'a> {
    fn from(weights: Weights<'a>) -> Self {
        Self::Plain(weights)
    }
}

impl<'a> From<Packed<'a>> for Matrix<'a> {
    fn from(weights: Packed<'a>) -> Self {
        Self::Packed(weights)
    }
}

impl Matrix<'_> {
    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Plain(weights) => weights.len(),
            Self::Packed(weights) => weights.len(),
        }
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Elements that can only be decoded together.
    pub(crate) fn block(&self) -> usize {
        match self {
            Self::Plain(_) => 1,
            Self::Packed(weights) => weights.format().block().0,
        }
    }
}

/// f32 vectors that are applied to rows: one for all, or one for each.
#[derive(Debug, Clone, Copy)]
pub enum PerRow<'a> {
    /// `[C]`, the same for every row.
    Shared(&'a [f32]),
    /// `[rows, C]`, a vector for each row.
    Each(&'a [f32]),
}

impl PerRow<'_> {
    /// The vector for one row of `cols` values.
    #[inline(always)]
    pub(crate) fn row(&self, row: usize, cols: usize) -> &[f32] {
        match self {
            Self::Shared(values) => values,
            Self::Each(values) => &values[row * cols..(row + 1) * cols],
        }
    }

    /// Asserts that there are values for `rows` rows of `cols`.
    pub(crate) fn assert_shape(&self, what: &str, rows: usize, cols: usize) {
        match self {
            Self::Shared(values) => assert_eq!(values.len(), cols, "{what} must be [C]"),
            Self::Each(values) => assert_eq!(values.len(), rows * cols, "{what} must be [rows, C]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f16_widens_every_value_as_half_does() {
        for bits in 0..=u16::MAX {
            let value = f16::from_bits(bits);
            let (ours, theirs) = (value.widen(), value.to_f32());
            assert!(ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan()), "{bits:#x}");
        }
    }

    #[test]
    fn bf16_rounds_as_half_does() {
        for step in 0..1_000_000u32 {
            let value = f32::from_bits(step.wrapping_mul(4_294_967));
            let (ours, theirs) = (bf16::narrow(value), bf16::from_f32(value));
            assert!(ours == theirs || (ours.is_nan() && theirs.is_nan()), "{value}");
        }
    }
}

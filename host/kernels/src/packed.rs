//! Weights that share scales: 8-bit floats with a scale for the tensor, and GGUF's blocks.
//!
//! Layouts of blocks are those of the structs in ggml's `ggml-common.h`; numbers are made in the order of operations of
//! `ggml-quants.c`, so that they are the same to the bit. Multiplication and addition round apart on every set.

use half::f16;

use crate::element::Widen;

/// Elements that are decoded at a time: a block of the largest kind, and whole blocks of every other.
pub(crate) const PIECE: usize = 256;

/// How packed weights are stored. Names are GGUF's, `F8E4M3` is OCP's 8-bit float.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the formats are told apart by name alone")]
pub enum Format {
    F8E4M3,
    Q8_0,
    Q6K,
    Q5K,
    Q4K,
    Q3K,
    Q2K,
    Q5_1,
    Q5_0,
    Q4_1,
    Q4_0,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 11] = [
        Self::F8E4M3,
        Self::Q8_0,
        Self::Q6K,
        Self::Q5K,
        Self::Q4K,
        Self::Q3K,
        Self::Q2K,
        Self::Q5_1,
        Self::Q5_0,
        Self::Q4_1,
        Self::Q4_0,
    ];

    /// Elements of a block and its bytes.
    #[must_use]
    pub const fn block(self) -> (usize, usize) {
        match self {
            Self::F8E4M3 => (1, 1),
            Self::Q8_0 => (32, 34),
            Self::Q6K => (256, 210),
            Self::Q5K => (256, 176),
            Self::Q4K => (256, 144),
            Self::Q3K => (256, 110),
            Self::Q2K => (256, 84),
            Self::Q5_1 => (32, 24),
            Self::Q5_0 => (32, 22),
            Self::Q4_1 => (32, 20),
            Self::Q4_0 => (32, 18),
        }
    }
}

/// A matrix of packed weights, where it lies. A row is a whole number of blocks.
#[derive(Debug, Clone, Copy)]
pub struct Packed<'a> {
    format: Format,
    bytes: &'a [u8],
    scale: f32,
}

impl<'a> Packed<'a> {
    /// Weights of a format in `bytes`; `scale` multiplies all of them, and is 1 for blocks, which have their own.
    ///
    /// # Panics
    /// When `bytes` is not a whole number of blocks.
    #[must_use]
    pub fn new(format: Format, bytes: &'a [u8], scale: f32) -> Self {
        assert!(bytes.len().is_multiple_of(format.block().1), "packed weights must be whole blocks");
        Self { format, bytes, scale }
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        let (elements, bytes) = self.format.block();
        self.bytes.len() / bytes * elements
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// How they are stored.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// The elements from `first` on as f32; `first` and the number of them are whole blocks.
    ///
    /// # Panics
    /// When they are not, or there are not so many.
    pub fn decode(&self, first: usize, out: &mut [f32]) {
        let (elements, _) = self.format.block();
        assert!(
            first.is_multiple_of(elements) && out.len().is_multiple_of(elements),
            "packed weights: part of a block"
        );
        self.decode_blocks(first, out);
    }

    /// [`decode`](Self::decode) inlined into who calls it, with the instructions that this may use.
    #[inline(always)]
    pub(crate) fn decode_blocks(&self, first: usize, out: &mut [f32]) {
        let (elements, size) = self.format.block();
        let bytes = &self.bytes[first / elements * size..][..out.len() / elements * size];
        match self.format {
            Format::F8E4M3 => floats(bytes, self.scale, out),
            Format::Q8_0 => each(bytes, out, q8_0),
            Format::Q6K => each(bytes, out, q6_k),
            Format::Q5K => each(bytes, out, q5_k),
            Format::Q4K => each(bytes, out, q4_k),
            Format::Q3K => each(bytes, out, q3_k),
            Format::Q2K => each(bytes, out, q2_k),
            Format::Q5_1 => each(bytes, out, q5_1),
            Format::Q5_0 => each(bytes, out, q5_0),
            Format::Q4_1 => each(bytes, out, q4_1),
            Format::Q4_0 => each(bytes, out, q4_0),
        }
    }
}

/// Decodes block after block, each of a size that the compiler knows.
#[inline(always)]
fn each<const B: usize, const N: usize>(bytes: &[u8], out: &mut [f32], block: impl Fn(&[u8; B], &mut [f32; N])) {
    let (blocks, _) = bytes.as_chunks::<B>();
    let (outs, _) = out.as_chunks_mut::<N>();
    for (from, to) in blocks.iter().zip(outs) {
        block(from, to);
    }
}

#[inline(always)]
fn floats(bytes: &[u8], scale: f32, out: &mut [f32]) {
    for (byte, out) in bytes.iter().zip(out) {
        *out = e4m3(*byte) * scale;
    }
}

/// The exponent and mantissa are moved into place and rescaled by 2^120, the difference of the two biases; all ones are
/// NaN, and there is no infinity.
#[inline(always)]
fn e4m3(byte: u8) -> f32 {
    let bits = u32::from(byte);
    let magnitude = bits & 0x7f;
    let finite = (f32::from_bits(magnitude << 20) * f32::from_bits(0x7b80_0000)).to_bits();
    let merged = if magnitude == 0x7f { 0x7fc0_0000 } else { finite };
    f32::from_bits(merged | (bits & 0x80) << 24)
}

/// The half at a byte of a block.
#[inline(always)]
fn half_at<const B: usize>(block: &[u8; B], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).widen()
}

/// A part of a block.
#[inline(always)]
fn part<const N: usize, const B: usize>(block: &[u8; B], at: usize) -> &[u8; N] {
    // Sizes and places are constants, so this is never more than an address.
    block[at..at + N].first_chunk().unwrap_or(&[0; N])
}

#[inline(always)]
fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for (out, q) in out.iter_mut().zip(part::<32, 34>(block, 2)) {
        *out = f32::from(q.cast_signed()) * d;
    }
}

#[inline(always)]
fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let (d, qs) = (half_at(block, 0), part::<16, 18>(block, 2));
    for i in 0..16 {
        out[i] = (i32::from(qs[i] & 0xf) - 8) as f32 * d;
        out[i + 16] = (i32::from(qs[i] >> 4) - 8) as f32 * d;
    }
}

#[inline(always)]
fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m, qs) = (half_at(block, 0), half_at(block, 2), part::<16, 20>(block, 4));
    for i in 0..16 {
        out[i] = f32::from(qs[i] & 0xf) * d + m;
        out[i + 16] = f32::from(qs[i] >> 4) * d + m;
    }
}

/// The fifth bits of 32 elements, the first in the lowest bit.
#[inline(always)]
fn fifth<const B: usize>(block: &[u8; B], at: usize) -> u32 {
    u32::from_le_bytes(*part::<4, B>(block, at))
}

#[inline(always)]
fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let (d, high, qs) = (half_at(block, 0), fifth(block, 2), part::<16, 22>(block, 6));
    for i in 0..16 {
        let (low, top) = (u32::from(qs[i] & 0xf), u32::from(qs[i] >> 4));
        out[i] = ((low | (high >> i & 1) << 4) as i32 - 16) as f32 * d;
        out[i + 16] = ((top | (high >> (i + 16) & 1) << 4) as i32 - 16) as f32 * d;
    }
}

#[inline(always)]
fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m, high, qs) = (half_at(block, 0), half_at(block, 2), fifth(block, 4), part::<16, 24>(block, 8));
    for i in 0..16 {
        let (low, top) = (u32::from(qs[i] & 0xf), u32::from(qs[i] >> 4));
        out[i] = (low | (high >> i & 1) << 4) as f32 * d + m;
        out[i + 16] = (top | (high >> (i + 16) & 1) << 4) as f32 * d + m;
    }
}

/// The scale and the minimum of group `j` of eight, six bits each in twelve bytes.
#[inline(always)]
fn scale_and_min(scales: &[u8; 12], j: usize) -> (f32, f32) {
    let (scale, min) = if j < 4 {
        (scales[j] & 63, scales[j + 4] & 63)
    } else {
        let both = scales[j + 4];
        (both & 0xf | (scales[j - 4] >> 6) << 4, both >> 4 | (scales[j] >> 6) << 4)
    };
    (f32::from(scale), f32::from(min))
}

#[inline(always)]
fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (d, dmin, scales) = (half_at(block, 0), half_at(block, 2), part::<12, 144>(block, 4));
    for j in 0..4 {
        let qs = part::<32, 144>(block, 16 + 32 * j);
        let ((s1, m1), (s2, m2)) = (scale_and_min(scales, 2 * j), scale_and_min(scales, 2 * j + 1));
        let (d1, m1, d2, m2) = (d * s1, dmin * m1, d * s2, dmin * m2);
        let (low, high) = out[64 * j..64 * j + 64].split_at_mut(32);
        for i in 0..32 {
            low[i] = d1 * f32::from(qs[i] & 0xf) - m1;
            high[i] = d2 * f32::from(qs[i] >> 4) - m2;
        }
    }
}

#[inline(always)]
fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let (d, dmin, scales) = (half_at(block, 0), half_at(block, 2), part::<12, 176>(block, 4));
    let fifth = part::<32, 176>(block, 16);
    for j in 0..4 {
        let qs = part::<32, 176>(block, 48 + 32 * j);
        let ((s1, m1), (s2, m2)) = (scale_and_min(scales, 2 * j), scale_and_min(scales, 2 * j + 1));
        let (d1, m1, d2, m2) = (d * s1, dmin * m1, d * s2, dmin * m2);
        let (low, high) = out[64 * j..64 * j + 64].split_at_mut(32);
        for i in 0..32 {
            low[i] = d1 * f32::from(qs[i] & 0xf | (fifth[i] >> (2 * j) & 1) << 4) - m1;
            high[i] = d2 * f32::from(qs[i] >> 4 | (fifth[i] >> (2 * j + 1) & 1) << 4) - m2;
        }
    }
}

#[inline(always)]
fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let d = half_at(block, 208);
    let scales = part::<16, 210>(block, 192);
    for n in 0..2 {
        let (low, high) = (part::<64, 210>(block, 64 * n), part::<32, 210>(block, 128 + 32 * n));
        for quarter in 0..4 {
            let out = &mut out[128 * n + 32 * quarter..][..32];
            let (from, shift) = (32 * (quarter % 2), 4 * (quarter / 2));
            for half in 0..2 {
                let scale = d * f32::from(scales[8 * n + 2 * quarter + half].cast_signed());
                for i in 16 * half..16 * half + 16 {
                    let q = low[from + i] >> shift & 0xf | (high[i] >> (2 * quarter) & 3) << 4;
                    out[i] = scale * (i32::from(q) - 32) as f32;
                }
            }
        }
    }
}

/// Scale `j` of sixteen of Q3_K: four bits in the first eight bytes, two more in the last four, less 32.
#[inline(always)]
fn q3_scale(scales: &[u8; 12], j: usize) -> f32 {
    let low = if j < 8 { scales[j] & 0xf } else { scales[j - 8] >> 4 };
    let high = scales[8 + j % 4] >> (2 * (j / 4)) & 3;
    (i32::from(low | high << 4) - 32) as f32
}

#[inline(always)]
fn q3_k(block: &[u8; 110], out: &mut [f32; 256]) {
    let (mask, scales, d) = (part::<32, 110>(block, 0), part::<12, 110>(block, 96), half_at(block, 108));
    for n in 0..2 {
        let qs = part::<32, 110>(block, 32 + 32 * n);
        for quarter in 0..4 {
            let out = &mut out[128 * n + 32 * quarter..][..32];
            for half in 0..2 {
                let scale = d * q3_scale(scales, 8 * n + 2 * quarter + half);
                for i in 16 * half..16 * half + 16 {
                    let third = mask[i] >> (4 * n + quarter) & 1;
                    let q = qs[i] >> (2 * quarter) & 3 | third << 2;
                    out[i] = scale * (i32::from(q) - 4) as f32;
                }
            }
        }
    }
}

#[inline(always)]
fn q2_k(block: &[u8; 84], out: &mut [f32; 256]) {
    let (scales, d, dmin) = (part::<16, 84>(block, 0), half_at(block, 80), half_at(block, 82));
    for n in 0..2 {
        let qs = part::<32, 84>(block, 16 + 32 * n);
        for quarter in 0..4 {
            let out = &mut out[128 * n + 32 * quarter..][..32];
            for half in 0..2 {
                let both = scales[8 * n + 2 * quarter + half];
                let (scale, min) = (d * f32::from(both & 0xf), dmin * f32::from(both >> 4));
                for i in 16 * half..16 * half + 16 {
                    out[i] = scale * f32::from(qs[i] >> (2 * quarter) & 3) - min;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_8_bit_float_is_its_sign_exponent_and_mantissa() {
        for byte in 0..=u8::MAX {
            let (exponent, mantissa) = (i32::from(byte >> 3 & 0xf), f64::from(byte & 7));
            let sign = if byte & 0x80 == 0 { 1.0 } else { -1.0 };
            let magnitude = match exponent {
                0 => mantissa / 8.0 * 2f64.powi(-6),
                _ => (1.0 + mantissa / 8.0) * 2f64.powi(exponent - 7),
            };
            let value = f64::from(e4m3(byte));
            if byte & 0x7f == 0x7f {
                assert!(value.is_nan());
            } else {
                assert_eq!(value, sign * magnitude, "{byte:#x}");
            }
        }
    }

    /// Bytes that a block might have: every bit pattern of its numbers, and scales that are finite halves.
    fn bytes(format: Format, blocks: usize) -> Vec<u8> {
        let (_, size) = format.block();
        let mut state = 0x9e37_79b9u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let mut bytes: Vec<u8> = (0..blocks * size).map(|_| next()).collect();
        for block in bytes.chunks_exact_mut(size) {
            for at in halves(format) {
                // An exponent without its highest bit: finite, and below 2.
                block[at + 1] &= !0x40;
            }
        }
        bytes
    }

    fn halves(format: Format) -> Vec<usize> {
        match format {
            Format::F8E4M3 => vec![],
            Format::Q8_0 | Format::Q5_0 | Format::Q4_0 => vec![0],
            Format::Q5_1 | Format::Q4_1 | Format::Q5K | Format::Q4K => vec![0, 2],
            Format::Q6K => vec![208],
            Format::Q3K => vec![108],
            Format::Q2K => vec![80, 82],
        }
    }

    /// Bit `n` of a block and those above it.
    fn bits(block: &[u8], at: usize, shift: usize, count: u32) -> f64 {
        f64::from(block[at] >> shift & ((1u16 << count) - 1) as u8)
    }

    fn half_of(block: &[u8], at: usize) -> f64 {
        f64::from(f16::from_le_bytes([block[at], block[at + 1]]).to_f32())
    }

    /// The six bits of scale (or, eight further, minimum) `j` of a block of Q4_K or Q5_K.
    fn six_bits(block: &[u8], j: usize, min: bool) -> f64 {
        let m = usize::from(min);
        if j < 4 {
            bits(block, 4 + j + 4 * m, 0, 6)
        } else {
            bits(block, 8 + j, 4 * m, 4) + 16.0 * bits(block, j + 4 * m, 6, 2)
        }
    }

    /// An element of a block, written down from the format's description one element at a time, in f64.
    fn reference(format: Format, block: &[u8], i: usize) -> f64 {
        let h = |at| half_of(block, at);
        let nibble = |from: usize| bits(block, from + i % 16, 4 * (i / 16), 4);
        let fifth = |from: usize| 16.0 * bits(block, from + i / 8, i % 8, 1);
        // Super-blocks: which 128, which 32 of them, which one of these, and which group of 16.
        let (n, quarter, l, group) = (i / 128, i / 32 % 4, i % 32, i / 16);
        let (pair, upper) = (i / 64, i / 32 % 2);
        match format {
            Format::F8E4M3 => f64::from(e4m3(block[i])),
            Format::Q8_0 => h(0) * f64::from(block[2 + i].cast_signed()),
            Format::Q4_0 => h(0) * (nibble(2) - 8.0),
            Format::Q4_1 => h(0) * nibble(4) + h(2),
            Format::Q5_0 => h(0) * (nibble(6) + fifth(2) - 16.0),
            Format::Q5_1 => h(0) * (nibble(8) + fifth(4)) + h(2),
            Format::Q4K | Format::Q5K => {
                let (qs, more) = if format == Format::Q4K { (16, 0.0) } else { (48, bits(block, 16 + l, i / 32, 1)) };
                let q = bits(block, qs + 32 * pair + l, 4 * upper, 4) + 16.0 * more;
                h(0) * six_bits(block, i / 32, false) * q - h(2) * six_bits(block, i / 32, true)
            }
            Format::Q6K => {
                let low = bits(block, 64 * n + 32 * (quarter % 2) + l, 4 * (quarter / 2), 4);
                let q = low + 16.0 * bits(block, 128 + 32 * n + l, 2 * quarter, 2) - 32.0;
                h(208) * f64::from(block[192 + group].cast_signed()) * q
            }
            Format::Q3K => {
                let low = bits(block, 96 + group % 8, 4 * (group / 8), 4);
                let scale = low + 16.0 * bits(block, 104 + group % 4, 2 * (group / 4), 2) - 32.0;
                let q = bits(block, 32 + 32 * n + l, 2 * quarter, 2) + 4.0 * bits(block, l, i / 32, 1) - 4.0;
                h(108) * scale * q
            }
            Format::Q2K => {
                let q = bits(block, 16 + 32 * n + l, 2 * quarter, 2);
                h(80) * bits(block, group, 0, 4) * q - h(82) * bits(block, group, 4, 4)
            }
        }
    }

    #[test]
    fn every_format_is_decoded_as_its_description_says() {
        for format in Format::ALL {
            let (elements, size) = format.block();
            let blocks = PIECE * 8 / elements;
            let bytes = bytes(format, blocks);
            let packed = Packed::new(format, &bytes, 1.0);
            assert_eq!(packed.len(), blocks * elements);
            let mut out = vec![0.0; packed.len()];
            packed.decode(0, &mut out);
            for (i, value) in out.iter().enumerate() {
                let expected = reference(format, &bytes[i / elements * size..][..size], i % elements);
                // Differences of products of up to 2000 are rounded to f32.
                let near = (f64::from(*value) - expected).abs() <= 1e-5 * expected.abs() + 1e-3;
                assert!(near || value.is_nan() && expected.is_nan(), "{format:?} {i}: {value} for {expected}");
            }
        }
    }

    #[test]
    fn a_part_is_what_it_is_of_the_whole() {
        for format in Format::ALL {
            let (elements, _) = format.block();
            let bytes = bytes(format, PIECE * 4 / elements);
            let packed = Packed::new(format, &bytes, 0.5);
            let (mut whole, mut part) = (vec![0.0; PIECE * 4], vec![0.0; PIECE]);
            packed.decode(0, &mut whole);
            packed.decode(2 * PIECE, &mut part);
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&part), bits(&whole[2 * PIECE..3 * PIECE]), "{format:?}");
        }
    }
}

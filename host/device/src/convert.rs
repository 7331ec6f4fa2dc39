//! Elements from the type that they have in a file to the type that they have in a slab.
//!
//! GGUF's blocks are made and read by candle, whose code follows ggml's; 8-bit floats are made here. What a conversion
//! holds besides its operands is a piece at a time, whatever the tensor's size.

use candle_core::quantized::GgmlType;
use candle_core::quantized::k_quants::{
    BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0, BlockQ5_1, BlockQ5K, BlockQ6K, BlockQ8_0,
};
use half::{bf16, f16};
use loadline_core::DType;

/// Elements that pass through f32 at a time: whole blocks of every type, and few enough to stay in a cache.
const PIECE: usize = 16 * 1024;
/// The largest 8-bit float.
const F8_MAX: f32 = 448.0;

/// Converts elements that are multiplied by `scale`; the buffers hold the same number of them, in whole blocks. 8-bit
/// floats are made by [`to_codes`], since their scale is that of a whole tensor.
pub(crate) fn convert(raw: &[u8], from: DType, scale: f32, out: &mut [u8], to: DType) {
    match (from, to) {
        _ if scale != 1.0 => by_pieces(raw, from, scale, out, to),
        (DType::F32, _) if to.is_plain() => narrow(raw, f32::from_le_bytes, out, to),
        (DType::F16, _) if to.is_plain() => narrow(raw, |bytes| f16::from_le_bytes(bytes).to_f32(), out, to),
        (DType::Bf16, _) if to.is_plain() => narrow(raw, |bytes| bf16::from_le_bytes(bytes).to_f32(), out, to),
        _ if from == to => out.copy_from_slice(raw),
        _ => by_pieces(raw, from, scale, out, to),
    }
}

fn by_pieces(raw: &[u8], from: DType, scale: f32, out: &mut [u8], to: DType) {
    let mut values = vec![0f32; PIECE.min(elements(to, out.len()))];
    let pieces = raw.chunks(bytes(from, PIECE)).zip(out.chunks_mut(bytes(to, PIECE)));
    for (raw, out) in pieces {
        let values = &mut values[..elements(to, out.len())];
        widen(raw, from, scale, values);
        if to.is_plain() {
            narrow(bytemuck::cast_slice(values), f32::from_ne_bytes, out, to);
        } else {
            encode(values, out, to);
        }
    }
}

/// The size of the largest element.
pub(crate) fn largest(raw: &[u8], from: DType, scale: f32) -> f32 {
    let mut values = vec![0f32; PIECE.min(elements(from, raw.len()))];
    raw.chunks(bytes(from, PIECE)).fold(0f32, |most, raw| {
        let values = &mut values[..elements(from, raw.len())];
        widen(raw, from, scale, values);
        values.iter().fold(most, |most, v| most.max(v.abs()))
    })
}

/// Elements as the 8-bit floats that `stored` multiplies.
pub(crate) fn to_codes(raw: &[u8], from: DType, scale: f32, stored: f32, codes: &mut [u8]) {
    if from == DType::F8E4M3 {
        codes.copy_from_slice(raw);
        return;
    }
    let mut values = vec![0f32; PIECE.min(codes.len())];
    for (raw, codes) in raw.chunks(bytes(from, PIECE)).zip(codes.chunks_mut(PIECE)) {
        let values = &mut values[..codes.len()];
        widen(raw, from, scale, values);
        codes.iter_mut().zip(values).for_each(|(code, value)| *code = e4m3(*value / stored));
    }
}

/// What makes the largest element the largest that there is. A scale that is no number would make every weight one.
pub(crate) fn f8_scale(largest: f32) -> f32 {
    let scale = largest / F8_MAX;
    if scale.is_normal() { scale } else { 1.0 }
}

/// Bytes of whole blocks of elements, without the scale of a tensor.
fn bytes(dtype: DType, elements: usize) -> usize {
    dtype.file_bytes(elements as u64).0 as usize
}

/// The elements of so many bytes.
fn elements(dtype: DType, bytes: usize) -> usize {
    bytes / dtype.block_bytes() as usize * dtype.block_elements() as usize
}

fn narrow<const N: usize>(raw: &[u8], wide: impl Fn([u8; N]) -> f32, out: &mut [u8], to: DType) {
    match to {
        DType::F32 => each(raw, out, |bytes| wide(bytes).to_le_bytes()),
        DType::F16 => each(raw, out, |bytes| f16::from_f32(wide(bytes)).to_le_bytes()),
        DType::Bf16 => each(raw, out, |bytes| bf16::from_f32(wide(bytes)).to_le_bytes()),
        // As in `widen`: no number in any type.
        _ => out.fill(0xff),
    }
}

/// A loop of its own for each pair of types, so that the compiler makes vectors of it.
fn each<const N: usize, const M: usize>(raw: &[u8], out: &mut [u8], convert: impl Fn([u8; N]) -> [u8; M]) {
    let (sources, _) = raw.as_chunks::<N>();
    let (targets, _) = out.as_chunks_mut::<M>();
    for (target, source) in targets.iter_mut().zip(sources) {
        *target = convert(*source);
    }
}

/// Elements as f32, multiplied by `scale`.
fn widen(raw: &[u8], from: DType, scale: f32, out: &mut [f32]) {
    match from {
        DType::F32 => each(raw, bytemuck::cast_slice_mut(out), |bytes| f32::from_le_bytes(bytes).to_ne_bytes()),
        DType::F16 => {
            each(raw, bytemuck::cast_slice_mut(out), |bytes| f16::from_le_bytes(bytes).to_f32().to_ne_bytes());
        }
        DType::Bf16 => {
            each(raw, bytemuck::cast_slice_mut(out), |bytes| bf16::from_le_bytes(bytes).to_f32().to_ne_bytes());
        }
        DType::F8E4M3 => {
            let values: [f32; 256] = std::array::from_fn(|byte| of_e4m3(byte as u8));
            out.iter_mut().zip(raw).for_each(|(out, byte)| *out = values[usize::from(*byte)]);
        }
        DType::Q8_0 => decode::<BlockQ8_0>(raw, out),
        DType::Q6K => decode::<BlockQ6K>(raw, out),
        DType::Q5K => decode::<BlockQ5K>(raw, out),
        DType::Q4K => decode::<BlockQ4K>(raw, out),
        DType::Q3K => decode::<BlockQ3K>(raw, out),
        DType::Q2K => decode::<BlockQ2K>(raw, out),
        DType::Q5_1 => decode::<BlockQ5_1>(raw, out),
        DType::Q5_0 => decode::<BlockQ5_0>(raw, out),
        DType::Q4_1 => decode::<BlockQ4_1>(raw, out),
        DType::Q4_0 => decode::<BlockQ4_0>(raw, out),
        // No other type passes `spec`, which names the ones that can be run. This is no number, so that a run would end
        // and not go on with wrong weights.
        _ => out.fill(f32::NAN),
    }
    if scale != 1.0 {
        out.iter_mut().for_each(|value| *value *= scale);
    }
}

/// Values as blocks.
fn encode(values: &[f32], out: &mut [u8], to: DType) {
    match to {
        DType::Q8_0 => quantise::<BlockQ8_0>(values, out),
        DType::Q6K => quantise::<BlockQ6K>(values, out),
        DType::Q5K => quantise::<BlockQ5K>(values, out),
        DType::Q4K => quantise::<BlockQ4K>(values, out),
        DType::Q3K => quantise::<BlockQ3K>(values, out),
        DType::Q2K => quantise::<BlockQ2K>(values, out),
        DType::Q5_1 => quantise::<BlockQ5_1>(values, out),
        DType::Q5_0 => quantise::<BlockQ5_0>(values, out),
        DType::Q4_1 => quantise::<BlockQ4_1>(values, out),
        DType::Q4_0 => quantise::<BlockQ4_0>(values, out),
        // As above: no number in any type.
        _ => out.fill(0xff),
    }
}

fn decode<B: GgmlType>(raw: &[u8], out: &mut [f32]) {
    let mut blocks = vec![B::zeros(); out.len() / B::BLCK_SIZE];
    assert_eq!(size_of_val(blocks.as_slice()), raw.len(), "blocks of a tensor");
    // SAFETY: a block is a struct of bytes and halves in C's layout without padding, as candle asserts of its size, so
    // that any bytes are one; the lengths were compared.
    unsafe { std::ptr::copy_nonoverlapping(raw.as_ptr(), blocks.as_mut_ptr().cast::<u8>(), raw.len()) };
    B::to_float(&blocks, out);
}

fn quantise<B: GgmlType>(values: &[f32], out: &mut [u8]) {
    let mut blocks = vec![B::zeros(); values.len() / B::BLCK_SIZE];
    assert_eq!(size_of_val(blocks.as_slice()), out.len(), "blocks of a tensor");
    B::from_float(values, &mut blocks);
    // SAFETY: as above; all bytes of a block are written.
    unsafe { std::ptr::copy_nonoverlapping(blocks.as_ptr().cast::<u8>(), out.as_mut_ptr(), out.len()) };
}

/// The value of an 8-bit float (OCP FP8 E4M3: bias 7, no infinity, all ones are NaN).
fn of_e4m3(byte: u8) -> f32 {
    let magnitude = byte & 0x7f;
    let value = if magnitude == 0x7f { f32::NAN } else { f32::from_bits(u32::from(magnitude) << 20) * 2f32.powi(120) };
    if byte & 0x80 == 0 { value } else { -value }
}

/// The nearest 8-bit float, ties to even; what is too large becomes the largest.
fn e4m3(value: f32) -> u8 {
    let sign = ((value.to_bits() >> 24) & 0x80) as u8;
    let magnitude = value.abs();
    let code = if value.is_nan() {
        0x7f
    } else if magnitude < 1.0 / 64.0 {
        // Below 2^-6 the distance between two numbers is 2^-9.
        (magnitude * 512.0).round_ties_even() as u8
    } else {
        let bits = magnitude.min(F8_MAX).to_bits();
        let rounded = bits + 0x7_ffff + (bits >> 20 & 1);
        ((rounded >> 20) - (120 << 3)) as u8
    };
    sign | code
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Values as weights have them: small, of both signs, with a few large ones.
    fn values(n: usize) -> Vec<f32> {
        let one = |i: usize| ((i * 7919 % 1009) as f32 / 504.5 - 1.0) * if i.is_multiple_of(97) { 0.3 } else { 0.05 };
        (0..n).map(one).collect()
    }

    fn raw(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    /// The tensor in a slab, of a file that holds `file`.
    fn filled(n: usize, from: DType, to: DType, scale: f32, file: &[u8]) -> Vec<u8> {
        let mut out = vec![0xaa; to.bytes(n as u64).0 as usize];
        if to == DType::F8E4M3 {
            let (codes, behind) = out.split_last_chunk_mut().unwrap();
            let stored = if from == to { scale } else { f8_scale(largest(file, from, scale)) };
            to_codes(file, from, scale, stored, codes);
            *behind = stored.to_le_bytes();
        } else {
            convert(file, from, scale, &mut out, to);
        }
        out
    }

    /// What a slab's tensor means.
    fn meant(dtype: DType, elements: usize, tensor: &[u8]) -> Vec<f32> {
        let mut out = vec![0.0; elements];
        let scale = match dtype {
            DType::F8E4M3 => f32::from_le_bytes(*tensor.last_chunk().unwrap()),
            _ => 1.0,
        };
        widen(&tensor[..bytes(dtype, elements)], dtype, scale, &mut out);
        out
    }

    /// The largest error as a share of the largest value.
    fn error(a: &[f32], b: &[f32]) -> f32 {
        let most = a.iter().fold(0f32, |m, v| m.max(v.abs()));
        a.iter().zip(b).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / most
    }

    #[test]
    fn conversion_rounds_to_nearest_even() {
        let values = [1.0f32, -2.5, 3.25, 1.003_906_3];
        let mut out = vec![0; 8];
        convert(&raw(&values), DType::F32, 1.0, &mut out, DType::Bf16);
        let expected: Vec<u8> = values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect();
        assert_eq!(out, expected);
    }

    #[test]
    fn every_type_holds_weights_as_well_as_its_bits_allow() {
        // More than a piece, and a rest that is no whole piece.
        let n = PIECE * 2 + 256 * 3;
        let weights = values(n);
        let check = |dtype: DType, most: f32| {
            let tensor = filled(n, DType::F32, dtype, 1.0, &raw(&weights));
            let error = error(&weights, &meant(dtype, n, &tensor));
            assert!(error > most / 20.0 && error < most, "{dtype}: {error}");
        };
        // Half of the last of eight bits.
        check(DType::Bf16, 1.0 / 256.0);
        check(DType::F8E4M3, 0.04);
        check(DType::Q8_0, 0.005);
        check(DType::Q6K, 0.04);
        check(DType::Q5K, 0.06);
        check(DType::Q5_1, 0.04);
        check(DType::Q5_0, 0.08);
        check(DType::Q4K, 0.1);
        check(DType::Q4_1, 0.1);
        check(DType::Q4_0, 0.15);
        check(DType::Q3K, 0.3);
        check(DType::Q2K, 0.5);
    }

    #[test]
    fn what_a_file_holds_in_its_own_type_is_not_touched() {
        for dtype in DType::ALL {
            let n = 512;
            let file: Vec<u8> = (0..bytes(dtype, n)).map(|i| (i * 31 % 120) as u8).collect();
            let tensor = filled(n, dtype, dtype, 1.0, &file);
            assert_eq!(tensor[..file.len()], file, "{dtype}");
        }
    }

    #[test]
    fn the_scale_of_a_file_counts_whatever_becomes_of_its_elements() {
        let n = 1024;
        let file: Vec<u8> = (0..n).map(|i| (i * 37 % 127) as u8).collect();
        let exact: Vec<f32> = file.iter().map(|byte| of_e4m3(*byte) * 0.003).collect();
        for (dtype, most) in [(DType::F8E4M3, 0.0), (DType::F32, 0.0), (DType::Bf16, 0.004), (DType::Q8_0, 0.01)] {
            let tensor = filled(n, DType::F8E4M3, dtype, 0.003, &file);
            let error = error(&exact, &meant(dtype, n, &tensor));
            assert!(error <= most, "{dtype}: {error}");
        }
    }

    #[test]
    fn the_largest_weight_becomes_the_largest_8_bit_float() {
        let tensor = filled(4, DType::F32, DType::F8E4M3, 1.0, &raw(&[0.5, -7.0, 0.0, 3.5]));
        assert_eq!(tensor[..4], [0x60, 0xfe, 0x00, 0x76]);
        assert_eq!(f32::from_le_bytes(*tensor.last_chunk().unwrap()), 7.0 / 448.0);
        let zeros = filled(4, DType::F32, DType::F8E4M3, 1.0, &raw(&[0.0; 4]));
        assert_eq!(meant(DType::F8E4M3, 4, &zeros), [0.0; 4]);
    }

    #[test]
    fn an_8_bit_float_is_the_nearest_one() {
        let all: Vec<(u8, f32)> = (0..0x7f).map(|byte| (byte, of_e4m3(byte))).collect();
        for step in 0..20_000 {
            let value = (step as f32 * 0.000_97).exp2() * 0.001;
            let distance = |candidate: &f32| (candidate - value).abs();
            let nearest = all.iter().map(|(_, v)| distance(v)).fold(f32::INFINITY, f32::min);
            assert_eq!(distance(&of_e4m3(e4m3(value))), nearest, "{value}");
            assert_eq!(of_e4m3(e4m3(-value)), -of_e4m3(e4m3(value)));
        }
        // Half way between 16 and 18, and between 18 and 20: the even mantissa.
        assert_eq!((of_e4m3(e4m3(17.0)), of_e4m3(e4m3(19.0))), (16.0, 20.0));
        assert!(of_e4m3(e4m3(f32::NAN)).is_nan());
    }
}

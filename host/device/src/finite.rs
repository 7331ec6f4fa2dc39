//! Weights that make every result useless.

use loadline_core::DType;

/// So many elements are looked at by a loop without a way out, of which the compiler makes vectors.
const PIECE: usize = 4096;

/// The bytes of an element of a plain type, and the bits that are all ones in one that is NaN or infinite.
pub(crate) const fn bits(dtype: DType) -> Option<(usize, u32)> {
    match dtype {
        DType::F32 => Some((4, 0x7f80_0000)),
        DType::Bf16 => Some((2, 0x7f80)),
        DType::F16 => Some((2, 0x7c00)),
        DType::F8E4M3 => Some((1, 0x7f)),
        _ => None,
    }
}

/// The first element that is NaN or infinite, and which of the two it is. In blocks that share scales these are what
/// can be no number, so that the first element of a block stands for all of it.
pub(crate) fn first_bad(bytes: &[u8], dtype: DType) -> Option<(usize, &'static str)> {
    match bits(dtype) {
        Some((4, bits)) => first(bytes, |b| u32::from_le_bytes(b) & bits == bits),
        Some((2, bits)) => first(bytes, |b| u32::from(u16::from_le_bytes(b)) & bits == bits),
        Some((_, bits)) => return first(bytes, |[b]: [u8; 1]| u32::from(b) & bits == bits).map(|at| (at, "NaN")),
        None => return first_block(bytes, dtype),
    }
    .map(|at| (at, name(bytes, dtype, at)))
}

/// Where the scales of a block lie in it, which are halves.
const fn scales(dtype: DType) -> &'static [usize] {
    match dtype {
        DType::Q8_0 | DType::Q5_0 | DType::Q4_0 => &[0],
        DType::Q5_1 | DType::Q4_1 | DType::Q5K | DType::Q4K => &[0, 2],
        DType::Q6K => &[208],
        DType::Q3K => &[108],
        DType::Q2K => &[80, 82],
        _ => &[],
    }
}

fn first_block(bytes: &[u8], dtype: DType) -> Option<(usize, &'static str)> {
    let scales = scales(dtype);
    let bad = |block: &[u8]| scales.iter().find_map(|at| first_bad(block.get(*at..at + 2)?, DType::F16));
    let mut blocks = bytes.chunks_exact(dtype.block_bytes() as usize).enumerate();
    blocks.find_map(|(n, block)| Some((n * dtype.block_elements() as usize, bad(block)?.1)))
}

fn first<const N: usize>(bytes: &[u8], is_bad: impl Fn([u8; N]) -> bool) -> Option<usize> {
    let (elements, _) = bytes.as_chunks::<N>();
    elements.chunks(PIECE).enumerate().find_map(|(n, piece)| {
        let bad = piece.iter().fold(false, |bad, element| bad | is_bad(*element));
        if !bad {
            return None;
        }
        piece.iter().position(|element| is_bad(*element)).map(|at| n * PIECE + at)
    })
}

/// Infinity has no bits below its exponent.
fn name(bytes: &[u8], dtype: DType, at: usize) -> &'static str {
    let size = dtype.element_bytes() as usize;
    let element = &bytes[at * size..(at + 1) * size];
    let bits = element.iter().rev().fold(0u32, |bits, b| bits << 8 | u32::from(*b));
    let below = match dtype {
        DType::F32 => 0x007f_ffff,
        DType::Bf16 => 0x007f,
        _ => 0x03ff,
    };
    if bits & below == 0 { "infinity" } else { "NaN" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f32s(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    #[test]
    fn what_is_no_number_is_found_in_every_type() {
        let check = |bytes: &[u8], dtype, expected: Option<(usize, &str)>| {
            assert_eq!(first_bad(bytes, dtype), expected, "{bytes:?}");
        };
        check(&f32s(&[1.0, f32::MAX, -0.0, f32::MIN_POSITIVE]), DType::F32, None);
        check(&f32s(&[1.0, f32::NAN]), DType::F32, Some((1, "NaN")));
        check(&f32s(&[f32::NEG_INFINITY]), DType::F32, Some((0, "infinity")));
        check(&[0x7f, 0x7f, 0x80, 0x7f], DType::Bf16, Some((1, "infinity")));
        check(&[0xc0, 0xff], DType::Bf16, Some((0, "NaN")));
        check(&[0xff, 0x7b, 0x00, 0xfc], DType::F16, Some((1, "infinity")));
        check(&[0x01, 0x7c], DType::F16, Some((0, "NaN")));
    }

    #[test]
    fn a_scale_that_is_no_number_is_found_in_its_block() {
        for dtype in DType::ALL.into_iter().filter(|d| d.block_elements() > 1) {
            let size = dtype.block_bytes() as usize;
            assert_eq!(first_bad(&vec![0u8; 3 * size], dtype), None, "{dtype}");
            for at in scales(dtype) {
                let mut bytes = vec![0u8; 3 * size];
                bytes[2 * size + at + 1] = 0xfc;
                let expected = Some((2 * dtype.block_elements() as usize, "infinity"));
                assert_eq!(first_bad(&bytes, dtype), expected, "{dtype}");
            }
        }
        assert_eq!(first_bad(&[0x7e, 0xff], DType::F8E4M3), Some((1, "NaN")));
    }

    #[test]
    fn it_is_found_wherever_it_lies() {
        for at in [0, PIECE - 1, PIECE, 3 * PIECE + 17] {
            let mut values = vec![1.0; 3 * PIECE + 18];
            values[at] = f32::NAN;
            assert_eq!(first_bad(&f32s(&values), DType::F32), Some((at, "NaN")));
        }
    }
}

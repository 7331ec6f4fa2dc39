//! Copies past the caches, and what can be told of numbers on their way.

use loadline_core::DType;

use crate::finite::bits;

/// What goes to memory at once.
const LINE: usize = 64;

#[repr(align(64))]
struct Line([u8; LINE]);

/// Copies bytes to memory that nobody reads soon. Where the processor can do that they go past the caches: what was
/// there before is not fetched first, which halves the copy's time, and what caches hold stays in them.
///
/// # Panics
/// If the lengths differ.
pub(crate) fn copy(from: &[u8], to: &mut [u8]) {
    let _ = copy_elements::<1>(from, to, None);
}

/// The same for elements of a type. Says whether one of them is NaN or infinite, or nothing where that takes a look of
/// its own: told on the way it costs next to nothing, and a look as much as the copy.
///
/// # Panics
/// If the lengths differ.
pub(crate) fn copy_checked(from: &[u8], to: &mut [u8], dtype: DType) -> Option<bool> {
    match bits(dtype) {
        Some((4, bits)) => copy_elements::<4>(from, to, Some(bits)),
        Some((2, bits)) => copy_elements::<2>(from, to, Some(bits)),
        Some((_, bits)) => copy_elements::<1>(from, to, Some(bits)),
        None => copy_elements::<1>(from, to, None),
    }
}

/// Copies elements of so many bytes; says whether `bits` are all ones in one of them, if each lies in a line.
fn copy_elements<const SIZE: usize>(from: &[u8], to: &mut [u8], bits: Option<u32>) -> Option<bool> {
    assert_eq!(from.len(), to.len(), "a copy of another length");
    // SAFETY: a line is any bytes.
    let (head, lines, tail) = unsafe { to.align_to_mut::<Line>() };
    let (first, rest) = from.split_at(head.len());
    let (middle, last) = rest.split_at(LINE * lines.len());
    head.copy_from_slice(first);
    tail.copy_from_slice(last);
    let middle = middle.as_chunks::<LINE>().0;
    let Some(bits) = bits.filter(|_| first.len().is_multiple_of(SIZE)) else {
        copy_lines::<0>(middle, lines, 0);
        return None;
    };
    let seen = |ends: &[u8]| ends.chunks_exact(SIZE).any(|element| has(element, bits));
    Some(copy_lines::<SIZE>(middle, lines, bits) | seen(first) | seen(last))
}

/// Whether all of the bits are ones in an element.
fn has(element: &[u8], bits: u32) -> bool {
    element.iter().rev().fold(0, |all, byte| all << 8 | u32::from(*byte)) & bits == bits
}

/// Copies lines; with a `SIZE` says whether the bits are all ones in an element of that size.
#[cfg(target_arch = "x86_64")]
fn copy_lines<const SIZE: usize>(from: &[[u8; LINE]], to: &mut [Line], bits: u32) -> bool {
    // SAFETY: every x86-64 has the instructions.
    unsafe { stream_lines::<SIZE>(from, to, bits) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse2")]
fn stream_lines<const SIZE: usize>(from: &[[u8; LINE]], to: &mut [Line], bits: u32) -> bool {
    use std::arch::x86_64::{
        __m128i, _mm_and_si128, _mm_cmpeq_epi8, _mm_cmpeq_epi16, _mm_cmpeq_epi32, _mm_loadu_si128, _mm_movemask_epi8,
        _mm_or_si128, _mm_set1_epi8, _mm_set1_epi16, _mm_set1_epi32, _mm_setzero_si128, _mm_sfence, _mm_stream_si128,
    };
    let bits = match SIZE {
        4 => _mm_set1_epi32(bits as i32),
        2 => _mm_set1_epi16(bits as i16),
        _ => _mm_set1_epi8(bits as i8),
    };
    let mut seen = _mm_setzero_si128();
    for (from, to) in from.iter().zip(to) {
        let (from, to) = (from.as_ptr().cast::<__m128i>(), to.0.as_mut_ptr().cast::<__m128i>());
        for part in 0..LINE / size_of::<__m128i>() {
            // SAFETY: both hold so many parts, and a line is aligned.
            let value = unsafe { _mm_loadu_si128(from.add(part)) };
            let found = _mm_and_si128(value, bits);
            let same = match SIZE {
                0 => _mm_setzero_si128(),
                4 => _mm_cmpeq_epi32(found, bits),
                2 => _mm_cmpeq_epi16(found, bits),
                _ => _mm_cmpeq_epi8(found, bits),
            };
            seen = _mm_or_si128(seen, same);
            // SAFETY: as above.
            unsafe { _mm_stream_si128(to.add(part), value) };
        }
    }
    // Without it other threads could see what was told of the copy before the copy.
    _mm_sfence();
    _mm_movemask_epi8(seen) != 0
}

#[cfg(not(target_arch = "x86_64"))]
fn copy_lines<const SIZE: usize>(from: &[[u8; LINE]], to: &mut [Line], bits: u32) -> bool {
    let mut seen = false;
    for (from, to) in from.iter().zip(to) {
        to.0 = *from;
        seen |= SIZE > 0 && from.chunks_exact(SIZE.max(1)).any(|element| has(element, bits));
    }
    seen
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::finite::first_bad;

    #[test]
    fn every_byte_arrives_and_none_beside_them() {
        let from: Vec<u8> = (0..1000u32).map(|n| (n * 7 % 251) as u8 + 1).collect();
        for start in [0, 1, 15, 16, 63, 64] {
            for length in [0, 1, 63, 64, 65, 127, 128, 200, 800] {
                let mut to = vec![0; 1000];
                copy(&from[start..start + length], &mut to[start + 3..start + 3 + length]);
                assert_eq!(to[start + 3..start + 3 + length], from[start..start + length], "{start} {length}");
                assert!(to[..start + 3].iter().chain(&to[start + 3 + length..]).all(|b| *b == 0), "{start} {length}");
            }
        }
    }

    /// Wherever it lies, and for each pair of bytes that an element may end in.
    #[test]
    fn what_is_no_number_is_told_as_a_look_tells_it() {
        for dtype in [DType::F32, DType::Bf16, DType::F16, DType::F8E4M3] {
            let size = dtype.element_bytes() as usize;
            for at in [0, 1, 40, 100, 130, 149] {
                for upper in 0..=u16::MAX {
                    let mut from = vec![0u8; 150 * size];
                    let end = (at + 1) * size;
                    from[end - size.min(2)..end].copy_from_slice(&upper.to_le_bytes()[..size.min(2)]);
                    // Elements lie at whole elements of the memory, as in every slab.
                    let mut memory = vec![0u8; from.len() + 2 * LINE];
                    let start = memory.as_ptr().align_offset(LINE) + 3 * size;
                    let to = &mut memory[start..start + from.len()];
                    let told = copy_checked(&from, to, dtype);
                    assert_eq!(told.unwrap(), first_bad(&from, dtype).is_some(), "{dtype}: {upper:#x} at {at}");
                    assert_eq!(to, from, "{dtype}: {upper:#x} at {at}");
                }
            }
        }
    }

    #[test]
    fn of_blocks_and_of_cut_elements_nothing_is_told() {
        let mut memory = vec![0u8; 4 * LINE];
        let start = memory.as_ptr().align_offset(LINE);
        let mut told = |dtype, at: usize| copy_checked(&[0; LINE], &mut memory[start + at..start + at + LINE], dtype);
        assert_eq!(told(DType::Q8_0, 0), None);
        assert_eq!(told(DType::F32, 2), None);
        assert_eq!(told(DType::F32, 4), Some(false));
    }
}

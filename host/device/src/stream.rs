//! Copies past the caches.

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
    assert_eq!(from.len(), to.len(), "a copy of another length");
    // SAFETY: a line is any bytes.
    let (head, lines, tail) = unsafe { to.align_to_mut::<Line>() };
    let (first, rest) = from.split_at(head.len());
    let (middle, last) = rest.split_at(LINE * lines.len());
    head.copy_from_slice(first);
    copy_lines(middle.as_chunks::<LINE>().0, lines);
    tail.copy_from_slice(last);
}

#[cfg(target_arch = "x86_64")]
fn copy_lines(from: &[[u8; LINE]], to: &mut [Line]) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};
    for (from, to) in from.iter().zip(to) {
        let (from, to) = (from.as_ptr().cast::<__m128i>(), to.0.as_mut_ptr().cast::<__m128i>());
        for part in 0..LINE / size_of::<__m128i>() {
            // SAFETY: both hold so many parts, and a line is aligned. Every x86-64 has the instructions.
            unsafe { _mm_stream_si128(to.add(part), _mm_loadu_si128(from.add(part))) };
        }
    }
    // SAFETY: every x86-64 has it. Without it other threads could see what was told of the copy before the copy.
    unsafe { _mm_sfence() };
}

#[cfg(not(target_arch = "x86_64"))]
fn copy_lines(from: &[[u8; LINE]], to: &mut [Line]) {
    from.iter().zip(to).for_each(|(from, to)| to.0 = *from);
}

#[cfg(test)]
mod tests {
    use super::*;

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
}

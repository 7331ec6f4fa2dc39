//! Memory straight from the system, for what is large.

use std::ptr::NonNull;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// The page. Mappings start at one, so that they never share a page and reads into them need no bounce buffer; direct
/// reads go by whole ones, in the file and in memory.
pub(crate) const PAGE: usize = 4096;
/// The large page of today's processors.
const LARGE_PAGE: usize = 2 << 20;

/// What a page of the size asked for takes of the address space, and of memory once all of it is written.
fn whole_pages(bytes: usize) -> Option<usize> {
    bytes.max(1).checked_next_multiple_of(PAGE)
}

/// A mapping of zeros, or nothing if the system refuses. It starts at a page, and at a large one if it fills one.
///
/// Where it fills large pages it asks for them: one fault brings in what five hundred did, and kernels that walk
/// through it miss fewer translations. What is left at its end is refused large pages, so that never more is taken
/// than was asked for. Pages come with the first write.
pub(crate) fn map(bytes: usize) -> Option<NonNull<u8>> {
    let length = whole_pages(bytes)?;
    if length < LARGE_PAGE {
        return anonymous(length);
    }
    let room = length.checked_add(LARGE_PAGE - PAGE)?;
    let base = anonymous(room)?;
    let before = base.align_offset(LARGE_PAGE);
    // SAFETY: the room is what aligning takes, so the mapping goes on for `length` bytes from there.
    let start = unsafe { base.add(before) };
    // SAFETY: the parts before and after are this mapping's, and nobody knows them.
    unsafe {
        give_back(base, before);
        give_back(start.add(length), room - before - length);
        advise(start, length);
    }
    Some(start)
}

/// Gives a mapping of [`map`] back. What was in it is gone from the process's memory at once.
///
/// # Safety
/// `start` came from `map` with the same number of bytes, and nobody uses it any more.
pub(crate) unsafe fn unmap(start: NonNull<u8>, bytes: usize) {
    // SAFETY: the caller's promise; a length that was mapped is a length.
    unsafe { give_back(start, whole_pages(bytes).unwrap_or(0)) };
}

fn anonymous(length: usize) -> Option<NonNull<u8>> {
    let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
    // SAFETY: a new mapping where nothing is, of a length that is not zero.
    let base = unsafe { mmap_anonymous(std::ptr::null_mut(), length, access, flags) }.ok()?;
    NonNull::new(base.cast())
}

/// # Safety
/// The pages are mapped, and nobody uses them.
unsafe fn give_back(start: NonNull<u8>, length: usize) {
    if length > 0 {
        // SAFETY: the caller's promise. It cannot fail for whole pages of a mapping.
        let _ = unsafe { munmap(start.as_ptr().cast(), length) };
    }
}

/// # Safety
/// `start` is a large page's first byte, and so many bytes are mapped from there.
unsafe fn advise(start: NonNull<u8>, length: usize) {
    let large = length & !(LARGE_PAGE - 1);
    // SAFETY: advice about whole pages of a mapping; nothing is lost if it is refused.
    unsafe {
        let _ = madvise(start.as_ptr().cast(), large, Advice::LinuxHugepage);
        if length > large {
            let _ = madvise(start.add(large).as_ptr().cast(), length - large, Advice::LinuxNoHugepage);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn mappings_are_zero_aligned_and_writable_to_their_end() {
        for bytes in [1, PAGE, LARGE_PAGE - PAGE, LARGE_PAGE - 1, LARGE_PAGE, LARGE_PAGE + 1, 5 * LARGE_PAGE + 12_345] {
            let start = map(bytes).unwrap();
            let align = if bytes > LARGE_PAGE - PAGE { LARGE_PAGE } else { PAGE };
            assert_eq!(start.as_ptr() as usize % align, 0, "{bytes} bytes");
            // SAFETY: so many bytes are mapped, and nobody else knows them.
            let values = unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), bytes) };
            assert!(values.iter().all(|v| *v == 0), "{bytes} bytes");
            values.fill(7);
            // SAFETY: mapped above with this size, and `values` is not used again.
            unsafe { unmap(start, bytes) };
        }
        assert!(map(usize::MAX).is_none() && map(usize::MAX - LARGE_PAGE).is_none());
    }
}

//! Host memory that the GPU copies from without staging.

use std::ptr::NonNull;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use super::context::Context;
use super::error::CudaError;
use super::sys;

const PAGE: usize = 4096;
/// The large page of today's processors; a mapping that starts at one takes a five hundredth of the work to lock.
const LARGE_PAGE: usize = 2 << 20;

/// Host memory, of which the first bytes are locked for the GPU: exactly those that were asked for, where a driver that
/// allocates them itself rounds up to a power of two or keeps them in a cache.
pub struct Pinned {
    context: Context,
    start: NonNull<u8>,
    bytes: usize,
    pinned: usize,
    mapping: (NonNull<u8>, usize),
}

// SAFETY: it is plain memory; who reads and writes it when is the word of those who call `read` and `write`.
unsafe impl Send for Pinned {}
// SAFETY: as above.
unsafe impl Sync for Pinned {}

impl std::fmt::Debug for Pinned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pinned({} of {} bytes)", self.pinned, self.bytes)
    }
}

impl Pinned {
    /// Memory of so many bytes, zeroed, of which none is locked yet; nothing if the system has no room for it.
    #[must_use]
    pub fn allocate(context: &Context, bytes: usize) -> Option<Self> {
        let align = if bytes < LARGE_PAGE { PAGE } else { LARGE_PAGE };
        let length = bytes.max(1).checked_next_multiple_of(PAGE)?.checked_add(align - PAGE)?;
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a new mapping where nothing is, of a length that is not zero.
        let base = unsafe { mmap_anonymous(std::ptr::null_mut(), length, access, flags) }.ok()?;
        let base = NonNull::new(base.cast::<u8>())?;
        // SAFETY: the padding is what aligning takes, and the mapping has room for it.
        let start = unsafe { base.add(base.align_offset(align)) };
        if align == LARGE_PAGE {
            // SAFETY: advice about whole pages of the mapping; nothing is lost if it is refused.
            let _ = unsafe { madvise(start.as_ptr().cast(), bytes & !(PAGE - 1), Advice::LinuxHugepage) };
        }
        Some(Self { context: context.clone(), start, bytes, pinned: 0, mapping: (base, length) })
    }

    /// Locks the first bytes, rounded down to whole pages unless it is all of them.
    ///
    /// # Errors
    /// [`CudaError::PinRefused`] if the system does not lock so much; nothing is locked then.
    pub fn pin(&mut self, bytes: usize) -> Result<(), CudaError> {
        let bytes = if bytes >= self.bytes { self.bytes } else { bytes & !(PAGE - 1) };
        if bytes == 0 || self.pinned > 0 {
            return Ok(());
        }
        let api = self.context.bind()?;
        let (start, flags) = (self.start.as_ptr().cast(), sys::MEMHOSTREGISTER_PORTABLE);
        // SAFETY: the range is inside the mapping and not registered yet.
        let code = unsafe { (api.cuMemHostRegister_v2)(start, bytes, flags) };
        if matches!(code, sys::OUT_OF_MEMORY | sys::NOT_PERMITTED | sys::NOT_SUPPORTED) {
            let name = self.context.driver().name(code);
            return Err(CudaError::PinRefused { requested: bytes as u64, name });
        }
        self.context.check("cuMemHostRegister", code)?;
        self.pinned = bytes;
        Ok(())
    }

    /// Its size.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many of its first bytes are locked.
    #[must_use]
    pub fn pinned(&self) -> usize {
        self.pinned
    }

    /// Its first byte.
    #[must_use]
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// The address of a byte.
    #[must_use]
    pub fn address(&self, offset: usize) -> *const u8 {
        assert!(offset <= self.bytes, "an address outside its memory");
        // SAFETY: inside the mapping, or at its end.
        unsafe { self.start.as_ptr().add(offset) }
    }

    /// Bytes of it.
    ///
    /// # Safety
    /// Nobody writes them until the slice is gone, copies of the GPU's included.
    #[must_use]
    pub unsafe fn read(&self, offset: usize, bytes: usize) -> &[u8] {
        assert!(offset.checked_add(bytes).is_some_and(|end| end <= self.bytes), "a view outside its memory");
        // SAFETY: inside the mapping, which is zeroed; the rest is the caller's word.
        unsafe { std::slice::from_raw_parts(self.address(offset), bytes) }
    }

    /// Bytes of it, to be written.
    ///
    /// # Safety
    /// Nobody reads or writes them until the slice is gone, copies of the GPU's included.
    #[must_use]
    #[allow(clippy::mut_from_ref)] // the caller's promise stands in for the borrow
    pub unsafe fn write(&self, offset: usize, bytes: usize) -> &mut [u8] {
        assert!(offset.checked_add(bytes).is_some_and(|end| end <= self.bytes), "a write outside its memory");
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().add(offset), bytes) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.pinned > 0
            && let Ok(api) = self.context.bind()
        {
            // SAFETY: registered by `pin`, once.
            let _ = unsafe { (api.cuMemHostUnregister)(self.start.as_ptr().cast()) };
        }
        let (base, length) = self.mapping;
        // SAFETY: mapped in `allocate`, and nobody else knows it any more. It cannot fail for a whole mapping.
        let _ = unsafe { munmap(base.as_ptr().cast(), length) };
    }
}

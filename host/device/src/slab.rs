//! Device buffers of the CPU, and typed views of what lies in them.

use std::ptr::NonNull;
use std::sync::Arc;

use half::{bf16, f16};
use loadline_core::{Bytes, DType};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use crate::memory::{self, Domain};

/// The page. Slabs start at one, so that they never share a page and reads into them need no bounce buffer.
const PAGE: usize = 4096;
/// The large page of today's processors.
const LARGE_PAGE: usize = 2 << 20;

/// A fixed buffer that blocks are loaded into.
///
/// The engine's order is what makes sharing sound: a slab is written by the copy thread only while no task
/// that reads it is running, which `check` proves for every plan before it runs.
#[derive(Debug)]
pub struct Slab {
    start: NonNull<u8>,
    bytes: usize,
    /// What was mapped to hold it.
    mapping: (NonNull<u8>, usize),
    /// Whose bytes it was counted as, if it was.
    counted: Option<Domain>,
}

// SAFETY: a slab is plain memory; see the type's documentation for who writes when.
unsafe impl Send for Slab {}
// SAFETY: as above.
unsafe impl Sync for Slab {}

impl Slab {
    /// A zeroed slab, or nothing if the system has no memory for it.
    ///
    /// It is a mapping of its own and not a piece of the heap: allocating takes the same time whatever was freed
    /// before, and what is freed is the system's at once. Large slabs ask for large pages: a fifth of the time to
    /// allocate, and fewer misses when kernels walk through weights.
    #[must_use]
    pub fn allocate(bytes: Bytes) -> Option<Arc<Self>> {
        Self::in_domain(Domain::Device, bytes)
    }

    /// The same for the copy of a block that the host keeps.
    pub(crate) fn in_domain(domain: Domain, bytes: Bytes) -> Option<Arc<Self>> {
        let bytes = usize::try_from(bytes.0).ok()?.max(1);
        let align = if bytes < LARGE_PAGE { PAGE } else { LARGE_PAGE };
        let length = bytes.checked_next_multiple_of(PAGE)?.checked_add(align - PAGE)?;
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
        // SAFETY: the mapping has so many bytes from there. Writing them brings the pages in, so that no load has to.
        unsafe { start.write_bytes(0, bytes) };
        let counted = memory::claim(domain, bytes).then_some(domain);
        Some(Arc::new(Self { start, bytes, mapping: (base, length), counted }))
    }

    /// Its size.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn read(&self, offset: usize, len: usize) -> &[u8] {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.bytes), "a view outside its slab");
        // SAFETY: the range is inside the allocation, which was zeroed, so it is initialised.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(offset), len) }
    }

    /// The part of the slab that a load writes.
    ///
    /// # Safety
    /// Nobody may read or write the range until the returned slice is gone.
    #[must_use]
    #[allow(clippy::mut_from_ref)] // the caller's promise stands in for the borrow
    pub(crate) unsafe fn write(&self, offset: usize, len: usize) -> &mut [u8] {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.bytes), "a write outside its slab");
        // SAFETY: the range is inside the allocation, and the caller promises that it is nobody else's.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().add(offset), len) }
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        if let Some(domain) = self.counted {
            memory::release(domain, self.bytes);
        }
        let (base, length) = self.mapping;
        // SAFETY: mapped in `allocate`, and nobody else knows it any more. It cannot fail for a whole mapping.
        let _ = unsafe { munmap(base.as_ptr().cast(), length) };
    }
}

/// One tensor in a slab.
#[derive(Clone, Debug)]
pub struct SlabView {
    /// The slab.
    pub slab: Arc<Slab>,
    /// The tensor's first byte.
    pub offset: usize,
    /// The number of elements.
    pub elements: usize,
    /// The element type.
    pub dtype: DType,
}

impl SlabView {
    fn bytes(&self) -> &[u8] {
        self.slab.read(self.offset, self.elements * self.dtype.element_bytes() as usize)
    }

    /// The elements, if they are f32.
    #[must_use]
    pub fn f32(&self) -> Option<&[f32]> {
        (self.dtype == DType::F32).then(|| bytemuck::cast_slice(self.bytes()))
    }

    /// The elements, if they are bf16.
    #[must_use]
    pub fn bf16(&self) -> Option<&[bf16]> {
        (self.dtype == DType::Bf16).then(|| bytemuck::cast_slice(self.bytes()))
    }

    /// The elements, if they are f16.
    #[must_use]
    pub fn f16(&self) -> Option<&[f16]> {
        (self.dtype == DType::F16).then(|| bytemuck::cast_slice(self.bytes()))
    }
}

//! Device buffers of the CPU, and typed views of what lies in them.

use std::ptr::NonNull;
use std::sync::Arc;

use half::{bf16, f16};
use loadline_core::{Bytes, DType};

use crate::mapping::{PAGE, map, unmap};
use crate::memory::{self, Domain};

/// A fixed buffer that blocks are loaded into.
///
/// The engine's order is what makes sharing sound: a slab is written by the copy thread only while no task
/// that reads it is running, which `check` proves for every plan before it runs.
#[derive(Debug)]
pub struct Slab {
    start: NonNull<u8>,
    bytes: usize,
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
        let start = map(bytes)?;
        bring_in(start, bytes);
        let counted = memory::claim(domain, bytes).then_some(domain);
        Some(Arc::new(Self { start, bytes, counted }))
    }

    /// Its size.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Its first byte.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
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

/// Writes a byte of every page of a new mapping, so that no load has to wait for the system to bring pages in. They
/// come zeroed; to write all of them again would take a quarter more time.
fn bring_in(start: NonNull<u8>, bytes: usize) {
    for page in (0..bytes).step_by(PAGE) {
        // SAFETY: the byte lies in the mapping, which nobody else knows yet.
        unsafe { start.add(page).write_volatile(0) };
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        if let Some(domain) = self.counted {
            memory::release(domain, self.bytes);
        }
        // SAFETY: mapped in `in_domain` with this size, and nobody else knows it any more.
        unsafe { unmap(self.start, self.bytes) };
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
    /// The tensor as it lies there; behind the elements of an 8-bit float tensor comes its scale.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.slab.read(self.offset, self.dtype.bytes(self.elements as u64).0 as usize)
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

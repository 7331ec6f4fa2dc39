//! How many bytes are live on the CPU's "device", counted where they are allocated.
//!
//! A program that wants true numbers installs [`Counting`] as its global allocator. Allocations of at least
//! [`COUNTED_FROM`] bytes carry a tag in front of them that says which domain they belong to, so that giving them back
//! is counted right whatever thread does it and whenever.
//!
//! Which domain: *device* if a stage is running ([`Stage`]) or the thread says so, *host* otherwise or if the
//! thread says so ([`within`]). Host are output frames, checkpoints and the buffers that files are read through.
//!
//! Allocations of at least [`MAPPED_FROM`] bytes are mappings of their own: their pages come 2 MiB at a time and not
//! 4 KiB, and what is freed is the system's at once, so that the process holds what is counted and no more.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use loadline_core::Bytes;

use crate::mapping::{map, unmap};

/// Smaller allocations are not counted: they are bookkeeping, not tensors.
pub const COUNTED_FROM: usize = 4096;

/// Whose bytes an allocation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Domain {
    /// Ordinary host memory.
    Host = 1,
    /// The device's memory.
    Device = 2,
}

static STAGE: AtomicBool = AtomicBool::new(false);
static INSTALLED: AtomicBool = AtomicBool::new(false);
static LIVE: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
static PEAK: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
static SINCE: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
static COUNT: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

thread_local! {
    // Zero for "as the stage says". Constant and without a destructor, so that an allocator may use it.
    static OVERRIDE: Cell<u8> = const { Cell::new(0) };
}

fn domain() -> Domain {
    let forced = OVERRIDE.try_with(Cell::get).unwrap_or(0);
    match forced {
        1 => Domain::Host,
        2 => Domain::Device,
        _ if STAGE.load(Ordering::Relaxed) => Domain::Device,
        _ => Domain::Host,
    }
}

fn index(domain: Domain) -> usize {
    domain as usize - 1
}

/// Runs `body` with this thread's allocations belonging to `domain`.
pub fn within<R>(domain: Domain, body: impl FnOnce() -> R) -> R {
    struct Restore(u8);
    impl Drop for Restore {
        fn drop(&mut self) {
            OVERRIDE.with(|o| o.set(self.0));
        }
    }
    let _restore = Restore(OVERRIDE.with(|o| o.replace(domain as u8)));
    body()
}

/// While it lives, allocations of threads that do not say otherwise are the device's.
#[derive(Debug)]
pub struct Stage(());

impl Stage {
    /// Begins a stage.
    #[must_use]
    pub fn begin() -> Self {
        STAGE.store(true, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        STAGE.store(false, Ordering::Relaxed);
    }
}

/// Live bytes of a domain.
#[must_use]
pub fn live(domain: Domain) -> Bytes {
    Bytes(LIVE[index(domain)].load(Ordering::Relaxed))
}

/// The most live bytes of a domain since [`reset_peak`].
#[must_use]
pub fn peak(domain: Domain) -> Bytes {
    Bytes(PEAK[index(domain)].load(Ordering::Relaxed))
}

/// Starts a new high-water mark at what is live now.
pub fn reset_peak(domain: Domain) {
    PEAK[index(domain)].store(LIVE[index(domain)].load(Ordering::Relaxed), Ordering::Relaxed);
}

/// The most live bytes of a domain since the last call, which is another mark than [`peak`]'s: it tells which of many
/// short pieces of work took most without losing the peak of them all.
pub fn take_high(domain: Domain) -> Bytes {
    let live = LIVE[index(domain)].load(Ordering::Relaxed);
    Bytes(SINCE[index(domain)].swap(live, Ordering::Relaxed).max(live))
}

/// How often a counted allocation of a domain was made since the program began.
#[must_use]
pub fn allocations(domain: Domain) -> u64 {
    COUNT[index(domain)].load(Ordering::Relaxed)
}

/// Whether the program counts: without [`Counting`] as its allocator all numbers here are zero.
#[must_use]
pub fn is_counting() -> bool {
    INSTALLED.load(Ordering::Relaxed)
}

/// An allocator that counts, around one that allocates what is smaller than [`MAPPED_FROM`].
#[derive(Debug, Default)]
pub struct Counting<A>(pub A);

/// From this size on an allocation is a mapping of its own. glibc's allocator maps what is so large as well, a page at
/// a time; what is smaller it takes from memory that it keeps, which costs less than the system's zeroing of new pages.
pub const MAPPED_FROM: usize = 32 << 20;
/// A cache line. Large allocations start at one, so that no vector load of a tensor crosses two.
const LINE: usize = 64;

/// Whether an allocation is a mapping of its own.
fn is_mapped(layout: Layout) -> bool {
    layout.size() >= MAPPED_FROM && layout.align() <= LINE
}

/// Bytes in front of a counted allocation: its tag, in a place of its own so that the allocation keeps
/// its alignment.
fn header(layout: Layout) -> usize {
    if is_mapped(layout) { LINE } else { layout.align().max(16) }
}

fn with_header(layout: Layout) -> Option<Layout> {
    Layout::from_size_align(layout.size().checked_add(header(layout))?, layout.align().max(16)).ok()
}

fn add(domain: Domain, bytes: usize) {
    let live = LIVE[index(domain)].fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
    PEAK[index(domain)].fetch_max(live, Ordering::Relaxed);
    SINCE[index(domain)].fetch_max(live, Ordering::Relaxed);
    COUNT[index(domain)].fetch_add(1, Ordering::Relaxed);
}

/// Counts memory that no allocator handed out, where the program counts; says whether it does.
pub(crate) fn claim(domain: Domain, bytes: usize) -> bool {
    let counting = is_counting() && bytes >= COUNTED_FROM;
    if counting {
        add(domain, bytes);
    }
    counting
}

/// Gives back what was counted by [`claim`].
pub(crate) fn release(domain: Domain, bytes: usize) {
    LIVE[index(domain)].fetch_sub(bytes as u64, Ordering::Relaxed);
}

/// Bytes that no allocator handed out, such as a GPU's, counted for as long as this lives.
#[derive(Debug)]
pub struct Claim(Domain, usize);

impl Claim {
    /// Counts bytes, where the program counts.
    #[must_use]
    pub fn of(domain: Domain, bytes: Bytes) -> Self {
        let bytes = bytes.0 as usize;
        Self(domain, if claim(domain, bytes) { bytes } else { 0 })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        release(self.0, self.1);
    }
}

impl<A: GlobalAlloc> Counting<A> {
    /// # Safety
    /// As for [`GlobalAlloc::alloc`].
    unsafe fn tagged(&self, layout: Layout, allocate: impl FnOnce(&A, Layout) -> *mut u8) -> *mut u8 {
        let Some(whole) = with_header(layout) else { return std::ptr::null_mut() };
        let start = if is_mapped(layout) {
            map(whole.size()).map_or(std::ptr::null_mut(), NonNull::as_ptr)
        } else {
            allocate(&self.0, whole)
        };
        if start.is_null() {
            return start;
        }
        INSTALLED.store(true, Ordering::Relaxed);
        let domain = domain();
        add(domain, layout.size());
        // SAFETY: `start` has room for the header, which is at least 16 bytes, before the part that is handed out.
        unsafe {
            start.write(domain as u8);
            start.add(header(layout))
        }
    }
}

// SAFETY: every counted allocation is a mapping or one of `A`, with a header in front; the same layout gives the same
// source and header again when it is freed. Mappings are zeros. The rest goes to `A` as it is.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Counting<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() < COUNTED_FROM {
            // SAFETY: the caller keeps the contract of `alloc`.
            return unsafe { self.0.alloc(layout) };
        }
        // SAFETY: the caller keeps the contract of `alloc`, and the size is not zero.
        unsafe { self.tagged(layout, |a, whole| a.alloc(whole)) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.size() < COUNTED_FROM {
            // SAFETY: the caller keeps the contract of `alloc_zeroed`.
            return unsafe { self.0.alloc_zeroed(layout) };
        }
        // SAFETY: the caller keeps the contract of `alloc_zeroed`, and the size is not zero.
        unsafe { self.tagged(layout, |a, whole| a.alloc_zeroed(whole)) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        if layout.size() < COUNTED_FROM {
            // SAFETY: the caller keeps the contract of `dealloc`.
            return unsafe { self.0.dealloc(ptr, layout) };
        }
        // SAFETY: `ptr` came from `tagged` with this layout, so its header lies in front of it, and the layout tells
        // where both are from.
        unsafe {
            let start = ptr.sub(header(layout));
            let slot = usize::from(start.read() == Domain::Device as u8);
            LIVE[slot].fetch_sub(layout.size() as u64, Ordering::Relaxed);
            match (with_header(layout), NonNull::new(start)) {
                (Some(whole), Some(start)) if is_mapped(layout) => unmap(start, whole.size()),
                (Some(whole), _) => self.0.dealloc(start, whole),
                (None, _) => {}
            }
        }
    }
    // `realloc` is the default one: a new allocation, a copy, and the old one freed, each counted. A
    // tensor never grows, so its cost is that of bookkeeping.
}

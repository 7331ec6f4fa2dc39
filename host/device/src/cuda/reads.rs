//! Reading blocks, by functions that the driver calls in the order of the read queue.

use std::any::Any;
use std::collections::BTreeSet;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use loadline_core::BlockId;
use loadline_cuda::driver::Pinned;
use loadline_engine::DeviceError;

use super::homes::Home;
use crate::copier::linger;
use crate::disk::{BlockReader, DiskOptions, Target};
use crate::memory::{Domain, within};
use crate::source::Sources;

/// What the functions share.
pub(super) struct Reads {
    state: Mutex<State>,
    /// Whether one has failed. What comes after it would compute with old weights, so nothing more is read.
    failed: AtomicBool,
    /// How many times as long a read from disk is to take as it does.
    slower: AtomicU32,
}

struct State {
    reader: BlockReader,
    error: Option<DeviceError>,
    /// Blocks whose numbers were looked at; a block that is loaded for every pass is looked at once.
    seen: BTreeSet<BlockId>,
}

/// Memory that a block is read into: all of it is the reader's until the next function of the queue.
pub(super) struct Place {
    start: NonNull<u8>,
    bytes: usize,
    owner: Arc<dyn Any + Send + Sync>,
}

// SAFETY: plain memory that the owner keeps; the order of the read queue says whose it is.
unsafe impl Send for Place {}

impl Place {
    pub(super) fn buffer(memory: &Arc<Pinned>) -> Self {
        Self { start: memory.start(), bytes: memory.bytes(), owner: Arc::<Pinned>::clone(memory) }
    }

    pub(super) fn home(home: &Arc<Home>) -> Self {
        Self { start: home.memory.start(), bytes: home.memory.bytes(), owner: Arc::<Home>::clone(home) }
    }
}

impl Reads {
    pub(super) fn new(options: DiskOptions) -> Arc<Self> {
        let state = State { reader: BlockReader::new(options), error: None, seen: BTreeSet::new() };
        Arc::new(Self { state: Mutex::new(state), failed: AtomicBool::new(false), slower: AtomicU32::new(1) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every function leaves it whole, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes reads from disk that start from now on take so many times as long.
    pub(super) fn slow_disk(&self, times: u32) {
        self.slower.store(times.max(1), Ordering::Relaxed);
    }

    /// Other sources are other blocks under the same names.
    pub(super) fn forget(&self) {
        self.state().seen.clear();
    }

    /// Whether something has failed; tells it once, and from then on reads go on.
    pub(super) fn take_error(&self) -> Option<DeviceError> {
        if !self.failed.load(Ordering::Acquire) {
            return None;
        }
        let error = self.state().error.take();
        self.failed.store(false, Ordering::Release);
        error
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Reads a block, unless something has failed. Gives whether it did.
    pub(super) fn read(&self, sources: &Arc<Sources>, block: BlockId, into: Place, from_disk: bool) -> bool {
        if self.has_failed() {
            return false;
        }
        let begun = Instant::now();
        let result = within(Domain::Host, || self.state().read(sources, block, into));
        if from_disk {
            linger(begun.elapsed(), self.slower.load(Ordering::Relaxed));
        }
        let Err(error) = result else { return true };
        self.state().error = Some(error);
        self.failed.store(true, Ordering::Release);
        false
    }
}

impl State {
    fn read(&mut self, sources: &Arc<Sources>, block: BlockId, into: Place) -> Result<(), DeviceError> {
        let look = !self.seen.contains(&block);
        // SAFETY: the mapping is zeroed, and its owner keeps it.
        let target = unsafe { Target::new(into.start, into.bytes, into.owner) };
        // SAFETY: this comes back when the block has come, and the queue's order keeps everybody else away until then.
        let number = unsafe { self.reader.begin(sources, block.0 as usize, target, look) };
        while !self.reader.is_idle() {
            let Some(brought) = self.reader.advance() else { continue };
            if brought.number == number {
                brought.result?;
            }
        }
        self.seen.insert(block);
        Ok(())
    }
}

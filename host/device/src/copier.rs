//! The copy engine of the CPU: one thread that brings blocks into slabs, in the order of the queue.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use loadline_core::{BlockId, Nanos, Tier};
use loadline_engine::{DeviceError, LoadOrder, Span};

use crate::memory::{Domain, within};
use crate::slab::Slab;
use crate::source::{BlockSource, Look, WeightFiles};

/// Where the blocks of the running job come from.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    pub(crate) files: WeightFiles,
    pub(crate) blocks: Vec<BlockSource>,
}

struct Order {
    load: LoadOrder,
    slab: Arc<Slab>,
    sources: Arc<Sources>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Order>,
    done: Vec<(LoadOrder, Span)>,
    queued: u64,
    finished: u64,
    failed: Option<DeviceError>,
    closed: bool,
}

/// A queue and its thread.
pub(crate) struct Copier {
    shared: Arc<(Mutex<Queue>, Condvar)>,
    /// How many times as long a read is to take as it does.
    slower: Arc<AtomicU32>,
    thread: Option<JoinHandle<()>>,
}

fn lock(shared: &(Mutex<Queue>, Condvar)) -> MutexGuard<'_, Queue> {
    shared.0.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Copier {
    pub(crate) fn start(clock: Instant) -> std::io::Result<Self> {
        let shared: Arc<(Mutex<Queue>, Condvar)> = Arc::default();
        let slower = Arc::new(AtomicU32::new(1));
        let (worker, pace) = (Arc::clone(&shared), Arc::clone(&slower));
        let run = move || within(Domain::Host, || work(&worker, &pace, clock));
        let thread = std::thread::Builder::new().name("loadline-copy".into()).spawn(run)?;
        Ok(Self { shared, slower, thread: Some(thread) })
    }

    /// Makes reads that start from now on take so many times as long.
    pub(crate) fn slow_disk(&self, times: u32) {
        self.slower.store(times.max(1), Ordering::Relaxed);
    }

    /// Queues a load; it is done when [`wait`](Self::wait) for the returned number comes back.
    pub(crate) fn queue(&self, load: LoadOrder, slab: Arc<Slab>, sources: Arc<Sources>) -> u64 {
        let mut queue = lock(&self.shared);
        queue.waiting.push_back(Order { load, slab, sources });
        queue.queued += 1;
        self.shared.1.notify_all();
        queue.queued
    }

    /// Waits until that many loads have finished.
    pub(crate) fn wait(&self, count: u64) -> Result<(), DeviceError> {
        let mut queue = lock(&self.shared);
        while queue.finished < count && queue.failed.is_none() {
            queue = self.shared.1.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        match queue.failed.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Waits until the queue is empty and hands out what was done.
    pub(crate) fn settle(&self, spans: &mut dyn FnMut(LoadOrder, Span)) -> Result<(), DeviceError> {
        let all = lock(&self.shared).queued;
        let result = self.wait(all);
        for (order, span) in lock(&self.shared).done.drain(..) {
            spans(order, span);
        }
        result
    }
}

impl Drop for Copier {
    fn drop(&mut self) {
        lock(&self.shared).closed = true;
        self.shared.1.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic in the thread was our bug and has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

fn work(shared: &(Mutex<Queue>, Condvar), slower: &AtomicU32, clock: Instant) {
    let mut brought = Brought::default();
    loop {
        let mut queue = lock(shared);
        let order = loop {
            if queue.closed {
                return;
            }
            if let Some(order) = queue.waiting.pop_front() {
                break order;
            }
            queue = shared.1.wait(queue).unwrap_or_else(PoisonError::into_inner);
        };
        drop(queue);
        let start = Nanos(clock.elapsed().as_nanos() as u64);
        let result = brought.bring(&order);
        if order.load.home == Tier::Disk {
            linger(clock.elapsed() - Duration::from_nanos(start.0), slower.load(Ordering::Relaxed));
        }
        let end = Nanos(clock.elapsed().as_nanos() as u64);
        let mut queue = lock(shared);
        queue.finished += 1;
        match result {
            Ok(()) => queue.done.push((order.load, Span { start, end })),
            Err(error) => {
                // What comes after a failed load would compute with old weights: nothing more is done.
                queue.finished += queue.waiting.drain(..).count() as u64;
                queue.failed = Some(error);
            }
        }
        shared.1.notify_all();
    }
}

/// Makes what took so long take `times` as long.
fn linger(took: Duration, times: u32) {
    if times > 1 {
        std::thread::sleep(took * (times - 1));
    }
}

/// What the thread knows of one job's sources.
#[derive(Default)]
struct Brought {
    of: Option<Arc<Sources>>,
    /// Host copies of blocks whose home is the host.
    masters: BTreeMap<BlockId, Arc<Slab>>,
    /// Blocks whose numbers were looked at; a block that is loaded for every pass is looked at once.
    seen: BTreeSet<BlockId>,
}

impl Brought {
    fn bring(&mut self, order: &Order) -> Result<(), DeviceError> {
        if self.of.as_ref().is_none_or(|of| !Arc::ptr_eq(of, &order.sources)) {
            *self = Self { of: Some(Arc::clone(&order.sources)), ..Self::default() };
        }
        let (block, source) = (order.load.block, &order.sources.blocks[order.load.block.0 as usize]);
        let length = slab_length(source);
        // SAFETY: the engine queues a load only when no task reads the slab, and runs the next task that
        // does only after this load has finished; one thread does all loads.
        let target = unsafe { order.slab.write(0, length) };
        if order.load.home == Tier::Disk {
            return self.read(&order.sources.files, block, source, target);
        }
        if let Some(master) = self.masters.get(&block) {
            target.copy_from_slice(master.read(0, length));
            return Ok(());
        }
        let requested = loadline_core::Bytes(length as u64);
        let master = Slab::in_domain(Domain::Host, requested).ok_or(DeviceError::OutOfHostMemory { requested })?;
        // SAFETY: nobody else knows the slab yet.
        let copy = unsafe { master.write(0, length) };
        self.read(&order.sources.files, block, source, copy)?;
        target.copy_from_slice(copy);
        self.masters.insert(block, master);
        Ok(())
    }

    fn read(
        &mut self,
        files: &WeightFiles,
        block: BlockId,
        source: &BlockSource,
        target: &mut [u8],
    ) -> Result<(), DeviceError> {
        let look = if self.seen.contains(&block) { Look::Away } else { Look::Close };
        read(files, source, target, look)?;
        self.seen.insert(block);
        Ok(())
    }
}

/// Reads one block into a slab of its own, outside of any run; its numbers may be any.
///
/// # Errors
/// If the file cannot be read or there is no memory for the slab.
pub fn load_block(files: &WeightFiles, source: &BlockSource) -> Result<Arc<Slab>, DeviceError> {
    let length = slab_length(source);
    let requested = loadline_core::Bytes(length as u64);
    let slab = Slab::allocate(requested).ok_or(DeviceError::OutOfDeviceMemory { requested })?;
    // SAFETY: nobody else knows the slab yet.
    read(files, source, unsafe { slab.write(0, length) }, Look::Away)?;
    Ok(slab)
}

fn slab_length(source: &BlockSource) -> usize {
    let ends = source.segments.iter().map(|s| s.place + s.elements * s.dtype.element_bytes() as usize);
    ends.max().unwrap_or(0)
}

fn read(files: &WeightFiles, source: &BlockSource, target: &mut [u8], look: Look) -> Result<(), DeviceError> {
    for segment in &source.segments {
        let bytes = segment.elements * segment.dtype.element_bytes() as usize;
        files.read_segment(segment, &mut target[segment.place..segment.place + bytes], look)?;
    }
    Ok(())
}

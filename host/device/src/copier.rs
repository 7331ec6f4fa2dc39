//! The copy engine of the CPU: one thread that brings blocks into slabs, in the order of the queue.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use loadline_core::{BlockId, Nanos, Tier};
use loadline_engine::{DeviceError, LoadOrder, Span};

use crate::disk::{BlockReader, DiskOptions, Report, Target};
use crate::memory::{Domain, within};
use crate::slab::Slab;
use crate::source::{BlockSource, Look, Sources, WeightFiles};
use crate::turns::take_short_turns;

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
    /// Lets the next read fail.
    failing: Arc<AtomicBool>,
    report: Arc<Mutex<Report>>,
    thread: Option<JoinHandle<()>>,
}

fn lock(shared: &(Mutex<Queue>, Condvar)) -> MutexGuard<'_, Queue> {
    shared.0.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Copier {
    pub(crate) fn start(clock: Instant, options: DiskOptions) -> std::io::Result<Self> {
        let shared: Arc<(Mutex<Queue>, Condvar)> = Arc::default();
        let slower = Arc::new(AtomicU32::new(1));
        let reader = BlockReader::new(options);
        let (failing, report) = (reader.failing(), reader.report());
        let (worker, pace) = (Arc::clone(&shared), Arc::clone(&slower));
        let run = move || {
            take_short_turns();
            within(Domain::Host, || work(&worker, Lane::new(reader, pace, clock)));
        };
        let thread = std::thread::Builder::new().name("loadline-copy".into()).spawn(run)?;
        Ok(Self { shared, slower, failing, report, thread: Some(thread) })
    }

    /// What became of reading so far.
    pub(crate) fn report(&self) -> Report {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets the next read fail as if the disk could not do it.
    pub(crate) fn fail_read(&self) {
        self.failing.store(true, Ordering::Relaxed);
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

    /// Hands out what was done since the queue was last waited for, and keeps it.
    pub(crate) fn arrived(&self, spans: &mut dyn FnMut(LoadOrder, Span)) {
        lock(&self.shared).done.iter().for_each(|(order, span)| spans(*order, *span));
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

fn work(shared: &(Mutex<Queue>, Condvar), mut lane: Lane) {
    while let Some(orders) = take(shared, &lane) {
        orders.into_iter().for_each(|order| lane.begin(order));
        let Some((load, span, result)) = lane.advance() else { continue };
        let mut queue = lock(shared);
        queue.finished += 1;
        match result {
            Ok(()) => queue.done.push((load, span)),
            Err(error) => {
                // What comes after a failed load would compute with old weights: nothing more is done.
                queue.finished += queue.waiting.drain(..).count() as u64 + lane.cancel();
                queue.failed = Some(error);
            }
        }
        shared.1.notify_all();
    }
}

/// Waits until something is to do and takes what may begin; nothing at the end.
fn take(shared: &(Mutex<Queue>, Condvar), lane: &Lane) -> Option<Vec<Order>> {
    let mut queue = lock(shared);
    loop {
        if queue.closed {
            return None;
        }
        let room = AHEAD.saturating_sub(lane.active.len()).min(queue.waiting.len());
        if room > 0 || !lane.active.is_empty() {
            return Some(queue.waiting.drain(..room).collect());
        }
        queue = shared.1.wait(queue).unwrap_or_else(PoisonError::into_inner);
    }
}

/// Loads that are under way at once: while the last reads of one are in flight those of the next begin.
pub(crate) const AHEAD: usize = 3;

/// A load that is under way.
struct Active {
    order: Order,
    from: From,
    begun: Nanos,
}

/// Where a load's bytes come from.
enum From {
    /// Read into the slab.
    File,
    /// Read into the host's copy, which is then copied.
    Filling(Arc<Slab>),
    /// The host's copy is there, or is before this load's turn comes.
    Master,
    /// Nowhere.
    Failed(DeviceError),
}

/// Loads in their order, and what the thread knows of one job's sources.
struct Lane {
    reader: BlockReader,
    slower: Arc<AtomicU32>,
    clock: Instant,
    active: VecDeque<Active>,
    /// When the last load ended.
    ended: Nanos,
    of: Option<Arc<Sources>>,
    /// Host copies of blocks whose home is the host.
    masters: BTreeMap<BlockId, Arc<Slab>>,
    /// Blocks whose numbers were looked at; a block that is loaded for every pass is looked at once.
    seen: BTreeSet<BlockId>,
}

impl Lane {
    fn new(reader: BlockReader, slower: Arc<AtomicU32>, clock: Instant) -> Self {
        Self {
            reader,
            slower,
            clock,
            active: VecDeque::new(),
            ended: Nanos::ZERO,
            of: None,
            masters: BTreeMap::new(),
            seen: BTreeSet::new(),
        }
    }

    fn now(&self) -> Nanos {
        Nanos(self.clock.elapsed().as_nanos() as u64)
    }

    fn begin(&mut self, order: Order) {
        if self.of.as_ref().is_none_or(|of| !Arc::ptr_eq(of, &order.sources)) {
            (self.of, self.masters, self.seen) = (Some(Arc::clone(&order.sources)), BTreeMap::new(), BTreeSet::new());
        }
        let begun = self.now();
        let from = self.source(&order);
        let slab = match &from {
            From::File => Some(&order.slab),
            From::Filling(master) => Some(master),
            From::Master | From::Failed(_) => None,
        };
        if let Some(slab) = slab {
            let (block, target) = (order.load.block, Target::slab(slab));
            let look = !self.seen.contains(&block);
            // SAFETY: the engine queues a load only when no task reads the slab, and runs the next task that does only
            // after this load has finished; one thread does all loads, and nobody else knows a new host copy.
            unsafe { self.reader.begin(&order.sources, block.0 as usize, target, look) };
        }
        self.active.push_back(Active { order, from, begun });
    }

    fn source(&self, order: &Order) -> From {
        let block = order.load.block;
        if order.load.home == Tier::Disk {
            return From::File;
        }
        let fills = |a: &Active| a.order.load.block == block && matches!(a.from, From::Filling(_));
        if self.masters.contains_key(&block) || self.active.iter().any(fills) {
            return From::Master;
        }
        let requested = loadline_core::Bytes(order.sources.blocks[block.0 as usize].length() as u64);
        match Slab::in_domain(Domain::Host, requested) {
            Some(master) => From::Filling(master),
            None => From::Failed(DeviceError::OutOfHostMemory { requested }),
        }
    }

    /// Goes on with what is under way; gives the first load if it has ended.
    fn advance(&mut self) -> Option<(LoadOrder, Span, Result<(), DeviceError>)> {
        let result = match self.active.front()?.from {
            From::File | From::Filling(_) => self.reader.advance()?.result,
            From::Master | From::Failed(_) => Ok(()),
        };
        let Active { order, from, begun } = self.active.pop_front()?;
        let result = result.and_then(|()| self.complete(&order, from));
        let start = begun.max(self.ended);
        if order.load.home == Tier::Disk {
            linger(self.clock.elapsed() - Duration::from_nanos(start.0), self.slower.load(Ordering::Relaxed));
        }
        self.ended = self.now();
        Some((order.load, Span { start, end: self.ended }, result))
    }

    /// What is left to do when a block's bytes have come.
    fn complete(&mut self, order: &Order, from: From) -> Result<(), DeviceError> {
        let block = order.load.block;
        match from {
            From::Failed(error) => return Err(error),
            From::Filling(master) => {
                self.masters.insert(block, master);
            }
            From::File | From::Master => {}
        }
        self.seen.insert(block);
        if order.load.home != Tier::Disk
            && let Some(master) = self.masters.get(&block)
        {
            let length = order.sources.blocks[block.0 as usize].length();
            // SAFETY: as where reading began.
            unsafe { order.slab.write(0, length) }.copy_from_slice(master.read(0, length));
        }
        Ok(())
    }

    /// Forgets what is under way; gives how many loads that were.
    fn cancel(&mut self) -> u64 {
        self.reader.cancel();
        self.active.drain(..).count() as u64
    }
}

/// Makes what took so long take `times` as long.
pub(crate) fn linger(took: Duration, times: u32) {
    if times > 1 {
        std::thread::sleep(took * (times - 1));
    }
}

/// Reads one block into a slab of its own, outside of any run, through the page cache; its numbers may be any.
///
/// # Errors
/// If the file cannot be read or there is no memory for the slab.
pub fn load_block(files: &WeightFiles, source: &BlockSource) -> Result<Arc<Slab>, DeviceError> {
    let length = source.length();
    let requested = loadline_core::Bytes(length as u64);
    let slab = Slab::allocate(requested).ok_or(DeviceError::OutOfDeviceMemory { requested })?;
    // SAFETY: nobody else knows the slab yet.
    let target = unsafe { slab.write(0, length) };
    for segment in &source.segments {
        let place = segment.place..segment.place + segment.slab_bytes(segment.elements);
        files.read_segment(segment, &mut target[place], Look::Away)?;
    }
    Ok(slab)
}

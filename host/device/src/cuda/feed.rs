//! Bringing blocks to the GPU: the queue that reads, the queue that copies, and what lies between them.

use std::sync::Arc;

use loadline_core::{BlockId, Bytes, Tier};
use loadline_cuda::driver::{Context, CudaError, Event, Pinned, Stream};
use loadline_engine::{DeviceError, LoadOrder};

use super::homes::{Home, Homes};
use super::reads::{Place, Reads};
use super::ring::{PIECE, Ring};
use super::{HostLimits, Region, device_error};
use crate::disk::DiskOptions;
use crate::source::Sources;

/// Brings blocks, one after the other in the order in which they are asked for.
pub(super) struct Feed {
    context: Context,
    read: Stream,
    copy: Stream,
    /// The place in the read queue where the next copy may begin.
    ready: Event,
    reads: Arc<Reads>,
    homes: Homes,
    ring: Ring,
    sources: Arc<Sources>,
    limits: HostLimits,
}

impl Feed {
    pub(super) fn new(context: &Context, limits: HostLimits) -> Result<Self, CudaError> {
        Ok(Self {
            context: context.clone(),
            read: Stream::new(context)?,
            copy: Stream::new(context)?,
            ready: Event::untimed(context)?,
            reads: Reads::new(DiskOptions::default()),
            homes: Homes::new(context, limits.pinned),
            ring: Ring::default(),
            sources: Arc::default(),
            limits,
        })
    }

    pub(super) fn set_disk(&mut self, options: DiskOptions) {
        self.reads = Reads::new(options);
    }

    /// Nothing is under way.
    pub(super) fn set_sources(&mut self, sources: Sources) {
        self.homes.clear();
        self.reads.forget();
        self.sources = Arc::new(sources);
    }

    /// Nothing is under way.
    pub(super) fn set_homes(&mut self, homes: &[Tier], limits: HostLimits) {
        let bytes = |tier: Tier| {
            let blocks = self.sources.blocks.iter().zip(homes).filter(move |(_, home)| **home == tier);
            blocks.map(|(source, _)| source.length())
        };
        let from_disk = bytes(Tier::Disk).max().unwrap_or(0);
        let from_host = bytes(Tier::Host).max().unwrap_or(0).min(PIECE);
        let wanted = Bytes(bytes(Tier::Pinned).map(|bytes| bytes as u64).sum());
        // What is short passes through buffers, too.
        let short = if wanted > limits.pinned { PIECE.min(wanted.0 as usize) } else { 0 };
        let buffer = from_disk.max(from_host).max(short);
        self.limits = limits;
        self.ring = Ring::default();
        // What the plan does not have is given back before anything is locked for it.
        self.homes.plan(homes, wanted, limits.pinned);
        if buffer > 0 {
            // What is not to be had now is asked for again by the first load that needs it, which then fails.
            self.ring = Ring::new(&self.context, buffer, self.left()).unwrap_or_default();
        }
        self.homes.plan(homes, wanted, limits.pinned - Bytes(self.ring.locked()));
    }

    /// The limits, less what homes have locked.
    fn left(&self) -> HostLimits {
        HostLimits { pinned: self.limits.pinned - self.homes.locked(), ..self.limits }
    }

    pub(super) fn slow_disk(&self, times: u32) {
        self.reads.slow_disk(times);
    }

    pub(super) fn has_failed(&self) -> bool {
        self.reads.has_failed()
    }

    /// What has failed; nothing is under way.
    pub(super) fn take_error(&self) -> Option<DeviceError> {
        self.homes.reset();
        self.reads.take_error()
    }

    /// Bytes of host memory that blocks live in and pass through.
    pub(super) fn host_bytes(&self) -> u64 {
        self.homes.bytes() + self.ring.bytes()
    }

    /// Makes copies that are queued from now on wait for an event.
    pub(super) fn wait(&self, event: &Event) -> Result<(), CudaError> {
        self.copy.wait(event)
    }

    /// Waits until nothing is under way, however it ends.
    pub(super) fn rest(&self) {
        let _ = self.read.synchronize();
        let _ = self.copy.synchronize();
    }

    /// Queues a block's way to the device: to be there when `end` happens, and not to touch the target before `after`.
    pub(super) fn bring(
        &mut self,
        order: LoadOrder,
        target: Region,
        after: Option<&Event>,
        start: &Event,
        end: &Event,
    ) -> Result<(), DeviceError> {
        let bytes = self.length(order.block, target)?;
        if let Some(after) = after {
            self.copy.wait(after).map_err(device_error)?;
        }
        if order.home == Tier::Disk {
            self.through_buffer(order.block, target, bytes, start)?;
        } else {
            let home = self.homes.of(order.block, order.home, bytes)?;
            self.copy_home(order.block, &home, target, start)?;
        }
        self.copy.record(end).map_err(device_error)
    }

    fn length(&self, block: BlockId, target: Region) -> Result<usize, DeviceError> {
        let missing = || DeviceError::Compute(format!("block {} has no source", block.0));
        let bytes = self.sources.blocks.get(block.0 as usize).ok_or_else(missing)?.length();
        if bytes as u64 > target.bytes {
            let text = format!("block {} of {bytes} bytes does not fit into {}", block.0, target.bytes);
            return Err(DeviceError::Compute(text));
        }
        Ok(bytes)
    }

    /// A buffer of the ring that holds so many bytes.
    fn room_for(&mut self, bytes: usize) -> Result<(), DeviceError> {
        if self.ring.piece() < bytes {
            self.rest();
            // The old one goes first: the limits hold for one at a time.
            self.ring = Ring::default();
            self.ring = Ring::new(&self.context, bytes, self.left())?;
        }
        Ok(())
    }

    /// Disk, buffer, device. The span begins when the read does.
    fn through_buffer(
        &mut self,
        block: BlockId,
        target: Region,
        bytes: usize,
        start: &Event,
    ) -> Result<(), DeviceError> {
        self.room_for(bytes)?;
        let (reads, sources, buffer) = (Arc::clone(&self.reads), Arc::clone(&self.sources), self.ring.turn());
        let into = Place::buffer(&buffer.memory);
        let read = move || {
            // What has failed is told by the next call.
            let _ = reads.read(&sources, block, into, true);
        };
        let queued = self.read.wait(&buffer.copied);
        let queued = queued.and_then(|()| self.read.record(start)).and_then(|()| self.read.call(read));
        let queued = queued.and_then(|()| pass(&self.read, &self.copy, &self.ready));
        let locked = buffer.memory.pinned() >= bytes;
        let queued = queued.and_then(|()| if locked { Ok(()) } else { filled_before(&self.read, bytes) });
        // SAFETY: the buffer is filled when `ready` has happened, and not again before `copied` has.
        let queued =
            queued.and_then(|()| unsafe { self.copy.upload_later(target.start, buffer.memory.address(0), bytes) });
        queued.and_then(|()| self.copy.record(&buffer.copied)).map_err(device_error)
    }

    fn copy_home(
        &mut self,
        block: BlockId,
        home: &Arc<Home>,
        target: Region,
        start: &Event,
    ) -> Result<(), DeviceError> {
        let (total, locked) = (home.memory.bytes(), home.memory.pinned());
        if home.begin() {
            self.fill(block, home, start).map_err(|error| {
                home.forget();
                device_error(error)
            })?;
        } else {
            self.copy.record(start).map_err(device_error)?;
        }
        if locked > 0 {
            // SAFETY: nobody writes a home after it has been filled, and it lives until nothing is under way.
            unsafe { self.copy.upload_later(target.start, home.memory.address(0), locked) }.map_err(device_error)?;
        }
        let mut at = locked;
        while at < total {
            at += self.piece(home, at, target)?;
        }
        Ok(())
    }

    /// Brings a home its bytes, and makes copies wait for them.
    fn fill(&self, block: BlockId, home: &Arc<Home>, start: &Event) -> Result<(), CudaError> {
        let (reads, sources, home) = (Arc::clone(&self.reads), Arc::clone(&self.sources), Arc::clone(home));
        self.read.record(start)?;
        self.read.call(move || {
            if reads.read(&sources, block, Place::home(&home), false) {
                home.filled();
            }
        })?;
        pass(&self.read, &self.copy, &self.ready)
    }

    /// Brings bytes of a home that are not locked, from a place on. They pass through a buffer that is, so that nobody
    /// waits for the driver to do the same; where nothing may be locked, the driver does.
    fn piece(&mut self, home: &Arc<Home>, at: usize, target: Region) -> Result<usize, DeviceError> {
        let rest = home.memory.bytes() - at;
        if self.limits.pinned >= Bytes(2 * PIECE.min(rest) as u64) {
            self.room_for(PIECE.min(rest))?;
        }
        let to = target.start.offset(at as u64);
        if self.ring.locked() == 0 {
            filled_before(&self.read, rest).map_err(device_error)?;
            // SAFETY: see above.
            let queued = unsafe { self.copy.upload_later(to, home.memory.address(at), rest) };
            return queued.map(|()| rest).map_err(device_error);
        }
        let bytes = rest.min(self.ring.piece());
        let (buffer, home) = (self.ring.turn(), Arc::clone(home));
        let memory = Arc::clone(&buffer.memory);
        let queued =
            self.read.wait(&buffer.copied).and_then(|()| self.read.call(move || copy(&home, at, &memory, bytes)));
        let queued = queued.and_then(|()| pass(&self.read, &self.copy, &self.ready));
        // SAFETY: the buffer is filled when `ready` has happened, and not again before `copied` has.
        let queued = queued.and_then(|()| unsafe { self.copy.upload_later(to, buffer.memory.address(0), bytes) });
        queued.and_then(|()| self.copy.record(&buffer.copied)).map(|()| bytes).map_err(device_error)
    }
}

/// Of memory that is not locked the driver takes so many bytes when it is called, and not when their turn has come.
const AT_ONCE: usize = 64 << 10;

/// Waits until what is read has come, where the driver would take bytes that are not locked before.
fn filled_before(read: &Stream, bytes: usize) -> Result<(), CudaError> {
    if bytes > AT_ONCE { Ok(()) } else { read.synchronize() }
}

/// Makes one queue wait for what another one has so far.
fn pass(from: &Stream, to: &Stream, event: &Event) -> Result<(), CudaError> {
    from.record(event)?;
    to.wait(event)
}

fn copy(home: &Home, at: usize, buffer: &Pinned, bytes: usize) {
    // SAFETY: the home was filled earlier in the read queue, and the buffer is this function's until the next event.
    unsafe { buffer.write(0, bytes).copy_from_slice(home.memory.read(at, bytes)) };
}

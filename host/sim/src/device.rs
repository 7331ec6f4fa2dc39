//! The simulated device.

use loadline_core::{BlockId, Bytes, Nanos, Tier};
use loadline_engine::{Buffer, Device, DeviceError, LoadOrder, Span, TaskOrder};

use crate::times::Times;

/// A machine with a virtual clock.
pub struct SimDevice<'a> {
    times: &'a Times,
    compute: Nanos,
    link: Nanos,
    disk: Nanos,
    send: Nanos,
    /// When the buffer that disk reads pass through on their way to the link is free again.
    staging: Nanos,
    /// Whether each block's host master is filled.
    in_host: Vec<bool>,
    spans: Option<Vec<(LoadOrder, Span)>>,
    buffers: u64,
    busy_disk: Nanos,
    busy_send: Nanos,
}

impl<'a> SimDevice<'a> {
    /// A machine at time zero. With `warm` every host master is already filled; with `record` the
    /// spans of loads are kept for [`Device::settle`].
    #[must_use]
    pub fn new(times: &'a Times, blocks: usize, warm: bool, record: bool) -> Self {
        Self {
            times,
            compute: Nanos::ZERO,
            link: Nanos::ZERO,
            disk: Nanos::ZERO,
            send: Nanos::ZERO,
            staging: Nanos::ZERO,
            in_host: vec![warm; blocks],
            spans: record.then(Vec::new),
            buffers: 0,
            busy_disk: Nanos::ZERO,
            busy_send: Nanos::ZERO,
        }
    }

    /// How long the disk was busy.
    #[must_use]
    pub fn disk_busy(&self) -> Nanos {
        self.busy_disk
    }

    /// How long the link to the host was busy.
    #[must_use]
    pub fn send_busy(&self) -> Nanos {
        self.busy_send
    }

    fn read(&mut self, block: BlockId, earliest: Nanos) -> Nanos {
        let length = self.times.read(block);
        self.disk = self.disk.max(earliest) + length;
        self.busy_disk += length;
        self.disk
    }

    /// When the bytes are where the link can take them, for a machine with a link.
    fn source_ready(&mut self, order: LoadOrder) -> Nanos {
        match order.home {
            Tier::Disk => self.read(order.block, self.staging),
            _ if self.in_host[order.block.0 as usize] => Nanos::ZERO,
            _ => {
                self.in_host[order.block.0 as usize] = true;
                self.read(order.block, Nanos::ZERO)
            }
        }
    }

    fn over_the_link(&mut self, order: LoadOrder, after: Nanos) -> Span {
        let ready = self.source_ready(order);
        let start = self.link.max(after).max(ready);
        let end = start + self.times.copy(order.block, order.home);
        if order.home == Tier::Disk {
            self.staging = end;
        }
        Span { start, end }
    }

    /// One lane reads and copies: straight into the slot from disk, through the master otherwise.
    fn unified(&mut self, order: LoadOrder, after: Nanos) -> Span {
        let start = self.link.max(after);
        let missing = order.home == Tier::Disk || !self.in_host[order.block.0 as usize];
        let read = if missing { self.times.read(order.block) } else { Nanos::ZERO };
        self.busy_disk += read;
        self.in_host[order.block.0 as usize] |= order.home != Tier::Disk;
        let copy = if order.home == Tier::Disk { Nanos::ZERO } else { self.times.copy(order.block, order.home) };
        Span { start, end: start + read + copy }
    }
}

impl Device for SimDevice<'_> {
    type Event = Nanos;

    fn past(&self) -> Nanos {
        Nanos::ZERO
    }

    fn allocate(&mut self, _: Bytes) -> Result<Buffer, DeviceError> {
        self.buffers += 1;
        Ok(Buffer(self.buffers))
    }

    fn free(&mut self, _: Buffer) {}

    fn set_aside(&mut self, _: Bytes) -> Result<(), DeviceError> {
        Ok(())
    }

    fn load(&mut self, order: LoadOrder, after: Nanos) -> Result<Nanos, DeviceError> {
        let span = if self.times.unified() { self.unified(order, after) } else { self.over_the_link(order, after) };
        self.link = span.end;
        if let Some(spans) = &mut self.spans {
            spans.push((order, span));
        }
        Ok(span.end)
    }

    fn run(&mut self, order: TaskOrder, ready: Nanos) -> Result<(Nanos, Span), DeviceError> {
        let at = order.at;
        let start = self.compute.max(ready);
        let end = start + self.times.task(at.stage, order.template, at.task);
        self.compute = end;
        let send = self.times.send(at.stage, order.template, at.task);
        if send > Nanos::ZERO {
            self.send = self.send.max(end) + send;
            self.busy_send += send;
        }
        Ok((end, Span { start, end }))
    }

    fn settle(&mut self, spans: &mut dyn FnMut(LoadOrder, Span)) -> Result<Nanos, DeviceError> {
        for (order, span) in self.spans.iter_mut().flat_map(|s| s.drain(..)) {
            spans(order, span);
        }
        // The next stage starts when this one has ended: frames are out, no load is in flight.
        let end = self.compute.max(self.link).max(self.send);
        self.compute = end;
        self.link = end;
        self.disk = self.disk.max(end);
        Ok(end)
    }

    fn now(&self) -> Nanos {
        self.compute
    }
}

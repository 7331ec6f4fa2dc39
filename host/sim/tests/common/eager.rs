//! The lanes of a machine without contention, in their plainest form: each call moves a clock, nothing is put off and
//! nothing is gone over. The simulated device must agree with it to the nanosecond.

use loadline_core::{BlockId, Bytes, Nanos, Tier};
use loadline_engine::{Buffer, Device, DeviceError, LoadOrder, Span, TaskOrder};
use loadline_sim::Times;

pub struct Eager<'a> {
    times: &'a Times,
    compute: Nanos,
    link: Nanos,
    disk: Nanos,
    send: Nanos,
    staging: Nanos,
    stage: Option<usize>,
    in_host: Vec<bool>,
    spans: Vec<(LoadOrder, Span)>,
    buffers: u64,
    pub disk_busy: Nanos,
    pub send_busy: Nanos,
}

impl<'a> Eager<'a> {
    pub fn new(times: &'a Times, blocks: usize, warm: bool) -> Self {
        Self {
            times,
            compute: Nanos::ZERO,
            link: Nanos::ZERO,
            disk: Nanos::ZERO,
            send: Nanos::ZERO,
            staging: Nanos::ZERO,
            stage: None,
            in_host: vec![warm; blocks],
            spans: Vec::new(),
            buffers: 0,
            disk_busy: Nanos::ZERO,
            send_busy: Nanos::ZERO,
        }
    }

    fn read(&mut self, block: BlockId, earliest: Nanos) -> Nanos {
        let length = self.times.read(block);
        self.disk = self.disk.max(earliest) + length;
        self.disk_busy += length;
        self.disk
    }

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

    fn unified(&mut self, order: LoadOrder, after: Nanos) -> Span {
        let start = self.link.max(after);
        let missing = order.home == Tier::Disk || !self.in_host[order.block.0 as usize];
        let read = if missing { self.times.read(order.block) } else { Nanos::ZERO };
        self.disk_busy += read;
        self.in_host[order.block.0 as usize] |= order.home != Tier::Disk;
        let copy = if order.home == Tier::Disk { Nanos::ZERO } else { self.times.copy(order.block, order.home) };
        Span { start, end: start + read + copy }
    }
}

impl Device for Eager<'_> {
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
        self.spans.push((order, span));
        Ok(span.end)
    }

    fn run(&mut self, order: TaskOrder, ready: Nanos) -> Result<(Nanos, Option<Span>), DeviceError> {
        let at = order.at;
        let start = self.compute.max(ready);
        let first = self.stage.replace(at.stage) != Some(at.stage);
        let once = if first { self.times.start(at.stage) } else { Nanos::ZERO };
        let end = start + once + self.times.task(at.stage, order.template, at.task);
        self.compute = end;
        let send = self.times.send(at.stage, order.template, at.task);
        if send > Nanos::ZERO {
            self.send = self.send.max(end) + send;
            self.send_busy += send;
        }
        Ok((end, Some(Span { start, end })))
    }

    fn settle(&mut self, spans: &mut dyn FnMut(LoadOrder, Span)) -> Result<Nanos, DeviceError> {
        self.spans.drain(..).for_each(|(order, span)| spans(order, span));
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

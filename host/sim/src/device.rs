//! The simulated device.

use loadline_core::{Bytes, Nanos};
use loadline_engine::{Ahead, Buffer, Device, DeviceError, Hinder, Leap, LoadOrder, Span, TaskOrder, Totals};

use crate::loads::Loads;
use crate::steady::{Mark, Marks, Repetition, SendLane};
use crate::times::Times;

/// When something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// At a time.
    At(Nanos),
    /// When the load of that number has ended.
    Load(u64),
}

/// A machine with a virtual clock.
pub struct SimDevice<'a> {
    times: &'a Times,
    compute: Nanos,
    loads: Loads<'a>,
    send: SendLane,
    /// The stage that ran last.
    stage: Option<usize>,
    /// Absent where every call is to be simulated.
    marks: Option<Marks>,
    buffers: u64,
}

impl<'a> SimDevice<'a> {
    /// A machine at time zero. With `warm` every host master is already filled; with `full` periods are simulated
    /// again each time they repeat, which comes to the same.
    #[must_use]
    pub fn new(times: &'a Times, blocks: usize, warm: bool, full: bool) -> Self {
        Self {
            times,
            compute: Nanos::ZERO,
            loads: Loads::new(times, blocks, warm),
            send: SendLane::default(),
            stage: None,
            marks: (!full).then(Marks::default),
            buffers: 0,
        }
    }

    /// How long the disk was busy.
    #[must_use]
    pub fn disk_busy(&self) -> Nanos {
        self.loads.sums().disk
    }

    /// Bytes that were read from disk.
    #[must_use]
    pub fn disk_read(&self) -> Bytes {
        self.loads.sums().bytes
    }

    /// How long the link to the host was busy.
    #[must_use]
    pub fn send_busy(&self) -> Nanos {
        self.send.busy
    }

    fn mark(&self, next: usize, totals: &Totals) -> Mark {
        Mark {
            next,
            now: self.compute,
            loads: self.loads.state(self.compute),
            disk: self.loads.disk_state(self.compute),
            sums: self.loads.sums(),
            send: self.send,
            totals: totals.clone(),
        }
    }
}

impl Device for SimDevice<'_> {
    type Event = Moment;

    fn past(&self) -> Moment {
        Moment::At(Nanos::ZERO)
    }

    /// Nothing computes or loads while the host allocates: slots are there before their first load is ordered.
    fn allocate(&mut self, bytes: Bytes) -> Result<Buffer, DeviceError> {
        self.compute += self.times.allocation(bytes);
        self.loads.rest_until(self.compute);
        self.buffers += 1;
        Ok(Buffer(self.buffers))
    }

    fn free(&mut self, _: Buffer) {}

    fn set_aside(&mut self, _: Bytes) -> Result<(), DeviceError> {
        Ok(())
    }

    fn load(&mut self, order: LoadOrder, after: Moment) -> Result<Moment, DeviceError> {
        Ok(self.loads.push(order, after))
    }

    fn run(&mut self, order: TaskOrder, ready: Moment) -> Result<(Moment, Option<Span>), DeviceError> {
        let at = order.at;
        let start = self.compute.max(self.loads.when(ready));
        let first = self.stage.replace(at.stage) != Some(at.stage);
        let once = if first { self.times.start(at.stage) } else { Nanos::ZERO };
        let end = self.loads.beside(start, once + self.times.task(at.stage, order.template, at.task));
        self.compute = end;
        let send = self.times.send(at.stage, order.template, at.task);
        if send > Nanos::ZERO {
            self.send.push(end, send);
        }
        Ok((Moment::At(end), Some(Span { start, end })))
    }

    fn settle(&mut self, spans: &mut dyn FnMut(LoadOrder, Span)) -> Result<Nanos, DeviceError> {
        if let Some(marks) = &mut self.marks {
            marks.clear();
        }
        // The next stage starts when this one has ended: frames are out, no load is in flight.
        let end = self.loads.settle(spans).max(self.compute).max(self.send.free);
        self.compute = end;
        self.loads.rest_until(end);
        Ok(end)
    }

    fn now(&self) -> Nanos {
        self.compute
    }

    fn leap(&mut self, ahead: &Ahead<'_>, totals: &mut Totals) -> Leap {
        let Some(mut marks) = self.marks.take() else { return Leap::default() };
        if totals.end != self.compute || self.stage != Some(ahead.stage) {
            // Slots were allocated since, or the first task has its start before it: what follows does not come again
            // with every cycle.
            self.marks = Some(marks);
            return Leap::default();
        }
        self.loads.alone_until(self.compute);
        let now = self.mark(ahead.next, totals);
        let mut leap = Leap::default();
        if let Some(Repetition { from, cycles, times, shift, send }) = marks.repetition(&now, ahead) {
            totals.repeat(&from.totals, times);
            self.loads.repeat(&from.sums, times, shift);
            self.compute += shift;
            self.send = send;
            leap = Leap { cycles: cycles * times, loading: self.loads.sums().loading - now.sums.loading };
        }
        marks.remember(now);
        self.marks = Some(marks);
        leap
    }
}

impl Hinder for SimDevice<'_> {
    fn slow_disk(&mut self, times: u32) {
        self.loads.slow_disk(times);
    }
}

//! The lane that loads run on, with what feeds it: disk, host masters and the staging buffer.

use std::collections::VecDeque;

use loadline_core::{Bytes, Nanos, Tier};
use loadline_engine::{LoadOrder, Span};

use crate::device::Moment;
use crate::speeds::{FULL, Work};
use crate::times::Times;

/// Loads in the order of their calls, done as far as somebody needed to know.
pub(crate) struct Loads<'a> {
    times: &'a Times,
    /// Loads behind the one in flight, each with what it waits for. There are none if nothing is in flight.
    queue: VecDeque<(LoadOrder, Moment)>,
    flight: Option<Flight>,
    /// When the last load ended.
    free: Nanos,
    disk: Nanos,
    /// When the buffer that disk reads pass through on their way to the link is free again.
    staging: Nanos,
    /// Whether each block's host master is filled, and how many are.
    in_host: Vec<bool>,
    filled: usize,
    /// Loads that have ended since the last settling; the first of them is the load of number `first`.
    ended: Vec<(LoadOrder, Span)>,
    first: u64,
    sums: Sums,
    /// How many times as long as the machine's profile says a read takes.
    slower: u64,
}

/// The load that has the lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flight {
    order: LoadOrder,
    start: Nanos,
    /// Until when it is done, and what is left then. Before its start nothing is.
    at: Nanos,
    left: Work,
}

/// What loads have come to since the run began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    /// Time that the load lane was busy.
    pub(crate) loading: Nanos,
    /// Time that the disk was busy.
    pub(crate) disk: Nanos,
    /// Bytes read from disk.
    pub(crate) bytes: Bytes,
    /// Reads that waited for the disk's own lane.
    reads: u64,
}

/// Everything about loads that the rest of a stage depends on, relative to a clock that all of the past is behind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LoadState {
    filled: usize,
    /// The load in flight with the time since its start, the time until it goes on, and what is left.
    flight: Option<(LoadOrder, u64, u64, Work)>,
    queue: Vec<LoadOrder>,
}

/// The clocks of the disk at some instant, which matter only where blocks are still read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DiskState {
    disk: u64,
    staging: u64,
    reads: u64,
}

impl DiskState {
    /// Whether the disk is as it was then, or was not asked since.
    pub(crate) fn continues(&self, earlier: &Self) -> bool {
        self.reads == earlier.reads || (self.disk, self.staging) == (earlier.disk, earlier.staging)
    }
}

impl<'a> Loads<'a> {
    pub(crate) fn new(times: &'a Times, blocks: usize, warm: bool) -> Self {
        Self {
            times,
            queue: VecDeque::new(),
            flight: None,
            free: Nanos::ZERO,
            disk: Nanos::ZERO,
            staging: Nanos::ZERO,
            in_host: vec![warm; blocks],
            filled: 0,
            ended: Vec::new(),
            first: 0,
            sums: Sums::default(),
            slower: 1,
        }
    }

    /// Reads that start from now on take so many times as long.
    pub(crate) fn slow_disk(&mut self, times: u32) {
        self.slower = u64::from(times.max(1));
    }

    pub(crate) const fn sums(&self) -> Sums {
        self.sums
    }

    /// Queues a load; gives its end as something that will be known.
    pub(crate) fn push(&mut self, order: LoadOrder, after: Moment) -> Moment {
        let number = self.first + (self.ended.len() + self.queue.len()) as u64 + u64::from(self.flight.is_some());
        self.queue.push_back((order, after));
        self.launch();
        Moment::Load(number)
    }

    /// When something has happened, where the device does not compute before that.
    pub(crate) fn when(&mut self, moment: Moment) -> Nanos {
        let number = match moment {
            Moment::At(time) => return time,
            Moment::Load(number) => number,
        };
        // What was settled ended before everything that is asked now.
        let Some(index) = number.checked_sub(self.first) else { return Nanos::ZERO };
        while self.ended.len() as u64 <= index && self.land_alone() {}
        self.ended.get(index as usize).map_or(self.free, |(_, span)| span.end)
    }

    /// Lets loads run up to an instant beside a device that does not compute.
    pub(crate) fn alone_until(&mut self, time: Nanos) {
        while self.end_alone().is_some_and(|end| end <= time) {
            self.land_alone();
        }
        if let Some(flight) = self.flight.as_mut().filter(|f| f.at < time) {
            flight.left.advance(time - flight.at, FULL);
            flight.at = time;
        }
    }

    /// Lets the device compute from `start` on, which is not before anything that was asked so far; gives the end.
    pub(crate) fn beside(&mut self, start: Nanos, task: Nanos) -> Nanos {
        let speeds = self.times.speeds();
        if (speeds.compute, speeds.load) == (FULL, FULL) {
            return start + task;
        }
        self.alone_until(start);
        let (mut now, mut work) = (start, Work::alone(task));
        loop {
            let Some(flight) = &mut self.flight else { return now + work.time(FULL) };
            let quiet = flight.at - now;
            if quiet > Nanos::ZERO {
                let end = now + work.time(FULL);
                if end <= flight.at {
                    return end;
                }
                work.advance(quiet, FULL);
                now = flight.at;
            }
            let (task_ends, load_ends) = (work.time(speeds.compute), flight.left.time(speeds.load));
            let both = task_ends.min(load_ends);
            work.advance(both, speeds.compute);
            flight.left.advance(both, speeds.load);
            now += both;
            flight.at = now;
            if load_ends == both {
                self.land(now);
            }
            if task_ends == both {
                return now;
            }
        }
    }

    /// Waits for all loads and hands out what has ended since the last call; gives the end of the last.
    pub(crate) fn settle(&mut self, spans: &mut dyn FnMut(LoadOrder, Span)) -> Nanos {
        while self.land_alone() {}
        self.first += self.ended.len() as u64;
        self.ended.drain(..).for_each(|(order, span)| spans(order, span));
        self.free
    }

    /// Nothing is read, and nothing loaded, before this.
    pub(crate) fn rest_until(&mut self, time: Nanos) {
        self.free = self.free.max(time);
        self.disk = self.disk.max(time);
    }

    fn end_alone(&self) -> Option<Nanos> {
        self.flight.map(|f| f.at + f.left.time(FULL))
    }

    fn land_alone(&mut self) -> bool {
        let end = self.end_alone();
        end.is_some_and(|end| self.land(end))
    }

    /// Ends the load in flight and starts the next; gives whether there was one.
    fn land(&mut self, end: Nanos) -> bool {
        let Some(Flight { order, start, .. }) = self.flight.take() else { return false };
        self.free = end;
        if order.home == Tier::Disk && !self.times.unified() {
            self.staging = end;
        }
        let span = Span { start, end };
        self.sums.loading += span.length();
        self.ended.push((order, span));
        self.launch();
        true
    }

    fn launch(&mut self) {
        if self.flight.is_some() {
            return;
        }
        let Some((order, after)) = self.queue.pop_front() else { return };
        let after = self.when(after);
        let (ready, length) = if self.times.unified() {
            (Nanos::ZERO, self.straight(order))
        } else {
            (self.source_ready(order), self.times.copy(order.block, order.home))
        };
        let start = self.free.max(after).max(ready);
        self.flight = Some(Flight { order, start, at: start, left: Work::alone(length) });
    }

    /// One lane reads and copies: straight into the slot from disk, through the master otherwise.
    fn straight(&mut self, order: LoadOrder) -> Nanos {
        if order.home == Tier::Disk {
            return self.charge_read(order);
        }
        let copy = self.times.copy(order.block, order.home);
        if self.fills_master(order) { self.times.master(order.block) + self.charge_read(order) + copy } else { copy }
    }

    /// When the bytes are where the link can take them, for a machine with a link.
    fn source_ready(&mut self, order: LoadOrder) -> Nanos {
        match order.home {
            Tier::Disk => self.read(order, self.staging),
            _ if self.fills_master(order) => self.read(order, Nanos::ZERO) + self.times.master(order.block),
            _ => Nanos::ZERO,
        }
    }

    fn read(&mut self, order: LoadOrder, earliest: Nanos) -> Nanos {
        self.disk = self.disk.max(earliest) + self.charge_read(order);
        self.sums.reads += 1;
        self.disk
    }

    fn charge_read(&mut self, order: LoadOrder) -> Nanos {
        let length = self.times.read(order.block) * self.slower;
        self.sums.disk += length;
        self.sums.bytes += self.times.file(order.block);
        length
    }

    /// Whether a host master is filled now that was empty before.
    fn fills_master(&mut self, order: LoadOrder) -> bool {
        let empty = !std::mem::replace(&mut self.in_host[order.block.0 as usize], true);
        self.filled += usize::from(empty);
        empty
    }

    /// The state relative to an instant up to which the loads were run.
    pub(crate) fn state(&self, now: Nanos) -> LoadState {
        let flight = self.flight.map(|f| (f.order, now.0.wrapping_sub(f.start.0), (f.at - now).0, f.left));
        LoadState { filled: self.filled, flight, queue: self.queue.iter().map(|(order, _)| *order).collect() }
    }

    /// The clocks of the disk relative to an instant.
    pub(crate) fn disk_state(&self, now: Nanos) -> DiskState {
        let [disk, staging] = [self.disk, self.staging].map(|t| t.0.wrapping_sub(now.0));
        DiskState { disk, staging, reads: self.sums.reads }
    }

    /// Repeats so many times what has happened since these sums, in a time of `shift`.
    pub(crate) fn repeat(&mut self, earlier: &Sums, times: u64, shift: Nanos) {
        if self.sums.reads > earlier.reads {
            self.disk += shift;
            self.staging += shift;
        }
        self.free += shift;
        if let Some(flight) = &mut self.flight {
            flight.start += shift;
            flight.at += shift;
        }
        let sums = &mut self.sums;
        sums.loading += (sums.loading - earlier.loading) * times;
        sums.disk += (sums.disk - earlier.disk) * times;
        sums.bytes += (sums.bytes - earlier.bytes) * times;
        sums.reads += (sums.reads - earlier.reads) * times;
    }
}

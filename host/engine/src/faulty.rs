//! A decorator that breaks on purpose, so that what is done about it can be seen.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use loadline_core::{Bytes, Nanos, Tier};

use crate::device::{At, Buffer, Device, DeviceError, LoadOrder, Room, Span, Surroundings, TaskOrder};

/// When something goes wrong. Calls are counted from zero over the whole run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// At the n-th allocation.
    Allocation(u64),
    /// At the n-th load.
    Load(u64),
    /// At the n-th task.
    Task(u64),
    /// At the first task of a stage that is this far, or the first thing allocated for a later one.
    Pass {
        /// The stage.
        stage: usize,
        /// Its pass.
        pass: u64,
    },
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The next call that takes or uses device memory finds none, once.
    OutOfMemory,
    /// The next load cannot be read, once.
    ReadError,
    /// The next task fails, once.
    TaskError,
    /// Other programs take so many bytes of device memory, and keep them.
    OthersTake(Bytes),
    /// So many bytes of host memory are free from now on.
    HostFree(Bytes),
    /// From now on reading from disk takes so many times as long.
    DiskSlower(u32),
    /// From now on somebody waits for memory in so many percent of the time.
    MemoryStall(u32),
    /// The next task takes so much longer, once. Nobody waits: it is the run's clock that jumps.
    TaskDelay(Nanos),
    /// From now on every task waits so much longer for a block that was read from disk for it. Nobody waits: it is the
    /// run's clock that jumps.
    DiskDelay(Nanos),
}

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Injection {
    /// When.
    pub when: Moment,
    /// What.
    pub fault: Fault,
}

/// A device that can be made worse than it is.
pub trait Hinder {
    /// From now on reading from disk takes so many times as long.
    fn slow_disk(&mut self, times: u32);

    /// Lets the next read fail as if the disk could not do it; false if this device cannot, and the load is to fail as
    /// a whole.
    fn fail_read(&mut self) -> bool {
        false
    }
}

/// How much later than on the device a task starts, and how much longer it takes.
#[derive(Clone, Copy, Debug, Default)]
struct HeldUp {
    before: Nanos,
    within: Nanos,
}

/// Breaks as a script says, each line once, and works otherwise.
pub struct Faulty<D> {
    /// The device.
    pub inner: D,
    script: Vec<Injection>,
    /// Device bytes that are there for the run, if that is known.
    memory: Option<Bytes>,
    sizes: BTreeMap<Buffer, Bytes>,
    aside: Bytes,
    taken: Bytes,
    host_free: Option<Bytes>,
    /// Percent of the time in which somebody waits for memory.
    stall: Option<u32>,
    task_delay: Nanos,
    disk_delay: Nanos,
    /// Buffers with a block that was read from disk, late, and that no task has waited for.
    late: BTreeSet<Buffer>,
    /// Where the run's clock is ahead of the device's: from when on, by the device's clock, and how much farther.
    jumps: Vec<(Nanos, Nanos)>,
    /// What holds up the tasks that are not measured yet, in their order.
    behind: VecDeque<HeldUp>,
    /// Allocations, loads and tasks so far.
    counts: [u64; 3],
    /// What has come up and strikes at the next call of its kind.
    due: Vec<Fault>,
}

impl<D> Faulty<D> {
    /// A device that breaks as the script says.
    pub fn new(inner: D, script: Vec<Injection>) -> Self {
        Self {
            inner,
            script,
            memory: None,
            sizes: BTreeMap::new(),
            aside: Bytes::ZERO,
            taken: Bytes::ZERO,
            host_free: None,
            stall: None,
            task_delay: Nanos::ZERO,
            disk_delay: Nanos::ZERO,
            late: BTreeSet::new(),
            jumps: Vec::new(),
            behind: VecDeque::new(),
            counts: [0; 3],
            due: Vec::new(),
        }
    }

    /// With so many device bytes for the run, of which [`Fault::OthersTake`] takes some.
    #[must_use]
    pub fn with_memory(self, memory: Bytes) -> Self {
        Self { memory: Some(memory), ..self }
    }

    fn held(&self) -> Bytes {
        self.sizes.values().copied().sum::<Bytes>() + self.aside
    }

    /// More lines for the script.
    pub fn inject(&mut self, script: Vec<Injection>) {
        self.script.extend(script);
    }

    /// Device memory as the script has it.
    fn room(&self) -> Option<Room> {
        let (held, memory) = (self.held(), self.memory?);
        Some(Room { held, free: memory - self.taken - held })
    }

    /// Whether a fault strikes this call.
    fn strikes(&mut self, fault: Fault) -> bool {
        let found = self.due.iter().position(|due| *due == fault);
        found.map(|n| self.due.remove(n)).is_some()
    }

    fn no_memory(&mut self, requested: Bytes) -> Result<(), DeviceError> {
        let short = self.taken > Bytes::ZERO && self.room().is_some_and(|room| requested > room.free);
        if self.strikes(Fault::OutOfMemory) || short {
            return Err(DeviceError::OutOfDeviceMemory { requested });
        }
        Ok(())
    }

    /// What holds a task up: the late block that it computes with, and a delay of its own.
    fn held_up(&mut self, order: &TaskOrder) -> HeldUp {
        let is_late = order.weights.is_some_and(|(_, buffer)| self.late.remove(&buffer));
        let before = if is_late { self.disk_delay } else { Nanos::ZERO };
        HeldUp { before, within: std::mem::take(&mut self.task_delay) }
    }

    /// The span of a task by the run's clock, which jumps before it and within it.
    fn delayed(&mut self, held_up: HeldUp, span: Span) -> Span {
        self.jumps.extend(Some((span.start, held_up.before)).filter(|jump| jump.1 > Nanos::ZERO));
        let start = by_run(&self.jumps, span.start);
        self.jumps.extend(Some((span.end, held_up.within)).filter(|jump| jump.1 > Nanos::ZERO));
        Span { start, end: by_run(&self.jumps, span.end) }
    }
}

/// A time of the device by the run's clock.
fn by_run(jumps: &[(Nanos, Nanos)], time: Nanos) -> Nanos {
    time + jumps.iter().filter(|(from, _)| *from <= time).map(|(_, far)| *far).sum()
}

impl<D: Device + Hinder> Faulty<D> {
    fn count(&mut self, kind: usize, moment: impl Fn(u64) -> Moment) {
        let now = moment(self.counts[kind]);
        self.counts[kind] += 1;
        self.come(|when| when == now);
    }

    fn reach(&mut self, at: At) {
        let reached = |stage: usize, pass: u64| (at.stage, at.pass) >= (stage, pass);
        self.come(|when| matches!(when, Moment::Pass { stage, pass } if reached(stage, pass)));
    }

    fn come(&mut self, now: impl Fn(Moment) -> bool) {
        let (come, later) = self.script.drain(..).partition(|line| now(line.when));
        self.script = later;
        let come: Vec<Injection> = come;
        for Injection { fault, .. } in come {
            match fault {
                Fault::OthersTake(bytes) => self.taken += bytes,
                Fault::HostFree(bytes) => self.host_free = Some(bytes),
                Fault::DiskSlower(times) => self.inner.slow_disk(times),
                Fault::MemoryStall(percent) => self.stall = Some(percent),
                Fault::TaskDelay(delay) => self.task_delay += delay,
                Fault::DiskDelay(delay) => self.disk_delay = delay,
                Fault::OutOfMemory | Fault::ReadError | Fault::TaskError => self.due.push(fault),
            }
        }
    }
}

impl<D: Device + Hinder> Device for Faulty<D> {
    type Event = D::Event;

    fn past(&self) -> D::Event {
        self.inner.past()
    }

    fn allocate(&mut self, bytes: Bytes) -> Result<Buffer, DeviceError> {
        self.count(0, Moment::Allocation);
        self.no_memory(bytes)?;
        let buffer = self.inner.allocate(bytes)?;
        self.sizes.insert(buffer, bytes);
        Ok(buffer)
    }

    fn free(&mut self, buffer: Buffer) {
        self.sizes.remove(&buffer);
        self.late.remove(&buffer);
        self.inner.free(buffer);
    }

    fn set_aside(&mut self, activations: Bytes) -> Result<(), DeviceError> {
        self.aside = Bytes::ZERO;
        if activations > Bytes::ZERO {
            self.no_memory(activations)?;
        }
        self.inner.set_aside(activations)?;
        self.aside = activations;
        Ok(())
    }

    fn load(&mut self, order: LoadOrder, after: D::Event) -> Result<D::Event, DeviceError> {
        self.count(1, Moment::Load);
        // A block whose home is the host may be there already, and then nothing is read.
        if self.strikes(Fault::ReadError) && !(order.home == Tier::Disk && self.inner.fail_read()) {
            let detail = "a read failed on purpose".to_owned();
            return Err(DeviceError::Reading { file: format!("block {}", order.block.0), detail });
        }
        let event = self.inner.load(order, after)?;
        if order.home == Tier::Disk && self.disk_delay > Nanos::ZERO {
            self.late.insert(order.buffer);
        }
        Ok(event)
    }

    fn run(&mut self, order: TaskOrder, ready: D::Event) -> Result<(D::Event, Option<Span>), DeviceError> {
        self.count(2, Moment::Task);
        self.reach(order.at);
        if self.strikes(Fault::OutOfMemory) {
            return Err(DeviceError::OutOfDeviceMemory { requested: self.aside });
        }
        if self.strikes(Fault::TaskError) {
            return Err(DeviceError::Compute("a task failed on purpose".to_owned()));
        }
        let (event, span) = self.inner.run(order, ready)?;
        let held_up = self.held_up(&order);
        if span.is_none() {
            self.behind.push_back(held_up);
        }
        Ok((event, span.map(|span| self.delayed(held_up, span))))
    }

    fn measure(&mut self, spans: &mut dyn FnMut(At, Span)) -> Result<(), DeviceError> {
        let mut measured = Vec::new();
        let ended = self.inner.measure(&mut |at, span| measured.push((at, span)));
        for (at, span) in measured {
            let held_up = self.behind.pop_front().unwrap_or_default();
            spans(at, self.delayed(held_up, span));
        }
        if ended.is_err() {
            // What had not ended by then never does.
            self.behind.clear();
        }
        ended
    }

    fn settle(&mut self, spans: &mut dyn FnMut(LoadOrder, Span)) -> Result<Nanos, DeviceError> {
        let Self { inner, jumps, .. } = self;
        let by_run = |time| by_run(jumps, time);
        let end = inner.settle(&mut |order, Span { start, end }| {
            spans(order, Span { start: by_run(start), end: by_run(end) });
        });
        end.map(by_run)
    }

    fn arrived(&self, spans: &mut dyn FnMut(LoadOrder, Span)) {
        self.inner.arrived(&mut |order, Span { start, end }| {
            spans(order, Span { start: by_run(&self.jumps, start), end: by_run(&self.jumps, end) });
        });
    }

    fn now(&self) -> Nanos {
        by_run(&self.jumps, self.inner.now())
    }

    fn surroundings(&mut self) -> Surroundings {
        let mut around = self.inner.surroundings();
        if self.taken > Bytes::ZERO || around.device.is_none() {
            around.device = self.room();
        }
        if let Some(free) = self.host_free {
            around.host = Some(Room { held: around.host.unwrap_or_default().held, free });
        }
        if let Some(percent) = self.stall {
            around.stalled = Some(percent * 10);
        }
        around
    }
}

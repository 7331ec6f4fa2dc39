//! A decorator that breaks on purpose, so that what is done about it can be seen.

use std::collections::BTreeMap;

use loadline_core::{Bytes, Nanos};

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
        if self.strikes(Fault::ReadError) {
            let detail = "a read failed on purpose".to_owned();
            return Err(DeviceError::Weights { file: format!("block {}", order.block.0), detail });
        }
        self.inner.load(order, after)
    }

    fn run(&mut self, order: TaskOrder, ready: D::Event) -> Result<(D::Event, Span), DeviceError> {
        self.count(2, Moment::Task);
        self.reach(order.at);
        if self.strikes(Fault::OutOfMemory) {
            return Err(DeviceError::OutOfDeviceMemory { requested: self.aside });
        }
        if self.strikes(Fault::TaskError) {
            return Err(DeviceError::Compute("a task failed on purpose".to_owned()));
        }
        self.inner.run(order, ready)
    }

    fn settle(&mut self, spans: &mut dyn FnMut(LoadOrder, Span)) -> Result<Nanos, DeviceError> {
        self.inner.settle(spans)
    }

    fn now(&self) -> Nanos {
        self.inner.now()
    }

    fn surroundings(&mut self) -> Surroundings {
        let mut around = self.inner.surroundings();
        if self.taken > Bytes::ZERO || around.device.is_none() {
            around.device = self.room();
        }
        if let Some(free) = self.host_free {
            around.host = Some(Room { held: around.host.unwrap_or_default().held, free });
        }
        around
    }
}

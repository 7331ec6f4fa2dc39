//! The CPU as a device.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use loadline_core::{Bytes, Nanos};
use loadline_engine::{Buffer, Device, DeviceError, Hinder, LoadOrder, Room, Span, Surroundings, TaskOrder};

use crate::copier::Copier;
use crate::disk::{DiskOptions, Report};
use crate::memory::{self, Domain, Stage};
use crate::slab::Slab;
use crate::source::{BlockSource, Sources, WeightFiles};
use crate::system::{Sight, System};

/// What computes the tasks.
pub trait Compute {
    /// Runs one task with its block's weights in a slab.
    ///
    /// # Errors
    /// If the activations would exceed what is set aside, or the computation fails.
    fn run(&mut self, order: &TaskOrder, weights: Option<&Arc<Slab>>) -> Result<(), DeviceError>;

    /// Sets the limit for activations.
    fn set_aside(&mut self, activations: Bytes);
}

/// The CPU: slabs in RAM, a thread that copies, and a [`Compute`].
pub struct CpuDevice<C> {
    /// What computes.
    pub compute: C,
    copier: Copier,
    sources: Arc<Sources>,
    buffers: BTreeMap<Buffer, Arc<Slab>>,
    named: u64,
    clock: Instant,
    stage: Option<Stage>,
    system: System,
}

impl<C: Compute> CpuDevice<C> {
    /// A device whose clock starts now.
    ///
    /// # Errors
    /// If the copy thread cannot be started.
    pub fn new(compute: C) -> Result<Self, DeviceError> {
        Self::reading(compute, DiskOptions::default())
    }

    /// The same with a way to read weights.
    ///
    /// # Errors
    /// If the copy thread cannot be started.
    pub fn reading(compute: C, disk: DiskOptions) -> Result<Self, DeviceError> {
        let clock = Instant::now();
        let copier = Copier::start(clock, disk).map_err(|e| DeviceError::Compute(format!("no copy thread: {e}")))?;
        Ok(Self {
            compute,
            copier,
            sources: Arc::default(),
            buffers: BTreeMap::new(),
            named: 0,
            clock,
            stage: None,
            system: System::default(),
        })
    }

    /// With another place to look for what the system says of memory.
    #[must_use]
    pub fn with_system(self, system: System) -> Self {
        Self { system, ..self }
    }

    /// What the system says of memory now.
    #[must_use]
    pub fn sight(&self) -> Sight {
        memory::within(Domain::Host, || self.system.look())
    }

    /// What became of reading weights so far.
    #[must_use]
    pub fn disk_report(&self) -> Report {
        self.copier.report()
    }

    /// Says where the blocks of the next job come from, by block id. Host copies of the job before are
    /// dropped, unless the sources are the same ones.
    pub fn set_sources(&mut self, files: WeightFiles, blocks: Vec<BlockSource>) {
        self.sources = Arc::new(Sources { files, blocks });
    }
}

impl<C: Compute> Device for CpuDevice<C> {
    /// The number of loads that have finished.
    type Event = u64;

    fn past(&self) -> u64 {
        0
    }

    fn allocate(&mut self, bytes: Bytes) -> Result<Buffer, DeviceError> {
        let slab = Slab::allocate(bytes).ok_or(DeviceError::OutOfDeviceMemory { requested: bytes })?;
        self.named += 1;
        self.buffers.insert(Buffer(self.named), slab);
        Ok(Buffer(self.named))
    }

    fn free(&mut self, buffer: Buffer) {
        self.buffers.remove(&buffer);
    }

    /// A stage begins when something is set aside and ends when nothing is.
    fn set_aside(&mut self, activations: Bytes) -> Result<(), DeviceError> {
        self.compute.set_aside(activations);
        // The old stage ends before the new one begins: dropping it after would switch counting off.
        self.stage = None;
        if activations > Bytes::ZERO {
            self.stage = Some(Stage::begin());
        }
        Ok(())
    }

    /// Tasks run on the calling thread, so whatever `after` names has happened when this is called.
    fn load(&mut self, order: LoadOrder, _: u64) -> Result<u64, DeviceError> {
        let Some(slab) = self.buffers.get(&order.buffer) else {
            return Err(DeviceError::Compute(format!("buffer {} does not exist", order.buffer.0)));
        };
        Ok(self.copier.queue(order, Arc::clone(slab), Arc::clone(&self.sources)))
    }

    fn run(&mut self, order: TaskOrder, ready: u64) -> Result<(u64, Option<Span>), DeviceError> {
        if order.weights.is_some() {
            self.copier.wait(ready)?;
        }
        let slab = order.weights.and_then(|(_, buffer)| self.buffers.get(&buffer));
        let start = self.now();
        self.compute.run(&order, slab)?;
        Ok((0, Some(Span { start, end: self.now() })))
    }

    fn settle(&mut self, spans: &mut dyn FnMut(LoadOrder, Span)) -> Result<Nanos, DeviceError> {
        self.copier.settle(spans)?;
        Ok(self.now())
    }

    fn arrived(&self, spans: &mut dyn FnMut(LoadOrder, Span)) {
        self.copier.arrived(spans);
    }

    fn now(&self) -> Nanos {
        Nanos(self.clock.elapsed().as_nanos() as u64)
    }

    /// Both kinds of memory are the machine's own. A program that does not count cannot tell what it has.
    fn surroundings(&mut self) -> Surroundings {
        let Sight { free, grouped, stalled } = self.sight();
        let room = |domain: Domain| {
            let free = free.filter(|_| memory::is_counting())?;
            Some(Room { held: memory::live(domain), free })
        };
        Surroundings { device: room(Domain::Device), host: room(Domain::Host), stalled, grouped }
    }
}

impl<C> Hinder for CpuDevice<C> {
    fn slow_disk(&mut self, times: u32) {
        self.copier.slow_disk(times);
    }

    fn fail_read(&mut self) -> bool {
        self.copier.fail_read();
        true
    }
}

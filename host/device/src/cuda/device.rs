//! The device: slots, queues, and what orders them.

use std::collections::BTreeMap;
use std::sync::Arc;

use loadline_core::{Bytes, Nanos, Tier};
use loadline_cuda::driver::{Context, CudaError, Event, Pool, Stream};
use loadline_engine::{At, Buffer, Device, DeviceError, Hinder, LoadOrder, Room, Span, Surroundings, TaskOrder};

use super::feed::Feed;
use super::marks::{Clock, Lane, Mark, Spare};
use super::{CudaCompute, HostLimits, Region, device_error};
use crate::disk::DiskOptions;
use crate::memory::{self, Claim, Domain};
use crate::source::{BlockSource, Sources, WeightFiles};
use crate::system::{Sight, System};

/// Something that will have happened on the GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// It has.
    Past,
    /// The end of the load of that number.
    Load(u64),
    /// The end of the task of that number.
    Task(u64),
}

/// A buffer of device memory.
struct Slot {
    region: Region,
    /// What of it is counted as the device's.
    _counted: Claim,
    /// The last load into it.
    load: u64,
}

/// An NVIDIA GPU: slots from a pool with a limit, a queue that copies, and a [`CudaCompute`].
pub struct CudaDevice<C> {
    /// What computes.
    pub compute: C,
    stream: Stream,
    feed: Feed,
    pool: Pool,
    fence: Event,
    slots: BTreeMap<Buffer, Slot>,
    named: u64,
    activations: Option<Region>,
    tasks: Lane<At>,
    loads: Lane<LoadOrder>,
    /// Spans of loads that have not been handed out.
    arrived: Vec<(LoadOrder, Span)>,
    spare: Spare,
    clock: Clock,
    system: System,
}

impl<C: CudaCompute> CudaDevice<C> {
    /// A device whose clock starts now. `stream` is the one that `compute` queues its kernels on, and `budget` what
    /// slots and activations may take together: the job's device budget less the measured fixed overhead.
    ///
    /// # Errors
    /// [`DeviceError::Lost`], or what the driver says.
    pub fn new(stream: &Stream, budget: Bytes, limits: HostLimits, compute: C) -> Result<Self, DeviceError> {
        Self::open(stream, budget, limits, compute).map_err(device_error)
    }

    fn open(stream: &Stream, budget: Bytes, limits: HostLimits, compute: C) -> Result<Self, CudaError> {
        let context = stream.context();
        let clock = Clock::start();
        let begun = clock.now();
        let base = Arc::new(first_event(stream)?);
        Ok(Self {
            compute,
            stream: stream.clone(),
            feed: Feed::new(context, limits)?,
            pool: Pool::new(context, budget.0)?,
            fence: Event::untimed(context)?,
            slots: BTreeMap::new(),
            named: 0,
            activations: None,
            tasks: Lane::new(Arc::clone(&base), begun),
            loads: Lane::new(base, begun),
            arrived: Vec::new(),
            spare: Spare::new(context),
            clock,
            system: System::default(),
        })
    }

    /// With another way to read files.
    #[must_use]
    pub fn with_disk(mut self, options: DiskOptions) -> Self {
        self.feed.set_disk(options);
        self
    }

    /// With another place to look for what the system says of memory.
    #[must_use]
    pub fn with_system(mut self, system: System) -> Self {
        self.system = system;
        self
    }

    /// Says where the blocks of the next job come from, by block id. Host copies of the job before are dropped.
    pub fn set_sources(&mut self, files: WeightFiles, blocks: Vec<BlockSource>) {
        self.rest();
        self.feed.set_sources(Sources { files, blocks });
    }

    /// Says where a plan has the blocks live, and what host memory there is for it. Host copies that it does not want
    /// are dropped.
    pub fn set_homes(&mut self, homes: &[Tier], limits: HostLimits) {
        self.rest();
        self.feed.set_homes(homes, limits);
    }

    /// Its GPU.
    #[must_use]
    pub fn context(&self) -> &Context {
        self.stream.context()
    }

    /// The memory of slots and activations.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Makes the pool anew with another limit, for the next job; nothing of the old one may be in use.
    ///
    /// # Errors
    /// [`DeviceError::BudgetExceeded`] if something is, or what the driver says.
    pub fn set_budget(&mut self, budget: Bytes) -> Result<(), DeviceError> {
        if budget.0 == self.pool.limit() {
            return Ok(());
        }
        self.rest();
        let in_use = Bytes(self.pool.used().map_err(device_error)?);
        if in_use > Bytes::ZERO {
            let what = "what is kept from the job before".to_owned();
            return Err(DeviceError::BudgetExceeded { what, requested: Bytes::ZERO, in_use, limit: budget });
        }
        self.pool = Pool::new(self.context(), budget.0).map_err(device_error)?;
        Ok(())
    }

    /// Waits until nothing is under way, however it ends.
    fn rest(&self) {
        let _ = self.stream.synchronize();
        self.feed.rest();
    }

    /// Whether a read has failed. What was queued behind it has computed with old weights: it is forgotten.
    fn alive(&mut self) -> Result<(), DeviceError> {
        if !self.feed.has_failed() {
            return Ok(());
        }
        self.rest();
        self.tasks.forget();
        self.loads.forget();
        self.feed.take_error().map_or(Ok(()), Err)
    }

    /// The same where the driver may have something to say, too.
    fn checked<T>(&mut self, result: Result<T, CudaError>) -> Result<T, DeviceError> {
        self.alive()?;
        result.map_err(device_error)
    }

    /// Memory of the pool. What it holds in pieces that are too small is given back first if that may help.
    fn take(&self, bytes: u64) -> Result<Region, CudaError> {
        let start = match self.pool.allocate(&self.stream, bytes) {
            Err(CudaError::OutOfMemory { .. }) if self.pool.reserved()? > self.pool.used()? => {
                self.rest();
                self.pool.trim(0)?;
                self.pool.allocate(&self.stream, bytes)?
            }
            other => other?,
        };
        // The memory is there from this place of the computing queue on.
        self.stream.record(&self.fence)?;
        self.feed.wait(&self.fence)?;
        Ok(Region { start, bytes })
    }

    /// Gives a slot back when the last copy into it has ended, if a task has not waited for it already.
    fn give_back(&self, slot: &Slot) -> Result<(), CudaError> {
        if let Some(event) = self.loads.end_of(slot.load) {
            self.stream.wait(event)?;
        }
        self.pool.free(&self.stream, slot.region.start)
    }

    fn queue_load(&mut self, order: LoadOrder, target: Region, after: Moment) -> Result<u64, DeviceError> {
        let (start, end) = (self.event()?, self.event()?);
        let after = match after {
            Moment::Task(number) => self.tasks.end_of(number),
            // Loads keep their own order.
            Moment::Past | Moment::Load(_) => None,
        };
        self.feed.bring(order, target, after, &start, &end)?;
        Ok(self.loads.push(Mark { what: order, start, end }))
    }

    fn queue_task(&mut self, order: TaskOrder, weights: Option<Region>, ready: Moment) -> Result<u64, DeviceError> {
        let (start, end) = (self.event()?, self.event()?);
        if let Moment::Load(number) = ready
            && let Some(event) = self.loads.end_of(number)
        {
            self.stream.wait(event).map_err(device_error)?;
        }
        self.stream.record(&start).map_err(device_error)?;
        self.compute.run(&order, weights)?;
        self.stream.record(&end).map_err(device_error)?;
        Ok(self.tasks.push(Mark { what: order.at, start, end }))
    }

    fn event(&mut self) -> Result<Event, DeviceError> {
        self.spare.take().map_err(device_error)
    }

    fn region(&self, buffer: Buffer) -> Result<Region, DeviceError> {
        let missing = || DeviceError::Compute(format!("buffer {} does not exist", buffer.0));
        self.slots.get(&buffer).map(|slot| slot.region).ok_or_else(missing)
    }

    /// Takes the spans of loads that have ended.
    fn gather(&mut self) -> Result<(), CudaError> {
        let now = self.clock.now();
        while let Some(load) = self.loads.pop(&mut self.spare, now)? {
            self.arrived.push(load);
        }
        Ok(())
    }

    fn measured(&mut self, spans: &mut dyn FnMut(At, Span)) -> Result<(), CudaError> {
        if let Some(last) = self.tasks.last() {
            last.synchronize()?;
        }
        let now = self.clock.now();
        while let Some((at, span)) = self.tasks.pop(&mut self.spare, now)? {
            spans(at, span);
        }
        self.gather()
    }

    fn replace_activations(&mut self, bytes: Bytes) -> Result<(), DeviceError> {
        self.compute.set_aside(None)?;
        if let Some(old) = self.activations.take() {
            self.pool.free(&self.stream, old.start).map_err(device_error)?;
        }
        if bytes > Bytes::ZERO {
            let region = self.take(bytes.0).map_err(device_error)?;
            self.activations = Some(region);
            self.compute.set_aside(Some(region))?;
        }
        Ok(())
    }
}

/// An event that has happened.
fn first_event(stream: &Stream) -> Result<Event, CudaError> {
    let event = Event::timed(stream.context())?;
    stream.record(&event)?;
    event.synchronize()?;
    Ok(event)
}

impl<C: CudaCompute> Device for CudaDevice<C> {
    type Event = Moment;

    fn past(&self) -> Moment {
        Moment::Past
    }

    fn allocate(&mut self, bytes: Bytes) -> Result<Buffer, DeviceError> {
        let taken = self.take(bytes.0);
        let region = self.checked(taken)?;
        self.named += 1;
        let counted = Claim::of(Domain::Device, bytes);
        self.slots.insert(Buffer(self.named), Slot { region, _counted: counted, load: 0 });
        Ok(Buffer(self.named))
    }

    fn free(&mut self, buffer: Buffer) {
        if let Some(slot) = self.slots.remove(&buffer) {
            // It fails if the GPU is lost, and its memory with it.
            let _ = self.give_back(&slot);
        }
    }

    fn set_aside(&mut self, activations: Bytes) -> Result<(), DeviceError> {
        self.replace_activations(activations)
    }

    fn load(&mut self, order: LoadOrder, after: Moment) -> Result<Moment, DeviceError> {
        self.alive()?;
        let target = self.region(order.buffer)?;
        let number = self.queue_load(order, target, after)?;
        if let Some(slot) = self.slots.get_mut(&order.buffer) {
            slot.load = number;
        }
        Ok(Moment::Load(number))
    }

    fn run(&mut self, order: TaskOrder, ready: Moment) -> Result<(Moment, Option<Span>), DeviceError> {
        self.alive()?;
        let weights = order.weights.map(|(_, buffer)| self.region(buffer)).transpose()?;
        let number = self.queue_task(order, weights, ready)?;
        Ok((Moment::Task(number), None))
    }

    fn measure(&mut self, spans: &mut dyn FnMut(At, Span)) -> Result<(), DeviceError> {
        let measured = self.measured(spans);
        if measured.is_err() {
            self.tasks.forget();
        }
        self.checked(measured)
    }

    fn settle(&mut self, spans: &mut dyn FnMut(LoadOrder, Span)) -> Result<Nanos, DeviceError> {
        self.rest();
        let gathered = self.gather();
        self.arrived.drain(..).for_each(|(order, span)| spans(order, span));
        if gathered.is_err() {
            self.loads.forget();
        }
        self.checked(gathered)?;
        Ok(self.now())
    }

    fn arrived(&self, spans: &mut dyn FnMut(LoadOrder, Span)) {
        self.arrived.iter().for_each(|(order, span)| spans(*order, *span));
    }

    fn now(&self) -> Nanos {
        self.clock.now()
    }

    /// What the pool holds counts as the run's, used or not: nobody else can have it.
    fn surroundings(&mut self) -> Surroundings {
        let device = self.context().mem_info().ok().zip(self.pool.reserved().ok());
        let device = device.map(|(info, held)| Room { held: Bytes(held), free: Bytes(info.free) });
        let Sight { free, grouped, stalled } = memory::within(Domain::Host, || self.system.look());
        let counted = memory::live(Domain::Host);
        let held = if memory::is_counting() { counted } else { Bytes(self.feed.host_bytes()) };
        Surroundings { device, host: free.map(|free| Room { held, free }), stalled, grouped }
    }
}

impl<C> Hinder for CudaDevice<C> {
    fn slow_disk(&mut self, times: u32) {
        self.feed.slow_disk(times);
    }
}

impl<C> Drop for CudaDevice<C> {
    /// The GPU may still copy from host memory that is about to go.
    fn drop(&mut self) {
        let _ = self.stream.synchronize();
        self.feed.rest();
    }
}

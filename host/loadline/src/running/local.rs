//! The devices of this machine as one, so that a session need not know on which it runs.

use loadline_core::{Bytes, Nanos};
#[cfg(feature = "cuda")]
use loadline_device::cuda::{self, CudaDevice, HostLimits, Moment};
use loadline_device::disk::Report;
use loadline_device::memory::{self, Domain};
use loadline_device::{BlockSource, CpuDevice, WeightFiles};
#[cfg(feature = "cuda")]
use loadline_engine::EngineError;
use loadline_engine::{At, Buffer, Device, DeviceError, Hinder, LoadOrder, Span, Surroundings, TaskOrder};
#[cfg(feature = "cuda")]
use loadline_nn::cuda::CudaBackend;
use loadline_nn::{CandleCpu, CpuKernels};

#[cfg(feature = "cuda")]
use super::compute::on_cuda;
use super::compute::{Pipeline, Work, on_cpu};
use super::session::SessionOptions;
use super::weights;
use crate::card::CardSample;
#[cfg(feature = "cuda")]
use crate::card::CardWatch;
use crate::planning::Planned;
use crate::{Error, On};

/// The device that a session runs on.
pub(super) enum Local {
    /// The processor.
    Cpu(Box<CpuDevice<Pipeline<CandleCpu>>>),
    /// A GPU.
    #[cfg(feature = "cuda")]
    Cuda(Box<CudaDevice<Pipeline<CudaBackend>>>, Card),
}

/// What is known of a GPU beside what runs on it.
#[cfg(feature = "cuda")]
pub(super) struct Card {
    watch: Option<Box<CardWatch>>,
    /// Context and modules, which are live as long as it is in use.
    overhead: Bytes,
}

/// Something that will have happened on it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// On the processor.
    Cpu(u64),
    /// On the GPU.
    #[cfg(feature = "cuda")]
    Cuda(Moment),
}

impl Event {
    /// Whoever gives a device the event of another one has none of its own yet.
    fn cpu(self) -> u64 {
        match self {
            Self::Cpu(event) => event,
            #[cfg(feature = "cuda")]
            Self::Cuda(_) => 0,
        }
    }

    #[cfg(feature = "cuda")]
    fn cuda(self) -> Moment {
        match self {
            Self::Cuda(event) => event,
            Self::Cpu(_) => Moment::Past,
        }
    }
}

/// Runs the same code for whichever device it is.
macro_rules! each {
    ($local:expr, $device:ident => $body:expr) => {
        match $local {
            Local::Cpu($device) => $body,
            #[cfg(feature = "cuda")]
            Local::Cuda($device, _) => $body,
        }
    };
}

impl Local {
    /// The device that a session was asked for; nothing is loaded yet.
    ///
    /// # Errors
    /// If a thread cannot be started, or the GPU says no.
    pub(super) fn open(options: &SessionOptions) -> Result<Self, Error> {
        match &options.on {
            On::Cpu => {
                let named = CpuKernels::named(&options.machine.device.kernel_set);
                let device = CpuDevice::reading(on_cpu(named.unwrap_or_else(CpuKernels::detect)), options.disk);
                let device = device.map_err(|e| weights::unreadable(&e))?;
                Ok(Self::Cpu(Box::new(device.with_system(options.system.clone()))))
            }
            #[cfg(feature = "cuda")]
            On::Cuda(gpu) => open_cuda(gpu, options),
            #[cfg(not(feature = "cuda"))]
            On::Cuda(gpu) => Err(Error::NoGpu(gpu.facts().name.clone())),
        }
    }

    /// Whether a plan's budget is the limit already, so that what is kept may stay.
    #[cfg_attr(not(feature = "cuda"), allow(unused_variables))] // only a GPU has limits
    pub(super) fn has_budget(&self, planned: &Planned, fixed: Bytes) -> bool {
        match self {
            Self::Cpu(_) => true,
            #[cfg(feature = "cuda")]
            Self::Cuda(device, _) => device.pool().limit() == (planned.budget.device - fixed).0,
        }
    }

    /// Makes room for a plan: its budget is the driver's limit, too, and its homes are where blocks live.
    ///
    /// # Errors
    /// If what is kept from the job before is over the budget, or the GPU is lost.
    #[cfg_attr(not(feature = "cuda"), allow(unused_variables, clippy::unnecessary_wraps))] // only a GPU has limits
    pub(super) fn begin_plan(&mut self, planned: &Planned, fixed: Bytes) -> Result<(), DeviceError> {
        match self {
            Self::Cpu(_) => Ok(()),
            #[cfg(feature = "cuda")]
            Self::Cuda(device, _) => {
                let limits = host_limits(planned);
                // What copies of values pass through is locked first: without it the GPU would wait for each of them.
                let staged = device.compute.stage_within(limits.pinned);
                device.set_homes(&planned.plan.homes, HostLimits { pinned: limits.pinned - staged, ..limits });
                device.set_budget(planned.budget.device - fixed)
            }
        }
    }

    /// The pipeline that runs on it.
    pub(super) fn work(&mut self) -> &mut dyn Work {
        each!(self, device => &mut device.compute)
    }

    /// Says where the blocks of the next job come from, by block id.
    pub(super) fn set_sources(&mut self, files: WeightFiles, blocks: Vec<BlockSource>) {
        each!(self, device => device.set_sources(files, blocks));
    }

    /// What became of reading weights so far; a GPU's reader does not tell.
    pub(super) fn disk_report(&self) -> Report {
        match self {
            Self::Cpu(device) => device.disk_report(),
            #[cfg(feature = "cuda")]
            Self::Cuda(..) => Report::default(),
        }
    }

    /// The GPU now, as its management library sees it; nothing of a processor.
    #[cfg_attr(not(feature = "cuda"), allow(unused_variables))] // only a GPU has such a library
    pub(super) fn card(&self, now: Nanos) -> Option<CardSample> {
        match self {
            Self::Cpu(_) => None,
            #[cfg(feature = "cuda")]
            Self::Cuda(_, card) => card.watch.as_ref()?.sample(now),
        }
    }

    /// What is taken of the device beside slots and tensors.
    fn overhead(&self) -> Bytes {
        match self {
            Self::Cpu(_) => Bytes::ZERO,
            #[cfg(feature = "cuda")]
            Self::Cuda(_, card) if memory::is_counting() => card.overhead,
            #[cfg(feature = "cuda")]
            Self::Cuda(..) => Bytes::ZERO,
        }
    }

    /// Live device bytes; zero, as the figures below, if the program does not count. A GPU's slots and tensors are
    /// counted in the same books as a processor's.
    pub(super) fn live(&self) -> Bytes {
        self.overhead() + memory::live(Domain::Device)
    }

    /// Starts a new high-water mark of them.
    pub(super) fn reset_peak(&mut self) {
        memory::reset_peak(Domain::Device);
    }

    /// The most of them since then.
    pub(super) fn peak(&self) -> Bytes {
        self.overhead() + memory::peak(Domain::Device)
    }

    /// The most of them since this was last asked.
    pub(super) fn take_high(&mut self) -> Bytes {
        self.overhead() + memory::take_high(Domain::Device)
    }
}

#[cfg(feature = "cuda")]
fn open_cuda(gpu: &crate::Gpu, options: &SessionOptions) -> Result<Local, Error> {
    let failed = |e: DeviceError| Error::Engine(EngineError::Device { stage: "start".to_owned(), source: e });
    let stream = loadline_cuda::driver::Stream::new(gpu.context()).map_err(|e| failed(cuda::device_error(e)))?;
    let limits = HostLimits { pinned: Bytes::ZERO, staging: Bytes::ZERO };
    // The budget is set for each plan; until then nothing is allocated.
    let budget = options.machine.device.memory - options.machine.device.fixed_overhead;
    let device = CudaDevice::new(&stream, budget, limits, on_cuda(gpu, &stream)).map_err(failed)?;
    // The library may be missing, as in most containers; then nobody sees clocks, and nothing else changes.
    let card = Card { watch: CardWatch::open(&gpu.facts().pci).map(Box::new), overhead: gpu.facts().overhead };
    Ok(Local::Cuda(Box::new(device.with_disk(options.disk).with_system(options.system.clone())), card))
}

/// What the plan has set aside for pinned homes and for the buffers that blocks from disk pass through.
#[cfg(feature = "cuda")]
fn host_limits(planned: &Planned) -> HostLimits {
    let reserved = |name: &str| planned.forecast.host.iter().find(|r| r.name == name).map_or(Bytes::ZERO, |r| r.bytes);
    HostLimits { pinned: planned.budget.pinned, staging: reserved("disk-staging") }
}

impl Device for Local {
    type Event = Event;

    fn past(&self) -> Event {
        match self {
            Self::Cpu(device) => Event::Cpu(device.past()),
            #[cfg(feature = "cuda")]
            Self::Cuda(device, _) => Event::Cuda(device.past()),
        }
    }

    fn allocate(&mut self, bytes: Bytes) -> Result<Buffer, DeviceError> {
        each!(self, device => device.allocate(bytes))
    }

    fn free(&mut self, buffer: Buffer) {
        each!(self, device => device.free(buffer));
    }

    fn set_aside(&mut self, activations: Bytes) -> Result<(), DeviceError> {
        each!(self, device => device.set_aside(activations))
    }

    fn load(&mut self, order: LoadOrder, after: Event) -> Result<Event, DeviceError> {
        match self {
            Self::Cpu(device) => device.load(order, after.cpu()).map(Event::Cpu),
            #[cfg(feature = "cuda")]
            Self::Cuda(device, _) => device.load(order, after.cuda()).map(Event::Cuda),
        }
    }

    fn run(&mut self, order: TaskOrder, ready: Event) -> Result<(Event, Option<Span>), DeviceError> {
        match self {
            Self::Cpu(device) => device.run(order, ready.cpu()).map(|(event, span)| (Event::Cpu(event), span)),
            #[cfg(feature = "cuda")]
            Self::Cuda(device, _) => device.run(order, ready.cuda()).map(|(event, span)| (Event::Cuda(event), span)),
        }
    }

    fn measure(&mut self, spans: &mut dyn FnMut(At, Span)) -> Result<(), DeviceError> {
        each!(self, device => device.measure(spans))
    }

    fn settle(&mut self, spans: &mut dyn FnMut(LoadOrder, Span)) -> Result<Nanos, DeviceError> {
        each!(self, device => device.settle(spans))
    }

    fn arrived(&self, spans: &mut dyn FnMut(LoadOrder, Span)) {
        each!(self, device => device.arrived(spans));
    }

    fn now(&self) -> Nanos {
        each!(self, device => device.now())
    }

    fn surroundings(&mut self) -> Surroundings {
        each!(self, device => device.surroundings())
    }
}

impl Hinder for Local {
    fn slow_disk(&mut self, times: u32) {
        each!(self, device => device.slow_disk(times));
    }

    fn fail_read(&mut self) -> bool {
        each!(self, device => device.fail_read())
    }
}

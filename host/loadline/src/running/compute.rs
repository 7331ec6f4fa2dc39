//! The pipeline as the device's compute, whatever backend it runs on.

use std::sync::Arc;

use loadline_core::Bytes;
use loadline_device::{Compute, Slab};
use loadline_engine::{DeviceError, TaskOrder};
use loadline_models::ops::{Backend, BlockWeights, OpError, Ops, Saved, Sink};
use loadline_models::pipeline::{At, Program, WanProgram, WanRecipe};
use loadline_nn::{CandleCpu, CpuKernels, TensorsAt, block_weights};

#[cfg(feature = "cuda")]
use loadline_device::cuda::{self, CudaCompute, Region};
#[cfg(feature = "cuda")]
use loadline_nn::cuda::{CudaBackend, CudaFailure, CudaKernels, slab_weights};

use super::host::RunHost;

/// Runs tasks of one job at a time.
pub(super) struct Pipeline<B: Backend> {
    pub(super) ops: Ops<B>,
    job: Option<Running<B>>,
}

/// The job that runs.
struct Running<B: Backend> {
    program: WanProgram<B>,
    layouts: Vec<TensorsAt>,
    host: RunHost,
}

/// What a session asks of a pipeline.
pub(super) trait Work {
    /// Begins a job; what was left of another one is dropped.
    fn begin(&mut self, recipe: WanRecipe, layouts: Vec<TensorsAt>, host: RunHost);

    /// The host's side of the running job.
    fn host(&mut self) -> Option<&mut RunHost>;

    /// Hands out everything that is needed to go on later.
    ///
    /// # Errors
    /// If the backend fails.
    fn save(&mut self, sink: Sink<'_>) -> Result<(), DeviceError>;

    /// Takes it back.
    ///
    /// # Errors
    /// If a tensor is missing or the budget is exceeded.
    fn restore(&mut self, saved: Saved<'_>) -> Result<(), DeviceError>;

    /// Ends the job and gives what the host has of it.
    fn end(&mut self) -> Option<RunHost>;
}

/// A backend that may know more of a failure than its words say.
pub(super) trait Failing {
    /// What failed last, if the device said so itself: whether it is lost, or only has no memory.
    fn failure(&mut self) -> Option<DeviceError>;
}

impl Failing for CandleCpu {
    fn failure(&mut self) -> Option<DeviceError> {
        None
    }
}

#[cfg(feature = "cuda")]
impl Failing for CudaBackend {
    fn failure(&mut self) -> Option<DeviceError> {
        self.take_failure().map(cuda::device_error)
    }
}

impl<B: Backend + Failing> Pipeline<B> {
    pub(super) fn new(mut ops: Ops<B>) -> Self {
        ops.recording.off = true;
        Self { ops, job: None }
    }

    /// Runs one task; `weights` makes views of its block's slab.
    pub(super) fn task(
        &mut self,
        order: &TaskOrder,
        weights: impl FnOnce(&TensorsAt) -> Option<BlockWeights<B::Weight>>,
    ) -> Result<(), DeviceError> {
        let Some(job) = &mut self.job else { return Err(DeviceError::Compute("no job is running".into())) };
        let layout = order.weights.and_then(|(block, _)| job.layouts.get(block.0 as usize));
        let weights = layout.and_then(weights);
        let at = At { stage: order.at.stage, pass: order.at.pass, task: order.at.task };
        let result = job.program.run(&mut self.ops, at, weights.as_ref(), &mut job.host);
        let ops = &mut self.ops;
        result.map_err(|e| job.host.failed.take().unwrap_or_else(|| failed(ops, e)))
    }

    /// Between stages nothing computes; what lives on is counted against the next stage's limit.
    pub(super) fn limit(&self, activations: Bytes) {
        self.ops.ledger.limit((activations > Bytes::ZERO).then_some(activations));
    }
}

impl<B: Backend + Failing> Work for Pipeline<B> {
    fn begin(&mut self, recipe: WanRecipe, layouts: Vec<TensorsAt>, host: RunHost) {
        self.job = Some(Running { program: WanProgram::new(recipe), layouts, host });
    }

    fn host(&mut self) -> Option<&mut RunHost> {
        self.job.as_mut().map(|job| &mut job.host)
    }

    fn save(&mut self, sink: Sink<'_>) -> Result<(), DeviceError> {
        let done = self.job.as_mut().map_or(Ok(()), |job| job.program.save(&mut self.ops, sink));
        done.map_err(|error| failed(&mut self.ops, error))
    }

    fn restore(&mut self, saved: Saved<'_>) -> Result<(), DeviceError> {
        let done = self.job.as_mut().map_or(Ok(()), |job| job.program.restore(&mut self.ops, saved));
        done.map_err(|error| failed(&mut self.ops, error))
    }

    fn end(&mut self) -> Option<RunHost> {
        self.job.take().map(|job| job.host)
    }
}

/// A pipeline on the CPU.
pub(super) fn on_cpu(kernels: CpuKernels) -> Pipeline<CandleCpu> {
    Pipeline::new(Ops::new(CandleCpu { exec: kernels.exec }, Arc::new(kernels)))
}

impl Compute for Pipeline<CandleCpu> {
    fn run(&mut self, order: &TaskOrder, slab: Option<&Arc<Slab>>) -> Result<(), DeviceError> {
        self.task(order, |layout| slab.map(|slab| block_weights(layout, slab)))
    }

    fn set_aside(&mut self, activations: Bytes) {
        self.limit(activations);
    }
}

/// A pipeline on a GPU, whose kernels are queued on `stream`.
#[cfg(feature = "cuda")]
pub(super) fn on_cuda(gpu: &crate::Gpu, stream: &loadline_cuda::driver::Stream) -> Pipeline<CudaBackend> {
    let backend = CudaBackend::new(stream, gpu.kernels());
    Pipeline::new(Ops::new(backend, Arc::new(CudaKernels)))
}

#[cfg(feature = "cuda")]
impl Pipeline<CudaBackend> {
    /// See [`CudaBackend::stage_within`].
    pub(super) fn stage_within(&mut self, most: Bytes) -> Bytes {
        self.ops.backend.stage_within(most)
    }
}

#[cfg(feature = "cuda")]
impl CudaCompute for Pipeline<CudaBackend> {
    fn run(&mut self, order: &TaskOrder, weights: Option<Region>) -> Result<(), DeviceError> {
        self.task(order, |layout| weights.map(|slab| slab_weights(layout, slab.start)))
    }

    fn set_aside(&mut self, activations: Option<Region>) -> Result<(), DeviceError> {
        self.limit(Bytes(activations.map_or(0, |region| region.bytes)));
        let region = activations.map(|Region { start, bytes }| (start, bytes));
        self.ops.backend.set_aside(region).map_err(|failure| match failure {
            CudaFailure::Driver(error) => cuda::device_error(error),
            other => DeviceError::Compute(other.to_string()),
        })
    }
}

/// What the device said, or else what the operation says.
fn failed<B: Backend + Failing>(ops: &mut Ops<B>, error: OpError) -> DeviceError {
    ops.backend.failure().unwrap_or_else(|| device_error(error))
}

fn device_error(error: OpError) -> DeviceError {
    match error {
        OpError::OverBudget(over) => DeviceError::BudgetExceeded {
            what: over.what,
            requested: over.requested,
            in_use: over.in_use,
            limit: over.limit,
        },
        other => DeviceError::Compute(other.to_string()),
    }
}

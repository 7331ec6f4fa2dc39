//! Every call of the op layer, as kernels on a stream.
//!
//! An operation takes memory for its output and its scratch first, since that may move tensors, and asks for addresses
//! only then. Nothing here waits for the GPU but what hands values to the host.

use loadline_core::{Bytes, DType};
use loadline_cuda::driver::{CudaError, DevicePtr, Stream};
use loadline_cuda::kernels::{Element, Kernels, Launch, Misfit, PerRow, Scratch, Weight as Stored};
use loadline_models::ops::{Backend, Call, KernelSet, OpError, OpShape, Tensor, Weight};

use super::arena::{Figures, Place};
use super::kernels::{CudaKernels, element, stored};
use super::tensor::{CudaFailure, CudaTensor, Memory};
use super::weights::CudaWeight;

pub(super) type T = Tensor<CudaTensor>;
pub(super) type W = Weight<CudaWeight>;
pub(super) type Done = Result<Option<CudaTensor>, CudaFailure>;

/// Computes on a GPU.
pub struct CudaBackend {
    pub(super) memory: Memory,
    kernels: Kernels,
    failure: Option<CudaError>,
}

impl CudaBackend {
    /// A backend whose kernels are queued on `stream`. It has no memory until [`set_aside`](Self::set_aside) gives it
    /// some.
    #[must_use]
    pub fn new(stream: &Stream, kernels: &Kernels) -> Self {
        Self { memory: Memory::new(stream), kernels: kernels.clone(), failure: None }
    }

    /// Says how much host memory may be locked for copies from and to the host; gives how much is. Nothing is before
    /// this is called.
    pub fn stage_within(&mut self, most: Bytes) -> Bytes {
        self.memory.stage_within(most)
    }

    /// Gives it a region of so many bytes for activations and scratch, or takes it away: what is live is in host memory
    /// then, until the next region.
    ///
    /// # Errors
    /// What the driver says. What was live is lost then.
    pub fn set_aside(&mut self, region: Option<(DevicePtr, u64)>) -> Result<(), CudaFailure> {
        let done = match region {
            Some((start, bytes)) => self.memory.open(start, bytes),
            None => self.memory.close(),
        };
        if done.is_err() {
            self.memory.abandon();
        }
        done
    }

    /// What the region holds, and held.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.memory.figures()
    }

    /// Starts a new high-water mark of the region.
    pub fn reset_high(&self) {
        self.memory.arena().reset_high();
    }

    /// What the driver said to the last operation that failed.
    pub fn take_failure(&mut self) -> Option<CudaError> {
        self.failure.take()
    }

    fn told(&mut self, failure: CudaFailure) -> OpError {
        let text = failure.to_string();
        if let CudaFailure::Driver(error) = failure {
            self.failure = Some(error);
        }
        OpError::Backend(text)
    }
}

impl Backend for CudaBackend {
    type Data = CudaTensor;
    type Weight = CudaWeight;

    fn view(&self, data: &CudaTensor, start: usize, len: usize) -> Result<CudaTensor, OpError> {
        Ok(data.part(start, len))
    }

    fn execute(&mut self, call: Call<'_, CudaTensor, CudaWeight>) -> Result<Option<CudaTensor>, OpError> {
        let done = match call {
            // The error of `fill` is the caller's, and no failure of the GPU.
            Call::Filled { shape, fill } => self.filled(shape, fill)?,
            other => self.products(other),
        };
        done.map_err(|failure| self.told(failure))
    }
}

/// What the operations of the other files are made of.
impl CudaBackend {
    /// Queues what a call becomes.
    pub(super) fn queue(&self, launches: Result<Vec<Launch>, Misfit>) -> Result<(), CudaFailure> {
        Ok(self.kernels.run(&self.memory.stream, &launches?)?)
    }

    /// A tensor of so many elements.
    pub(super) fn fresh(&mut self, dtype: DType, elements: usize) -> Result<CudaTensor, CudaFailure> {
        self.memory.tensor(dtype, elements)
    }

    /// The scratch of an operation, if it has any.
    pub(super) fn scratch(&mut self, shape: &OpShape) -> Result<Option<(Place, u64)>, CudaFailure> {
        match CudaKernels.scratch(shape) {
            0 => Ok(None),
            bytes => Ok(Some((self.memory.take(bytes)?, bytes))),
        }
    }

    pub(super) fn space(&self, scratch: Option<&(Place, u64)>) -> Result<Option<Scratch>, CudaFailure> {
        let Some((place, bytes)) = scratch else { return Ok(None) };
        Ok(Some(Scratch { at: self.memory.scratch_at(place)?, bytes: *bytes }))
    }

    /// Where a tensor is until memory is taken again.
    pub(super) fn at(&self, x: &T) -> Result<DevicePtr, CudaFailure> {
        self.memory.at(&x.data)
    }

    pub(super) fn element(x: &T) -> Result<Element, CudaFailure> {
        element(x.dtype).ok_or(CudaFailure::NoKernel)
    }

    /// A weight where it lies.
    pub(super) fn weight(w: &W) -> Result<Stored, CudaFailure> {
        let stored = stored(w.dtype).ok_or(CudaFailure::NoKernel)?;
        Ok(Stored { at: w.data.at, elements: w.data.elements as u64, stored })
    }

    pub(super) fn maybe(w: Option<&W>) -> Result<Option<Stored>, CudaFailure> {
        w.map(Self::weight).transpose()
    }

    /// f32 rows that are applied to rows of `channels`: one for all, or one each.
    pub(super) fn per_row(&self, x: &T, channels: usize) -> Result<PerRow, CudaFailure> {
        Ok(PerRow { at: self.at(x)?, each: x.elements() != channels })
    }
}

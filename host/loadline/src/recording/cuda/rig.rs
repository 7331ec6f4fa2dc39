//! Where a GPU's operations are called: on one stream, with weights from a slab that no cache holds.

use std::cell::Cell;

use loadline_core::{DType, Op, SLAB_ALIGN};
use loadline_cuda::driver::{DevicePtr, Stream};
use loadline_models::ops::{OpError, Weight};
use loadline_nn::cuda::{CudaBackend, CudaWeight};

use super::super::calls::{Rig, Wait};
use super::super::shapes::Kind;

/// A product on the tensor cores, at the width of Wan 1.3B: large enough to fill the largest GPUs.
pub(super) const ANCHOR: (Kind, [u64; 4]) = ((Op::Linear, DType::Bf16, DType::Bf16), [8192, 1536, 1536, 0]);

/// A GPU.
pub(in super::super) struct CudaRig {
    slab: (DevicePtr, u64),
    next: Cell<u64>,
    wait: Box<dyn Fn() -> Result<(), OpError>>,
}

impl CudaRig {
    pub(super) fn new(stream: &Stream, slab: (DevicePtr, u64)) -> Self {
        let stream = stream.clone();
        let wait = move || stream.synchronize().map_err(|e| OpError::Backend(e.to_string()));
        Self { slab, next: Cell::new(0), wait: Box::new(wait) }
    }
}

impl Rig for CudaRig {
    type Backend = CudaBackend;

    fn weight(&self, shape: &[usize], dtype: DType) -> Weight<CudaWeight> {
        let elements = shape.iter().product::<usize>();
        let bytes = (elements as u64 * dtype.element_bytes()).next_multiple_of(SLAB_ALIGN);
        let offset = if self.next.get() + bytes > self.slab.1 { 0 } else { self.next.get() };
        self.next.set(offset + bytes);
        let data = CudaWeight { at: self.slab.0.offset(offset), elements, dtype };
        Weight { shape: shape.to_vec(), dtype, data }
    }

    fn wait(&self) -> Wait<'_> {
        Some(&*self.wait)
    }

    fn anchor(&self) -> (Kind, [u64; 4]) {
        ANCHOR
    }
}

//! A block's tensors in the slab that holds it on the device.

use loadline_core::DType;
use loadline_cuda::driver::DevicePtr;
use loadline_models::ops::{BlockWeights, Weight};

use crate::TensorsAt;

/// One tensor where it lies in its slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CudaWeight {
    /// Its first byte.
    pub at: DevicePtr,
    /// The number of elements.
    pub elements: usize,
    /// The storage type.
    pub dtype: DType,
}

/// The weights of a block as views of the slab that begins at `slab`.
#[must_use]
pub fn slab_weights(layout: &TensorsAt, slab: DevicePtr) -> BlockWeights<CudaWeight> {
    let entries = layout.tensors.iter().map(|(name, shape, dtype, offset)| {
        let elements = shape.iter().product();
        let data = CudaWeight { at: slab.offset(*offset as u64), elements, dtype: *dtype };
        (name.clone(), Weight { shape: shape.clone(), dtype: *dtype, data })
    });
    BlockWeights { name: layout.block.clone(), entries: entries.collect() }
}

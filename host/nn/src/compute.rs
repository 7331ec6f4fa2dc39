//! A block's tensors in the slot that holds it.

use std::sync::Arc;

use loadline_core::{Component, DType, Knobs};
use loadline_device::{Slab, SlabView};
use loadline_models::ops::{BlockWeights, Weight};
use loadline_models::spec::storage_of;

/// Where each tensor of a block lies in its slab.
#[derive(Clone, Debug)]
pub struct TensorsAt {
    /// The block's name.
    pub block: String,
    /// Name, shape, type and first byte of each tensor.
    pub tensors: Vec<(String, Vec<usize>, DType, usize)>,
}

impl TensorsAt {
    /// The layout of block `index` of a component: its tensors in order, each aligned.
    #[must_use]
    pub fn new(component: &Component, index: usize, knobs: &Knobs) -> Self {
        let block = &component.blocks[index];
        let mut place = 0;
        let mut tensors = Vec::with_capacity(block.tensors.len());
        for tensor in component.block_tensors(block) {
            let dtype = storage_of(component, tensor, knobs);
            let shape = tensor.shape.iter().map(|d| *d as usize).collect();
            tensors.push((tensor.name.clone(), shape, dtype, place));
            place += dtype.bytes(tensor.elements()).round_up(loadline_core::SLAB_ALIGN).0 as usize;
        }
        Self { block: block.name.clone(), tensors }
    }
}

/// The weights of a block as views of the slab that holds it.
#[must_use]
pub fn block_weights(layout: &TensorsAt, slab: &Arc<Slab>) -> BlockWeights<SlabView> {
    let entries = layout.tensors.iter().map(|(name, shape, dtype, offset)| {
        let elements = shape.iter().product();
        let data = SlabView { slab: Arc::clone(slab), offset: *offset, elements, dtype: *dtype };
        (name.clone(), Weight { shape: shape.clone(), dtype: *dtype, data })
    });
    BlockWeights { name: layout.block.clone(), entries: entries.collect() }
}

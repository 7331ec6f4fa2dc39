//! What a model weighs: components, blocks, tensors and exact bytes.

use serde::{Deserialize, Serialize};

use crate::dtype::DType;
use crate::units::Bytes;
use crate::{ContentHash, SLAB_ALIGN};

/// One tensor of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorSpec {
    /// The name in the published checkpoint.
    pub name: String,
    /// The shape, slowest axis first.
    pub shape: Vec<u64>,
    /// The element type in the file; absent where only a config is known.
    pub file_dtype: Option<DType>,
    /// True where the reference keeps this tensor in f32 whatever the rest is stored in.
    pub keep_f32: bool,
    /// True for a persistent buffer: it is in the file but is no parameter.
    pub buffer: bool,
}

impl TensorSpec {
    /// The number of elements.
    #[must_use]
    pub fn elements(&self) -> u64 {
        self.shape.iter().fold(1, |n, d| n.saturating_mul(*d))
    }

    /// The element type in memory when the component is stored as `storage`, a type without blocks.
    #[must_use]
    pub fn storage(&self, storage: DType) -> DType {
        if self.keep_f32 { DType::F32 } else { storage }
    }

    /// Bytes in memory when the component is stored as `storage`, without padding.
    #[must_use]
    pub fn bytes(&self, storage: DType) -> Bytes {
        self.storage(storage).bytes(self.elements())
    }
}

/// The unit that is swapped: a transformer block, a VAE stage, or what stands before and after them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockSpec {
    /// A name that is unique in the component, such as `blocks.7` or `front`.
    pub name: String,
    /// Indices into the component's tensors, in order of use.
    pub tensors: Vec<u32>,
}

/// One component of a pipeline, such as `text_encoder`, `transformer` or `vae`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// The name in the model index.
    pub name: String,
    /// The class in the model index, such as `WanTransformer3DModel`.
    pub class: String,
    /// Every tensor, in order of use. Empty where no config was published.
    pub tensors: Vec<TensorSpec>,
    /// The swappable blocks, in order of use.
    pub blocks: Vec<BlockSpec>,
    /// True where the model index names the component but nothing else is known of it.
    pub absent: bool,
}

impl Component {
    /// The number of parameters, persistent buffers not counted.
    #[must_use]
    pub fn params(&self) -> u64 {
        self.tensors.iter().filter(|t| !t.buffer).map(TensorSpec::elements).sum()
    }

    /// Parameter bytes if every tensor were stored as `dtype`.
    #[must_use]
    pub fn uniform_bytes(&self, dtype: DType) -> Bytes {
        dtype.bytes(self.params())
    }

    /// Parameter bytes when stored as `dtype` with the tensors that the reference keeps in f32.
    #[must_use]
    pub fn mixed_bytes(&self, dtype: DType) -> Bytes {
        self.tensors.iter().filter(|t| !t.buffer).map(|t| t.bytes(dtype)).sum()
    }

    /// The parameters of one block.
    #[must_use]
    pub fn block_params(&self, block: &BlockSpec) -> u64 {
        self.block_tensors(block).filter(|t| !t.buffer).map(TensorSpec::elements).sum()
    }

    /// Bytes of the contiguous slab that holds one block: every tensor starts at a multiple of
    /// [`SLAB_ALIGN`].
    #[must_use]
    pub fn slab_bytes(&self, block: &BlockSpec, storage: DType) -> Bytes {
        self.block_tensors(block).map(|t| t.bytes(storage).round_up(SLAB_ALIGN)).sum()
    }

    /// The tensors of one block, in order of use.
    pub fn block_tensors<'a>(&'a self, block: &'a BlockSpec) -> impl Iterator<Item = &'a TensorSpec> {
        block.tensors.iter().filter_map(|i| self.tensors.get(*i as usize))
    }

    /// The element type that most of the file's bytes have, if the files were read.
    #[must_use]
    pub fn file_dtype(&self) -> Option<DType> {
        let weight = |dtype| -> u64 {
            self.tensors.iter().filter(|t| t.file_dtype == Some(dtype)).map(TensorSpec::elements).sum()
        };
        DType::ALL.into_iter().filter(|d| weight(*d) > 0).max_by_key(|d| weight(*d))
    }
}

/// A model as weight: its components and their tensors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelSpec {
    /// The catalog name or the folder's name.
    pub name: String,
    /// The pipeline class of the model index, such as `WanPipeline`.
    pub pipeline: String,
    /// The components that hold weights, in the order in which a run uses them.
    pub components: Vec<Component>,
}

impl ModelSpec {
    /// The component of that name.
    #[must_use]
    pub fn component(&self, name: &str) -> Option<&Component> {
        self.components.iter().find(|c| c.name == name)
    }

    /// The hash of every name, shape and type, which changes when the model does.
    #[must_use]
    pub fn hash(&self) -> ContentHash {
        ContentHash::of(self)
    }
}

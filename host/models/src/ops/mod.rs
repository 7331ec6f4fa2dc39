//! The op layer: the only way in which an architecture computes anything.
//!
//! An architecture is written once, as calls on [`Ops`]. Each call declares its output and its scratch
//! for a [`KernelSet`] before anything happens, charges both to a [`Ledger`], and then hands the
//! operands to a [`Backend`]. With the backend [`Symbolic`] nothing is computed and the ledger's peaks
//! and the recorded costs are the forecast; with a real backend the same calls compute the numbers and
//! the same ledger refuses an operation *before* it starts when it would exceed what was set aside.
//! So shape and math cannot drift apart: there is one text of each architecture.
//!
//! Layouts: sequences are `[tokens, channels]`, videos `[frames, height, width, channels]`, both
//! row-major. A batch is a loop of the caller's.

mod call;
mod kernel_set;
mod ledger;
mod methods;
mod mixed;
mod moves;
mod shape;
mod symbolic;

pub use call::{Activation, Bias, Call, ConvSpec, Modulation, Spatial};
pub use kernel_set::{KernelSet, StreamedCuda};
pub use ledger::{Charge, Ledger, OverBudget};
pub use methods::Ops;
pub use shape::{Moves, OpShape};
pub use symbolic::{Recording, Symbolic};

use std::sync::Arc;

use loadline_core::DType;

/// Why an operation did not happen.
#[derive(Debug, thiserror::Error)]
pub enum OpError {
    /// The operation would exceed the device bytes set aside for activations.
    #[error(transparent)]
    OverBudget(#[from] OverBudget),
    /// A block's weights lack a tensor that the architecture uses.
    #[error(
        "block '{block}' has no tensor '{tensor}': the folder's config.json and its weights do not belong together"
    )]
    MissingTensor {
        /// The block.
        block: String,
        /// The name inside the block.
        tensor: String,
    },
    /// Shapes do not fit together.
    #[error("{op}: {detail}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// What does not fit.
        detail: String,
    },
    /// The backend failed.
    #[error("{0}")]
    Backend(String),
}

/// A part of a tensor that is to be saved. The parts of one tensor come one after the other, in order.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// The tensor's name.
    pub name: &'a str,
    /// The shape of the whole tensor.
    pub shape: &'a [usize],
    /// The type that holds its values exactly.
    pub dtype: DType,
    /// The next of its values.
    pub values: &'a [f32],
}

/// What takes tensors that are to be saved.
pub type Sink<'a> = &'a mut dyn FnMut(Piece<'_>);

/// What a checkpoint gives back for a name: a shape and its values.
pub type Saved<'a> = &'a mut dyn FnMut(&str) -> Option<(Vec<usize>, Vec<f32>)>;

/// What computes, or only pretends to.
pub trait Backend {
    /// The data of a tensor; cloning shares it.
    type Data: Clone;
    /// The data of a weight: a view of a block's slab.
    type Weight: Clone;

    /// Carries out one operation. Calls that write in place return nothing.
    ///
    /// # Errors
    /// If the device fails; running out of budget was ruled out before.
    fn execute(&mut self, call: Call<'_, Self::Data, Self::Weight>) -> Result<Option<Self::Data>, OpError>;

    /// Elements `start..start + len` of dense data, shared with it.
    ///
    /// # Errors
    /// If the device fails.
    fn view(&self, data: &Self::Data, start: usize, len: usize) -> Result<Self::Data, OpError>;
}

/// An activation.
#[derive(Clone, Debug)]
pub struct Tensor<D> {
    /// The shape, slowest axis first.
    pub shape: Vec<usize>,
    /// The element type: f32 or the compute type.
    pub dtype: DType,
    /// The backend's data.
    pub data: D,
    charge: Arc<Charge>,
}

impl<D: Clone> Tensor<D> {
    /// The number of elements.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The length of the fastest axis; 1 for a scalar.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// The number of rows of [`channels`](Self::channels) elements.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.elements() / self.channels().max(1)
    }

    /// The same elements under another shape; nothing is copied.
    ///
    /// # Errors
    /// If the number of elements differs.
    pub fn reshaped(mut self, shape: &[usize]) -> Result<Self, OpError> {
        if shape.iter().product::<usize>() != self.elements() {
            let detail = format!("{:?} has other elements than {shape:?}", self.shape);
            return Err(OpError::Shape { op: "reshape", detail });
        }
        self.shape = shape.to_vec();
        Ok(self)
    }

    /// A stand-in without elements, for moving a tensor out of a structure for a moment. It shares no
    /// charge, so the moved tensor stays unique.
    pub(crate) fn hollow(&self) -> Self {
        Self { shape: vec![0], dtype: self.dtype, data: self.data.clone(), charge: Arc::new(Charge::nothing()) }
    }

    /// Whether nobody else holds the tensor, so that it may be written in place.
    #[must_use]
    pub fn is_unique(&self) -> bool {
        Arc::strong_count(&self.charge) == 1
    }
}

/// One weight of a block, where it lies in the block's slab.
#[derive(Clone, Debug)]
pub struct Weight<W> {
    /// The shape, slowest axis first.
    pub shape: Vec<usize>,
    /// The storage type.
    pub dtype: DType,
    /// The backend's data.
    pub data: W,
}

/// The weights of one block by their names inside the block.
#[derive(Clone, Debug)]
pub struct BlockWeights<W> {
    /// The block's name, for errors.
    pub name: String,
    /// `(name inside the component, weight)`, in slab order.
    pub entries: Vec<(String, Weight<W>)>,
}

impl<W> BlockWeights<W> {
    /// The weight of that full name.
    ///
    /// # Errors
    /// If the block has no such tensor.
    pub fn get(&self, name: &str) -> Result<&Weight<W>, OpError> {
        self.optional(name).ok_or_else(|| OpError::MissingTensor { block: self.name.clone(), tensor: name.to_owned() })
    }

    /// The weight of that full name, if the block has it.
    #[must_use]
    pub fn optional(&self, name: &str) -> Option<&Weight<W>> {
        self.entries.iter().find(|(n, _)| n == name).map(|(_, w)| w)
    }
}

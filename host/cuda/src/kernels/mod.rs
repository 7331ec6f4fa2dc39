//! The kernels, and how they are launched.
//!
//! A call is plain data with addresses on the device; `launches` says what is to be launched for it, or why its
//! operands do not fit together, and [`Kernels::run`] queues that on a stream. Nothing here allocates on the device,
//! waits, or reads what kernels wrote. Layouts are those of the op layer: row-major, channels last.
//!
//! | call | computes | scratch |
//! |---|---|---|
//! | [`Linear`] | `act(x w^T + bias)` | [`linear_scratch`]: none for weights of the activations' type |
//! | [`Conv`] | convolution with history, padding and strides | [`conv_scratch`]: a slice of weights, at most 32 MiB |
//! | [`Attention`] | softmax attention with masks and relative bias | none |
//! | [`RowNorm`] | layer norm, RMS norm, L2 norm of channels, in place or not | none |
//! | [`GroupNorm`] | group norm, with or without grids | [`group_norm_scratch`] |
//! | [`elements`] | sums, gates, activations, rotary embedding, casts, dequantisation | none |
//! | [`moves`] | slices, concatenations, permutations, repetitions | none |
//!
//! All arithmetic is f32, and a result is rounded once. Two roundings are added where activations are bf16: weights of
//! another type are rounded to bf16 before a product on the tensor cores, and so are the softmax's weights.
//!
//! Dense products of linear layers are also told as a [`Product`](crate::blas::Product), which NVIDIA's library takes
//! where the machine has it. Its sums are f32 as well, and a result is rounded once.
//!
//! A slice of weights is at most 32 MiB unless 256 rows of it take more.
//!
//! The sources are in `kernels/`, their PTX in `ptx/`, made by `cargo xtask cuda-kernels`. `kernels/emulation` compiles
//! the same sources for the processor, so that tests compare every kernel with a reference on machines without a GPU.

mod attention;
mod conv;
pub mod elements;
mod launch;
mod linear;
pub mod moves;
mod name;
mod norm;
mod operand;

pub use attention::Attention;
pub use conv::{Conv, ConvShape, conv_scratch};
pub use launch::{Kernels, Launch};
pub use linear::{Linear, linear_scratch};
pub use name::Name;
pub use norm::{GroupNorm, RowNorm, RowNormKind, Spatial, group_norm_scratch};
pub use operand::{Activation, Element, Misfit, PerRow, Scratch, Stored, Weight};

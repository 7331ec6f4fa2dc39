//! The op layer's real backend: candle tensors, weights that stay in their slabs, kernels of our own.
//!
//! Activations are candle tensors, so that views are free and other backends of candle can follow. Weights are never
//! tensors of their own: a kernel reads them where they lie in a slot. Every operation allocates its output and the
//! scratch that [`CpuKernels`] declares, and nothing else of note; a test with a counting allocator proves it.

mod backend;
mod compute;
#[cfg(feature = "cuda")]
pub mod cuda;
mod kernels;
mod store;

pub use backend::CandleCpu;
pub use compute::{TensorsAt, block_weights};
pub use kernels::CpuKernels;

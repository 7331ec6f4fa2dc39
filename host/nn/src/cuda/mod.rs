//! The op layer on NVIDIA GPUs.
//!
//! Activations lie in one region of device memory, which the plan set aside; weights are read where they lie in a slot.
//! Kernels are queued on one stream, in the order of the calls, and memory that is given back is used again in that
//! order: nothing waits for the GPU but what hands values to the host.

pub mod arena;
mod backend;
mod kernels;
mod pieces;
mod products;
mod tensor;
mod weights;

pub use backend::CudaBackend;
pub use kernels::CudaKernels;
pub use loadline_cuda::kernels::Kernels;
pub use tensor::{CudaFailure, CudaTensor};
pub use weights::{CudaWeight, slab_weights};

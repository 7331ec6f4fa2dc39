//! kernels
pub(crate) mod element;
mod gemm;
mod linear;
mod math;
mod parallel;
mod scratch;
mod set;
mod simd;

pub use element::{Element, PerRow, Weights};
pub use linear::{LinearShape, linear, linear_scratch};
pub use math::Activation;
pub use set::{Exec, KernelSet};

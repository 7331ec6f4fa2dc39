//! Which scratch the kernels of a device need.

use super::shape::OpShape;

/// A set of kernels, known by name, that declares the scratch of each of its operations.
pub trait KernelSet: Send + Sync {
    /// The name that profiles and forecasts use.
    fn name(&self) -> &str;

    /// Scratch bytes of one operation, never below what the kernel takes.
    fn scratch(&self, op: &OpShape) -> u64;

    /// What the device takes from its memory for one allocation.
    fn allocation(&self, bytes: u64) -> u64;
}

/// The kernels that forecasts of CUDA devices assume: attention streams its softmax and keeps two
/// floats a row, convolution gathers its input as it goes, and matrix products need no workspace.
/// Allocations are rounded up to 512 bytes, as the driver's pool does.
#[derive(Clone, Copy, Debug, Default)]
pub struct StreamedCuda;

impl KernelSet for StreamedCuda {
    fn name(&self) -> &str {
        "cuda"
    }

    fn scratch(&self, op: &OpShape) -> u64 {
        match *op {
            OpShape::Attention { queries, heads, .. } => (queries * heads * 2 * 4) as u64,
            _ => 0,
        }
    }

    fn allocation(&self, bytes: u64) -> u64 {
        bytes.div_ceil(512) * 512
    }
}

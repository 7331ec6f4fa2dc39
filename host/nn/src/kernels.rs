//! What the CPU's kernels declare.

use loadline_kernels::{
    AttentionShape, ConvShape, Exec, GroupNormShape, LinearShape, SpatialPad, attention_scratch, conv3d_scratch,
    group_norm_scratch, linear_scratch, row_norm_scratch,
};
use loadline_models::ops::{ConvSpec, KernelSet, OpShape};

/// The kernels of one instruction set on a number of threads.
#[derive(Clone, Copy, Debug)]
pub struct CpuKernels {
    /// What runs and on how many threads.
    pub exec: Exec,
}

impl CpuKernels {
    /// The fastest kernels of this machine, on all of its threads.
    #[must_use]
    pub fn detect() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self { exec: Exec::new(loadline_kernels::KernelSet::detect(), threads) }
    }

    /// The kernel set of that name, if this machine can run it.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let set = loadline_kernels::KernelSet::from_name(name).filter(|s| s.available())?;
        Some(Self { exec: Exec::new(set, Self::detect().exec.threads) })
    }
}

impl KernelSet for CpuKernels {
    fn name(&self) -> &str {
        self.exec.set.name()
    }

    fn scratch(&self, op: &OpShape) -> u64 {
        let bytes = match *op {
            OpShape::Linear { m, n, k, .. } => {
                linear_scratch(&LinearShape { rows: m, inputs: k, outputs: n }, self.exec)
            }
            OpShape::Conv { input, history, spec, kernel, cin, cout, .. } => {
                conv3d_scratch(&conv_shape(input, history, spec, kernel, cin, cout), self.exec)
            }
            OpShape::Attention { queries, keys, heads, dim, .. } => {
                attention_scratch(&AttentionShape { queries, keys, heads, dim }, self.exec)
            }
            OpShape::RowNorm { rows, channels, .. } => row_norm_scratch(rows, channels, self.exec),
            OpShape::GroupNorm { positions, channels, groups, .. } => {
                group_norm_scratch(&GroupNormShape { positions, channels, groups }, self.exec)
            }
            OpShape::Elementwise { .. } => 0,
        };
        bytes as u64
    }

    fn allocation(&self, bytes: u64) -> u64 {
        bytes
    }
}

pub(crate) fn conv_shape(
    input: [usize; 3],
    history: usize,
    spec: ConvSpec,
    kernel: [usize; 3],
    cin: usize,
    cout: usize,
) -> ConvShape {
    let [top, bottom, left, right] = spec.pad;
    ConvShape {
        input,
        channels_in: cin,
        channels_out: cout,
        kernel,
        stride: spec.stride,
        history,
        pad_front: spec.pad_front,
        pad: SpatialPad { top, bottom, left, right },
    }
}

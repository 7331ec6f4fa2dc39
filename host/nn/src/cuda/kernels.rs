//! What the GPU's kernels declare.

use loadline_core::DType;
use loadline_cuda::kernels::{
    Activation, ConvShape, Element, Stored, conv_scratch, group_norm_scratch, linear_scratch,
};
use loadline_models::ops::{Activation as Act, ConvSpec, KernelSet, OpShape};

use super::arena::taken;

/// The kernels for GPUs from compute capability 8.0 on.
#[derive(Clone, Copy, Debug, Default)]
pub struct CudaKernels;

impl KernelSet for CudaKernels {
    fn name(&self) -> &str {
        "cuda-sm80"
    }

    fn scratch(&self, op: &OpShape) -> u64 {
        match *op {
            OpShape::Linear { m, n, k, act, weight } => match (element(act), stored(weight)) {
                (Some(element), Some(stored)) => linear_scratch(element, m as u64, k as u64, n as u64, stored),
                _ => 0,
            },
            OpShape::Conv { input, history, spec, kernel, cin, cout, act, weight, .. } => {
                let shape = conv_shape(input, history, spec, kernel, [cin, cout]);
                match (element(act), stored(weight)) {
                    (Some(element), Some(stored)) => conv_scratch(element, &shape, stored),
                    _ => 0,
                }
            }
            OpShape::GroupNorm { channels, groups, .. } => group_norm_scratch(channels as u64, groups as u64),
            OpShape::Attention { .. } | OpShape::RowNorm { .. } | OpShape::Elementwise { .. } => 0,
        }
    }

    fn allocation(&self, bytes: u64) -> u64 {
        taken(bytes)
    }
}

/// The kernels' word for a type of activations, which others are not.
pub(super) fn element(dtype: DType) -> Option<Element> {
    match dtype {
        DType::F32 => Some(Element::F32),
        DType::Bf16 => Some(Element::Bf16),
        _ => None,
    }
}

/// The kernels' word for a type of weights.
pub(super) fn stored(dtype: DType) -> Option<Stored> {
    Some(match dtype {
        DType::F32 => Stored::F32,
        DType::F16 => Stored::F16,
        DType::Bf16 => Stored::Bf16,
        DType::F8E4M3 => Stored::F8E4M3,
        DType::Q8_0 => Stored::Q8_0,
        DType::Q6K => Stored::Q6K,
        DType::Q5K => Stored::Q5K,
        DType::Q4K => Stored::Q4K,
        DType::Q3K => Stored::Q3K,
        DType::Q2K => Stored::Q2K,
        DType::Q5_1 => Stored::Q5_1,
        DType::Q5_0 => Stored::Q5_0,
        DType::Q4_1 => Stored::Q4_1,
        DType::Q4_0 => Stored::Q4_0,
        _ => return None,
    })
}

pub(super) fn activation(act: Act) -> Activation {
    match act {
        Act::None => Activation::None,
        Act::Silu => Activation::Silu,
        Act::GeluTanh => Activation::GeluTanh,
        Act::GeluErf => Activation::GeluErf,
        Act::QuickGelu => Activation::QuickGelu,
    }
}

pub(super) fn conv_shape(
    input: [usize; 3],
    history: usize,
    spec: ConvSpec,
    kernel: [usize; 3],
    [channels_in, channels_out]: [usize; 2],
) -> ConvShape {
    let wide = |sizes: [usize; 3]| sizes.map(|size| size as u64);
    ConvShape {
        input: wide(input),
        channels_in: channels_in as u64,
        channels_out: channels_out as u64,
        kernel: wide(kernel),
        stride: wide(spec.stride),
        history: history as u64,
        pad_front: spec.pad_front as u64,
        pad: spec.pad.map(|size| size as u64),
    }
}

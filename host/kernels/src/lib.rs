//! kernels
mod attention;
mod conv;
mod element;
mod elementwise;
mod gemm;
mod group_norm;
mod layout;
mod linear;
mod math;
mod norm;
mod parallel;
mod reduce;
mod scratch;
mod set;
mod simd;

pub use attention::{AttentionOptions, AttentionShape, attention, attention_scratch};
pub use conv::{ConvShape, SpatialPad, conv3d, conv3d_scratch};
pub use element::{Element, PerRow, Weights};
pub use elementwise::{
    activate_assign, add_assign, cast, clamp_assign, combine, gated_add_assign, mul_assign, rope_interleaved,
    scale_shift_channels,
};
pub use group_norm::{GroupNorm, GroupNormShape, group_norm, group_norm_scratch};
pub use layout::{permute, upsample_nearest_2x};
pub use linear::{LinearShape, linear, linear_scratch};
pub use math::Activation;
pub use norm::{LayerNorm, l2_norm_channels, layer_norm, rms_norm, row_norm_scratch};
pub use set::{Exec, KernelSet};

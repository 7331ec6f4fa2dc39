//! The CPU kernels of Loadline: linear layers, convolution, attention, norms,
//! elementwise operations and layout, on plain slices. Row-major, contiguous,
//! channels last.
//!
//! Three things are promised, and each has a test:
//!
//! - **Every byte of scratch is declared.** A kernel with scratch has a pure
//!   function `*_scratch(shape, exec)` that says how many bytes one call
//!   allocates, on any machine. Outputs belong to the caller. Nothing else of 4 KiB
//!   or more is allocated, and no thread is started. Weights are widened a
//!   panel at a time and never as a whole.
//! - **Threads do not change results.** Work is cut by shape, each output
//!   element is summed in one order, so any [`Exec::threads`] gives the same
//!   bits. Another [`KernelSet`] may round differently.
//! - **One rounding.** Activations are `f32` or `bf16`, weights `f32`, `bf16` or
//!   `f16` ([`Weights`]), those of linear layers also packed with scales ([`Packed`]);
//!   all arithmetic is f32 and the result is rounded once. Two sets round once more:
//!   [`KernelSet::AmxBf16`] and [`KernelSet::Avx512Bf16`] round the softmax's weights to
//!   bf16 where attention is in bf16, and packed weights where activations are bf16, as
//!   their products take nothing wider.
//!
//! A wrong length is the caller's bug, and a kernel's entry asserts against it
//! with a message that names the operand. This crate knows nothing of models,
//! files or devices, and its callers choose the rayon pool.
//!
//! # The kernels
//!
//! | kernel | computes | scratch |
//! |---|---|---|
//! | [`linear`] | `activation(x . w^T + bias)` | [`linear_scratch`], at most 1.4 MiB a task |
//! | [`conv3d`] | convolution over frames, with history | [`conv3d_scratch`], at most 1.4 MiB a task |
//! | [`attention`] | `softmax(scale * q . k^T + bias) . v` | [`attention_scratch`], at most 0.9 MiB a task |
//! | [`layer_norm`] [`rms_norm`] [`l2_norm_channels`] | norms of rows | [`row_norm_scratch`], a row a task |
//! | [`rms_norm_assign`] [`l2_norm_channels_assign`] | norms of rows, in place | [`row_norm_scratch`] |
//! | [`group_norm`] | norm of groups of channels | [`group_norm_scratch`], at most 512 floats a group |
//! | [`add_assign`] [`mul_assign`] [`gated_add_assign`] | `x + y`, `x * y`, `x + y * gate` | none |
//! | [`scale_shift_channels`] [`activate_assign`] [`clamp_assign`] | in place | none |
//! | [`rope_interleaved`] | rotary embedding, in place | none |
//! | [`combine`] [`cast`] | linear combination, conversion | none |
//! | [`upsample_nearest_2x`] [`permute`] | moves | none |
//!
//! # Kernel sets
//!
//! [`KernelSet::detect`] gives the first of these that the machine can run; a caller
//! may force any other that is [`available`](KernelSet::available). Tests run all of
//! them against f64 references.
//!
//! | set | needs | products |
//! |---|---|---|
//! | `amx-bf16` | AVX-512 as below, AMX-TILE and AMX-BF16, Linux 5.16 | as below, on tile registers, 32 x 32 |
//! | `avx512-bf16` | AVX-512 F, BW, DQ, VL and BF16 | pairs of bf16 where both operands are bf16, of even depth |
//! | `avx512` | AVX-512 F, BW, DQ, VL | f32, 12 x 32 register tile |
//! | `avx2` | AVX2 and FMA | f32, 6 x 16 register tile |
//! | `plain` | nothing | f32, 6 x 8 register tile, multiply and add rounded apart |
//!
//! # Signatures
//!
//! `A` is an activation type ([`Element`]), `W` stands for [`Weights`].
//!
//! ```text
//! Exec::new(set: KernelSet, threads: usize)
//! linear(exec, &LinearShape, x, w: W or Packed, bias: Option<W>, Activation, y)
//! conv3d(exec, &ConvShape, x, history, w: W, bias: Option<W>, y)
//! attention(exec, &AttentionShape, &AttentionOptions, q, k, v, o)
//! layer_norm(exec, cols, x, &LayerNorm, y)
//! rms_norm(exec, cols, x, weight: W, eps, y)    rms_norm_assign(exec, cols, x, weight: W, eps)
//! l2_norm_channels(exec, cols, x, gamma: W, silu: bool, y)
//! l2_norm_channels_assign(exec, cols, x, gamma: W, silu: bool)
//! group_norm(exec, &GroupNormShape, x, &GroupNorm, y)
//! add_assign(exec, x, y)    mul_assign(exec, x, y)
//! gated_add_assign(exec, cols, x, y, gate: PerRow)
//! scale_shift_channels(exec, x, scale, shift)
//! activate_assign(exec, x, Activation)    clamp_assign(exec, x, low, high)
//! rope_interleaved(exec, heads, dim, x, cos, sin)
//! combine(exec, out, &[(coefficient, values)])    cast(exec, x: W, y)
//! upsample_nearest_2x(exec, [T, H, W, C], x, y)    permute(exec, shape, axes, x, y)
//! ```
//!
//! # Example
//!
//! ```
//! use loadline_kernels::{Activation, Exec, KernelSet, LinearShape, Weights, linear, linear_scratch};
//!
//! let exec = Exec::new(KernelSet::detect(), 1);
//! let shape = LinearShape { rows: 1, inputs: 2, outputs: 3 };
//! assert!(linear_scratch(&shape, exec) < 8192);
//!
//! let w = [1.0, 0.0, 0.0, 1.0, 1.0, 1.0];
//! let mut y = [0.0f32; 3];
//! linear(exec, &shape, &[2.0, 5.0], Weights::F32(&w), None, Activation::None, &mut y);
//! assert_eq!(y, [2.0, 5.0, 7.0]);
//! ```

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
mod packed;
mod parallel;
mod reduce;
mod scratch;
mod set;
mod simd;

pub use attention::{AttentionOptions, AttentionShape, attention, attention_scratch};
pub use conv::{ConvShape, SpatialPad, conv3d, conv3d_scratch};
pub use element::{Element, Matrix, PerRow, Weights};
pub use elementwise::{
    activate_assign, add_assign, cast, clamp_assign, combine, gated_add_assign, mul_assign, rope_interleaved,
    scale_shift_channels,
};
pub use group_norm::{GroupNorm, GroupNormShape, group_norm, group_norm_scratch};
pub use layout::{permute, upsample_nearest_2x};
pub use linear::{LinearShape, linear, linear_scratch};
pub use math::Activation;
pub use norm::{
    LayerNorm, l2_norm_channels, l2_norm_channels_assign, layer_norm, rms_norm, rms_norm_assign, row_norm_scratch,
};
pub use packed::{Format, Packed};
pub use set::{Exec, KernelSet};

//! The CogVideoX video transformers: 1.0 and 1.5, with and without a picture.
//!
//! Source of the formulas: diffusers `CogVideoXTransformer3DModel`. Prompt and video attend to each other in one
//! sequence, and each block norms both with the same weights under modulations of their own. Time embedding and
//! modulation run in f32 whatever the compute type is, which is at least as exact as the reference.

mod block;
mod embed;

pub use block::block;
pub use embed::{Inputs, positions, rotary, start};

use loadline_core::DType;

use super::common::{modulated, optional_affine, plain};
use super::wan_dit::Patches;
use crate::ops::{Activation, Backend, BlockWeights, OpError, Ops, Tensor};
use crate::params::CogVideoXConfig;

/// What the branches of guidance that run together carry from block to block.
pub struct Branch<D> {
    /// Prompt and video of each branch.
    pub members: Vec<Member<D>>,
    /// `silu` of the embedded time, f32 `[1, time_embed_dim]`.
    pub time: Tensor<D>,
}

/// The sequence of one branch, in the compute type.
pub struct Member<D> {
    /// `[text tokens, dim]`.
    pub text: Tensor<D>,
    /// `[video tokens, dim]`.
    pub video: Tensor<D>,
}

/// The model's output `[latent frames, channels, height, width]` in f32, one for each member.
///
/// # Errors
/// If a weight is missing or the budget is exceeded.
pub fn finish<B: Backend>(
    ops: &mut Ops<B>,
    config: &CogVideoXConfig,
    grid: Patches,
    weights: &BlockWeights<B::Weight>,
    branch: Branch<B::Data>,
) -> Result<Vec<Tensor<B::Data>>, OpError> {
    let Branch { members, time } = branch;
    let table = plain(ops, weights, "norm_out.linear", &time)?.reshaped(&[2, config.inner_dim()])?;
    let mut outputs = Vec::with_capacity(members.len());
    for Member { text, video } in members {
        drop(text);
        let n = ops.layer_norm(&video, optional_affine(weights, "norm_final"), config.norm_eps as f32, None)?;
        drop(video);
        let n = modulated(ops, &n, optional_affine(weights, "norm_out.norm"), config.norm_eps, &table, [0, 1])?;
        let out = plain(ops, weights, "proj_out", &n)?;
        drop(n);
        let out = ops.cast(out, DType::F32)?;
        outputs.push(unpatched(ops, config, grid, &out)?);
    }
    Ok(outputs)
}

fn unpatched<B: Backend>(
    ops: &mut Ops<B>,
    config: &CogVideoXConfig,
    grid: Patches,
    out: &Tensor<B::Data>,
) -> Result<Tensor<B::Data>, OpError> {
    let (p, pt, channels) = (config.patch_size, config.patch_size_t.unwrap_or(1), config.out_channels);
    let view = [grid.frames, grid.rows, grid.columns, channels, pt, p, p];
    let shape = [grid.frames * pt, channels, grid.rows * p, grid.columns * p];
    ops.permute(out, &view, &[0, 4, 3, 1, 5, 2, 6])?.reshaped(&shape)
}

/// `silu` of the embedded time, with the embedded offset of models that have one added before.
fn embedded_time<B: Backend>(
    ops: &mut Ops<B>,
    config: &CogVideoXConfig,
    weights: &BlockWeights<B::Weight>,
    timestep: f64,
) -> Result<Tensor<B::Data>, OpError> {
    let mut time = embed::sinusoid(ops, weights, "time_embedding.", config.inner_dim(), config, timestep)?;
    if let Some(width) = config.ofs_embed_dim {
        // The pipeline always passes the offset 2.
        let offset = embed::sinusoid(ops, weights, "ofs_embedding.", width, config, 2.0)?;
        time = ops.add_assign(time, &offset)?;
    }
    ops.activate_assign(time, Activation::Silu)
}

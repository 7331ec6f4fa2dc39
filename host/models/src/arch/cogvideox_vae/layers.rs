//! The layers that encoder and decoder share.

use loadline_core::ActClass;

use crate::arch::FeatureCache;
use crate::arch::cache::Remembered;
use crate::arch::common::{Out, SAME, affine, convolve, plain};
use crate::ops::{Backend, BlockWeights, OpError, Ops, Spatial, Tensor};
use crate::params::CogVideoXVaeConfig;

/// Frames that a causal convolution of three taps remembers.
const MEMORY: usize = 2;
/// Of the decoder's norms and of the last of the encoder; the other norms of the encoder have the config's.
pub(super) const EPS: f64 = 1e-6;

/// A causal 3x3x3 convolution with its memory.
pub(super) fn causal<B: Backend>(
    ops: &mut Ops<B>,
    weights: &BlockWeights<B::Weight>,
    name: &str,
    cache: &mut FeatureCache<B::Data>,
    x: &Tensor<B::Data>,
) -> Out<B> {
    let (place, memory) = cache.take();
    let older = match memory {
        Some(Remembered::Frames(frames)) => frames,
        _ => {
            let first = ops.view_rows(x, 0, 1)?;
            ops.within(ActClass::FeatureCache, |ops| ops.concat(&[&first; MEMORY]))?
        }
    };
    let newer = remember(ops, x, &older)?;
    let out = convolve(ops, weights, &format!("{name}.conv"), x, Some(&older), SAME)?;
    cache.put(place, Remembered::Frames(newer));
    Ok(out)
}

/// The last frames of `older ++ x`.
fn remember<B: Backend>(ops: &mut Ops<B>, x: &Tensor<B::Data>, older: &Tensor<B::Data>) -> Out<B> {
    let frames = x.shape[0];
    ops.within(ActClass::FeatureCache, |ops| {
        if frames >= MEMORY {
            return ops.rows(x, frames - MEMORY, MEMORY);
        }
        let kept = ops.view_rows(older, frames, older.shape[0] - frames)?;
        ops.concat(&[&kept, x])
    })
}

/// A group norm with `silu`; in the decoder scaled and shifted by the latents.
pub(super) fn normed<B: Backend>(
    ops: &mut Ops<B>,
    config: &CogVideoXVaeConfig,
    weights: &BlockWeights<B::Weight>,
    name: &str,
    eps: f64,
    latents: Option<&Tensor<B::Data>>,
    x: &Tensor<B::Data>,
) -> Out<B> {
    let groups = config.norm_num_groups;
    let Some(latents) = latents else {
        let (w, b) = affine(weights, name)?;
        return ops.group_norm(x, w, b, groups, eps as f32, true);
    };
    let scale = plain(ops, weights, &format!("{name}.conv_y.conv"), latents)?;
    let shift = plain(ops, weights, &format!("{name}.conv_b.conv"), latents)?;
    let spatial = Spatial { scale: &scale, shift: &shift };
    ops.spatial_norm(x, affine(weights, &format!("{name}.norm_layer"))?, groups, EPS as f32, spatial, true)
}

/// Residual blocks `{name}.resnets.0` to `count - 1`.
#[allow(clippy::too_many_arguments)] // the operands of a level
pub(super) fn resnets<B: Backend>(
    ops: &mut Ops<B>,
    config: &CogVideoXVaeConfig,
    weights: &BlockWeights<B::Weight>,
    name: &str,
    count: usize,
    cache: &mut FeatureCache<B::Data>,
    latents: Option<&Tensor<B::Data>>,
    mut x: Tensor<B::Data>,
) -> Out<B> {
    for i in 0..count {
        x = resnet(ops, config, weights, &format!("{name}.resnets.{i}"), cache, latents, x)?;
    }
    Ok(x)
}

/// Two normed causal convolutions with a shortcut.
fn resnet<B: Backend>(
    ops: &mut Ops<B>,
    config: &CogVideoXVaeConfig,
    weights: &BlockWeights<B::Weight>,
    name: &str,
    cache: &mut FeatureCache<B::Data>,
    latents: Option<&Tensor<B::Data>>,
    x: Tensor<B::Data>,
) -> Out<B> {
    let part = |part: &str| format!("{name}.{part}");
    let n = normed(ops, config, weights, &part("norm1"), config.norm_eps, latents, &x)?;
    let y = causal(ops, weights, &part("conv1"), cache, &n)?;
    drop(n);
    let n = normed(ops, config, weights, &part("norm2"), config.norm_eps, latents, &y)?;
    drop(y);
    let out = causal(ops, weights, &part("conv2"), cache, &n)?;
    drop(n);
    let shortcut = match weights.optional(&part("conv_shortcut.weight")) {
        Some(_) => plain(ops, weights, &part("conv_shortcut"), &x)?,
        None => x,
    };
    ops.add_assign(out, &shortcut)
}

/// An error for a level that the VAE does not have.
pub(super) fn no_level(op: &'static str, index: usize) -> OpError {
    OpError::Shape { op, detail: format!("the VAE has no level {index}") }
}

//! The layers that encoder and decoder share.

use loadline_core::ActClass;

use super::{FeatureCache, Remembered};
use crate::ops::{Activation, Backend, Bias, BlockWeights, ConvSpec, OpError, Ops, Tensor};

/// Frames that a causal convolution of three taps remembers.
const MEMORY: usize = 2;

const SAME: ConvSpec = ConvSpec { stride: [1, 1, 1], pad: [1, 1, 1, 1], pad_front: 0 };

pub(super) fn weighted<B: Backend>(
    ops: &mut Ops<B>,
    weights: &BlockWeights<B::Weight>,
    name: &str,
    x: &Tensor<B::Data>,
) -> Result<Tensor<B::Data>, OpError> {
    ops.linear(x, weights.get(&format!("{name}.weight"))?, weights.optional(&format!("{name}.bias")), Activation::None)
}

pub(super) fn convolve<B: Backend>(
    ops: &mut Ops<B>,
    weights: &BlockWeights<B::Weight>,
    name: &str,
    x: &Tensor<B::Data>,
    history: Option<&Tensor<B::Data>>,
    spec: ConvSpec,
) -> Result<Tensor<B::Data>, OpError> {
    let bias = weights.optional(&format!("{name}.bias"));
    ops.conv(x, history, weights.get(&format!("{name}.weight"))?, bias, spec)
}

/// The last frames of `x`, filled up from `older` where `x` is too short.
pub(super) fn remember<B: Backend>(
    ops: &mut Ops<B>,
    x: &Tensor<B::Data>,
    older: Option<&Tensor<B::Data>>,
    frames: usize,
) -> Result<Tensor<B::Data>, OpError> {
    ops.within(ActClass::FeatureCache, |ops| {
        let have = x.shape[0].min(frames);
        match older {
            Some(older) if have < frames => {
                let last = ops.view_rows(older, older.shape[0] - 1, 1)?;
                let new = ops.view_rows(x, x.shape[0] - have, have)?;
                ops.concat(&[&last, &new])
            }
            _ => ops.rows(x, x.shape[0] - have, have),
        }
    })
}

/// A causal 3x3x3 convolution with its memory.
pub(super) fn causal<B: Backend>(
    ops: &mut Ops<B>,
    weights: &BlockWeights<B::Weight>,
    name: &str,
    cache: &mut FeatureCache<B::Data>,
    x: &Tensor<B::Data>,
) -> Result<Tensor<B::Data>, OpError> {
    let (place, memory) = cache.take();
    let older = match &memory {
        Some(Remembered::Frames(frames)) => Some(frames),
        _ => None,
    };
    let newer = remember(ops, x, older, MEMORY)?;
    let spec = ConvSpec { pad_front: MEMORY - older.map_or(0, |f| f.shape[0]), ..SAME };
    let out = convolve(ops, weights, name, x, older, spec)?;
    cache.put(place, Remembered::Frames(newer));
    Ok(out)
}

/// Two normed causal convolutions with a shortcut.
pub(super) fn residual<B: Backend>(
    ops: &mut Ops<B>,
    weights: &BlockWeights<B::Weight>,
    name: &str,
    cache: &mut FeatureCache<B::Data>,
    x: Tensor<B::Data>,
) -> Result<Tensor<B::Data>, OpError> {
    let part = |part: &str| format!("{name}.{part}");
    let n = ops.channel_norm(&x, weights.get(&part("norm1.gamma"))?, true)?;
    let shortcut = if weights.optional(&part("conv_shortcut.weight")).is_some() {
        weighted(ops, weights, &part("conv_shortcut"), &x)?
    } else {
        x.clone()
    };
    drop(x);
    let y = causal(ops, weights, &part("conv1"), cache, &n)?;
    drop(n);
    let y = ops.channel_norm_assign(y, weights.get(&part("norm2.gamma"))?, true)?;
    let out = causal(ops, weights, &part("conv2"), cache, &y)?;
    drop(y);
    ops.add_assign(out, &shortcut)
}

/// Self-attention with one head inside every frame.
pub(super) fn attention<B: Backend>(
    ops: &mut Ops<B>,
    weights: &BlockWeights<B::Weight>,
    name: &str,
    x: &Tensor<B::Data>,
) -> Result<Tensor<B::Data>, OpError> {
    let (shape, channels) = (x.shape.clone(), x.channels());
    let pixels = shape[1] * shape[2];
    let mut frames = Vec::with_capacity(shape[0]);
    for f in 0..shape[0] {
        let frame = ops.view_rows(x, f, 1)?.reshaped(&[pixels, channels])?;
        let n = ops.channel_norm(&frame, weights.get(&format!("{name}.norm.gamma"))?, false)?;
        let qkv = weighted(ops, weights, &format!("{name}.to_qkv"), &n)?;
        drop(n);
        let qkv = ops.permute(&qkv, &[pixels, 3, channels], &[1, 0, 2])?.reshaped(&[3 * pixels, channels])?;
        let third = |ops: &Ops<B>, i: usize| ops.view_rows(&qkv, i * pixels, pixels);
        let (q, k, v) = (third(ops, 0)?, third(ops, 1)?, third(ops, 2)?);
        let scale = 1.0 / (channels as f32).sqrt();
        let attended = ops.attention(&q, &k, &v, 1, scale, pixels, Bias::None)?;
        drop((q, k, v, qkv));
        let out = weighted(ops, weights, &format!("{name}.proj"), &attended)?;
        frames.push(out.reshaped(&[1, shape[1], shape[2], channels])?);
    }
    let out = match frames.len() {
        1 => frames.remove(0),
        _ => ops.concat(&frames.iter().collect::<Vec<_>>())?,
    };
    drop(frames);
    ops.add_assign(out, x)
}

/// Residual, attention, residual.
pub(super) fn middle<B: Backend>(
    ops: &mut Ops<B>,
    weights: &BlockWeights<B::Weight>,
    side: &str,
    cache: &mut FeatureCache<B::Data>,
    x: Tensor<B::Data>,
) -> Result<Tensor<B::Data>, OpError> {
    let x = residual(ops, weights, &format!("{side}.mid_block.resnets.0"), cache, x)?;
    let attended = attention(ops, weights, &format!("{side}.mid_block.attentions.0"), &x)?;
    drop(x);
    residual(ops, weights, &format!("{side}.mid_block.resnets.1"), cache, attended)
}

/// The last norm and convolution of either side.
pub(super) fn head<B: Backend>(
    ops: &mut Ops<B>,
    weights: &BlockWeights<B::Weight>,
    side: &str,
    cache: &mut FeatureCache<B::Data>,
    x: Tensor<B::Data>,
) -> Result<Tensor<B::Data>, OpError> {
    let x = ops.channel_norm_assign(x, weights.get(&format!("{side}.norm_out.gamma"))?, true)?;
    causal(ops, weights, &format!("{side}.conv_out"), cache, &x)
}

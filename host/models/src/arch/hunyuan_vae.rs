//! The decoder of HunyuanVideo's causal 3-D VAE, level by level.
//!
//! Source of the formulas: diffusers `AutoencoderKLHunyuanVideo`. Nothing is remembered from batch to batch: as in the
//! reference, batches of latent frames overlap, each is decoded as if it were a whole video, and the host blends what
//! they share. Edges are repeated, in space and before the first frame, which takes copies, here as there. A pixel of
//! the middle block attends to those of its own frame and of earlier ones; the reference computes the later ones as
//! well and masks them. Not here: the encoder, which text to video does not use; its blocks are listed all the same,
//! because the checkpoint has them.

use super::common::{Out, convolve, doubled_in_time, plain};
use super::kl_vae::{attention_of, normed, resnet_of};
use crate::ops::{Backend, Bias, BlockWeights, ConvSpec, OpError, Ops, Tensor};
use crate::params::HunyuanVideoVaeConfig;

/// Latent frames of a batch, and of the step from one to the next; fixed in the reference unless it is told otherwise.
const BATCH: usize = 4;
const STEP: usize = 3;
/// A convolution that takes what its input has.
const INSIDE: ConvSpec = ConvSpec { stride: [1, 1, 1], pad: [0; 4], pad_front: 0 };

/// First latent frame and number of latent frames of each batch that is decoded together.
///
/// Each has one frame more in front, which in all but the first batch is decoded for its sake alone and dropped. The
/// group norms see a batch, so its length is part of the result. What the reference decodes of one frame and drops as
/// a whole is left out.
#[must_use]
pub fn decode_batches(latent_frames: usize) -> Vec<(usize, usize)> {
    if latent_frames <= BATCH {
        return vec![(0, latent_frames)];
    }
    let batch = |first: usize| (first, (BATCH + 1).min(latent_frames - first));
    (0..latent_frames - 1).step_by(STEP).map(batch).collect()
}

/// A batch of latents (`[frames, height, width, channels]`) up to the first level.
///
/// # Errors
/// If a weight is missing or the budget is exceeded.
pub fn decode_front<B: Backend>(
    ops: &mut Ops<B>,
    config: &HunyuanVideoVaeConfig,
    weights: &BlockWeights<B::Weight>,
    latents: &Tensor<B::Data>,
) -> Out<B> {
    let latents = plain(ops, weights, "post_quant_conv", latents)?;
    let x = causal(ops, weights, "decoder.conv_in", latents)?;
    let x = resnet(ops, config, weights, "decoder.mid_block.resnets.0", x)?;
    let x = match config.mid_block_add_attention {
        true => attention(ops, config, weights, "decoder.mid_block.attentions.0", &x)?,
        false => x,
    };
    resnet(ops, config, weights, "decoder.mid_block.resnets.1", x)
}

/// Level `index`, counted from the latent up.
///
/// # Errors
/// If a weight is missing or the budget is exceeded.
pub fn decode_level<B: Backend>(
    ops: &mut Ops<B>,
    config: &HunyuanVideoVaeConfig,
    index: usize,
    weights: &BlockWeights<B::Weight>,
    mut x: Tensor<B::Data>,
) -> Out<B> {
    if index >= config.block_out_channels.len() {
        return Err(OpError::Shape { op: "decode-level", detail: format!("the decoder has no level {index}") });
    }
    let name = format!("decoder.up_blocks.{index}");
    for i in 0..=config.layers_per_block {
        x = resnet(ops, config, weights, &format!("{name}.resnets.{i}"), x)?;
    }
    let [space, time] = config.resampled(index);
    if !space && !time {
        return Ok(x);
    }
    if time && x.shape[0] > 1 {
        x = doubled_in_time(ops, &x, true)?;
    }
    if space {
        x = ops.upsample(&x)?;
    }
    causal(ops, weights, &format!("{name}.upsamplers.0.conv"), x)
}

/// The frames of a batch, `[frames, height, width, channels]`, before clamping.
///
/// # Errors
/// If a weight is missing or the budget is exceeded.
pub fn decode_tail<B: Backend>(
    ops: &mut Ops<B>,
    config: &HunyuanVideoVaeConfig,
    weights: &BlockWeights<B::Weight>,
    x: Tensor<B::Data>,
) -> Out<B> {
    let n = normed(ops, config.norm_num_groups, weights, "decoder.conv_norm_out", true, &x)?;
    drop(x);
    causal(ops, weights, "decoder.conv_out", n)
}

/// A causal 3x3x3 convolution whose edges are repeated.
fn causal<B: Backend>(ops: &mut Ops<B>, weights: &BlockWeights<B::Weight>, name: &str, x: Tensor<B::Data>) -> Out<B> {
    let x = framed(ops, x)?;
    let first = ops.view_rows(&x, 0, 1)?;
    let before = ops.concat(&[&first; 2])?;
    drop(first);
    convolve(ops, weights, &format!("{name}.conv"), &x, Some(&before), INSIDE)
}

/// `x` with its outermost columns and rows once more.
fn framed<B: Backend>(ops: &mut Ops<B>, x: Tensor<B::Data>) -> Out<B> {
    let [t, h, w, c] = [0, 1, 2, 3].map(|i| x.shape.get(i).copied().unwrap_or(1));
    let left = ops.crop(&x, [0, 0, 0], [t, h, 1])?.reshaped(&[t * h, c])?;
    let right = ops.crop(&x, [0, 0, w - 1], [t, h, 1])?.reshaped(&[t * h, c])?;
    let x = x.reshaped(&[t * h, w * c])?;
    let wide = ops.concat_channels(&[&left, &x, &right])?.reshaped(&[t, h, w + 2, c])?;
    drop((left, right, x));
    let line = (w + 2) * c;
    let top = ops.crop(&wide, [0, 0, 0], [t, 1, w + 2])?.reshaped(&[t, line])?;
    let bottom = ops.crop(&wide, [0, h - 1, 0], [t, 1, w + 2])?.reshaped(&[t, line])?;
    let wide = wide.reshaped(&[t, h * line])?;
    ops.concat_channels(&[&top, &wide, &bottom])?.reshaped(&[t, h + 2, w + 2, c])
}

fn resnet<B: Backend>(
    ops: &mut Ops<B>,
    config: &HunyuanVideoVaeConfig,
    weights: &BlockWeights<B::Weight>,
    name: &str,
    x: Tensor<B::Data>,
) -> Out<B> {
    let conv = |ops: &mut Ops<B>, name: &str, x: Tensor<B::Data>| causal(ops, weights, name, x);
    resnet_of(ops, config.norm_num_groups, weights, (name, "conv_shortcut.conv"), x, conv)
}

/// Self-attention with one head over the pixels of a frame and of those before it.
fn attention<B: Backend>(
    ops: &mut Ops<B>,
    config: &HunyuanVideoVaeConfig,
    weights: &BlockWeights<B::Weight>,
    name: &str,
    x: &Tensor<B::Data>,
) -> Out<B> {
    let frames = x.shape[0];
    attention_of(ops, config.norm_num_groups, weights, name, x, |ops, [q, k, v], scale| {
        let pixels = q.rows() / frames.max(1);
        let mut parts = Vec::with_capacity(frames);
        for i in 0..frames {
            let (own, seen) = (ops.view_rows(&q, i * pixels, pixels)?, (i + 1) * pixels);
            let (k, v) = (ops.view_rows(&k, 0, seen)?, ops.view_rows(&v, 0, seen)?);
            parts.push(ops.attention(&own, &k, &v, 1, scale, seen, Bias::None)?);
        }
        drop((q, k, v));
        ops.concat(&parts.iter().collect::<Vec<_>>())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_overlap_by_the_frame_in_front_and_one_that_is_blended() {
        let check = |frames, expected: &[(usize, usize)]| assert_eq!(decode_batches(frames), expected);
        check(1, &[(0, 1)]);
        check(4, &[(0, 4)]);
        check(5, &[(0, 5), (3, 2)]);
        check(6, &[(0, 5), (3, 3)]);
        // A third batch would have the last frame alone.
        check(7, &[(0, 5), (3, 4)]);
        assert_eq!(decode_batches(33).len(), 11);
        assert_eq!(decode_batches(33)[10], (30, 3));
    }
}

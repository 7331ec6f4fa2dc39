//! The decoder of the image VAE of Stable Diffusion and FLUX.1, level by level.
//!
//! Source of the formulas: diffusers `AutoencoderKL`. A picture is a video of one frame here. Not here: the encoder,
//! which text-to-image does not use; its blocks are listed all the same, because the checkpoint has them.

use super::common::{Out, SAME, affine, convolve, plain};
use crate::ops::{Backend, Bias, BlockWeights, OpError, Ops, Tensor};
use crate::params::KlVaeConfig;

const EPS: f32 = 1e-6;

/// The blocks of encoder and decoder of a VAE of so many levels, in order of use: their names and the prefixes of their
/// tensors. Also HunyuanVideo's.
#[must_use]
pub fn blocks(levels: usize) -> Vec<(String, Vec<String>)> {
    let block = |name: &str, prefixes: &[&str]| (name.to_owned(), prefixes.iter().map(|p| (*p).to_owned()).collect());
    let level = |side: &'static str| (0..levels).map(move |i| (format!("{side}.{i}"), vec![format!("{side}.{i}.")]));
    let tail = ["encoder.mid_block.", "encoder.conv_norm_out.", "encoder.conv_out.", "quant_conv."];
    let front = ["post_quant_conv.", "decoder.conv_in.", "decoder.mid_block."];
    let mut all = vec![block("encoder.front", &["encoder.conv_in."])];
    all.extend(level("encoder.down_blocks"));
    all.extend([block("encoder.tail", &tail), block("decoder.front", &front)]);
    all.extend(level("decoder.up_blocks"));
    all.push(block("decoder.tail", &["decoder.conv_norm_out.", "decoder.conv_out."]));
    all
}

/// Latents (`[1, height, width, channels]`) up to the first level.
///
/// # Errors
/// If a weight is missing or the budget is exceeded.
pub fn decode_front<B: Backend>(
    ops: &mut Ops<B>,
    config: &KlVaeConfig,
    weights: &BlockWeights<B::Weight>,
    latents: Tensor<B::Data>,
) -> Out<B> {
    let latents = match config.use_post_quant_conv {
        true => plain(ops, weights, "post_quant_conv", &latents)?,
        false => latents,
    };
    let x = convolve(ops, weights, "decoder.conv_in", &latents, None, SAME)?;
    drop(latents);
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
    config: &KlVaeConfig,
    index: usize,
    weights: &BlockWeights<B::Weight>,
    mut x: Tensor<B::Data>,
) -> Out<B> {
    let levels = config.block_out_channels.len();
    if index >= levels {
        return Err(OpError::Shape { op: "decode-level", detail: format!("the decoder has no level {index}") });
    }
    let name = format!("decoder.up_blocks.{index}");
    for i in 0..=config.layers_per_block {
        x = resnet(ops, config, weights, &format!("{name}.resnets.{i}"), x)?;
    }
    if index + 1 == levels {
        return Ok(x);
    }
    let larger = ops.upsample(&x)?;
    drop(x);
    convolve(ops, weights, &format!("{name}.upsamplers.0.conv"), &larger, None, SAME)
}

/// The picture, `[1, height, width, channels]`, before clamping.
///
/// # Errors
/// If a weight is missing or the budget is exceeded.
pub fn decode_tail<B: Backend>(
    ops: &mut Ops<B>,
    config: &KlVaeConfig,
    weights: &BlockWeights<B::Weight>,
    x: Tensor<B::Data>,
) -> Out<B> {
    let n = normed(ops, config.norm_num_groups, weights, "decoder.conv_norm_out", true, &x)?;
    drop(x);
    convolve(ops, weights, "decoder.conv_out", &n, None, SAME)
}

/// A group norm by its name.
pub(super) fn normed<B: Backend>(
    ops: &mut Ops<B>,
    groups: usize,
    weights: &BlockWeights<B::Weight>,
    name: &str,
    silu: bool,
    x: &Tensor<B::Data>,
) -> Out<B> {
    let (w, b) = affine(weights, name)?;
    ops.group_norm(x, w, b, groups, EPS, silu)
}

/// Two normed convolutions with a shortcut. Also HunyuanVideo's, whose convolutions and shortcuts are others.
pub(super) fn resnet_of<B: Backend>(
    ops: &mut Ops<B>,
    groups: usize,
    weights: &BlockWeights<B::Weight>,
    (name, shortcut): (&str, &str),
    x: Tensor<B::Data>,
    conv: impl Fn(&mut Ops<B>, &str, Tensor<B::Data>) -> Out<B>,
) -> Out<B> {
    let part = |part: &str| format!("{name}.{part}");
    let n = normed(ops, groups, weights, &part("norm1"), true, &x)?;
    let y = conv(ops, &part("conv1"), n)?;
    let n = normed(ops, groups, weights, &part("norm2"), true, &y)?;
    drop(y);
    let out = conv(ops, &part("conv2"), n)?;
    let shortcut = match weights.optional(&part(&format!("{shortcut}.weight"))) {
        Some(_) => plain(ops, weights, &part(shortcut), &x)?,
        None => x,
    };
    ops.add_assign(out, &shortcut)
}

fn resnet<B: Backend>(
    ops: &mut Ops<B>,
    config: &KlVaeConfig,
    weights: &BlockWeights<B::Weight>,
    name: &str,
    x: Tensor<B::Data>,
) -> Out<B> {
    let conv = |ops: &mut Ops<B>, name: &str, x: Tensor<B::Data>| convolve(ops, weights, name, &x, None, SAME);
    resnet_of(ops, config.norm_num_groups, weights, (name, "conv_shortcut"), x, conv)
}

/// Self-attention with one head over pixels: `attend` takes queries, keys, values and their scale. Also HunyuanVideo's,
/// which does not see later frames.
pub(super) fn attention_of<B: Backend>(
    ops: &mut Ops<B>,
    groups: usize,
    weights: &BlockWeights<B::Weight>,
    name: &str,
    x: &Tensor<B::Data>,
    attend: impl FnOnce(&mut Ops<B>, [Tensor<B::Data>; 3], f32) -> Out<B>,
) -> Out<B> {
    let (shape, channels) = (x.shape.clone(), x.channels());
    let part = |part: &str| format!("{name}.{part}");
    let n = normed(ops, groups, weights, &part("group_norm"), false, x)?;
    let n = n.reshaped(&[x.rows(), channels])?;
    let mut project = |name: &str| plain(ops, weights, &part(name), &n);
    let inputs = [project("to_q")?, project("to_k")?, project("to_v")?];
    drop(n);
    let attended = attend(ops, inputs, 1.0 / (channels as f32).sqrt())?;
    let out = plain(ops, weights, &part("to_out.0"), &attended)?.reshaped(&shape)?;
    drop(attended);
    ops.add_assign(out, x)
}

fn attention<B: Backend>(
    ops: &mut Ops<B>,
    config: &KlVaeConfig,
    weights: &BlockWeights<B::Weight>,
    name: &str,
    x: &Tensor<B::Data>,
) -> Out<B> {
    attention_of(ops, config.norm_num_groups, weights, name, x, |ops, [q, k, v], scale| {
        ops.attention(&q, &k, &v, 1, scale, k.rows(), Bias::None)
    })
}

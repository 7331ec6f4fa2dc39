//! Latents to frames.

use super::layers::{EPS, causal, no_level, normed, resnets};
use crate::arch::FeatureCache;
use crate::arch::common::{self, Out, SAME, convolve, plain};
use crate::ops::{Backend, BlockWeights, OpError, Ops, Tensor};
use crate::params::CogVideoXVaeConfig;

/// The decoder's blocks in order of use: their names and the prefixes of their tensors.
#[must_use]
pub fn decoder_blocks(config: &CogVideoXVaeConfig) -> Vec<(String, Vec<String>)> {
    let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    let front = own(&["post_quant_conv.", "decoder.conv_in.", "decoder.mid_block."]);
    let levels = (0..config.block_out_channels.len()).map(|i| format!("decoder.up_blocks.{i}"));
    let levels = levels.map(|name| (name.clone(), vec![format!("{name}.")]));
    let tail = own(&["decoder.norm_out.", "decoder.conv_out."]);
    let ends = |name: &str, prefixes| std::iter::once((name.to_owned(), prefixes));
    ends("decoder.front", front).chain(levels).chain(ends("decoder.tail", tail)).collect()
}

/// Two tensors of one batch.
type Pair<D> = (Tensor<D>, Tensor<D>);

/// A batch of latents (`[frames, height, width, channels]`) up to the first level: the latents that the norms of all
/// levels read, and the state.
///
/// # Errors
/// If a weight is missing or the budget is exceeded.
pub fn decode_front<B: Backend>(
    ops: &mut Ops<B>,
    config: &CogVideoXVaeConfig,
    weights: &BlockWeights<B::Weight>,
    cache: &mut FeatureCache<B::Data>,
    latents: Tensor<B::Data>,
) -> Result<Pair<B::Data>, OpError> {
    let latents = match config.use_post_quant_conv {
        true => plain(ops, weights, "post_quant_conv", &latents)?,
        false => latents,
    };
    let x = causal(ops, weights, "decoder.conv_in", cache, &latents)?;
    let x = resnets(ops, config, weights, "decoder.mid_block", 2, cache, Some(&latents), x)?;
    Ok((latents, x))
}

/// Level `index`, counted from the latent up.
///
/// # Errors
/// If a weight is missing or the budget is exceeded.
pub fn decode_level<B: Backend>(
    ops: &mut Ops<B>,
    config: &CogVideoXVaeConfig,
    index: usize,
    weights: &BlockWeights<B::Weight>,
    cache: &mut FeatureCache<B::Data>,
    latents: &Tensor<B::Data>,
    x: Tensor<B::Data>,
) -> Out<B> {
    let levels = config.block_out_channels.len();
    if index >= levels {
        return Err(no_level("decode-level", index));
    }
    let name = format!("decoder.up_blocks.{index}");
    let x = resnets(ops, config, weights, &name, config.layers_per_block + 1, cache, Some(latents), x)?;
    if index + 1 == levels {
        return Ok(x);
    }
    let in_time = index < config.temporal_compression_ratio.ilog2() as usize;
    let x = if in_time { doubled_in_time(ops, x)? } else { x };
    let larger = ops.upsample(&x)?;
    drop(x);
    convolve(ops, weights, &format!("{name}.upsamplers.0.conv"), &larger, None, SAME)
}

/// Every frame twice, but the first of an odd number once.
fn doubled_in_time<B: Backend>(ops: &mut Ops<B>, x: Tensor<B::Data>) -> Out<B> {
    match x.shape[0] {
        1 => Ok(x),
        frames => common::doubled_in_time(ops, &x, !frames.is_multiple_of(2)),
    }
}

/// The frames of a batch, `[frames, height, width, channels]`, before clamping.
///
/// # Errors
/// If a weight is missing or the budget is exceeded.
pub fn decode_tail<B: Backend>(
    ops: &mut Ops<B>,
    config: &CogVideoXVaeConfig,
    weights: &BlockWeights<B::Weight>,
    cache: &mut FeatureCache<B::Data>,
    latents: &Tensor<B::Data>,
    x: Tensor<B::Data>,
) -> Out<B> {
    let n = normed(ops, config, weights, "decoder.norm_out", EPS, Some(latents), &x)?;
    drop(x);
    causal(ops, weights, "decoder.conv_out", cache, &n)
}

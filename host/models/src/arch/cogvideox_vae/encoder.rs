//! Frames to latent statistics.

use super::layers::{EPS, causal, no_level, normed, resnets};
use crate::arch::FeatureCache;
use crate::arch::common::{HALVE, Out, convolve, plain};
use crate::ops::{Backend, BlockWeights, Ops, Tensor};
use crate::params::CogVideoXVaeConfig;

/// The encoder's blocks in order of use: their names and the prefixes of their tensors.
#[must_use]
pub fn encoder_blocks(config: &CogVideoXVaeConfig) -> Vec<(String, Vec<String>)> {
    let front = vec!["encoder.conv_in.".to_owned()];
    let levels = (0..config.block_out_channels.len()).map(|i| format!("encoder.down_blocks.{i}"));
    let levels = levels.map(|name| (name.clone(), vec![format!("{name}.")]));
    let tail = ["encoder.mid_block.", "encoder.norm_out.", "encoder.conv_out.", "quant_conv."];
    let ends = |name: &str, prefixes| std::iter::once((name.to_owned(), prefixes));
    let tail = tail.map(str::to_owned).to_vec();
    ends("encoder.front", front).chain(levels).chain(ends("encoder.tail", tail)).collect()
}

/// A batch of frames (`[frames, height, width, channels]`) up to the first level.
///
/// # Errors
/// If a weight is missing or the budget is exceeded.
pub fn encode_front<B: Backend>(
    ops: &mut Ops<B>,
    weights: &BlockWeights<B::Weight>,
    cache: &mut FeatureCache<B::Data>,
    frames: &Tensor<B::Data>,
) -> Out<B> {
    causal(ops, weights, "encoder.conv_in", cache, frames)
}

/// Level `index`, counted from full resolution down.
///
/// # Errors
/// If a weight is missing or the budget is exceeded.
pub fn encode_level<B: Backend>(
    ops: &mut Ops<B>,
    config: &CogVideoXVaeConfig,
    index: usize,
    weights: &BlockWeights<B::Weight>,
    cache: &mut FeatureCache<B::Data>,
    x: Tensor<B::Data>,
) -> Out<B> {
    let levels = config.block_out_channels.len();
    if index >= levels {
        return Err(no_level("encode-level", index));
    }
    let name = format!("encoder.down_blocks.{index}");
    let x = resnets(ops, config, weights, &name, config.layers_per_block, cache, None, x)?;
    if index + 1 == levels {
        return Ok(x);
    }
    let in_time = index < config.temporal_compression_ratio.ilog2() as usize;
    let x = if in_time { halved_in_time(ops, x)? } else { x };
    convolve(ops, weights, &format!("{name}.downsamplers.0.conv"), &x, None, HALVE)
}

/// The means of neighbouring frames; the first of an odd number stays as it is.
fn halved_in_time<B: Backend>(ops: &mut Ops<B>, x: Tensor<B::Data>) -> Out<B> {
    let [frames, height, width, channels] = [x.shape[0], x.shape[1], x.shape[2], x.channels()];
    let (alone, pairs) = (frames % 2, frames / 2);
    if pairs == 0 {
        return Ok(x);
    }
    let rest = ops.view_rows(&x, alone, 2 * pairs)?;
    let side_by_side = ops.permute(&rest, &[pairs, 2, height, width, channels], &[0, 2, 3, 4, 1])?;
    drop(rest);
    let means = ops.mean_channels(&side_by_side, 2)?.reshaped(&[pairs, height, width, channels])?;
    drop(side_by_side);
    if alone == 0 {
        return Ok(means);
    }
    let first = ops.view_rows(&x, 0, 1)?;
    ops.concat(&[&first, &means])
}

/// Mean and log-variance of the latents of a batch, `[frames, height, width, 2 channels]`.
///
/// # Errors
/// If a weight is missing or the budget is exceeded.
pub fn encode_tail<B: Backend>(
    ops: &mut Ops<B>,
    config: &CogVideoXVaeConfig,
    weights: &BlockWeights<B::Weight>,
    cache: &mut FeatureCache<B::Data>,
    x: Tensor<B::Data>,
) -> Out<B> {
    let x = resnets(ops, config, weights, "encoder.mid_block", 2, cache, None, x)?;
    let n = normed(ops, config, weights, "encoder.norm_out", EPS, None, &x)?;
    drop(x);
    let out = causal(ops, weights, "encoder.conv_out", cache, &n)?;
    if config.use_quant_conv { plain(ops, weights, "quant_conv", &out) } else { Ok(out) }
}

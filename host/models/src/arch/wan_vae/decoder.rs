//! Latents to frames.

use loadline_core::ActClass;

use super::layers::{causal, convolve, head, middle, remember, residual, weighted};
use super::{FeatureCache, Remembered};
use crate::ops::{Backend, BlockWeights, ConvSpec, OpError, Ops, Tensor};
use crate::params::{WanResample, WanVaeConfig};

/// The name prefixes of the decoder's first block.
pub const DECODER_FRONT: [&str; 3] = ["post_quant_conv.", "decoder.conv_in.", "decoder.mid_block."];

/// The decoder's blocks in order of use: their names and the prefixes of their tensors.
#[must_use]
pub fn decoder_blocks(config: &WanVaeConfig) -> Vec<(String, Vec<String>)> {
    let front = ("decoder.front".to_owned(), DECODER_FRONT.map(str::to_owned).to_vec());
    let levels = (0..config.decoder_stages().len()).map(|i| {
        let name = format!("decoder.up_blocks.{i}");
        (name.clone(), vec![format!("{name}.")])
    });
    let tail = ("decoder.tail".to_owned(), vec!["decoder.norm_out.".into(), "decoder.conv_out.".into()]);
    std::iter::once(front).chain(levels).chain([tail]).collect()
}

/// One chunk of latents (`[frames, height, width, z]`) up to the first level.
///
/// # Errors
/// If a weight is missing or the budget is exceeded.
pub fn decode_front<B: Backend>(
    ops: &mut Ops<B>,
    weights: &BlockWeights<B::Weight>,
    cache: &mut FeatureCache<B::Data>,
    latents: Tensor<B::Data>,
) -> Result<Tensor<B::Data>, OpError> {
    let x = weighted(ops, weights, "post_quant_conv", &latents)?;
    drop(latents);
    let x = causal(ops, weights, "decoder.conv_in", cache, &x)?;
    middle(ops, weights, "decoder", cache, x)
}

/// Level `index`, counted from the latent up.
///
/// # Errors
/// If a weight is missing or the budget is exceeded.
pub fn decode_level<B: Backend>(
    ops: &mut Ops<B>,
    config: &WanVaeConfig,
    index: usize,
    weights: &BlockWeights<B::Weight>,
    cache: &mut FeatureCache<B::Data>,
    x: Tensor<B::Data>,
) -> Result<Tensor<B::Data>, OpError> {
    let stages = config.decoder_stages();
    let Some(stage) = stages.get(index) else {
        return Err(OpError::Shape { op: "decode-level", detail: format!("the decoder has no level {index}") });
    };
    let name = format!("decoder.up_blocks.{index}");
    let first = cache.first_chunk();
    let entry = (config.is_residual && stage.resample.is_some()).then(|| x.clone());
    let mut x = x;
    for i in 0..stage.resnets {
        x = residual(ops, weights, &format!("{name}.resnets.{i}"), cache, x)?;
    }
    if let Some(kind) = stage.resample {
        let upsampler = if config.is_residual { "upsampler" } else { "upsamplers.0" };
        x = upsample(ops, weights, &format!("{name}.{upsampler}"), kind, cache, x)?;
        if let Some(entry) = entry {
            let shortcut = duplicate(ops, entry, stage.output, kind, first)?;
            x = ops.add_assign(x, &shortcut)?;
        }
    }
    Ok(x)
}

/// The frames of a chunk, `[frames, height, width, channels]`, before clamping.
///
/// # Errors
/// If a weight is missing or the budget is exceeded.
pub fn decode_tail<B: Backend>(
    ops: &mut Ops<B>,
    config: &WanVaeConfig,
    weights: &BlockWeights<B::Weight>,
    cache: &mut FeatureCache<B::Data>,
    x: Tensor<B::Data>,
) -> Result<Tensor<B::Data>, OpError> {
    let x = head(ops, weights, "decoder", cache, x)?;
    let Some(p) = config.patch_size.filter(|p| *p > 1) else {
        return Ok(x);
    };
    // Channels hold a pixel patch as (channel, column, row).
    let [t, h, w] = [x.shape[0], x.shape[1], x.shape[2]];
    let c = x.channels() / (p * p);
    ops.permute(&x, &[t, h, w, c, p, p], &[0, 1, 5, 2, 4, 3])?.reshaped(&[t, h * p, w * p, c])
}

fn upsample<B: Backend>(
    ops: &mut Ops<B>,
    weights: &BlockWeights<B::Weight>,
    name: &str,
    kind: WanResample,
    cache: &mut FeatureCache<B::Data>,
    x: Tensor<B::Data>,
) -> Result<Tensor<B::Data>, OpError> {
    let x = match kind {
        WanResample::SpaceTime => double_time(ops, weights, &format!("{name}.time_conv"), cache, x)?,
        WanResample::Space => x,
    };
    let doubled = ops.upsample(&x)?;
    drop(x);
    let spec = ConvSpec { stride: [1, 1, 1], pad: [1, 1, 1, 1], pad_front: 0 };
    convolve(ops, weights, &format!("{name}.resample.1"), &doubled, None, spec)
}

/// Two frames for one, from the second chunk on; the first frame of a video stands alone.
fn double_time<B: Backend>(
    ops: &mut Ops<B>,
    weights: &BlockWeights<B::Weight>,
    name: &str,
    cache: &mut FeatureCache<B::Data>,
    x: Tensor<B::Data>,
) -> Result<Tensor<B::Data>, OpError> {
    let (place, memory) = cache.take();
    let Some(memory) = memory else {
        cache.put(place, Remembered::Skipped);
        return Ok(x);
    };
    let newer = match &memory {
        Remembered::Frames(older) => remember(ops, &x, Some(older), 2)?,
        Remembered::Skipped if x.shape[0] < 2 => {
            let zero = ops.filled_like(&x, 1)?;
            remember(ops, &x, Some(&zero), 2)?
        }
        Remembered::Skipped => remember(ops, &x, None, 2)?,
    };
    let older = match &memory {
        Remembered::Frames(frames) => Some(frames),
        Remembered::Skipped => None,
    };
    let spec = ConvSpec { stride: [1, 1, 1], pad: [0; 4], pad_front: 2 - older.map_or(0, |f| f.shape[0]) };
    let both = convolve(ops, weights, name, &x, older, spec)?;
    cache.put(place, Remembered::Frames(newer));
    let [t, h, w, c] = [x.shape[0], x.shape[1], x.shape[2], x.channels()];
    drop(x);
    // Half of the channels is the earlier frame, half the later.
    ops.permute(&both, &[t, h, w, 2, c], &[0, 3, 1, 2, 4])?.reshaped(&[2 * t, h, w, c])
}

/// The parameter-free shortcut of 2.2: channels become pixels and frames.
fn duplicate<B: Backend>(
    ops: &mut Ops<B>,
    x: Tensor<B::Data>,
    out: usize,
    kind: WanResample,
    first_chunk: bool,
) -> Result<Tensor<B::Data>, OpError> {
    let ft = if kind == WanResample::SpaceTime { 2 } else { 1 };
    let [t, h, w, c] = [x.shape[0], x.shape[1], x.shape[2], x.channels()];
    let repeated = ops.repeat_channels(&x, out * ft * 4 / c)?;
    drop(x);
    let full = ops.permute(&repeated, &[t, h, w, out, ft, 2, 2], &[0, 4, 1, 5, 2, 6, 3])?;
    drop(repeated);
    let full = full.reshaped(&[t * ft, 2 * h, 2 * w, out])?;
    if first_chunk && ft > 1 {
        return ops.within(ActClass::Activations, |ops| ops.rows(&full, ft - 1, t * ft - (ft - 1)));
    }
    Ok(full)
}

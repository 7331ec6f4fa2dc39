//! Frames to latent statistics.

use loadline_core::ActClass;

use super::layers::{attention, causal, convolve, head, middle, remember, residual, weighted};
use super::{FeatureCache, Remembered};
use crate::ops::{Backend, BlockWeights, ConvSpec, OpError, Ops, Tensor};
use crate::params::{WanResample, WanStage, WanVaeConfig};

/// The encoder's blocks in order of use: their names and the prefixes of their tensors.
#[must_use]
pub fn encoder_blocks(config: &WanVaeConfig) -> Vec<(String, Vec<String>)> {
    let front = ("encoder.front".to_owned(), vec!["encoder.conv_in.".to_owned()]);
    let levels = (0..config.encoder_stages().len()).map(|i| {
        let prefixes = layer_names(config, i).into_iter().map(|n| format!("{n}.")).collect();
        (format!("encoder.levels.{i}"), prefixes)
    });
    let tail = ["encoder.mid_block.", "encoder.norm_out.", "encoder.conv_out.", "quant_conv."];
    let tail = ("encoder.tail".to_owned(), tail.map(str::to_owned).to_vec());
    std::iter::once(front).chain(levels).chain([tail]).collect()
}

/// The checkpoint names of a level: in 2.1 resnets, attentions and resampling of all levels are
/// numbered through, in 2.2 each level has a name.
fn layer_names(config: &WanVaeConfig, level: usize) -> Vec<String> {
    if config.is_residual {
        return vec![format!("encoder.down_blocks.{level}")];
    }
    let layers = |s: &WanStage| s.resnets * if s.attention { 2 } else { 1 } + usize::from(s.resample.is_some());
    let stages = config.encoder_stages();
    let first: usize = stages.iter().take(level).map(layers).sum();
    let count = stages.get(level).map_or(0, layers);
    (first..first + count).map(|i| format!("encoder.down_blocks.{i}")).collect()
}

/// One chunk of frames (`[frames, height, width, channels]`) up to the first level.
///
/// # Errors
/// If a weight is missing or the budget is exceeded.
pub fn encode_front<B: Backend>(
    ops: &mut Ops<B>,
    weights: &BlockWeights<B::Weight>,
    cache: &mut FeatureCache<B::Data>,
    frames: &Tensor<B::Data>,
) -> Result<Tensor<B::Data>, OpError> {
    causal(ops, weights, "encoder.conv_in", cache, frames)
}

/// Level `index`, counted from full resolution down.
///
/// # Errors
/// If a weight is missing or the budget is exceeded.
pub fn encode_level<B: Backend>(
    ops: &mut Ops<B>,
    config: &WanVaeConfig,
    index: usize,
    weights: &BlockWeights<B::Weight>,
    cache: &mut FeatureCache<B::Data>,
    x: Tensor<B::Data>,
) -> Result<Tensor<B::Data>, OpError> {
    let stages = config.encoder_stages();
    let Some(stage) = stages.get(index) else {
        return Err(OpError::Shape { op: "encode-level", detail: format!("the encoder has no level {index}") });
    };
    let entry = config.is_residual.then(|| x.clone());
    let mut names = level_layers(config, index, stage).into_iter();
    let mut x = x;
    for name in names.by_ref().take(stage.resnets * if stage.attention { 2 } else { 1 }) {
        x = match name {
            Layer::Residual(name) => residual(ops, weights, &name, cache, x)?,
            Layer::Attention(name) => attention(ops, weights, &name, &x)?,
            Layer::Resample(_) => x,
        };
    }
    if let (Some(kind), Some(Layer::Resample(name))) = (stage.resample, names.next()) {
        x = downsample(ops, weights, &name, kind, cache, x)?;
    }
    match entry {
        Some(entry) => {
            let shortcut = average(ops, entry, stage)?;
            ops.add_assign(x, &shortcut)
        }
        None => Ok(x),
    }
}

enum Layer {
    Residual(String),
    Attention(String),
    Resample(String),
}

fn level_layers(config: &WanVaeConfig, index: usize, stage: &WanStage) -> Vec<Layer> {
    let names = layer_names(config, index);
    if config.is_residual {
        let resnets = (0..stage.resnets).map(|i| Layer::Residual(format!("{}.resnets.{i}", names[0])));
        let resample = stage.resample.map(|_| Layer::Resample(format!("{}.downsampler", names[0])));
        return resnets.chain(resample).collect();
    }
    let mut names = names.into_iter();
    let mut layers = Vec::new();
    for _ in 0..stage.resnets {
        layers.extend(names.next().map(Layer::Residual));
        if stage.attention {
            layers.extend(names.next().map(Layer::Attention));
        }
    }
    layers.extend(names.next().map(Layer::Resample));
    layers
}

/// Mean and log-variance of the latents of a chunk, `[frames, height, width, 2 z]`.
///
/// # Errors
/// If a weight is missing or the budget is exceeded.
pub fn encode_tail<B: Backend>(
    ops: &mut Ops<B>,
    weights: &BlockWeights<B::Weight>,
    cache: &mut FeatureCache<B::Data>,
    x: Tensor<B::Data>,
) -> Result<Tensor<B::Data>, OpError> {
    let x = middle(ops, weights, "encoder", cache, x)?;
    let x = head(ops, weights, "encoder", cache, x)?;
    weighted(ops, weights, "quant_conv", &x)
}

fn downsample<B: Backend>(
    ops: &mut Ops<B>,
    weights: &BlockWeights<B::Weight>,
    name: &str,
    kind: WanResample,
    cache: &mut FeatureCache<B::Data>,
    x: Tensor<B::Data>,
) -> Result<Tensor<B::Data>, OpError> {
    let spec = ConvSpec { stride: [1, 2, 2], pad: [0, 1, 0, 1], pad_front: 0 };
    let halved = convolve(ops, weights, &format!("{name}.resample.1"), &x, None, spec)?;
    drop(x);
    if kind == WanResample::Space {
        return Ok(halved);
    }
    let (place, memory) = cache.take();
    let newer = remember(ops, &halved, None, 1)?;
    let out = match memory {
        Some(Remembered::Frames(older)) => {
            let spec = ConvSpec { stride: [2, 1, 1], pad: [0; 4], pad_front: 0 };
            convolve(ops, weights, &format!("{name}.time_conv"), &halved, Some(&older), spec)?
        }
        _ => halved,
    };
    cache.put(place, Remembered::Frames(newer));
    Ok(out)
}

/// The parameter-free shortcut of 2.2: pixels and frames become channels, whose groups are averaged.
fn average<B: Backend>(ops: &mut Ops<B>, x: Tensor<B::Data>, stage: &WanStage) -> Result<Tensor<B::Data>, OpError> {
    let fs = if stage.resample.is_some() { 2 } else { 1 };
    let ft = if stage.resample == Some(WanResample::SpaceTime) { 2 } else { 1 };
    let [t, h, w, c] = [x.shape[0], x.shape[1], x.shape[2], x.channels()];
    let missing = t.div_ceil(ft) * ft - t;
    let x = if missing > 0 {
        let zeros = ops.filled_like(&x, missing)?;
        ops.within(ActClass::Activations, |ops| ops.concat(&[&zeros, &x]))?
    } else {
        x
    };
    let t = t + missing;
    let view = [t / ft, ft, h / fs, fs, w / fs, fs, c];
    let folded = ops.permute(&x, &view, &[0, 2, 4, 6, 1, 3, 5])?;
    drop(x);
    let channels = c * ft * fs * fs;
    let folded = folded.reshaped(&[t / ft, h / fs, w / fs, channels])?;
    ops.mean_channels(&folded, channels / stage.output)
}

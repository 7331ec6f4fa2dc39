//! The Wan VAE: the causal one of 2.1 and the residual one of 2.2.
//!
//! Source of structure and defaults: diffusers `AutoencoderKLWan`. Convolutions are causal in time with kernels
//! of 3x3x3, resampling convolutions are 2-D, and each norm is a channel RMS norm with a `gamma`.

use serde_json::Value;

use super::build::Tensors;
use super::fields::{Fields, MAX_LEVELS, MAX_PATCH, MAX_RESNETS};
use super::{ConfigError, Param};

pub(crate) const CLASS: &str = "AutoencoderKLWan";

const LATENTS_MEAN: [f64; 16] = [
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134, -0.0715, 0.5517, -0.3632, -0.1922,
    -0.9497, 0.2503, -0.2921,
];
const LATENTS_STD: [f64; 16] = [
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253,
    2.8251, 1.916,
];

/// The config of a Wan VAE.
#[derive(Clone, Debug, PartialEq)]
pub struct WanVaeConfig {
    /// Channels of the encoder at full resolution.
    pub base_dim: usize,
    /// Channels of the decoder at full resolution.
    pub decoder_base_dim: usize,
    /// Latent channels.
    pub z_dim: usize,
    /// Channels of each level as a multiple of the base, from full resolution down.
    pub dim_mult: Vec<usize>,
    /// Resnets per encoder level; the decoder has one more.
    pub num_res_blocks: usize,
    /// Scales (1, 0.5, 0.25, …) at which the encoder also attends; empty in all published models.
    pub attn_scales: Vec<f64>,
    /// For each step down, whether it also halves time.
    pub temperal_downsample: Vec<bool>,
    /// Mean of each latent channel over the training data.
    pub latents_mean: Vec<f64>,
    /// Standard deviation of each latent channel, never zero.
    pub latents_std: Vec<f64>,
    /// Whether levels have parameter-free average/duplicate shortcuts (2.2).
    pub is_residual: bool,
    /// Channels that go into the encoder: 3, or 12 with a patch of 2.
    pub in_channels: usize,
    /// Channels that come out of the decoder.
    pub out_channels: usize,
    /// Edge of the pixel patch folded into channels before the encoder; `None` in 2.1.
    pub patch_size: Option<usize>,
    /// Frames per latent frame.
    pub scale_factor_temporal: usize,
    /// Pixels per latent row or column.
    pub scale_factor_spatial: usize,
}

/// One level of the encoder or decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WanStage {
    /// Channels that come in.
    pub input: usize,
    /// Channels after the first resnet.
    pub output: usize,
    /// Number of resnets.
    pub resnets: usize,
    /// Whether each resnet is followed by attention.
    pub attention: bool,
    /// What happens to the resolution at the end of the level.
    pub resample: Option<WanResample>,
}

/// A change of resolution: by 2 in rows and columns, and maybe in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WanResample {
    /// Rows and columns.
    Space,
    /// Rows, columns and frames, with a `time_conv`.
    SpaceTime,
}

impl WanVaeConfig {
    /// Reads the `config.json` of an `AutoencoderKLWan`.
    ///
    /// # Errors
    /// [`ConfigError`] for a wrong type or an absurd value.
    pub fn from_json(config: &Value) -> Result<Self, ConfigError> {
        let f = Fields::new(CLASS, config)?;
        let base_dim = f.size("base_dim", 96)?;
        let z_dim = f.size("z_dim", 16)?;
        let dim_mult = f.sizes("dim_mult", &[1, 2, 4, 4], 1..=MAX_LEVELS)?;
        let steps = dim_mult.len() - 1;
        let vae = Self {
            base_dim,
            decoder_base_dim: f.size_or_none("decoder_base_dim")?.unwrap_or(base_dim),
            z_dim,
            num_res_blocks: f.within("num_res_blocks", 2, 1..=MAX_RESNETS)?,
            attn_scales: f.numbers("attn_scales", &[], 0..=MAX_LEVELS)?,
            temperal_downsample: f.flags("temperal_downsample", &[false, true, true], steps)?,
            dim_mult,
            latents_mean: f.numbers("latents_mean", &LATENTS_MEAN, z_dim..=z_dim)?,
            latents_std: f.numbers("latents_std", &LATENTS_STD, z_dim..=z_dim)?,
            is_residual: f.flag("is_residual", false)?,
            in_channels: f.size("in_channels", 3)?,
            out_channels: f.size("out_channels", 3)?,
            patch_size: f.within_or_none("patch_size", 1..=MAX_PATCH)?,
            scale_factor_temporal: f.size("scale_factor_temporal", 4)?,
            scale_factor_spatial: f.size("scale_factor_spatial", 8)?,
        };
        f.check(vae.latents_std.iter().all(|&s| s > 0.0), "latents_std", "numbers above 0")?;
        vae.check_channels(f)?;
        Ok(vae)
    }

    /// The levels of the encoder, from full resolution down.
    #[must_use]
    pub fn encoder_stages(&self) -> Vec<WanStage> {
        let dims = self.dims(self.base_dim, false);
        let stage = |(i, pair): (usize, &[usize])| WanStage {
            input: pair[0],
            output: pair[1],
            resnets: self.num_res_blocks,
            attention: !self.is_residual && self.attn_scales.contains(&0.5f64.powi(i as i32)),
            resample: self.temperal_downsample.get(i).map(|&time| WanResample::new(time)),
        };
        dims.windows(2).enumerate().map(stage).collect()
    }

    /// The levels of the decoder, from the latent up. In 2.1 the upsampling convolution halves the channels; in
    /// 2.2 it keeps them.
    #[must_use]
    pub fn decoder_stages(&self) -> Vec<WanStage> {
        let dims = self.dims(self.decoder_base_dim, true);
        let stage = |(i, pair): (usize, &[usize])| WanStage {
            input: if i > 0 && !self.is_residual { pair[0] / 2 } else { pair[0] },
            output: pair[1],
            resnets: self.num_res_blocks + 1,
            attention: false,
            resample: self.temperal_downsample.iter().rev().nth(i).map(|&time| WanResample::new(time)),
        };
        dims.windows(2).enumerate().map(stage).collect()
    }

    /// The tensors of the checkpoint, in order of use: encoder, then decoder.
    ///
    /// # Errors
    /// [`ConfigError::TooLarge`] if the sizes multiply beyond any model.
    pub fn params(&self) -> Result<Vec<Param>, ConfigError> {
        let mut t = Tensors::new(CLASS);
        t.at("encoder", |t| self.encoder(t));
        t.conv("quant_conv", 2 * self.z_dim, 2 * self.z_dim, &[1, 1, 1]);
        t.conv("post_quant_conv", self.z_dim, self.z_dim, &[1, 1, 1]);
        t.at("decoder", |t| self.decoder(t));
        t.finish()
    }

    fn encoder(&self, t: &mut Tensors) {
        let stages = self.encoder_stages();
        let deepest = stages.last().map_or(self.base_dim, |s| s.output);
        t.conv("conv_in", self.in_channels, self.base_dim, &[3, 3, 3]);
        if self.is_residual {
            t.each("down_blocks", stages.len(), |t, i| residual_down(t, stages[i]));
        } else {
            flat_down(t, &stages);
        }
        t.at("mid_block", |t| mid(t, deepest));
        t.tensor("norm_out.gamma", &[deepest, 1, 1, 1]);
        t.conv("conv_out", deepest, 2 * self.z_dim, &[3, 3, 3]);
    }

    fn decoder(&self, t: &mut Tensors) {
        let stages = self.decoder_stages();
        let (deepest, last) = (stages.first().map_or(0, |s| s.input), stages.last().map_or(0, |s| s.output));
        t.conv("conv_in", self.z_dim, deepest, &[3, 3, 3]);
        t.at("mid_block", |t| mid(t, deepest));
        t.each("up_blocks", stages.len(), |t, i| self.up(t, stages[i]));
        t.tensor("norm_out.gamma", &[last, 1, 1, 1]);
        t.conv("conv_out", last, self.out_channels, &[3, 3, 3]);
    }

    fn up(&self, t: &mut Tensors, stage: WanStage) {
        t.each("resnets", stage.resnets, |t, i| resnet(t, stage.channels_into(i), stage.output));
        let Some(kind) = stage.resample else { return };
        if self.is_residual {
            t.at("upsampler", |t| upsample(t, kind, stage.output, stage.output));
        } else {
            t.at("upsamplers.0", |t| upsample(t, kind, stage.output, stage.output / 2));
        }
    }

    /// Channels along the way: the end that has no level of its own first.
    fn dims(&self, base: usize, up: bool) -> Vec<usize> {
        let mults = self.dim_mult.iter().copied();
        if up {
            mults.clone().last().into_iter().chain(mults.rev()).map(|m| base * m).collect()
        } else {
            std::iter::once(1).chain(mults).map(|m| base * m).collect()
        }
    }

    /// Halving, and the shortcuts that fold pixels into channels and back, only work for some channel counts.
    fn check_channels(&self, f: Fields) -> Result<(), ConfigError> {
        if self.is_residual {
            let down = self.encoder_stages().iter().all(|s| (s.input * s.volume()).is_multiple_of(s.output));
            let up = self
                .decoder_stages()
                .iter()
                .all(|s| s.resample.is_none() || (s.output * s.volume()).is_multiple_of(s.input));
            f.check(down && up, "dim_mult", "multiples whose levels divide evenly into the shortcuts of a residual VAE")
        } else {
            let even = self.decoder_stages().iter().all(|s| s.resample.is_none() || s.output.is_multiple_of(2));
            let field = if self.decoder_base_dim == self.base_dim { "base_dim" } else { "decoder_base_dim" };
            f.check(even, field, "a number that makes the channels of each upsampled level even")
        }
    }
}

impl WanStage {
    /// Channels that go into resnet `index`.
    #[must_use]
    pub fn channels_into(&self, index: usize) -> usize {
        if index == 0 { self.input } else { self.output }
    }

    /// How many fine positions make a coarse one.
    fn volume(&self) -> usize {
        match self.resample {
            None => 1,
            Some(WanResample::Space) => 4,
            Some(WanResample::SpaceTime) => 8,
        }
    }
}

impl WanResample {
    fn new(time: bool) -> Self {
        if time { Self::SpaceTime } else { Self::Space }
    }
}

/// Wan 2.1 numbers resnets, attentions and resamplers of all levels in one list.
fn flat_down(t: &mut Tensors, stages: &[WanStage]) {
    let mut index = 0;
    let mut next = |t: &mut Tensors, fill: &dyn Fn(&mut Tensors)| {
        t.at(format_args!("down_blocks.{index}"), fill);
        index += 1;
    };
    for stage in stages {
        for i in 0..stage.resnets {
            next(t, &|t| resnet(t, stage.channels_into(i), stage.output));
            if stage.attention {
                next(t, &|t| attention(t, stage.output));
            }
        }
        if let Some(kind) = stage.resample {
            next(t, &|t| downsample(t, kind, stage.output));
        }
    }
}

fn residual_down(t: &mut Tensors, stage: WanStage) {
    t.each("resnets", stage.resnets, |t, i| resnet(t, stage.channels_into(i), stage.output));
    if let Some(kind) = stage.resample {
        t.at("downsampler", |t| downsample(t, kind, stage.output));
    }
}

fn mid(t: &mut Tensors, dim: usize) {
    t.at("resnets.0", |t| resnet(t, dim, dim));
    t.at("attentions.0", |t| attention(t, dim));
    t.at("resnets.1", |t| resnet(t, dim, dim));
}

fn resnet(t: &mut Tensors, input: usize, output: usize) {
    if input != output {
        t.conv("conv_shortcut", input, output, &[1, 1, 1]);
    }
    t.tensor("norm1.gamma", &[input, 1, 1, 1]);
    t.conv("conv1", input, output, &[3, 3, 3]);
    t.tensor("norm2.gamma", &[output, 1, 1, 1]);
    t.conv("conv2", output, output, &[3, 3, 3]);
}

fn attention(t: &mut Tensors, dim: usize) {
    t.tensor("norm.gamma", &[dim, 1, 1]);
    t.conv("to_qkv", dim, 3 * dim, &[1, 1]);
    t.conv("proj", dim, dim, &[1, 1]);
}

fn downsample(t: &mut Tensors, kind: WanResample, dim: usize) {
    t.conv("resample.1", dim, dim, &[3, 3]);
    if kind == WanResample::SpaceTime {
        t.conv("time_conv", dim, dim, &[3, 1, 1]);
    }
}

fn upsample(t: &mut Tensors, kind: WanResample, dim: usize, output: usize) {
    if kind == WanResample::SpaceTime {
        t.conv("time_conv", dim, 2 * dim, &[3, 1, 1]);
    }
    t.conv("resample.1", dim, output, &[3, 3]);
}

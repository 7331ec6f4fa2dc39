//! The LTX-Video VAE: that of 0.9.0, and the later ones with timestep conditioning and folded downsampling.
//!
//! Source of structure and defaults: diffusers `AutoencoderKLLTXVideo`. Its RMS norms have no weights.

use serde_json::Value;

use super::build::Tensors;
use super::fields::{Fields, MAX_LEVELS, MAX_RESNETS};
use super::flux::TIMESTEP_DIM;
use super::{ConfigError, Param};

pub(crate) const CLASS: &str = "AutoencoderKLLTXVideo";

/// How an encoder level halves its resolution.
#[derive(Clone, Copy)]
enum Down {
    /// A strided convolution.
    Conv,
    /// A convolution whose output, folded by this many positions, has the level's channels.
    Fold(usize),
}

struct DownLevel {
    input: usize,
    output: usize,
    layers: usize,
    resample: Option<Down>,
    /// Whether the level ends with a resnet that changes the channels (before 0.9.5).
    widens: bool,
}

struct UpLevel {
    input: usize,
    output: usize,
    layers: usize,
    noise: bool,
    resample: bool,
    factor: usize,
}

/// What a resnet has besides its convolutions.
#[derive(Clone, Copy, Default)]
struct Extras {
    noise: bool,
    timestep: bool,
}

struct Config {
    in_channels: usize,
    out_channels: usize,
    latent: usize,
    patch: usize,
    down: Vec<DownLevel>,
    encoder_mid: usize,
    up: Vec<UpLevel>,
    decoder_mid: (usize, bool),
    timestep: bool,
}

pub(crate) fn params(config: &Value) -> Result<Vec<Param>, ConfigError> {
    let c = Config::from_json(config)?;
    let mut t = Tensors::new(CLASS);
    t.at("encoder", |t| c.encoder(t));
    t.buffer("latents_mean", &[c.latent]);
    t.buffer("latents_std", &[c.latent]);
    t.at("decoder", |t| c.decoder(t));
    t.finish()
}

impl Config {
    fn from_json(config: &Value) -> Result<Self, ConfigError> {
        let f = Fields::new(CLASS, config)?;
        let (down, encoder_mid) = down_levels(f)?;
        let (up, decoder_mid) = up_levels(f)?;
        Ok(Self {
            in_channels: f.size("in_channels", 3)?,
            out_channels: f.size("out_channels", 3)?,
            latent: f.size("latent_channels", 128)?,
            patch: f.patch("patch_size", 4)?,
            down,
            encoder_mid,
            up,
            decoder_mid,
            timestep: f.flag("timestep_conditioning", false)?,
        })
    }

    fn encoder(&self, t: &mut Tensors) {
        let (first, deepest) = (self.down.first().map_or(0, |l| l.input), self.down.last().map_or(0, |l| l.output));
        let plain = Extras::default();
        conv(t, "conv_in", self.in_channels * self.patch * self.patch, first);
        t.each("down_blocks", self.down.len(), |t, i| down_level(t, &self.down[i]));
        t.at("mid_block", |t| t.each("resnets", self.encoder_mid, |t, _| resnet(t, deepest, deepest, plain)));
        conv(t, "conv_out", deepest, self.latent + 1);
    }

    fn decoder(&self, t: &mut Tensors) {
        let (deepest, last) = (self.up.first().map_or(0, UpLevel::deep), self.up.last().map_or(0, |l| l.output));
        let (layers, noise) = self.decoder_mid;
        conv(t, "conv_in", self.latent, deepest);
        if self.timestep {
            t.tensor("timestep_scale_multiplier", &[]);
        }
        t.at("mid_block", |t| {
            self.time_embedder(t, 4 * deepest);
            t.each("resnets", layers, |t, _| resnet(t, deepest, deepest, self.extras(noise)));
        });
        t.each("up_blocks", self.up.len(), |t, i| self.up_level(t, &self.up[i]));
        if self.timestep {
            self.time_embedder(t, 2 * last);
            t.tensor("scale_shift_table", &[2, last]);
        }
        conv(t, "conv_out", last, self.out_channels * self.patch * self.patch);
    }

    fn up_level(&self, t: &mut Tensors, level: &UpLevel) {
        let (output, extras) = (level.output, self.extras(level.noise));
        if level.input != output {
            t.at("conv_in", |t| resnet(t, level.input, output, extras));
        }
        self.time_embedder(t, 4 * level.input);
        if level.resample {
            // Eight positions come out of each, at 1/factor of the channels that go in.
            conv(t, "upsamplers.0.conv", output * level.factor, output * 8);
        }
        t.each("resnets", level.layers, |t, _| resnet(t, output, output, extras));
    }

    fn time_embedder(&self, t: &mut Tensors, width: usize) {
        if self.timestep {
            t.embedder("time_embedder.timestep_embedder", TIMESTEP_DIM, width);
        }
    }

    fn extras(&self, noise: bool) -> Extras {
        Extras { noise, timestep: self.timestep }
    }
}

impl UpLevel {
    /// Channels before the level's own division by its factor.
    fn deep(&self) -> usize {
        self.input * self.factor
    }
}

/// The encoder's levels and the resnets of its middle block. From 0.9.5 on the last entry of
/// `block_out_channels` is only an output.
fn down_levels(f: Fields) -> Result<(Vec<DownLevel>, usize), ConfigError> {
    let dims = f.sizes("block_out_channels", &[128, 256, 512, 512], 1..=MAX_LEVELS)?;
    let kinds = [("LTXVideoDownBlock3D", false), ("LTXVideo095DownBlock3D", true)];
    let kind = |v: &Value| kinds.iter().find(|(name, _)| v.as_str() == Some(name)).map(|(_, new)| *new);
    let types = f.list(
        "down_block_types",
        &[false; 4],
        1..=MAX_LEVELS,
        kind,
        "times LTXVideoDownBlock3D or LTXVideo095DownBlock3D",
    )?;
    let new = types.last() == Some(&true);
    let count = dims.len() - usize::from(new);
    f.check(count > 0, "block_out_channels", "at least two numbers with LTXVideo095DownBlock3D")?;
    f.check(
        types.len() >= count && types.iter().all(|&t| t == new),
        "down_block_types",
        format!("{count} times the same type"),
    )?;
    let layers = resnet_counts(f, "layers_per_block", count + 1)?;
    let scaling = f.flags("spatio_temporal_scaling", &[true, true, true, false], count)?;
    let downs = downs(f, new, count)?;
    let level = |i: usize| {
        let output = *dims.get(i + 1).unwrap_or(&dims[i]);
        DownLevel {
            input: dims[i],
            output,
            layers: layers[i],
            resample: scaling[i].then_some(downs[i]),
            widens: !new && output != dims[i],
        }
    };
    let levels: Vec<DownLevel> = (0..count).map(level).collect();
    check_down(f, &levels)?;
    Ok((levels, layers[count]))
}

fn downs(f: Fields, new: bool, count: usize) -> Result<Vec<Down>, ConfigError> {
    if !new {
        return Ok(vec![Down::Conv; count]);
    }
    let item = |v: &Value| match v.as_str()? {
        "conv" => Some(Down::Conv),
        "spatial" => Some(Down::Fold(4)),
        "temporal" => Some(Down::Fold(2)),
        "spatiotemporal" => Some(Down::Fold(8)),
        _ => None,
    };
    f.list("downsample_type", &[Down::Conv; 4], count..=count, item, "of conv, spatial, temporal, spatiotemporal")
}

/// A level whose channels change must have something that changes them, and a fold must come out even.
fn check_down(f: Fields, levels: &[DownLevel]) -> Result<(), ConfigError> {
    let works = |l: &DownLevel| match l.resample {
        Some(Down::Fold(n)) => l.output.is_multiple_of(n) && (l.input * n).is_multiple_of(l.output),
        _ => l.input == l.output || l.widens,
    };
    f.check(levels.iter().all(works), "block_out_channels", "channels that each level's downsample_type can produce")
}

/// The decoder's levels, deepest first, and the resnets of its middle block and whether they inject noise.
fn up_levels(f: Fields) -> Result<(Vec<UpLevel>, (usize, bool)), ConfigError> {
    let mut dims = f.sizes("decoder_block_out_channels", &[128, 256, 512, 512], 1..=MAX_LEVELS)?;
    let count = dims.len();
    let mut layers = resnet_counts(f, "decoder_layers_per_block", count + 1)?;
    let mut scaling = f.flags("decoder_spatio_temporal_scaling", &[true, true, true, false], count)?;
    let mut noise = f.flags("decoder_inject_noise", &[false; 5], count + 1)?;
    let mut factors = f.sizes("upsample_factor", &[1; 4], count..=count)?;
    dims.reverse();
    layers.reverse();
    scaling.reverse();
    noise.reverse();
    factors.reverse();
    let mut levels: Vec<UpLevel> = Vec::with_capacity(count);
    for i in 0..count {
        let above = levels.last().map_or(dims[0], |l: &UpLevel| l.output);
        let factor = factors[i];
        let even = above.is_multiple_of(factor) && dims[i].is_multiple_of(factor);
        f.check(even, "upsample_factor", "divisors of the channels of their levels")?;
        let (input, output) = (above / factor, dims[i] / factor);
        levels.push(UpLevel {
            input,
            output,
            layers: layers[i + 1],
            noise: noise[i + 1],
            resample: scaling[i],
            factor,
        });
    }
    Ok((levels, (layers[0], noise[0])))
}

fn resnet_counts(f: Fields, field: &str, length: usize) -> Result<Vec<usize>, ConfigError> {
    let counts = f.sizes(field, &[4, 3, 3, 3, 4], length..=length)?;
    f.check(counts.iter().all(|&n| n <= MAX_RESNETS), field, format!("numbers of at most {MAX_RESNETS}"))?;
    Ok(counts)
}

fn down_level(t: &mut Tensors, level: &DownLevel) {
    let plain = Extras::default();
    t.each("resnets", level.layers, |t, _| resnet(t, level.input, level.input, plain));
    match level.resample {
        Some(Down::Conv) => conv(t, "downsamplers.0", level.input, level.input),
        Some(Down::Fold(n)) => conv(t, "downsamplers.0.conv", level.input, level.output / n),
        None => {}
    }
    if level.widens {
        t.at("conv_out", |t| resnet(t, level.input, level.output, plain));
    }
}

fn resnet(t: &mut Tensors, input: usize, output: usize, extras: Extras) {
    if extras.timestep {
        t.tensor("scale_shift_table", &[4, input]);
    }
    conv(t, "conv1", input, output);
    if extras.noise {
        t.tensor("per_channel_scale1", &[input, 1, 1]);
    }
    conv(t, "conv2", output, output);
    if extras.noise {
        t.tensor("per_channel_scale2", &[input, 1, 1]);
    }
    if input != output {
        t.norm("norm3", input);
        t.conv("conv_shortcut.conv", input, output, &[1, 1, 1]);
    }
}

fn conv(t: &mut Tensors, name: &str, input: usize, output: usize) {
    t.conv(&format!("{name}.conv"), input, output, &[3, 3, 3]);
}

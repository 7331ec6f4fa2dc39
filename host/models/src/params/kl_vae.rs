//! The image VAE of Stable Diffusion and FLUX.1.
//!
//! Source of structure and defaults: diffusers `AutoencoderKL`.

use serde_json::Value;

use super::build::Tensors;
use super::fields::{Fields, MAX_LEVELS, MAX_RESNETS};
use super::{ConfigError, Param};

pub(crate) const CLASS: &str = "AutoencoderKL";

/// The config of an image VAE.
#[derive(Clone, Debug, PartialEq)]
pub struct KlVaeConfig {
    /// Channels of the image.
    pub in_channels: usize,
    /// Channels of the decoded image.
    pub out_channels: usize,
    /// Channels of each level, from full resolution down.
    pub block_out_channels: Vec<usize>,
    /// Resnets per encoder level; the decoder has one more.
    pub layers_per_block: usize,
    /// Latent channels.
    pub latent_channels: usize,
    /// Groups of each group norm; divides all channel counts.
    pub norm_num_groups: usize,
    /// Latents are multiplied by this after encoding, and after `shift_factor` is taken off.
    pub scaling_factor: f64,
    /// Taken off the latents after encoding; `None` for zero.
    pub shift_factor: Option<f64>,
    /// Whether a 1x1 convolution follows the encoder.
    pub use_quant_conv: bool,
    /// Whether a 1x1 convolution precedes the decoder.
    pub use_post_quant_conv: bool,
    /// Whether the middle blocks attend.
    pub mid_block_add_attention: bool,
}

impl KlVaeConfig {
    /// Reads the `config.json` of an `AutoencoderKL`.
    ///
    /// # Errors
    /// [`ConfigError`] for a wrong type, an absurd value, or block types that no checkpoint uses.
    pub fn from_json(config: &Value) -> Result<Self, ConfigError> {
        let f = Fields::new(CLASS, config)?;
        let vae = Self {
            in_channels: f.size("in_channels", 3)?,
            out_channels: f.size("out_channels", 3)?,
            block_out_channels: f.sizes("block_out_channels", &[64], 1..=MAX_LEVELS)?,
            layers_per_block: f.within("layers_per_block", 1, 1..=MAX_RESNETS)?,
            latent_channels: f.size("latent_channels", 4)?,
            norm_num_groups: f.size("norm_num_groups", 32)?,
            scaling_factor: f.positive("scaling_factor", 0.18215, 1e6)?,
            shift_factor: f.number_or_none("shift_factor")?,
            use_quant_conv: f.flag("use_quant_conv", true)?,
            use_post_quant_conv: f.flag("use_post_quant_conv", true)?,
            mid_block_add_attention: f.flag("mid_block_add_attention", true)?,
        };
        let levels = vae.block_out_channels.len();
        same_types(f, "down_block_types", "DownEncoderBlock2D", levels, 1)?;
        same_types(f, "up_block_types", "UpDecoderBlock2D", levels, 1)?;
        check_groups(f, vae.norm_num_groups, &vae.block_out_channels)?;
        Ok(vae)
    }

    /// The tensors of the checkpoint, in order of use: encoder, then decoder.
    ///
    /// # Errors
    /// [`ConfigError::TooLarge`] if the sizes multiply beyond any model.
    pub fn params(&self) -> Result<Vec<Param>, ConfigError> {
        let (z, dims) = (self.latent_channels, &self.block_out_channels);
        let shape = KlShape {
            layers: self.layers_per_block,
            attention: self.mid_block_add_attention,
            resampled: vec![true; dims.len() - 1],
            wrapped: false,
            kernel: &[3, 3],
            point: &[1, 1],
        };
        let mut t = Tensors::new(CLASS);
        t.at("encoder", |t| shape.encoder(t, self.in_channels, dims, z));
        if self.use_quant_conv {
            t.conv("quant_conv", 2 * z, 2 * z, &[1, 1]);
        }
        if self.use_post_quant_conv {
            t.conv("post_quant_conv", z, z, &[1, 1]);
        }
        t.at("decoder", |t| shape.decoder(t, z, dims, self.out_channels));
        t.finish()
    }
}

/// What the image VAE and HunyuanVideo's 3-D descendant of it share, and what tells them apart.
pub(crate) struct KlShape {
    /// Resnets per encoder level.
    pub(crate) layers: usize,
    /// Whether the middle blocks attend.
    pub(crate) attention: bool,
    /// For each level whether it ends in a change of resolution; none for a level beyond the list.
    pub(crate) resampled: Vec<bool>,
    /// Whether convolutions sit in a causal wrapper, as `name.conv`.
    pub(crate) wrapped: bool,
    /// The kernel of a convolution.
    pub(crate) kernel: &'static [usize],
    /// The kernel of a shortcut.
    pub(crate) point: &'static [usize],
}

impl KlShape {
    pub(crate) fn encoder(&self, t: &mut Tensors, input: usize, dims: &[usize], latent: usize) {
        let deepest = dims[dims.len() - 1];
        self.conv(t, "conv_in", input, dims[0], self.kernel);
        t.each("down_blocks", dims.len(), |t, i| self.level(t, i, self.layers, dims, "downsamplers.0.conv"));
        t.at("mid_block", |t| self.mid(t, deepest));
        t.norm("conv_norm_out", deepest);
        self.conv(t, "conv_out", deepest, 2 * latent, self.kernel);
    }

    pub(crate) fn decoder(&self, t: &mut Tensors, latent: usize, dims: &[usize], output: usize) {
        let dims: Vec<usize> = dims.iter().rev().copied().collect();
        let last = dims[dims.len() - 1];
        self.conv(t, "conv_in", latent, dims[0], self.kernel);
        t.at("mid_block", |t| self.mid(t, dims[0]));
        t.each("up_blocks", dims.len(), |t, i| self.level(t, i, self.layers + 1, &dims, "upsamplers.0.conv"));
        t.norm("conv_norm_out", last);
        self.conv(t, "conv_out", last, output, self.kernel);
    }

    fn level(&self, t: &mut Tensors, index: usize, layers: usize, dims: &[usize], resample: &str) {
        let (input, output) = (dims[index.saturating_sub(1)], dims[index]);
        t.each("resnets", layers, |t, i| self.resnet(t, if i == 0 { input } else { output }, output));
        if self.resampled.get(index) == Some(&true) {
            self.conv(t, resample, output, output, self.kernel);
        }
    }

    fn mid(&self, t: &mut Tensors, dim: usize) {
        t.at("resnets.0", |t| self.resnet(t, dim, dim));
        if self.attention {
            t.at("attentions.0", |t| {
                t.norm("group_norm", dim);
                for name in ["to_q", "to_k", "to_v", "to_out.0"] {
                    t.linear(name, dim, dim);
                }
            });
        }
        t.at("resnets.1", |t| self.resnet(t, dim, dim));
    }

    fn resnet(&self, t: &mut Tensors, input: usize, output: usize) {
        t.norm("norm1", input);
        self.conv(t, "conv1", input, output, self.kernel);
        t.norm("norm2", output);
        self.conv(t, "conv2", output, output, self.kernel);
        if input != output {
            self.conv(t, "conv_shortcut", input, output, self.point);
        }
    }

    fn conv(&self, t: &mut Tensors, name: &str, input: usize, output: usize, kernel: &[usize]) {
        let inner = if self.wrapped { ".conv" } else { "" };
        t.conv(&format!("{name}{inner}"), input, output, kernel);
    }
}

/// Checks a list of block types: all `kind`, one per level. `default` is how many the class default lists.
pub(crate) fn same_types(f: Fields, field: &str, kind: &str, levels: usize, default: usize) -> Result<(), ConfigError> {
    let item = |v: &Value| (v.as_str() == Some(kind)).then_some(());
    f.list(field, &vec![(); default], levels..=levels, item, &format!("times \"{kind}\", one per block_out_channels"))
        .map(drop)
}

/// Checks that the groups of the norms divide the channels that they normalise.
pub(crate) fn check_groups(f: Fields, groups: usize, channels: &[usize]) -> Result<(), ConfigError> {
    let divides = channels.iter().all(|c| c.is_multiple_of(groups));
    f.check(divides, "norm_num_groups", format!("a divisor of all block_out_channels, {channels:?}"))
}

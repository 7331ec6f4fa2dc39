//! The CogVideoX VAE: causal 3-D convolutions, and a decoder whose norms are modulated by the latent.
//!
//! Source of structure and defaults: diffusers `AutoencoderKLCogVideoX`.

use serde_json::Value;

use super::build::Tensors;
use super::fields::{Fields, MAX_LEVELS, MAX_RESNETS};
use super::kl_vae::{check_groups, same_types};
use super::{ConfigError, Param};

pub(crate) const CLASS: &str = "AutoencoderKLCogVideoX";

/// The config of a CogVideoX VAE.
#[derive(Clone, Debug, PartialEq)]
pub struct CogVideoXVaeConfig {
    /// Channels of the video.
    pub in_channels: usize,
    /// Channels of the decoded video.
    pub out_channels: usize,
    /// Channels of each level, from full resolution down.
    pub block_out_channels: Vec<usize>,
    /// Latent channels.
    pub latent_channels: usize,
    /// Resnets per encoder level; the decoder has one more.
    pub layers_per_block: usize,
    /// Added to the variance in the resnets' norms.
    pub norm_eps: f64,
    /// Groups of each group norm; divides all channel counts.
    pub norm_num_groups: usize,
    /// Frames per latent frame, a power of 2.
    pub temporal_compression_ratio: usize,
    /// Latents are multiplied by this after encoding.
    pub scaling_factor: f64,
    /// Whether an image condition's latents are divided by the scaling factor instead (1.5).
    pub invert_scale_latents: bool,
    /// Whether a 1x1x1 convolution follows the encoder.
    pub use_quant_conv: bool,
    /// Whether a 1x1x1 convolution precedes the decoder.
    pub use_post_quant_conv: bool,
}

impl CogVideoXVaeConfig {
    /// Reads the `config.json` of an `AutoencoderKLCogVideoX`.
    ///
    /// # Errors
    /// [`ConfigError`] for a wrong type or an absurd value.
    pub fn from_json(config: &Value) -> Result<Self, ConfigError> {
        let f = Fields::new(CLASS, config)?;
        let vae = Self {
            in_channels: f.size("in_channels", 3)?,
            out_channels: f.size("out_channels", 3)?,
            block_out_channels: f.sizes("block_out_channels", &[128, 256, 256, 512], 1..=MAX_LEVELS)?,
            latent_channels: f.size("latent_channels", 16)?,
            layers_per_block: f.within("layers_per_block", 3, 1..=MAX_RESNETS)?,
            norm_eps: f.positive("norm_eps", 1e-6, 1.0)?,
            norm_num_groups: f.size("norm_num_groups", 32)?,
            temporal_compression_ratio: f.within("temporal_compression_ratio", 4, 1..=1024)?,
            scaling_factor: f.positive("scaling_factor", 1.152_584_26, 1e6)?,
            invert_scale_latents: f.flag("invert_scale_latents", false)?,
            use_quant_conv: f.flag("use_quant_conv", false)?,
            use_post_quant_conv: f.flag("use_post_quant_conv", false)?,
        };
        f.check(vae.temporal_compression_ratio.is_power_of_two(), "temporal_compression_ratio", "a power of 2")?;
        let levels = vae.block_out_channels.len();
        same_types(f, "down_block_types", "CogVideoXDownBlock3D", levels, 4)?;
        same_types(f, "up_block_types", "CogVideoXUpBlock3D", levels, 4)?;
        check_groups(f, vae.norm_num_groups, &vae.block_out_channels)?;
        Ok(vae)
    }

    /// The tensors of the checkpoint, in order of use: encoder, then decoder.
    ///
    /// # Errors
    /// [`ConfigError::TooLarge`] if the sizes multiply beyond any model.
    pub fn params(&self) -> Result<Vec<Param>, ConfigError> {
        let mut t = Tensors::new(CLASS);
        t.at("encoder", |t| self.encoder(t));
        // The reference sizes both by the channels of the video, not of the latent.
        if self.use_quant_conv {
            t.conv("quant_conv", 2 * self.out_channels, 2 * self.out_channels, &[1, 1, 1]);
        }
        if self.use_post_quant_conv {
            t.conv("post_quant_conv", self.out_channels, self.out_channels, &[1, 1, 1]);
        }
        t.at("decoder", |t| self.decoder(t));
        t.finish()
    }

    fn encoder(&self, t: &mut Tensors) {
        let dims = &self.block_out_channels;
        let (first, deepest) = (dims[0], dims[dims.len() - 1]);
        t.conv("conv_in.conv", self.in_channels, first, &[3, 3, 3]);
        t.each("down_blocks", dims.len(), |t, i| {
            let input = dims[i.saturating_sub(1)];
            self.resnets(t, self.layers_per_block, input, dims[i], None);
            if i + 1 < dims.len() {
                t.conv("downsamplers.0.conv", dims[i], dims[i], &[3, 3]);
            }
        });
        t.at("mid_block", |t| self.resnets(t, 2, deepest, deepest, None));
        t.norm("norm_out", deepest);
        t.conv("conv_out.conv", deepest, 2 * self.latent_channels, &[3, 3, 3]);
    }

    fn decoder(&self, t: &mut Tensors) {
        let dims: Vec<usize> = self.block_out_channels.iter().rev().copied().collect();
        let (deepest, last) = (dims[0], dims[dims.len() - 1]);
        let latent = Some(self.latent_channels);
        t.conv("conv_in.conv", self.latent_channels, deepest, &[3, 3, 3]);
        t.at("mid_block", |t| self.resnets(t, 2, deepest, deepest, latent));
        t.each("up_blocks", dims.len(), |t, i| {
            let input = dims[i.saturating_sub(1)];
            self.resnets(t, self.layers_per_block + 1, input, dims[i], latent);
            if i + 1 < dims.len() {
                t.conv("upsamplers.0.conv", dims[i], dims[i], &[3, 3]);
            }
        });
        norm(t, "norm_out", last, latent);
        t.conv("conv_out.conv", last, self.out_channels, &[3, 3, 3]);
    }

    fn resnets(&self, t: &mut Tensors, count: usize, input: usize, output: usize, latent: Option<usize>) {
        t.each("resnets", count, |t, i| resnet(t, if i == 0 { input } else { output }, output, latent));
    }
}

fn resnet(t: &mut Tensors, input: usize, output: usize, latent: Option<usize>) {
    norm(t, "norm1", input, latent);
    t.conv("conv1.conv", input, output, &[3, 3, 3]);
    norm(t, "norm2", output, latent);
    t.conv("conv2.conv", output, output, &[3, 3, 3]);
    if input != output {
        t.conv("conv_shortcut", input, output, &[1, 1, 1]);
    }
}

/// A group norm; in the decoder scaled and shifted by 1x1x1 convolutions of the latent.
fn norm(t: &mut Tensors, name: &str, dim: usize, latent: Option<usize>) {
    let Some(latent) = latent else {
        return t.norm(name, dim);
    };
    t.at(name, |t| {
        t.norm("norm_layer", dim);
        t.conv("conv_y.conv", latent, dim, &[1, 1, 1]);
        t.conv("conv_b.conv", latent, dim, &[1, 1, 1]);
    });
}

//! The HunyuanVideo VAE: the image VAE's layout with causal 3-D convolutions.
//!
//! Source of structure and defaults: diffusers `AutoencoderKLHunyuanVideo`.

use serde_json::Value;

use super::build::Tensors;
use super::fields::{Fields, MAX_LEVELS, MAX_RESNETS};
use super::kl_vae::{KlShape, check_groups, same_types};
use super::{ConfigError, Param};

pub(crate) const CLASS: &str = "AutoencoderKLHunyuanVideo";

/// The config of a HunyuanVideo VAE.
#[derive(Clone, Debug, PartialEq)]
pub struct HunyuanVideoVaeConfig {
    /// Channels of the video.
    pub in_channels: usize,
    /// Channels of the decoded video.
    pub out_channels: usize,
    /// Channels of each level, from full resolution down.
    pub block_out_channels: Vec<usize>,
    /// Resnets per encoder level; the decoder has one more.
    pub layers_per_block: usize,
    /// Latent channels.
    pub latent_channels: usize,
    /// Groups of each group norm; divides all channel counts.
    pub norm_num_groups: usize,
    /// Latents are multiplied by this after encoding.
    pub scaling_factor: f64,
    /// Pixels per latent pixel.
    pub spatial_compression_ratio: usize,
    /// Frames per latent frame.
    pub temporal_compression_ratio: usize,
    /// Whether the middle blocks attend.
    pub mid_block_add_attention: bool,
}

impl HunyuanVideoVaeConfig {
    /// Reads the `config.json` of an `AutoencoderKLHunyuanVideo`.
    ///
    /// # Errors
    /// [`ConfigError`] for a wrong type, an absurd value, or lists that do not go together.
    pub fn from_json(config: &Value) -> Result<Self, ConfigError> {
        let f = Fields::new(CLASS, config)?;
        let dims = f.sizes("block_out_channels", &[128, 256, 512, 512], 1..=MAX_LEVELS)?;
        same_types(f, "down_block_types", "HunyuanVideoDownBlock3D", dims.len(), 4)?;
        same_types(f, "up_block_types", "HunyuanVideoUpBlock3D", dims.len(), 4)?;
        let norm_num_groups = f.size("norm_num_groups", 32)?;
        check_groups(f, norm_num_groups, &dims)?;
        let spatial = f.within("spatial_compression_ratio", 8, 1..=1024)?;
        f.check(spatial.is_power_of_two(), "spatial_compression_ratio", "a power of 2")?;
        Ok(Self {
            in_channels: f.size("in_channels", 3)?,
            out_channels: f.size("out_channels", 3)?,
            block_out_channels: dims,
            layers_per_block: f.within("layers_per_block", 2, 1..=MAX_RESNETS)?,
            latent_channels: f.size("latent_channels", 16)?,
            norm_num_groups,
            scaling_factor: f.positive("scaling_factor", 0.476_986, 1e6)?,
            spatial_compression_ratio: spatial,
            // The reference's decoder knows no other ratio.
            temporal_compression_ratio: f.within("temporal_compression_ratio", 4, 4..=4)?,
            mid_block_add_attention: f.flag("mid_block_add_attention", true)?,
        })
    }

    /// Whether level `index`, counted in the direction of work, changes the resolution in space and in time: the first
    /// log2(spatial ratio) change space, and the two before the last change time.
    #[must_use]
    pub fn resampled(&self, index: usize) -> [bool; 2] {
        let levels = self.block_out_channels.len();
        let time = index + 3 >= levels && index + 1 < levels;
        [index < self.spatial_compression_ratio.ilog2() as usize, time]
    }

    /// The tensors of the checkpoint, in order of use.
    ///
    /// # Errors
    /// [`ConfigError::TooLarge`] if the sizes multiply beyond any model.
    pub fn params(&self) -> Result<Vec<Param>, ConfigError> {
        let (dims, z) = (&self.block_out_channels, self.latent_channels);
        let shape = KlShape {
            layers: self.layers_per_block,
            attention: self.mid_block_add_attention,
            resampled: (0..dims.len()).map(|i| self.resampled(i).contains(&true)).collect(),
            wrapped: true,
            kernel: &[3, 3, 3],
            point: &[1, 1, 1],
        };
        let mut t = Tensors::new(CLASS);
        t.at("encoder", |t| shape.encoder(t, self.in_channels, dims, z));
        t.conv("quant_conv", 2 * z, 2 * z, &[1, 1, 1]);
        t.conv("post_quant_conv", z, z, &[1, 1, 1]);
        t.at("decoder", |t| shape.decoder(t, z, dims, self.out_channels));
        t.finish()
    }
}

//! The HunyuanVideo VAE: the image VAE's layout with causal 3-D convolutions.
//!
//! Source of structure and defaults: diffusers `AutoencoderKLHunyuanVideo`.

use serde_json::Value;

use super::build::Tensors;
use super::fields::{Fields, MAX_LEVELS, MAX_RESNETS};
use super::kl_vae::{KlShape, check_groups, same_types};
use super::{ConfigError, Param};

pub(crate) const CLASS: &str = "AutoencoderKLHunyuanVideo";

pub(crate) fn params(config: &Value) -> Result<Vec<Param>, ConfigError> {
    let f = Fields::new(CLASS, config)?;
    let dims = f.sizes("block_out_channels", &[128, 256, 512, 512], 1..=MAX_LEVELS)?;
    same_types(f, "down_block_types", "HunyuanVideoDownBlock3D", dims.len(), 4)?;
    same_types(f, "up_block_types", "HunyuanVideoUpBlock3D", dims.len(), 4)?;
    check_groups(f, f.size("norm_num_groups", 32)?, &dims)?;
    let (input, output) = (f.size("in_channels", 3)?, f.size("out_channels", 3)?);
    let z = f.size("latent_channels", 16)?;
    let shape = KlShape {
        layers: f.within("layers_per_block", 2, 1..=MAX_RESNETS)?,
        attention: f.flag("mid_block_add_attention", true)?,
        resampled: resampled(f, dims.len())?,
        wrapped: true,
        kernel: &[3, 3, 3],
        point: &[1, 1, 1],
    };
    let mut t = Tensors::new(CLASS);
    t.at("encoder", |t| shape.encoder(t, input, &dims, z));
    t.conv("quant_conv", 2 * z, 2 * z, &[1, 1, 1]);
    t.conv("post_quant_conv", z, z, &[1, 1, 1]);
    t.at("decoder", |t| shape.decoder(t, z, &dims, output));
    t.finish()
}

/// Which levels end in a change of resolution: the first log2(spatial ratio) halve space, and the two before the
/// last halve time.
fn resampled(f: Fields, levels: usize) -> Result<Vec<bool>, ConfigError> {
    let spatial = f.within("spatial_compression_ratio", 8, 1..=1024)?;
    f.check(spatial.is_power_of_two(), "spatial_compression_ratio", "a power of 2")?;
    // The reference's decoder knows no other ratio.
    f.within("temporal_compression_ratio", 4, 4..=4)?;
    let time = |i: usize| i + 3 >= levels && i + 1 < levels;
    Ok((0..levels).map(|i| i < spatial.ilog2() as usize || time(i)).collect())
}

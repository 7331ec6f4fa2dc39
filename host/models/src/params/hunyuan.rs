//! The HunyuanVideo transformer.
//!
//! Source of structure and defaults: diffusers `HunyuanVideoTransformer3DModel`. The image-conditioned variants
//! (`latent_concat`, `token_replace`) have the same tensors.

use serde_json::Value;

use super::build::Tensors;
use super::fields::Fields;
use super::flux::{TIMESTEP_DIM, axes, condition_embedder, double_block, single_block};
use super::{ConfigError, Param};

pub(crate) const CLASS: &str = "HunyuanVideoTransformer3DModel";

struct Config {
    in_channels: usize,
    out_channels: usize,
    inner: usize,
    head: usize,
    layers: usize,
    single_layers: usize,
    refiner_layers: usize,
    mlp: usize,
    patch: [usize; 3],
    qk_norm: bool,
    guidance: bool,
    text: usize,
    pooled: usize,
}

pub(crate) fn params(config: &Value) -> Result<Vec<Param>, ConfigError> {
    let c = Config::from_json(config)?;
    let mut t = Tensors::new(CLASS);
    t.at("time_text_embed", |t| condition_embedder(t, c.guidance, c.pooled, c.inner));
    t.conv("x_embedder.proj", c.in_channels, c.inner, &c.patch);
    t.at("context_embedder", |t| c.context_embedder(t));
    t.each("transformer_blocks", c.layers, |t, _| double_block(t, c.inner, c.head, c.mlp, c.qk_norm));
    t.each("single_transformer_blocks", c.single_layers, |t, _| single_block(t, c.inner, c.head, c.mlp, c.qk_norm));
    t.linear("norm_out.linear", c.inner, 2 * c.inner);
    t.linear("proj_out", c.inner, c.patch.iter().product::<usize>() * c.out_channels);
    t.finish()
}

impl Config {
    fn from_json(config: &Value) -> Result<Self, ConfigError> {
        let f = Fields::new(CLASS, config)?;
        let in_channels = f.size("in_channels", 16)?;
        let (heads, head) = (f.size("num_attention_heads", 24)?, f.size("attention_head_dim", 128)?);
        let inner = heads * head;
        let patch = f.patch("patch_size", 2)?;
        axes(f, "rope_axes_dim", head)?;
        if !config["image_condition_type"].is_null() {
            f.word("image_condition_type", (), &[("latent_concat", ()), ("token_replace", ())])?;
        }
        Ok(Self {
            in_channels,
            out_channels: f.size_or("out_channels", 16, in_channels)?,
            inner,
            head,
            layers: f.layers("num_layers", 20)?,
            single_layers: f.layers("num_single_layers", 40)?,
            refiner_layers: f.layers("num_refiner_layers", 2)?,
            mlp: (inner as f64 * f.positive("mlp_ratio", 4.0, 1024.0)?) as usize,
            patch: [f.patch("patch_size_t", 1)?, patch, patch],
            qk_norm: config.get("qk_norm").is_none_or(|v| !v.is_null())
                && f.word("qk_norm", true, &[("rms_norm", true)])?,
            guidance: f.flag("guidance_embeds", true)?,
            text: f.size("text_embed_dim", 4096)?,
            pooled: f.size("pooled_projection_dim", 768)?,
        })
    }

    /// The refiner of the text tokens: two blocks with a feed-forward of four times the width, whatever
    /// `mlp_ratio` says.
    fn context_embedder(&self, t: &mut Tensors) {
        t.at("time_text_embed", |t| {
            t.embedder("timestep_embedder", TIMESTEP_DIM, self.inner);
            t.embedder("text_embedder", self.text, self.inner);
        });
        t.linear("proj_in", self.text, self.inner);
        t.each("token_refiner.refiner_blocks", self.refiner_layers, |t, _| refiner_block(t, self.inner));
    }
}

fn refiner_block(t: &mut Tensors, inner: usize) {
    t.norm("norm1", inner);
    for name in ["to_q", "to_k", "to_v", "to_out.0"] {
        t.linear(&format!("attn.{name}"), inner, inner);
    }
    t.linear("norm_out.linear", inner, 2 * inner);
    t.norm("norm2", inner);
    t.feed_forward("ff", inner, 4 * inner, inner);
}

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

/// The config of a HunyuanVideo transformer.
#[derive(Clone, Debug, PartialEq)]
pub struct HunyuanVideoConfig {
    /// Latent channels that go in.
    pub in_channels: usize,
    /// Latent channels that come out.
    pub out_channels: usize,
    /// Number of attention heads.
    pub num_attention_heads: usize,
    /// Width of one head: the sum of `rope_axes_dim`.
    pub attention_head_dim: usize,
    /// Number of double-stream blocks.
    pub num_layers: usize,
    /// Number of single-stream blocks.
    pub num_single_layers: usize,
    /// Number of blocks that refine the text tokens.
    pub num_refiner_layers: usize,
    /// Inner width of the feed-forward networks, as a multiple of the hidden width.
    pub mlp_ratio: f64,
    /// Edge of a patch.
    pub patch_size: usize,
    /// Latent frames of a patch.
    pub patch_size_t: usize,
    /// Whether queries and keys are normed inside every head.
    pub qk_norm: bool,
    /// Whether the guidance scale is an input.
    pub guidance_embeds: bool,
    /// Width of the Llama encoder's states.
    pub text_embed_dim: usize,
    /// Width of the pooled CLIP output.
    pub pooled_projection_dim: usize,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
    /// Widths of the rotary embedding of frame, row and column.
    pub rope_axes_dim: [usize; 3],
    /// Whether the model starts from a picture.
    pub image_condition: bool,
}

impl HunyuanVideoConfig {
    /// Reads the `config.json` of a `HunyuanVideoTransformer3DModel`.
    ///
    /// # Errors
    /// [`ConfigError`] for a wrong type or an absurd value.
    pub fn from_json(config: &Value) -> Result<Self, ConfigError> {
        let f = Fields::new(CLASS, config)?;
        let in_channels = f.size("in_channels", 16)?;
        let attention_head_dim = f.size("attention_head_dim", 128)?;
        let image_condition = !config["image_condition_type"].is_null();
        if image_condition {
            f.word("image_condition_type", (), &[("latent_concat", ()), ("token_replace", ())])?;
        }
        Ok(Self {
            in_channels,
            out_channels: f.size_or("out_channels", 16, in_channels)?,
            num_attention_heads: f.size("num_attention_heads", 24)?,
            attention_head_dim,
            num_layers: f.layers("num_layers", 20)?,
            num_single_layers: f.layers("num_single_layers", 40)?,
            num_refiner_layers: f.layers("num_refiner_layers", 2)?,
            mlp_ratio: f.positive("mlp_ratio", 4.0, 1024.0)?,
            patch_size: f.patch("patch_size", 2)?,
            patch_size_t: f.patch("patch_size_t", 1)?,
            qk_norm: config.get("qk_norm").is_none_or(|v| !v.is_null())
                && f.word("qk_norm", true, &[("rms_norm", true)])?,
            guidance_embeds: f.flag("guidance_embeds", true)?,
            text_embed_dim: f.size("text_embed_dim", 4096)?,
            pooled_projection_dim: f.size("pooled_projection_dim", 768)?,
            rope_theta: f.positive("rope_theta", 256.0, 1e12)?,
            rope_axes_dim: axes(f, "rope_axes_dim", attention_head_dim)?,
            image_condition,
        })
    }

    /// Width of the hidden states.
    #[must_use]
    pub fn inner_dim(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    /// The tensors of the checkpoint, in order of use.
    ///
    /// # Errors
    /// [`ConfigError::TooLarge`] if the sizes multiply beyond any model.
    pub fn params(&self) -> Result<Vec<Param>, ConfigError> {
        let (inner, head, norm) = (self.inner_dim(), self.attention_head_dim, self.qk_norm);
        let mlp = (inner as f64 * self.mlp_ratio) as usize;
        let patch = [self.patch_size_t, self.patch_size, self.patch_size];
        let mut t = Tensors::new(CLASS);
        t.at("time_text_embed", |t| condition_embedder(t, self.guidance_embeds, self.pooled_projection_dim, inner));
        t.conv("x_embedder.proj", self.in_channels, inner, &patch);
        t.at("context_embedder", |t| self.context_embedder(t));
        t.each("transformer_blocks", self.num_layers, |t, _| double_block(t, inner, head, mlp, norm));
        t.each("single_transformer_blocks", self.num_single_layers, |t, _| single_block(t, inner, head, mlp, norm));
        t.linear("norm_out.linear", inner, 2 * inner);
        t.linear("proj_out", inner, patch.iter().product::<usize>() * self.out_channels);
        t.finish()
    }

    /// The refiner of the text tokens: blocks with a feed-forward network of four times the width, whatever
    /// `mlp_ratio` says.
    fn context_embedder(&self, t: &mut Tensors) {
        let inner = self.inner_dim();
        t.at("time_text_embed", |t| {
            t.embedder("timestep_embedder", TIMESTEP_DIM, inner);
            t.embedder("text_embedder", self.text_embed_dim, inner);
        });
        t.linear("proj_in", self.text_embed_dim, inner);
        t.each("token_refiner.refiner_blocks", self.num_refiner_layers, |t, _| refiner_block(t, inner));
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

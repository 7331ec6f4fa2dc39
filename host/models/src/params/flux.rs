//! The FLUX.1 image transformer.
//!
//! Source of structure and defaults: diffusers `FluxTransformer2DModel`.

use serde_json::Value;

use super::build::Tensors;
use super::fields::Fields;
use super::{ConfigError, Param};

pub(crate) const CLASS: &str = "FluxTransformer2DModel";
/// Width of the sinusoidal timestep embedding; fixed in diffusers.
pub(crate) const TIMESTEP_DIM: usize = 256;

/// The config of a FLUX.1 transformer.
#[derive(Clone, Debug, PartialEq)]
pub struct FluxConfig {
    /// Edge of a patch; the pipeline packs 2x2 latents into channels itself, so this is 1.
    pub patch_size: usize,
    /// Channels of a packed latent.
    pub in_channels: usize,
    /// Channels that come out.
    pub out_channels: usize,
    /// Number of double-stream blocks.
    pub num_layers: usize,
    /// Number of single-stream blocks.
    pub num_single_layers: usize,
    /// Width of one head: the sum of `axes_dims_rope`.
    pub attention_head_dim: usize,
    /// Number of attention heads.
    pub num_attention_heads: usize,
    /// Width of the T5 encoder's output.
    pub joint_attention_dim: usize,
    /// Width of the pooled CLIP output.
    pub pooled_projection_dim: usize,
    /// Whether the guidance scale is an input (guidance-distilled models).
    pub guidance_embeds: bool,
    /// Widths of the rotary embedding of image index, row and column.
    pub axes_dims_rope: [usize; 3],
}

impl FluxConfig {
    /// Reads the `config.json` of a `FluxTransformer2DModel`.
    ///
    /// # Errors
    /// [`ConfigError`] for a wrong type or an absurd value.
    pub fn from_json(config: &Value) -> Result<Self, ConfigError> {
        let f = Fields::new(CLASS, config)?;
        let in_channels = f.size("in_channels", 64)?;
        let attention_head_dim = f.size("attention_head_dim", 128)?;
        Ok(Self {
            patch_size: f.patch("patch_size", 1)?,
            in_channels,
            out_channels: f.size_or("out_channels", in_channels, in_channels)?,
            num_layers: f.layers("num_layers", 19)?,
            num_single_layers: f.layers("num_single_layers", 38)?,
            attention_head_dim,
            num_attention_heads: f.size("num_attention_heads", 24)?,
            joint_attention_dim: f.size("joint_attention_dim", 4096)?,
            pooled_projection_dim: f.size("pooled_projection_dim", 768)?,
            guidance_embeds: f.flag("guidance_embeds", false)?,
            axes_dims_rope: axes(f, "axes_dims_rope", attention_head_dim)?,
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
        let (inner, head) = (self.inner_dim(), self.attention_head_dim);
        let mut t = Tensors::new(CLASS);
        t.linear("x_embedder", self.in_channels, inner);
        t.at("time_text_embed", |t| condition_embedder(t, self.guidance_embeds, self.pooled_projection_dim, inner));
        t.linear("context_embedder", self.joint_attention_dim, inner);
        t.each("transformer_blocks", self.num_layers, |t, _| double_block(t, inner, head, 4 * inner, true));
        t.each("single_transformer_blocks", self.num_single_layers, |t, _| {
            single_block(t, inner, head, 4 * inner, true)
        });
        t.linear("norm_out.linear", inner, 2 * inner);
        t.linear("proj_out", inner, self.patch_size * self.patch_size * self.out_channels);
        t.finish()
    }
}

/// Three rotary widths, each even, that fill a head. Also HunyuanVideo's.
pub(crate) fn axes(f: Fields, field: &str, head: usize) -> Result<[usize; 3], ConfigError> {
    let axes = f.sizes(field, &[16, 56, 56], 3..=3)?;
    match axes[..] {
        [a, b, c] if a + b + c == head && axes.iter().all(|n| n.is_multiple_of(2)) => Ok([a, b, c]),
        _ => Err(f.wrong(field, format!("three even numbers that add up to attention_head_dim = {head}"))),
    }
}

/// Timestep, guidance scale and pooled text, each embedded to `inner`. Also HunyuanVideo's.
pub(crate) fn condition_embedder(t: &mut Tensors, guidance: bool, pooled: usize, inner: usize) {
    t.embedder("timestep_embedder", TIMESTEP_DIM, inner);
    if guidance {
        t.embedder("guidance_embedder", TIMESTEP_DIM, inner);
    }
    t.embedder("text_embedder", pooled, inner);
}

/// A block with separate weights for image and text tokens, which attend jointly. Also HunyuanVideo's.
pub(crate) fn double_block(t: &mut Tensors, inner: usize, head: usize, mlp: usize, qk_norm: bool) {
    t.linear("norm1.linear", inner, 6 * inner);
    t.linear("norm1_context.linear", inner, 6 * inner);
    t.at("attn", |t| {
        attention_inputs(t, ["to_q", "to_k", "to_v"], ["norm_q", "norm_k"], inner, head, qk_norm);
        attention_inputs(
            t,
            ["add_q_proj", "add_k_proj", "add_v_proj"],
            ["norm_added_q", "norm_added_k"],
            inner,
            head,
            qk_norm,
        );
        t.linear("to_out.0", inner, inner);
        t.linear("to_add_out", inner, inner);
    });
    t.feed_forward("ff", inner, mlp, inner);
    t.feed_forward("ff_context", inner, mlp, inner);
}

/// A block over image and text tokens together, with attention and feed-forward side by side. Also HunyuanVideo's.
pub(crate) fn single_block(t: &mut Tensors, inner: usize, head: usize, mlp: usize, qk_norm: bool) {
    t.linear("norm.linear", inner, 3 * inner);
    t.linear("proj_mlp", inner, mlp);
    t.at("attn", |t| attention_inputs(t, ["to_q", "to_k", "to_v"], ["norm_q", "norm_k"], inner, head, qk_norm));
    t.linear("proj_out", inner + mlp, inner);
}

fn attention_inputs(t: &mut Tensors, linears: [&str; 3], norms: [&str; 2], inner: usize, head: usize, qk_norm: bool) {
    for name in linears {
        t.linear(name, inner, inner);
    }
    for name in norms.iter().filter(|_| qk_norm) {
        t.weight(name, &[head]);
    }
}

//! The CogVideoX video transformers: 2B, 5B, 1.5, and their image-to-video variants.
//!
//! Source of structure and defaults: diffusers `CogVideoXTransformer3DModel`.

use serde_json::Value;

use super::build::Tensors;
use super::fields::{Fields, MAX_PATCH};
use super::{ConfigError, Param};

pub(crate) const CLASS: &str = "CogVideoXTransformer3DModel";

/// The config of a CogVideoX transformer.
#[derive(Clone, Debug, PartialEq)]
pub struct CogVideoXConfig {
    /// Number of attention heads.
    pub num_attention_heads: usize,
    /// Width of one head.
    pub attention_head_dim: usize,
    /// Latent channels that go in (16; 32 with image conditioning).
    pub in_channels: usize,
    /// Latent channels that come out.
    pub out_channels: usize,
    /// Whether the timestep embedding puts cosines before sines.
    pub flip_sin_to_cos: bool,
    /// Shift of the timestep embedding's frequencies.
    pub freq_shift: f64,
    /// Width of the embedded timestep.
    pub time_embed_dim: usize,
    /// Width of the embedded "ofs" condition (1.5 image-to-video); `None` without.
    pub ofs_embed_dim: Option<usize>,
    /// Width of the text encoder's output.
    pub text_embed_dim: usize,
    /// Number of blocks.
    pub num_layers: usize,
    /// Whether the query, key and value projections have a bias.
    pub attention_bias: bool,
    /// Columns of the latent that the model was trained on.
    pub sample_width: usize,
    /// Rows of the latent that the model was trained on.
    pub sample_height: usize,
    /// Frames of the video that the model was trained on.
    pub sample_frames: usize,
    /// Edge of a patch in latent rows and columns.
    pub patch_size: usize,
    /// Latent frames per patch (1.5); `None` for one frame per patch, embedded by a convolution.
    pub patch_size_t: Option<usize>,
    /// Frames per latent frame.
    pub temporal_compression_ratio: usize,
    /// Text tokens in front of the video tokens.
    pub max_text_seq_length: usize,
    /// Whether the block norms have weights.
    pub norm_elementwise_affine: bool,
    /// Added to the variance in each block norm.
    pub norm_eps: f64,
    /// How much coarser than trained the spatial position grid is.
    pub spatial_interpolation_scale: f64,
    /// How much coarser than trained the temporal position grid is.
    pub temporal_interpolation_scale: f64,
    /// Whether attention uses rotary embeddings; else positions are added to the tokens.
    pub use_rotary_positional_embeddings: bool,
    /// Whether the checkpoint holds a position table (5B image-to-video).
    pub use_learned_positional_embeddings: bool,
    /// Whether the patch convolution has a bias. The linear patch embedding of 1.5 always has one.
    pub patch_bias: bool,
}

impl CogVideoXConfig {
    /// Reads the `config.json` of a `CogVideoXTransformer3DModel`.
    ///
    /// # Errors
    /// [`ConfigError`] for a wrong type, an absurd value, or an activation that no checkpoint uses.
    pub fn from_json(config: &Value) -> Result<Self, ConfigError> {
        let f = Fields::new(CLASS, config)?;
        f.word("activation_fn", (), &[("gelu-approximate", ())])?;
        f.word("timestep_activation_fn", (), &[("silu", ())])?;
        let in_channels = f.size("in_channels", 16)?;
        let dit = Self {
            num_attention_heads: f.size("num_attention_heads", 30)?,
            attention_head_dim: f.size("attention_head_dim", 64)?,
            in_channels,
            out_channels: f.size("out_channels", 16)?,
            flip_sin_to_cos: f.flag("flip_sin_to_cos", true)?,
            freq_shift: f.number("freq_shift", 0.0)?,
            time_embed_dim: f.size("time_embed_dim", 512)?,
            ofs_embed_dim: f.size_or_none("ofs_embed_dim")?,
            text_embed_dim: f.size("text_embed_dim", 4096)?,
            num_layers: f.layers("num_layers", 30)?,
            attention_bias: f.flag("attention_bias", true)?,
            sample_width: f.size("sample_width", 90)?,
            sample_height: f.size("sample_height", 60)?,
            sample_frames: f.size("sample_frames", 49)?,
            patch_size: f.patch("patch_size", 2)?,
            patch_size_t: f.within_or_none("patch_size_t", 1..=MAX_PATCH)?,
            temporal_compression_ratio: f.size("temporal_compression_ratio", 4)?,
            max_text_seq_length: f.size("max_text_seq_length", 226)?,
            norm_elementwise_affine: f.flag("norm_elementwise_affine", true)?,
            norm_eps: f.positive("norm_eps", 1e-5, 1.0)?,
            spatial_interpolation_scale: f.positive("spatial_interpolation_scale", 1.875, 1e6)?,
            temporal_interpolation_scale: f.positive("temporal_interpolation_scale", 1.0, 1e6)?,
            use_rotary_positional_embeddings: f.flag("use_rotary_positional_embeddings", false)?,
            use_learned_positional_embeddings: f.flag("use_learned_positional_embeddings", false)?,
            patch_bias: f.flag("patch_bias", true)?,
        };
        let consistent = dit.use_rotary_positional_embeddings || !dit.use_learned_positional_embeddings;
        f.check(
            consistent,
            "use_learned_positional_embeddings",
            "false where use_rotary_positional_embeddings is false",
        )?;
        f.check(dit.attention_head_dim.is_multiple_of(2), "attention_head_dim", "an even number")?;
        Ok(dit)
    }

    /// Width of the hidden states.
    #[must_use]
    pub fn inner_dim(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    /// Values in a patch of one channel.
    #[must_use]
    pub fn patch_volume(&self) -> usize {
        self.patch_size * self.patch_size * self.patch_size_t.unwrap_or(1)
    }

    /// Video tokens of a sample of the size that the model was trained on, one latent frame per patch.
    #[must_use]
    pub fn sample_tokens(&self) -> usize {
        let frames = (self.sample_frames - 1) / self.temporal_compression_ratio + 1;
        (self.sample_height / self.patch_size)
            .saturating_mul(self.sample_width / self.patch_size)
            .saturating_mul(frames)
    }

    /// The tensors of the checkpoint, in order of use.
    ///
    /// # Errors
    /// [`ConfigError::TooLarge`] if the sizes multiply beyond any model.
    pub fn params(&self) -> Result<Vec<Param>, ConfigError> {
        let inner = self.inner_dim();
        let mut t = Tensors::new(CLASS);
        self.timestep(&mut t);
        t.at("patch_embed", |t| self.patch_embed(t));
        t.each("transformer_blocks", self.num_layers, |t, _| self.block(t));
        self.affine_norm(&mut t, "norm_final");
        t.linear("norm_out.linear", self.time_embed_dim, 2 * inner);
        self.affine_norm(&mut t, "norm_out.norm");
        t.linear("proj_out", inner, self.out_channels * self.patch_volume());
        t.finish()
    }

    fn timestep(&self, t: &mut Tensors) {
        t.embedder("time_embedding", self.inner_dim(), self.time_embed_dim);
        if let Some(width) = self.ofs_embed_dim {
            t.embedder("ofs_embedding", width, width);
        }
    }

    fn patch_embed(&self, t: &mut Tensors) {
        let (inner, patch) = (self.inner_dim(), self.patch_size);
        t.linear("text_proj", self.text_embed_dim, inner);
        match (self.patch_size_t, self.patch_bias) {
            (Some(_), _) => t.linear("proj", self.in_channels * self.patch_volume(), inner),
            (None, true) => t.conv("proj", self.in_channels, inner, &[patch, patch]),
            (None, false) => t.weight("proj", &[inner, self.in_channels, patch, patch]),
        }
        if self.use_learned_positional_embeddings {
            let tokens = self.sample_tokens().saturating_add(self.max_text_seq_length);
            t.buffer("pos_embedding", &[1, tokens, inner]);
        }
    }

    fn block(&self, t: &mut Tensors) {
        let inner = self.inner_dim();
        t.at("norm1", |t| self.modulated_norm(t));
        t.at("attn1", |t| {
            for name in ["to_q", "to_k", "to_v"] {
                t.linear_with(name, inner, inner, self.attention_bias);
            }
            t.norm("norm_q", self.attention_head_dim);
            t.norm("norm_k", self.attention_head_dim);
            t.linear("to_out.0", inner, inner);
        });
        t.at("norm2", |t| self.modulated_norm(t));
        t.feed_forward("ff", inner, 4 * inner, inner);
    }

    fn modulated_norm(&self, t: &mut Tensors) {
        t.linear("linear", self.time_embed_dim, 6 * self.inner_dim());
        self.affine_norm(t, "norm");
    }

    fn affine_norm(&self, t: &mut Tensors, name: &str) {
        if self.norm_elementwise_affine {
            t.norm(name, self.inner_dim());
        }
    }
}

//! The CLIP text and vision encoders.
//!
//! Source of structure and defaults: transformers `CLIPTextModel`, `CLIPVisionModel`. Published files put
//! `text_model.` and `vision_model.` in front of each name; transformers 5 saves without.

use serde_json::Value;

use super::build::Tensors;
use super::fields::{Fields, MAX_SIZE};
use super::{ConfigError, Param};

pub(crate) const TEXT: &str = "CLIPTextModel";
pub(crate) const VISION: &str = "CLIPVisionModel";

/// The activation between the two layers of CLIP's feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClipActivation {
    /// `x * sigmoid(1.702 x)`.
    QuickGelu,
    /// The exact GELU, with the error function.
    Gelu,
}

const ACTIVATIONS: &[(&str, ClipActivation)] =
    &[("quick_gelu", ClipActivation::QuickGelu), ("gelu", ClipActivation::Gelu)];

/// The config of a CLIP text encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipTextConfig {
    /// Rows of the token table.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Inner width of the feed-forward network.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of attention heads; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Longest prompt in tokens.
    pub max_position_embeddings: usize,
    /// The feed-forward activation.
    pub hidden_act: ClipActivation,
    /// Added to the variance in each layer norm.
    pub layer_norm_eps: f64,
    /// The token whose position gives the pooled output. Configs that say 2 predate a correction; for them the
    /// reference pools at the largest token id instead.
    pub eos_token_id: usize,
}

impl ClipTextConfig {
    /// Reads the `config.json` of a `CLIPTextModel`.
    ///
    /// # Errors
    /// [`ConfigError`] for a wrong type or an absurd value.
    pub fn from_json(config: &Value) -> Result<Self, ConfigError> {
        let f = Fields::new(TEXT, config)?;
        let text = Self {
            vocab_size: f.size("vocab_size", 49408)?,
            hidden_size: f.size("hidden_size", 512)?,
            intermediate_size: f.size("intermediate_size", 2048)?,
            num_hidden_layers: f.layers("num_hidden_layers", 12)?,
            num_attention_heads: f.size("num_attention_heads", 8)?,
            max_position_embeddings: f.size("max_position_embeddings", 77)?,
            hidden_act: f.word("hidden_act", ClipActivation::QuickGelu, ACTIVATIONS)?,
            layer_norm_eps: f.positive("layer_norm_eps", 1e-5, 1.0)?,
            eos_token_id: f.within("eos_token_id", 49407, 0..=MAX_SIZE)?,
        };
        divides_width(f, text.num_attention_heads, text.hidden_size)?;
        Ok(text)
    }

    /// The tensors of the checkpoint, in order of use.
    ///
    /// # Errors
    /// [`ConfigError::TooLarge`] if the sizes multiply beyond any model.
    pub fn params(&self) -> Result<Vec<Param>, ConfigError> {
        let width = self.hidden_size;
        let mut t = Tensors::new(TEXT);
        t.at("text_model", |t| {
            t.weight("embeddings.token_embedding", &[self.vocab_size, width]);
            t.weight("embeddings.position_embedding", &[self.max_position_embeddings, width]);
            t.each("encoder.layers", self.num_hidden_layers, |t, _| layer(t, width, self.intermediate_size));
            t.norm("final_layer_norm", width);
        });
        t.finish()
    }
}

/// The config of a CLIP vision encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipVisionConfig {
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Inner width of the feed-forward network.
    pub intermediate_size: usize,
    /// Number of layers. Wan's image conditioning reads the output of the one before the last.
    pub num_hidden_layers: usize,
    /// Number of attention heads; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Channels of the image.
    pub num_channels: usize,
    /// Edge of the square image in pixels.
    pub image_size: usize,
    /// Edge of a square patch in pixels.
    pub patch_size: usize,
    /// The feed-forward activation.
    pub hidden_act: ClipActivation,
    /// Added to the variance in each layer norm.
    pub layer_norm_eps: f64,
}

impl ClipVisionConfig {
    /// Reads the `config.json` of a `CLIPVisionModel`.
    ///
    /// # Errors
    /// [`ConfigError`] for a wrong type or an absurd value.
    pub fn from_json(config: &Value) -> Result<Self, ConfigError> {
        let f = Fields::new(VISION, config)?;
        let vision = Self {
            hidden_size: f.size("hidden_size", 768)?,
            intermediate_size: f.size("intermediate_size", 3072)?,
            num_hidden_layers: f.layers("num_hidden_layers", 12)?,
            num_attention_heads: f.size("num_attention_heads", 12)?,
            num_channels: f.size("num_channels", 3)?,
            image_size: f.size("image_size", 224)?,
            patch_size: f.patch("patch_size", 32)?,
            hidden_act: f.word("hidden_act", ClipActivation::QuickGelu, ACTIVATIONS)?,
            layer_norm_eps: f.positive("layer_norm_eps", 1e-5, 1.0)?,
        };
        f.check(
            vision.patch_size <= vision.image_size,
            "patch_size",
            format!("at most image_size = {}", vision.image_size),
        )?;
        divides_width(f, vision.num_attention_heads, vision.hidden_size)?;
        Ok(vision)
    }

    /// Number of tokens: one per whole patch, and the class token in front.
    #[must_use]
    pub fn num_positions(&self) -> usize {
        (self.image_size / self.patch_size).pow(2) + 1
    }

    /// The tensors of the checkpoint, in order of use.
    ///
    /// # Errors
    /// [`ConfigError::TooLarge`] if the sizes multiply beyond any model.
    pub fn params(&self) -> Result<Vec<Param>, ConfigError> {
        let (width, patch) = (self.hidden_size, self.patch_size);
        let mut t = Tensors::new(VISION);
        t.at("vision_model", |t| {
            t.weight("embeddings.patch_embedding", &[width, self.num_channels, patch, patch]);
            t.tensor("embeddings.class_embedding", &[width]);
            t.weight("embeddings.position_embedding", &[self.num_positions(), width]);
            // The missing "e" is in the published name.
            t.norm("pre_layrnorm", width);
            t.each("encoder.layers", self.num_hidden_layers, |t, _| layer(t, width, self.intermediate_size));
            t.norm("post_layernorm", width);
        });
        t.finish()
    }
}

fn divides_width(f: Fields, heads: usize, width: usize) -> Result<(), ConfigError> {
    f.check(width.is_multiple_of(heads), "num_attention_heads", format!("a divisor of hidden_size = {width}"))
}

fn layer(t: &mut Tensors, width: usize, inner: usize) {
    t.norm("layer_norm1", width);
    for name in ["q_proj", "k_proj", "v_proj", "out_proj"] {
        t.linear(&format!("self_attn.{name}"), width, width);
    }
    t.norm("layer_norm2", width);
    t.linear("mlp.fc1", width, inner);
    t.linear("mlp.fc2", inner, width);
}

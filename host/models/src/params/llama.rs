//! The Llama decoder as HunyuanVideo uses it: a text encoder without a language-model head.
//!
//! Source of structure and defaults: transformers `LlamaModel`. Not here: rotary embeddings that are scaled for longer
//! texts, as later versions have them.

use serde_json::Value;

use super::build::Tensors;
use super::fields::Fields;
use super::{ConfigError, Param};

pub(crate) const CLASS: &str = "LlamaModel";

/// The config of a Llama decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaConfig {
    /// Rows of the token table.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Inner width of the feed-forward network.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of heads of queries.
    pub num_attention_heads: usize,
    /// Number of heads of keys and values; divides that of queries.
    pub num_key_value_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Whether the projections of attention have a bias.
    pub attention_bias: bool,
    /// Whether the feed-forward network has biases.
    pub mlp_bias: bool,
    /// Added to the mean square in each norm.
    pub rms_norm_eps: f64,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
}

impl LlamaConfig {
    /// Reads the `config.json` of a `LlamaModel`.
    ///
    /// # Errors
    /// [`ConfigError`] for a wrong type, an absurd value, or heads that do not divide.
    pub fn from_json(config: &Value) -> Result<Self, ConfigError> {
        let f = Fields::new(CLASS, config)?;
        let width = f.size("hidden_size", 4096)?;
        let heads = f.size("num_attention_heads", 32)?;
        let key_heads = f.size_or_none("num_key_value_heads")?.unwrap_or(heads);
        f.check(
            heads.is_multiple_of(key_heads),
            "num_key_value_heads",
            format!("a divisor of num_attention_heads = {heads}"),
        )?;
        let head_dim = match f.size_or_none("head_dim")? {
            Some(head) => head,
            None => {
                f.check(
                    width.is_multiple_of(heads),
                    "num_attention_heads",
                    format!("a divisor of hidden_size = {width}"),
                )?;
                width / heads
            }
        };
        f.word("hidden_act", (), &[("silu", ())])?;
        // Configs that transformers 5 saves have it a level deeper.
        let rope = config.get("rope_parameters").filter(|v| v.is_object()).unwrap_or(config);
        let rope = Fields::new(CLASS, rope)?;
        Ok(Self {
            vocab_size: f.size("vocab_size", 32000)?,
            hidden_size: width,
            intermediate_size: f.size("intermediate_size", 11008)?,
            num_hidden_layers: f.layers("num_hidden_layers", 32)?,
            num_attention_heads: heads,
            num_key_value_heads: key_heads,
            head_dim,
            attention_bias: f.flag("attention_bias", false)?,
            mlp_bias: f.flag("mlp_bias", false)?,
            rms_norm_eps: f.positive("rms_norm_eps", 1e-6, 1.0)?,
            rope_theta: rope.positive("rope_theta", 10000.0, 1e12)?,
        })
    }

    /// The tensors of the checkpoint, in order of use.
    ///
    /// # Errors
    /// [`ConfigError::TooLarge`] if the sizes multiply beyond any model.
    pub fn params(&self) -> Result<Vec<Param>, ConfigError> {
        let mut t = Tensors::new(CLASS);
        t.weight("embed_tokens", &[self.vocab_size, self.hidden_size]);
        t.each("layers", self.num_hidden_layers, |t, _| self.layer(t));
        t.weight("norm", &[self.hidden_size]);
        t.finish()
    }

    fn layer(&self, t: &mut Tensors) {
        let (width, inner) = (self.hidden_size, self.intermediate_size);
        let (queries, keys) = (self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim);
        t.weight("input_layernorm", &[width]);
        t.at("self_attn", |t| {
            t.linear_with("q_proj", width, queries, self.attention_bias);
            t.linear_with("k_proj", width, keys, self.attention_bias);
            t.linear_with("v_proj", width, keys, self.attention_bias);
            t.linear_with("o_proj", queries, width, self.attention_bias);
        });
        t.weight("post_attention_layernorm", &[width]);
        t.at("mlp", |t| {
            t.linear_with("gate_proj", width, inner, self.mlp_bias);
            t.linear_with("up_proj", width, inner, self.mlp_bias);
            t.linear_with("down_proj", inner, width, self.mlp_bias);
        });
    }
}

//! The T5 and UMT5 text encoders.
//!
//! Source of structure and defaults: transformers `T5EncoderModel`, `UMT5EncoderModel`. Checkpoints hold the
//! embedding once, as `shared.weight`; `encoder.embed_tokens.weight` is an alias of it.

use serde_json::Value;

use super::build::Tensors;
use super::fields::{Fields, MAX_SIZE, shorten};
use super::{ConfigError, Param};

pub(crate) const T5: &str = "T5EncoderModel";
pub(crate) const UMT5: &str = "UMT5EncoderModel";

/// transformers keeps the feed-forward output in f32 when it loads f16, because it overflows there.
const KEEP_F32: &[&str] = &["wo"];

/// The feed-forward network of a T5 block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum T5FeedForward {
    /// `wo(relu(wi(x)))`, of the first T5.
    Relu,
    /// `wo(gelu_tanh(wi_0(x)) * wi_1(x))`, of T5 v1.1 and UMT5.
    GatedGelu,
}

/// The config of a T5 or UMT5 encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct T5Config {
    /// `T5EncoderModel` or `UMT5EncoderModel`.
    pub class: &'static str,
    /// Rows of the embedding table.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub d_model: usize,
    /// Width of one attention head.
    pub d_kv: usize,
    /// Inner width of the feed-forward network.
    pub d_ff: usize,
    /// Number of blocks.
    pub num_layers: usize,
    /// Number of attention heads.
    pub num_heads: usize,
    /// Rows of the relative position table.
    pub relative_attention_num_buckets: usize,
    /// Distance in tokens from which on all positions share the last bucket.
    pub relative_attention_max_distance: usize,
    /// Added to the mean square in each RMS norm.
    pub layer_norm_epsilon: f64,
    /// The feed-forward network.
    pub feed_forward: T5FeedForward,
    /// Whether each block has its own relative position table (UMT5), or all use that of block 0 (T5).
    pub bias_per_block: bool,
}

impl T5Config {
    /// Reads the `config.json` of `class`, which is `T5EncoderModel` or `UMT5EncoderModel`.
    ///
    /// # Errors
    /// [`ConfigError`] for another class, a wrong type or an absurd value.
    pub fn from_json(class: &str, config: &Value) -> Result<Self, ConfigError> {
        let umt5 = match class {
            T5 => false,
            UMT5 => true,
            _ => {
                return Err(ConfigError::UnknownClass { class: shorten(class) });
            }
        };
        let f = Fields::new(class, config)?;
        let pick = |t5, umt5_value| if umt5 { umt5_value } else { t5 };
        let words = [("relu", T5FeedForward::Relu), ("gated-gelu", T5FeedForward::GatedGelu)];
        let default_forward = if umt5 { T5FeedForward::GatedGelu } else { T5FeedForward::Relu };
        Ok(Self {
            class: if umt5 { UMT5 } else { T5 },
            vocab_size: f.size("vocab_size", pick(32128, 250_112))?,
            d_model: f.size("d_model", 512)?,
            d_kv: f.size("d_kv", 64)?,
            d_ff: f.size("d_ff", pick(2048, 1024))?,
            num_layers: f.layers("num_layers", pick(6, 8))?,
            num_heads: f.size("num_heads", pick(8, 6))?,
            relative_attention_num_buckets: f.within("relative_attention_num_buckets", 32, 2..=MAX_SIZE)?,
            relative_attention_max_distance: f.size("relative_attention_max_distance", 128)?,
            layer_norm_epsilon: f.positive("layer_norm_epsilon", 1e-6, 1.0)?,
            feed_forward: f.word("feed_forward_proj", default_forward, &words)?,
            bias_per_block: umt5,
        })
    }

    /// Width of all attention heads together.
    #[must_use]
    pub fn inner_dim(&self) -> usize {
        self.num_heads * self.d_kv
    }

    /// Whether block `index` has a relative position table of its own.
    #[must_use]
    pub fn has_bias(&self, index: usize) -> bool {
        self.bias_per_block || index == 0
    }

    /// The tensors of the checkpoint, in order of use.
    ///
    /// # Errors
    /// [`ConfigError::TooLarge`] if the sizes multiply beyond any model.
    pub fn params(&self) -> Result<Vec<Param>, ConfigError> {
        let mut t = Tensors::keeping(self.class, KEEP_F32);
        t.weight("shared", &[self.vocab_size, self.d_model]);
        t.each("encoder.block", self.num_layers, |t, i| self.block(t, i));
        t.weight("encoder.final_layer_norm", &[self.d_model]);
        t.finish()
    }

    fn block(&self, t: &mut Tensors, index: usize) {
        let (width, inner) = (self.d_model, self.inner_dim());
        t.weight("layer.0.layer_norm", &[width]);
        t.at("layer.0.SelfAttention", |t| {
            for name in ["q", "k", "v"] {
                t.weight(name, &[inner, width]);
            }
            if self.has_bias(index) {
                t.weight("relative_attention_bias", &[self.relative_attention_num_buckets, self.num_heads]);
            }
            t.weight("o", &[width, inner]);
        });
        t.weight("layer.1.layer_norm", &[width]);
        t.at("layer.1.DenseReluDense", |t| {
            for name in self.inputs() {
                t.weight(name, &[self.d_ff, width]);
            }
            t.weight("wo", &[width, self.d_ff]);
        });
    }

    fn inputs(&self) -> &'static [&'static str] {
        match self.feed_forward {
            T5FeedForward::Relu => &["wi"],
            T5FeedForward::GatedGelu => &["wi_0", "wi_1"],
        }
    }
}

//! The Llama decoder as HunyuanVideo uses it: a text encoder without a language-model head.
//!
//! Source of structure and defaults: transformers `LlamaModel`.

use serde_json::Value;

use super::build::Tensors;
use super::fields::Fields;
use super::{ConfigError, Param};

pub(crate) const CLASS: &str = "LlamaModel";

struct Config {
    vocab: usize,
    width: usize,
    inner: usize,
    layers: usize,
    queries: usize,
    keys: usize,
    attention_bias: bool,
    mlp_bias: bool,
}

pub(crate) fn params(config: &Value) -> Result<Vec<Param>, ConfigError> {
    let c = Config::from_json(config)?;
    let mut t = Tensors::new(CLASS);
    t.weight("embed_tokens", &[c.vocab, c.width]);
    t.each("layers", c.layers, |t, _| c.layer(t));
    t.weight("norm", &[c.width]);
    t.finish()
}

impl Config {
    fn from_json(config: &Value) -> Result<Self, ConfigError> {
        let f = Fields::new(CLASS, config)?;
        let width = f.size("hidden_size", 4096)?;
        let heads = f.size("num_attention_heads", 32)?;
        let key_heads = f.size_or_none("num_key_value_heads")?.unwrap_or(heads);
        f.check(
            heads.is_multiple_of(key_heads),
            "num_key_value_heads",
            format!("a divisor of num_attention_heads = {heads}"),
        )?;
        let head = match f.size_or_none("head_dim")? {
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
        Ok(Self {
            vocab: f.size("vocab_size", 32000)?,
            width,
            inner: f.size("intermediate_size", 11008)?,
            layers: f.layers("num_hidden_layers", 32)?,
            queries: heads * head,
            keys: key_heads * head,
            attention_bias: f.flag("attention_bias", false)?,
            mlp_bias: f.flag("mlp_bias", false)?,
        })
    }

    fn layer(&self, t: &mut Tensors) {
        t.weight("input_layernorm", &[self.width]);
        t.at("self_attn", |t| {
            t.linear_with("q_proj", self.width, self.queries, self.attention_bias);
            t.linear_with("k_proj", self.width, self.keys, self.attention_bias);
            t.linear_with("v_proj", self.width, self.keys, self.attention_bias);
            t.linear_with("o_proj", self.queries, self.width, self.attention_bias);
        });
        t.weight("post_attention_layernorm", &[self.width]);
        t.at("mlp", |t| {
            t.linear_with("gate_proj", self.width, self.inner, self.mlp_bias);
            t.linear_with("up_proj", self.width, self.inner, self.mlp_bias);
            t.linear_with("down_proj", self.inner, self.width, self.mlp_bias);
        });
    }
}

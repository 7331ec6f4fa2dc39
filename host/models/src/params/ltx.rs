//! The LTX-Video transformer.
//!
//! Source of structure and defaults: diffusers `LTXVideoTransformer3DModel`.

use serde_json::Value;

use super::build::Tensors;
use super::fields::Fields;
use super::flux::TIMESTEP_DIM;
use super::{ConfigError, Param};

pub(crate) const CLASS: &str = "LTXVideoTransformer3DModel";

struct Config {
    in_channels: usize,
    out_channels: usize,
    inner: usize,
    cross: usize,
    caption: usize,
    layers: usize,
    affine: bool,
    bias: bool,
    out_bias: bool,
}

pub(crate) fn params(config: &Value) -> Result<Vec<Param>, ConfigError> {
    let c = Config::from_json(config)?;
    let mut t = Tensors::new(CLASS);
    t.linear("proj_in", c.in_channels, c.inner);
    t.embedder("time_embed.emb.timestep_embedder", TIMESTEP_DIM, c.inner);
    t.linear("time_embed.linear", c.inner, 6 * c.inner);
    t.embedder("caption_projection", c.caption, c.inner);
    t.each("transformer_blocks", c.layers, |t, _| c.block(t));
    t.tensor("scale_shift_table", &[2, c.inner]);
    t.linear("proj_out", c.inner, c.out_channels);
    t.finish()
}

impl Config {
    fn from_json(config: &Value) -> Result<Self, ConfigError> {
        let f = Fields::new(CLASS, config)?;
        f.word("activation_fn", (), &[("gelu-approximate", ())])?;
        f.word("qk_norm", (), &[("rms_norm_across_heads", ())])?;
        let in_channels = f.size("in_channels", 128)?;
        Ok(Self {
            in_channels,
            out_channels: f.size_or("out_channels", 128, in_channels)?,
            inner: f.size("num_attention_heads", 32)? * f.size("attention_head_dim", 64)?,
            cross: f.size("cross_attention_dim", 2048)?,
            caption: f.size("caption_channels", 4096)?,
            layers: f.layers("num_layers", 28)?,
            affine: f.flag("norm_elementwise_affine", false)?,
            bias: f.flag("attention_bias", true)?,
            out_bias: f.flag("attention_out_bias", true)?,
        })
    }

    fn block(&self, t: &mut Tensors) {
        let inner = self.inner;
        t.tensor("scale_shift_table", &[6, inner]);
        self.block_norm(t, "norm1");
        t.at("attn1", |t| self.attention(t, inner));
        t.at("attn2", |t| self.attention(t, self.cross));
        self.block_norm(t, "norm2");
        t.feed_forward("ff", inner, 4 * inner, inner);
    }

    fn block_norm(&self, t: &mut Tensors, name: &str) {
        if self.affine {
            t.weight(name, &[self.inner]);
        }
    }

    fn attention(&self, t: &mut Tensors, context: usize) {
        t.linear_with("to_q", self.inner, self.inner, self.bias);
        t.linear_with("to_k", context, self.inner, self.bias);
        t.linear_with("to_v", context, self.inner, self.bias);
        t.weight("norm_q", &[self.inner]);
        t.weight("norm_k", &[self.inner]);
        t.linear_with("to_out.0", self.inner, self.inner, self.out_bias);
    }
}

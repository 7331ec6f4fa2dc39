//! The wav2vec2 speech encoder, which conditions talking-head video models.
//!
//! Source of structure and defaults: transformers `Wav2Vec2Model`. Published files hold the positional
//! convolution's weight norm as `weight_g` and `weight_v`; newer PyTorch names it a parametrization.

use serde_json::Value;

use super::build::Tensors;
use super::fields::{Fields, MAX_LEVELS, MAX_SIZE};
use super::{ConfigError, Param};

pub(crate) const CLASS: &str = "Wav2Vec2Model";

struct Config {
    width: usize,
    inner: usize,
    layers: usize,
    conv_dim: Vec<usize>,
    conv_kernel: Vec<usize>,
    conv_bias: bool,
    /// Whether every convolution is normalised, or only the first.
    norm_each: bool,
    position_kernel: usize,
    position_groups: usize,
    masked: bool,
}

pub(crate) fn params(config: &Value) -> Result<Vec<Param>, ConfigError> {
    let c = Config::from_json(config)?;
    let mut t = Tensors::new(CLASS);
    c.features(&mut t);
    t.at("encoder", |t| {
        c.positions(t);
        // Where it is used depends on `do_stable_layer_norm`; it is too small for that to matter.
        t.norm("layer_norm", c.width);
        t.each("layers", c.layers, |t, _| c.layer(t));
    });
    t.finish()
}

impl Config {
    fn from_json(config: &Value) -> Result<Self, ConfigError> {
        let f = Fields::new(CLASS, config)?;
        refuse_adapters(f, config)?;
        let width = f.size("hidden_size", 768)?;
        let heads = f.size("num_attention_heads", 12)?;
        f.check(width.is_multiple_of(heads), "num_attention_heads", format!("a divisor of hidden_size = {width}"))?;
        let groups = f.size("num_conv_pos_embedding_groups", 16)?;
        f.check(
            width.is_multiple_of(groups),
            "num_conv_pos_embedding_groups",
            format!("a divisor of hidden_size = {width}"),
        )?;
        let conv_dim = f.sizes("conv_dim", &[512; 7], 1..=MAX_LEVELS)?;
        let convs = conv_dim.len();
        f.sizes("conv_stride", &[5, 2, 2, 2, 2, 2, 2], convs..=convs)?;
        f.flag("do_stable_layer_norm", false)?;
        Ok(Self {
            width,
            inner: f.size("intermediate_size", 3072)?,
            layers: f.layers("num_hidden_layers", 12)?,
            conv_kernel: f.sizes("conv_kernel", &[10, 3, 3, 3, 3, 2, 2], convs..=convs)?,
            conv_dim,
            conv_bias: f.flag("conv_bias", false)?,
            norm_each: f.word("feat_extract_norm", false, &[("group", false), ("layer", true)])?,
            position_kernel: f.within("num_conv_pos_embeddings", 128, 1..=MAX_SIZE)?,
            position_groups: groups,
            masked: f.number("mask_time_prob", 0.05)? > 0.0 || f.number("mask_feature_prob", 0.0)? > 0.0,
        })
    }

    fn features(&self, t: &mut Tensors) {
        t.each("feature_extractor.conv_layers", self.conv_dim.len(), |t, i| {
            let input = if i == 0 { 1 } else { self.conv_dim[i - 1] };
            let (output, kernel) = (self.conv_dim[i], self.conv_kernel[i]);
            t.weight("conv", &[output, input, kernel]);
            if self.conv_bias {
                t.tensor("conv.bias", &[output]);
            }
            if self.norm_each || i == 0 {
                t.norm("layer_norm", output);
            }
        });
        let last = self.conv_dim[self.conv_dim.len() - 1];
        t.norm("feature_projection.layer_norm", last);
        t.linear("feature_projection.projection", last, self.width);
        if self.masked {
            // Only training uses it, but it is in the file.
            t.tensor("masked_spec_embed", &[self.width]);
        }
    }

    fn positions(&self, t: &mut Tensors) {
        t.at("pos_conv_embed.conv", |t| {
            t.tensor("weight_g", &[1, 1, self.position_kernel]);
            t.tensor("weight_v", &[self.width, self.width / self.position_groups, self.position_kernel]);
            t.tensor("bias", &[self.width]);
        });
    }

    fn layer(&self, t: &mut Tensors) {
        for name in ["q_proj", "k_proj", "v_proj", "out_proj"] {
            t.linear(&format!("attention.{name}"), self.width, self.width);
        }
        t.norm("layer_norm", self.width);
        t.linear("feed_forward.intermediate_dense", self.width, self.inner);
        t.linear("feed_forward.output_dense", self.inner, self.width);
        t.norm("final_layer_norm", self.width);
    }
}

/// Adapters serve speech recognition in other languages; no video model uses them.
fn refuse_adapters(f: Fields, config: &Value) -> Result<(), ConfigError> {
    f.check(!f.flag("add_adapter", false)?, "add_adapter", "false")?;
    f.check(config["adapter_attn_dim"].is_null(), "adapter_attn_dim", "null")
}

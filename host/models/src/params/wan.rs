//! The Wan video transformers: 2.1 (text, image, first and last frame), 2.2, and VACE.
//!
//! Source of structure and defaults: diffusers `WanTransformer3DModel`, `WanVACETransformer3DModel`.

use serde_json::Value;

use super::build::Tensors;
use super::fields::{Fields, MAX_LAYERS, MAX_PATCH, shorten};
use super::{ConfigError, Param};

pub(crate) const DIT: &str = "WanTransformer3DModel";
pub(crate) const VACE: &str = "WanVACETransformer3DModel";

/// What diffusers keeps in f32 in both classes. The parts match anywhere in a name, so the image embedder's
/// `norm1` and `norm2` are among them.
const KEEP_F32: &[&str] = &["rope", "time_embedder", "scale_shift_table", "norm1", "norm2", "norm3"];

/// The config of a Wan transformer.
#[derive(Clone, Debug, PartialEq)]
pub struct WanDitConfig {
    /// `WanTransformer3DModel` or `WanVACETransformer3DModel`.
    pub class: &'static str,
    /// Patch edges in latent frames, rows and columns.
    pub patch_size: [usize; 3],
    /// Number of attention heads.
    pub num_attention_heads: usize,
    /// Width of one head; even, because rotary embedding turns pairs.
    pub attention_head_dim: usize,
    /// Latent channels that go in (16 of noise; 36 with image conditioning).
    pub in_channels: usize,
    /// Latent channels that come out.
    pub out_channels: usize,
    /// Width of the text encoder's output.
    pub text_dim: usize,
    /// Width of the sinusoidal timestep embedding.
    pub freq_dim: usize,
    /// Inner width of the feed-forward network.
    pub ffn_dim: usize,
    /// Number of blocks.
    pub num_layers: usize,
    /// Whether the norm before cross attention has weights (else it is the identity).
    pub cross_attn_norm: bool,
    /// Added under the root in each norm.
    pub eps: f64,
    /// Width of the image encoder's output; `None` for a model without image embedder.
    pub image_dim: Option<usize>,
    /// Width of the image tokens that cross attention also attends to; `None` for a model without.
    pub added_kv_proj_dim: Option<usize>,
    /// Longest side of the latent patch grid that rotary embedding is prepared for.
    pub rope_max_seq_len: usize,
    /// Rows of the image embedder's position table (514 for first-and-last-frame models); `None` without.
    pub pos_embed_seq_len: Option<usize>,
    /// The control branch of a VACE model.
    pub vace: Option<WanVaceConfig>,
}

/// The control branch of a VACE model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WanVaceConfig {
    /// The block after which each control block's hint is added, ascending; the first is 0.
    pub layers: Vec<usize>,
    /// Channels of the control latents.
    pub in_channels: usize,
}

impl WanDitConfig {
    /// Reads the `config.json` of `class`, which is `WanTransformer3DModel` or `WanVACETransformer3DModel`.
    ///
    /// # Errors
    /// [`ConfigError`] for another class, a wrong type or an absurd value.
    pub fn from_json(class: &str, config: &Value) -> Result<Self, ConfigError> {
        let class = match class {
            DIT => DIT,
            VACE => VACE,
            _ => {
                return Err(ConfigError::UnknownClass { class: shorten(class) });
            }
        };
        let f = Fields::new(class, config)?;
        let in_channels = f.size("in_channels", 16)?;
        let num_layers = f.layers("num_layers", 40)?;
        let dit = Self {
            class,
            patch_size: patch_size(f)?,
            num_attention_heads: f.size("num_attention_heads", 40)?,
            attention_head_dim: f.size("attention_head_dim", 128)?,
            in_channels,
            out_channels: f.size_or("out_channels", 16, in_channels)?,
            text_dim: f.size("text_dim", 4096)?,
            freq_dim: f.size("freq_dim", 256)?,
            ffn_dim: f.size("ffn_dim", 13824)?,
            num_layers,
            cross_attn_norm: f.flag("cross_attn_norm", true)?,
            eps: f.positive("eps", 1e-6, 1.0)?,
            image_dim: f.size_or_none("image_dim")?,
            added_kv_proj_dim: f.size_or_none("added_kv_proj_dim")?,
            rope_max_seq_len: f.size("rope_max_seq_len", 1024)?,
            pos_embed_seq_len: f.size_or_none("pos_embed_seq_len")?,
            vace: if class == VACE { Some(WanVaceConfig::from_fields(f, num_layers)?) } else { None },
        };
        f.check(dit.attention_head_dim.is_multiple_of(2), "attention_head_dim", "an even number")?;
        f.check(dit.freq_dim.is_multiple_of(2), "freq_dim", "an even number")?;
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
        self.patch_size.iter().product()
    }

    /// The tensors of the checkpoint, in order of use.
    ///
    /// # Errors
    /// [`ConfigError::TooLarge`] if the sizes multiply beyond any model.
    pub fn params(&self) -> Result<Vec<Param>, ConfigError> {
        let inner = self.inner_dim();
        let mut t = Tensors::keeping(self.class, KEEP_F32);
        t.conv("patch_embedding", self.in_channels, inner, &self.patch_size);
        if let Some(vace) = &self.vace {
            t.conv("vace_patch_embedding", vace.in_channels, inner, &self.patch_size);
        }
        t.at("condition_embedder", |t| self.condition_embedder(t));
        if let Some(vace) = &self.vace {
            t.each("vace_blocks", vace.layers.len(), |t, i| self.vace_block(t, i));
        }
        t.each("blocks", self.num_layers, |t, _| self.block(t));
        t.tensor("scale_shift_table", &[1, 2, inner]);
        t.linear("proj_out", inner, self.out_channels * self.patch_volume());
        t.finish()
    }

    fn condition_embedder(&self, t: &mut Tensors) {
        let inner = self.inner_dim();
        t.embedder("time_embedder", self.freq_dim, inner);
        t.linear("time_proj", inner, 6 * inner);
        t.embedder("text_embedder", self.text_dim, inner);
        let Some(image) = self.image_dim else { return };
        t.at("image_embedder", |t| {
            if let Some(rows) = self.pos_embed_seq_len {
                t.tensor("pos_embed", &[1, rows, image]);
            }
            t.norm("norm1", image);
            t.feed_forward("ff", image, image, inner);
            t.norm("norm2", inner);
        });
    }

    fn block(&self, t: &mut Tensors) {
        let inner = self.inner_dim();
        t.tensor("scale_shift_table", &[1, 6, inner]);
        t.at("attn1", |t| self.attention(t, None));
        if self.cross_attn_norm {
            t.norm("norm2", inner);
        }
        t.at("attn2", |t| self.attention(t, self.added_kv_proj_dim));
        t.feed_forward("ffn", inner, self.ffn_dim, inner);
    }

    /// A control block: the first also projects the control latents, each projects its hint.
    fn vace_block(&self, t: &mut Tensors, index: usize) {
        let inner = self.inner_dim();
        if index == 0 {
            t.linear("proj_in", inner, inner);
        }
        self.block(t);
        t.linear("proj_out", inner, inner);
    }

    fn attention(&self, t: &mut Tensors, image: Option<usize>) {
        let inner = self.inner_dim();
        for name in ["to_q", "to_k", "to_v"] {
            t.linear(name, inner, inner);
        }
        t.weight("norm_q", &[inner]);
        t.weight("norm_k", &[inner]);
        if let Some(width) = image {
            t.linear("add_k_proj", width, inner);
            t.weight("norm_added_k", &[inner]);
            t.linear("add_v_proj", width, inner);
        }
        t.linear("to_out.0", inner, inner);
    }
}

impl WanVaceConfig {
    fn from_fields(f: Fields, num_layers: usize) -> Result<Self, ConfigError> {
        let field = "vace_layers";
        let default = [0, 5, 10, 15, 20, 25, 30, 35];
        let index = |v: &Value| v.as_u64().and_then(|n| usize::try_from(n).ok());
        let layers = f.list(field, &default, 1..=MAX_LAYERS, index, "block numbers")?;
        f.check(layers.is_sorted_by(|a, b| a < b), field, "block numbers in ascending order, each once")?;
        f.check(layers.first() == Some(&0), field, "block numbers that start with 0")?;
        f.check(
            layers.iter().all(|&n| n < num_layers),
            field,
            format!("block numbers below num_layers = {num_layers}"),
        )?;
        Ok(Self { layers, in_channels: f.size("vace_in_channels", 96)? })
    }
}

fn patch_size(f: Fields) -> Result<[usize; 3], ConfigError> {
    let patch = f.sizes("patch_size", &[1, 2, 2], 3..=3)?;
    match patch[..] {
        [t, h, w] if patch.iter().all(|&edge| edge <= MAX_PATCH) => Ok([t, h, w]),
        _ => Err(f.wrong("patch_size", format!("three edges of at most {MAX_PATCH}"))),
    }
}

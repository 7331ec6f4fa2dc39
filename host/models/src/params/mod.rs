//! Every tensor of a checkpoint, from its `config.json` alone.
//!
//! A model can be planned before a byte of it is downloaded: the class and the config fix each tensor's name and
//! shape. Names are those of the *published* checkpoints, which is what a weight file's header is compared with.
//! The structure is that of diffusers 0.42 and transformers 5; where those save under newer names than the
//! published files use (CLIP's prefixes, wav2vec2's weight norm), the published names are given.
//!
//! Not for weights: what a file really holds, and in which dtype, is told by its header.

mod build;
mod clip;
mod cogvideox;
mod cogvideox_vae;
mod error;
mod fields;
mod flux;
mod hunyuan;
mod hunyuan_vae;
mod kl_vae;
mod llama;
mod ltx;
mod ltx_vae;
mod t5;
mod wan;
mod wan_vae;
mod wav2vec2;

use serde_json::Value;

pub use clip::{ClipActivation, ClipTextConfig, ClipVisionConfig};
pub use cogvideox::CogVideoXConfig;
pub use cogvideox_vae::CogVideoXVaeConfig;
pub use error::ConfigError;
pub(crate) use fields::shorten;
pub use flux::FluxConfig;
pub use hunyuan::HunyuanVideoConfig;
pub use hunyuan_vae::HunyuanVideoVaeConfig;
pub use kl_vae::KlVaeConfig;
pub use llama::LlamaConfig;
pub use t5::{T5Config, T5FeedForward};
pub use wan::{WanDitConfig, WanVaceConfig};
pub use wan_vae::{WanResample, WanStage, WanVaeConfig};

/// One tensor of a checkpoint, as published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// The full dotted name, as in the safetensors header.
    pub name: String,
    /// The shape, outermost dimension first; empty for a scalar.
    pub shape: Vec<usize>,
    /// Whether the reference keeps it in f32 when it loads the model in a smaller dtype (its
    /// `_keep_in_fp32_modules`). transformers does so for f16 only, diffusers for bf16 too.
    pub keep_f32: bool,
    /// Whether it is a persistent buffer: in the file, but not counted as a parameter.
    pub buffer: bool,
}

impl Param {
    /// The number of values. Never overflows for a list made by [`params`].
    #[must_use]
    pub fn elements(&self) -> u64 {
        self.shape.iter().map(|&side| side as u64).product()
    }
}

/// What is known of a class: its name, its block lists, how its tensors are listed.
struct Class {
    name: &'static str,
    blocks: &'static [&'static str],
    params: fn(&Value) -> Result<Vec<Param>, ConfigError>,
}

const CLASSES: &[Class] = &[
    Class { name: t5::T5, blocks: &["encoder.block"], params: |c| T5Config::from_json(t5::T5, c)?.params() },
    Class { name: t5::UMT5, blocks: &["encoder.block"], params: |c| T5Config::from_json(t5::UMT5, c)?.params() },
    Class {
        name: clip::TEXT,
        blocks: &["text_model.encoder.layers"],
        params: |c| ClipTextConfig::from_json(c)?.params(),
    },
    Class {
        name: clip::VISION,
        blocks: &["vision_model.encoder.layers"],
        params: |c| ClipVisionConfig::from_json(c)?.params(),
    },
    Class { name: llama::CLASS, blocks: &["layers"], params: |c| LlamaConfig::from_json(c)?.params() },
    Class { name: wan::DIT, blocks: &["blocks"], params: |c| WanDitConfig::from_json(wan::DIT, c)?.params() },
    // The control branch runs before the blocks that its hints are added to.
    Class {
        name: wan::VACE,
        blocks: &["vace_blocks", "blocks"],
        params: |c| WanDitConfig::from_json(wan::VACE, c)?.params(),
    },
    Class { name: wan_vae::CLASS, blocks: &[], params: |c| WanVaeConfig::from_json(c)?.params() },
    Class {
        name: cogvideox::CLASS,
        blocks: &["transformer_blocks"],
        params: |c| CogVideoXConfig::from_json(c)?.params(),
    },
    Class { name: cogvideox_vae::CLASS, blocks: &[], params: |c| CogVideoXVaeConfig::from_json(c)?.params() },
    Class {
        name: flux::CLASS,
        blocks: &["transformer_blocks", "single_transformer_blocks"],
        params: |c| FluxConfig::from_json(c)?.params(),
    },
    Class { name: kl_vae::CLASS, blocks: &[], params: |c| KlVaeConfig::from_json(c)?.params() },
    Class {
        name: hunyuan::CLASS,
        blocks: &["context_embedder.token_refiner.refiner_blocks", "transformer_blocks", "single_transformer_blocks"],
        params: |c| HunyuanVideoConfig::from_json(c)?.params(),
    },
    Class { name: hunyuan_vae::CLASS, blocks: &[], params: |c| HunyuanVideoVaeConfig::from_json(c)?.params() },
    Class { name: ltx::CLASS, blocks: &["transformer_blocks"], params: ltx::params },
    Class { name: ltx_vae::CLASS, blocks: &[], params: ltx_vae::params },
    Class { name: wav2vec2::CLASS, blocks: &["encoder.layers"], params: wav2vec2::params },
];

/// The tensors of a checkpoint of `class` with this `config.json`, in the order in which a run needs them: what
/// comes before the blocks, the blocks one after another, what comes after. A key that the config lacks takes
/// the class default.
///
/// # Errors
/// [`ConfigError`] if the class is unknown, a field has a wrong type or an absurd value, fields contradict each
/// other, or the sizes multiply to more than 2^50 values.
pub fn params(class: &str, config: &Value) -> Result<Vec<Param>, ConfigError> {
    match find(class) {
        Some(known) => (known.params)(config),
        None => Err(ConfigError::UnknownClass { class: shorten(class) }),
    }
}

/// Prefixes of the block lists of a class, in order of execution, such as `["transformer_blocks",
/// "single_transformer_blocks"]`: block `i` of a list is all tensors under `prefix.i.`. Empty for a class without
/// uniform blocks (the VAEs), `None` for an unknown class.
#[must_use]
pub fn block_lists(class: &str) -> Option<&'static [&'static str]> {
    find(class).map(|known| known.blocks)
}

/// The names of all supported classes.
pub fn classes() -> impl Iterator<Item = &'static str> {
    CLASSES.iter().map(|class| class.name)
}

fn find(class: &str) -> Option<&'static Class> {
    CLASSES.iter().find(|known| known.name == class)
}

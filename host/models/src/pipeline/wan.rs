//! The Wan pipelines: text, image or control video to video.
//!
//! Source of the order of things: diffusers `WanPipeline`, `WanImageToVideoPipeline` and `WanVACEPipeline`. Frames are
//! blended and clamped on the host, and so are the latents of conditions put together there.

mod condition;
mod decode;
mod denoise;
mod recipe;
mod text;

use loadline_core::StageKind;

pub use recipe::WanRecipe;

use super::latents::{Saved, Sink, unsaved};
use super::{At, Host, Program, Script, needed};
use crate::ops::{Backend, BlockWeights, OpError, Ops, Tensor};

/// The state of a Wan pipeline.
pub struct WanProgram<B: Backend> {
    recipe: WanRecipe,
    text: Option<crate::arch::t5::State<B::Data>>,
    /// The padded embeddings of the prompt and the negative prompt.
    prompts: Vec<Tensor<B::Data>>,
    condition: condition::State<B::Data>,
    denoise: denoise::State<B::Data>,
    decode: decode::State<B::Data>,
}

impl<B: Backend> WanProgram<B> {
    /// A pipeline that has not begun.
    #[must_use]
    pub fn new(recipe: WanRecipe) -> Self {
        Self {
            recipe,
            text: None,
            prompts: Vec::new(),
            condition: condition::State::default(),
            denoise: denoise::State::default(),
            decode: decode::State::default(),
        }
    }

    /// What it makes and how.
    #[must_use]
    pub fn recipe(&self) -> &WanRecipe {
        &self.recipe
    }

    /// Every tensor that is needed to go on after the last pass that ended, by name.
    ///
    /// # Errors
    /// If the backend fails.
    pub fn save(&self, ops: &mut Ops<B>, sink: Sink<'_>) -> Result<(), OpError> {
        for (i, prompt) in self.prompts.iter().enumerate() {
            ops.hand_out(&format!("prompt.{i}"), prompt, sink)?;
        }
        self.condition.save(ops, sink)?;
        self.denoise.latents.save(ops, sink)?;
        self.decode.save(ops, sink)
    }

    /// Takes back what [`save`](Self::save) gave out.
    ///
    /// # Errors
    /// If a tensor is missing or the budget is exceeded.
    pub fn restore(&mut self, ops: &mut Ops<B>, saved: Saved<'_>) -> Result<(), OpError> {
        self.restore_prompts(ops, saved)?;
        self.condition.restore(ops, self.recipe.text.output.0, saved)?;
        self.denoise.latents.restore(ops, saved)?;
        self.decode.restore(ops, self.recipe.vae_compute, saved)
    }
}

impl<B: Backend> Program<B> for WanProgram<B> {
    fn script(&self) -> &Script {
        &self.recipe.script
    }

    fn run(
        &mut self,
        ops: &mut Ops<B>,
        at: At,
        weights: Option<&BlockWeights<B::Weight>>,
        host: &mut dyn Host,
    ) -> Result<(), OpError> {
        match self.recipe.script.stages.get(at.stage).map(|s| s.kind) {
            Some(StageKind::TextEncode) => self.encode_text(ops, at, weights, host),
            Some(StageKind::ImageEncode) => self.see(ops, at, weights, host),
            Some(StageKind::VaeEncode) => self.encode(ops, at, weights, host),
            Some(StageKind::Denoise) => self.denoise(ops, at, weights, host),
            Some(StageKind::VaeDecode) => self.decode(ops, at, weights, host),
            None => Err(OpError::Shape { op: "run", detail: format!("the pipeline has no stage {}", at.stage) }),
        }
    }
}

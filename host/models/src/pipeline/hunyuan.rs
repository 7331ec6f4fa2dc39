//! The HunyuanVideo pipeline: text to video.
//!
//! Source of the order of things: diffusers `HunyuanVideoPipeline`. The guidance scale is an input of the transformer,
//! so there is no second branch. Batches and tiles of frames are blended and clamped on the host.

mod denoise;
mod recipe;
mod text;
mod vae;

use loadline_core::StageKind;

pub use recipe::HunyuanRecipe;

use super::{At, Host, Program, Script};
use crate::arch::llama;
use crate::ops::{Backend, BlockWeights, OpError, Ops, Tensor};

/// The state of a HunyuanVideo pipeline.
pub struct HunyuanProgram<B: Backend> {
    recipe: HunyuanRecipe,
    text: Option<llama::State<B::Data>>,
    /// CLIP's state.
    clip: Option<Tensor<B::Data>>,
    /// CLIP's pooled prompt, `[1, width]`.
    pooled: Option<Tensor<B::Data>>,
    /// Llama's prompt, `[tokens, width]`.
    prompt: Option<Tensor<B::Data>>,
    denoise: denoise::State<B::Data>,
    vae: vae::State<B::Data>,
}

impl<B: Backend> HunyuanProgram<B> {
    /// A pipeline that has not begun.
    #[must_use]
    pub fn new(recipe: HunyuanRecipe) -> Self {
        let (denoise, vae) = (denoise::State::default(), vae::State::default());
        Self { recipe, text: None, clip: None, pooled: None, prompt: None, denoise, vae }
    }
}

impl<B: Backend> Program<B> for HunyuanProgram<B> {
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
        match self.recipe.script.stages.get(at.stage).map(|s| (s.kind, at.stage)) {
            Some((StageKind::TextEncode, 0)) => {
                let prompt = self.recipe.text.run(ops, &mut self.text, at.task, weights, host)?;
                self.prompt = prompt.or(self.prompt.take());
                Ok(())
            }
            Some((StageKind::TextEncode, _)) => {
                let pooled = self.recipe.clip.run(ops, &mut self.clip, at.task, weights, host)?;
                self.pooled = pooled.or(self.pooled.take());
                Ok(())
            }
            Some((StageKind::Denoise, _)) => self.denoise(ops, at, weights, host),
            Some((StageKind::VaeDecode, _)) => self.decode(ops, at, weights, host),
            _ => Err(OpError::Shape { op: "run", detail: format!("the pipeline has no stage {}", at.stage) }),
        }
    }
}

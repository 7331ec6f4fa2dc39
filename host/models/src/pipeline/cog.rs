//! The CogVideoX pipelines: text or image to video.
//!
//! Source of the order of things: diffusers `CogVideoXPipeline` and `CogVideoXImageToVideoPipeline`. Frames are blended
//! and clamped on the host, and a picture's latents are drawn and put together there.

mod denoise;
mod recipe;
mod vae;

use loadline_core::StageKind;

pub use recipe::CogRecipe;

use super::{At, Host, Program, Script};
use crate::arch::t5;
use crate::ops::{Backend, BlockWeights, OpError, Ops, Tensor};

/// The state of a CogVideoX pipeline.
pub struct CogProgram<B: Backend> {
    recipe: CogRecipe,
    text: Option<t5::State<B::Data>>,
    /// The embeddings of the prompt and the negative prompt.
    prompts: Vec<Tensor<B::Data>>,
    denoise: denoise::State<B::Data>,
    vae: vae::State<B::Data>,
}

impl<B: Backend> CogProgram<B> {
    /// A pipeline that has not begun.
    #[must_use]
    pub fn new(recipe: CogRecipe) -> Self {
        let (denoise, vae) = (denoise::State::default(), vae::State::default());
        Self { recipe, text: None, prompts: Vec::new(), denoise, vae }
    }
}

impl<B: Backend> Program<B> for CogProgram<B> {
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
            Some(StageKind::TextEncode) => {
                let place = (at.pass as usize, at.task);
                let embeds = self.recipe.text.run(ops, &mut self.text, place, weights, host)?;
                self.prompts.extend(embeds);
                Ok(())
            }
            Some(StageKind::VaeEncode) => self.encode(ops, at, weights, host),
            Some(StageKind::Denoise) => self.denoise(ops, at, weights, host),
            Some(StageKind::VaeDecode) => self.decode(ops, at, weights, host),
            _ => Err(OpError::Shape { op: "run", detail: format!("the pipeline has no stage {}", at.stage) }),
        }
    }
}

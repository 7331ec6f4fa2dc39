//! The FLUX.1 pipeline: text to image.
//!
//! Source of the order of things: diffusers `FluxPipeline`. The guidance scale is an input of the transformer, so there
//! is no second branch. Tiles are blended and clamped on the host.

mod recipe;
mod steps;

use loadline_core::StageKind;

pub use recipe::FluxRecipe;

use super::latents::Latents;
use super::{At, Host, Program, Script};
use crate::arch::wan_dit::Rotary;
use crate::arch::{flux, t5};
use crate::ops::{Backend, BlockWeights, OpError, Ops, Tensor};

/// The state of a FLUX.1 pipeline.
pub struct FluxProgram<B: Backend> {
    recipe: FluxRecipe,
    text: Option<t5::State<B::Data>>,
    /// CLIP's state, and the state of the VAE.
    hidden: Option<Tensor<B::Data>>,
    /// CLIP's pooled prompt, `[1, width]`.
    pooled: Option<Tensor<B::Data>>,
    /// T5's prompt, `[tokens, width]`.
    prompt: Option<Tensor<B::Data>>,
    /// Packed, f32 `[tokens, channels]`.
    latents: Latents<B::Data>,
    rotary: Option<Rotary<B::Data>>,
    running: Option<flux::State<B::Data>>,
    output: Option<Tensor<B::Data>>,
    /// The latents in the VAE's own scale, `[1, height, width, channels]`.
    scaled: Option<Tensor<B::Data>>,
}

impl<B: Backend> FluxProgram<B> {
    /// A pipeline that has not begun.
    #[must_use]
    pub fn new(recipe: FluxRecipe) -> Self {
        Self {
            recipe,
            text: None,
            hidden: None,
            pooled: None,
            prompt: None,
            latents: Latents::default(),
            rotary: None,
            running: None,
            output: None,
            scaled: None,
        }
    }
}

impl<B: Backend> Program<B> for FluxProgram<B> {
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
                let pooled = self.recipe.clip.run(ops, &mut self.hidden, at.task, weights, host)?;
                self.pooled = pooled.or(self.pooled.take());
                Ok(())
            }
            Some((StageKind::TextEncode, _)) => {
                let prompt = self.recipe.text.run(ops, &mut self.text, (0, at.task), weights, host)?;
                self.prompt = prompt.or(self.prompt.take());
                Ok(())
            }
            Some((StageKind::Denoise, _)) => self.denoise(ops, at, weights, host),
            Some((StageKind::VaeDecode, _)) => self.decode(ops, at, weights, host),
            _ => Err(OpError::Shape { op: "run", detail: format!("the pipeline has no stage {}", at.stage) }),
        }
    }
}

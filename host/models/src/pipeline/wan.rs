//! The Wan pipelines: text, image or control video to video.
//!
//! Source of the order of things: diffusers `WanPipeline`. Frames are blended and clamped on the host.

mod decode;
mod denoise;
mod recipe;
mod text;

use loadline_core::StageKind;

pub use recipe::{WanError, WanRecipe, WanSource};

use super::{At, Host, Program, Script};
use crate::ops::{Backend, BlockWeights, OpError, Ops, Tensor};

/// The state of a Wan pipeline.
pub struct WanProgram<B: Backend> {
    recipe: WanRecipe,
    text: Option<crate::arch::t5::State<B::Data>>,
    /// The padded embeddings of the prompt and the negative prompt.
    prompts: Vec<Tensor<B::Data>>,
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
    pub fn save(&self, ops: &mut Ops<B>, sink: &mut dyn FnMut(&str, &[usize], &[f32])) -> Result<(), OpError> {
        for (i, prompt) in self.prompts.iter().enumerate() {
            ops.to_host(prompt, &mut |values| sink(&format!("prompt.{i}"), &prompt.shape, values))?;
        }
        self.denoise.save(ops, sink)
    }

    /// Takes back what [`save`](Self::save) gave out.
    ///
    /// # Errors
    /// If a tensor is missing or the budget is exceeded.
    pub fn restore(
        &mut self,
        ops: &mut Ops<B>,
        saved: &mut dyn FnMut(&str) -> Option<(Vec<usize>, Vec<f32>)>,
    ) -> Result<(), OpError> {
        self.restore_prompts(ops, saved)?;
        self.denoise.restore(ops, saved)
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
            Some(StageKind::Denoise) => self.denoise(ops, at, weights, host),
            Some(StageKind::VaeDecode) => self.decode(ops, at, weights, host),
            _ => Err(OpError::Shape { op: "run", detail: format!("the pipeline has no stage {}", at.stage) }),
        }
    }
}

/// The weights of a task that needs some.
fn needed<W>(weights: Option<&BlockWeights<W>>) -> Result<&BlockWeights<W>, OpError> {
    weights.ok_or_else(|| OpError::Shape { op: "run", detail: "the task's block is not loaded".into() })
}

/// A tensor that saved state lacks.
fn unsaved(name: &str) -> OpError {
    OpError::Shape { op: "restore", detail: format!("the checkpoint has no tensor '{name}'") }
}

/// Brings a saved f32 tensor back.
fn restored<B: Backend>(ops: &mut Ops<B>, shape: &[usize], values: &[f32]) -> Result<Tensor<B::Data>, OpError> {
    ops.filled(shape, &mut |out| {
        if out.len() != values.len() {
            return Err(format!("the checkpoint has {} values for shape {shape:?}", values.len()));
        }
        out.copy_from_slice(values);
        Ok(())
    })
}

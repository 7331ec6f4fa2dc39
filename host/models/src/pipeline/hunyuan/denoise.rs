//! Noise to latents.

use loadline_core::ActClass;

use super::HunyuanProgram;
use super::text::TOKENS;
use crate::arch::wan_dit::Rotary;
use crate::arch::{flux, hunyuan};
use crate::ops::{Backend, BlockWeights, OpError, Ops, Tensor};
use crate::pipeline::latents::{Latents, unsaved};
use crate::pipeline::{At, Host, needed};

/// What lives from step to step, and from task to task.
pub(super) struct State<D> {
    /// f32 `[channels, frames, height, width]`.
    pub(super) latents: Latents<D>,
    rotary: Option<Rotary<D>>,
    running: Option<hunyuan::State<D>>,
    output: Option<Tensor<D>>,
}

impl<D> Default for State<D> {
    fn default() -> Self {
        Self { latents: Latents::default(), rotary: None, running: None, output: None }
    }
}

impl<B: Backend> HunyuanProgram<B> {
    pub(super) fn denoise(
        &mut self,
        ops: &mut Ops<B>,
        at: At,
        weights: Option<&BlockWeights<B::Weight>>,
        host: &mut dyn Host,
    ) -> Result<(), OpError> {
        let tasks = self.recipe.script.stages[at.stage].tasks.len();
        match tasks - at.task {
            _ if at.task == 0 => self.begin_pass(ops, at.pass as usize, needed(weights)?, host),
            // The last but one task is the tail, the last the sampler.
            2 => self.end_pass(ops, needed(weights)?),
            1 => self.sample(ops, at.pass as usize, host),
            _ => self.transform(ops, at.task - 1, needed(weights)?),
        }
    }

    fn begin_pass(
        &mut self,
        ops: &mut Ops<B>,
        step: usize,
        weights: &BlockWeights<B::Weight>,
        host: &mut dyn Host,
    ) -> Result<(), OpError> {
        let (recipe, state) = (&self.recipe, &mut self.denoise);
        state.latents.prepare(ops, &recipe.latents, host)?;
        if state.rotary.is_none() {
            state.rotary = Some(hunyuan::rotary(ops, &recipe.dit, recipe.grid, TOKENS)?);
        }
        let (Some(latents), Some(prompt), Some(pooled)) = (&state.latents.current, &self.prompt, &self.pooled) else {
            return Err(unsaved("prompt"));
        };
        let (timestep, guidance, visible) =
            (recipe.sampler.timesteps()[step], recipe.request.guidance, recipe.text.visible);
        let inputs = hunyuan::Inputs { latents, prompt, visible, pooled, timestep, guidance };
        state.running = Some(hunyuan::start(ops, &recipe.dit, recipe.grid, weights, &inputs)?);
        Ok(())
    }

    /// The blocks of the prompt, then the double blocks, then the single ones.
    fn transform(&mut self, ops: &mut Ops<B>, index: usize, weights: &BlockWeights<B::Weight>) -> Result<(), OpError> {
        let (Some(rotary), Some(state)) = (&self.denoise.rotary, &mut self.denoise.running) else {
            return Err(unsaved("transformer state"));
        };
        let (dit, joint) = (&self.recipe.dit, self.recipe.joint());
        let Some(double) = index.checked_sub(dit.num_refiner_layers) else {
            return hunyuan::refiner_block(ops, &joint, index, weights, state);
        };
        match double.checked_sub(dit.num_layers) {
            Some(single) => flux::single_block(ops, &joint, single, weights, rotary, &mut state.blocks),
            None => flux::double_block(ops, &joint, double, weights, rotary, &mut state.blocks),
        }
    }

    fn end_pass(&mut self, ops: &mut Ops<B>, weights: &BlockWeights<B::Weight>) -> Result<(), OpError> {
        let Some(state) = self.denoise.running.take() else { return Err(unsaved("transformer state")) };
        let output = hunyuan::finish(ops, &self.recipe.dit, self.recipe.grid, weights, TOKENS, state)?;
        self.denoise.output = Some(ops.keep_as(output, ActClass::Latents));
        Ok(())
    }

    fn sample(&mut self, ops: &mut Ops<B>, step: usize, host: &mut dyn Host) -> Result<(), OpError> {
        let (steps, state) = (self.recipe.sampler.steps(), &mut self.denoise);
        let output: Vec<Tensor<B::Data>> = state.output.take().into_iter().collect();
        state.latents.step(ops, &steps[step], output, 1.0, host)?;
        if step + 1 == steps.len() {
            (state.rotary, self.prompt, self.pooled) = (None, None, None);
        }
        Ok(())
    }
}

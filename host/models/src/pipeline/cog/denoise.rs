//! Noise to latents.

use loadline_core::ActClass;

use super::CogProgram;
use crate::arch::cogvideox::{self, Branch, Inputs};
use crate::arch::wan_dit::Rotary;
use crate::ops::{Backend, BlockWeights, OpError, Ops, Tensor};
use crate::pipeline::latents::{Latents, unsaved};
use crate::pipeline::{At, Host, Input, needed};

/// What lives from step to step, and from task to task.
pub(super) struct State<D> {
    pub(super) latents: Latents<D>,
    /// The picture's latents and zeros, as the transformer takes them.
    picture: Option<Tensor<D>>,
    rotary: Option<Rotary<D>>,
    positions: Option<Tensor<D>>,
    running: Vec<Branch<D>>,
    outputs: Vec<Tensor<D>>,
}

impl<D> Default for State<D> {
    fn default() -> Self {
        let (running, outputs) = (Vec::new(), Vec::new());
        Self { latents: Latents::default(), picture: None, rotary: None, positions: None, running, outputs }
    }
}

impl<B: Backend> CogProgram<B> {
    pub(super) fn denoise(
        &mut self,
        ops: &mut Ops<B>,
        at: At,
        weights: Option<&BlockWeights<B::Weight>>,
        host: &mut dyn Host,
    ) -> Result<(), OpError> {
        let tasks = self.recipe.script.stages[at.stage].tasks.len();
        let each_step = self.recipe.branches().passes();
        let (step, turn) = ((at.pass / each_step) as usize, (at.pass % each_step) as usize);
        match tasks - at.task {
            _ if at.task == 0 => self.begin_pass(ops, step, turn, needed(weights)?, host),
            // The last but one task is the tail, the last the sampler.
            2 => self.end_pass(ops, needed(weights)?),
            1 if turn as u64 + 1 == each_step => self.sample(ops, step, host),
            1 => Ok(()),
            _ => self.transform(ops, at.task - 1, needed(weights)?),
        }
    }

    fn begin_pass(
        &mut self,
        ops: &mut Ops<B>,
        step: usize,
        turn: usize,
        weights: &BlockWeights<B::Weight>,
        host: &mut dyn Host,
    ) -> Result<(), OpError> {
        self.prepare(ops, weights, host)?;
        let (recipe, state) = (&self.recipe, &mut self.denoise);
        let Some(latents) = &state.latents.current else { return Err(unsaved("latents")) };
        let (branches, timestep) = (recipe.branches(), recipe.sampler.timesteps()[step]);
        let prompts: Vec<_> = self.prompts.iter().skip(turn * branches.per_pass).take(branches.per_pass).collect();
        for prompts in prompts.chunks(branches.batch) {
            let (picture, positions) = (state.picture.as_ref(), state.positions.as_ref());
            let inputs = Inputs { latents, picture, prompts, positions };
            let branch = cogvideox::start(ops, &recipe.dit, recipe.grid, weights, timestep, &inputs)?;
            state.running.push(branch);
        }
        Ok(())
    }

    /// Noise, picture and positions, where a run has none yet.
    fn prepare(
        &mut self,
        ops: &mut Ops<B>,
        weights: &BlockWeights<B::Weight>,
        host: &mut dyn Host,
    ) -> Result<(), OpError> {
        let (recipe, state) = (&self.recipe, &mut self.denoise);
        state.latents.prepare(ops, &recipe.latents, host)?;
        if state.picture.is_none() && !recipe.encoded.is_empty() {
            let scale = recipe.vae.scaling_factor;
            let scale = if recipe.vae.invert_scale_latents { 1.0 / scale } else { scale };
            let drawn = ops.filled(&recipe.latents, &mut |out| host.input(Input::Condition, out))?;
            let scaled = ops.within(ActClass::Embeddings, |ops| ops.combine(&[(scale as f32, &drawn)]))?;
            state.picture = Some(scaled);
        }
        let (text, compute) = (recipe.dit.max_text_seq_length, recipe.text.output.0);
        if state.rotary.is_none() && recipe.dit.use_rotary_positional_embeddings {
            state.rotary = Some(cogvideox::rotary(ops, &recipe.dit, recipe.grid, text)?);
        }
        let adds = !recipe.dit.use_rotary_positional_embeddings || recipe.dit.use_learned_positional_embeddings;
        if state.positions.is_none() && adds {
            let positions = cogvideox::positions(ops, &recipe.dit, recipe.grid, weights, text, compute)?;
            state.positions = Some(positions);
        }
        Ok(())
    }

    fn transform(&mut self, ops: &mut Ops<B>, index: usize, weights: &BlockWeights<B::Weight>) -> Result<(), OpError> {
        let rotary = self.denoise.rotary.as_ref();
        for branch in &mut self.denoise.running {
            cogvideox::block(ops, &self.recipe.dit, index, weights, rotary, branch)?;
        }
        Ok(())
    }

    fn end_pass(&mut self, ops: &mut Ops<B>, weights: &BlockWeights<B::Weight>) -> Result<(), OpError> {
        for branch in std::mem::take(&mut self.denoise.running) {
            let outputs = cogvideox::finish(ops, &self.recipe.dit, self.recipe.grid, weights, branch)?;
            let kept = outputs.into_iter().map(|v| ops.keep_as(v, ActClass::Latents));
            self.denoise.outputs.extend(kept);
        }
        Ok(())
    }

    fn sample(&mut self, ops: &mut Ops<B>, step: usize, host: &mut dyn Host) -> Result<(), OpError> {
        let state = &mut self.denoise;
        let (plan, outputs) = (&self.recipe.sampler.steps()[step], std::mem::take(&mut state.outputs));
        state.latents.step(ops, plan, outputs, self.recipe.request.guidance, host)?;
        if step + 1 == self.recipe.sampler.steps().len() {
            (state.picture, state.rotary, state.positions) = (None, None, None);
            self.prompts.clear();
        }
        Ok(())
    }
}

//! Noise to latents: the transformer on one or both branches, guidance, the sampler.

use loadline_core::ActClass;

use super::{WanProgram, needed, unsaved};
use crate::arch::wan_dit::{self, Branch, Inputs, Rotary};
use crate::ops::{Backend, BlockWeights, OpError, Ops, Tensor};
use crate::params::WanDitConfig;
use crate::pipeline::latents::Latents;
use crate::pipeline::{At, Host};

/// What lives from step to step, and from task to task.
pub(super) struct State<D> {
    pub(super) latents: Latents<D>,
    rotary: Option<Rotary<D>>,
    running: Vec<Branch<D>>,
    velocities: Vec<Tensor<D>>,
}

impl<D> Default for State<D> {
    fn default() -> Self {
        Self { latents: Latents::default(), rotary: None, running: Vec::new(), velocities: Vec::new() }
    }
}

/// Which step and branch a pass belongs to, and whose blocks it walks.
#[derive(Clone, Copy)]
struct Turn {
    step: usize,
    turn: usize,
    low: bool,
}

impl<B: Backend> WanProgram<B> {
    pub(super) fn denoise(
        &mut self,
        ops: &mut Ops<B>,
        at: At,
        weights: Option<&BlockWeights<B::Weight>>,
        host: &mut dyn Host,
    ) -> Result<(), OpError> {
        let stage = &self.recipe.script.stages[at.stage];
        let (tasks, low) = (stage.tasks.len(), self.recipe.is_low(stage));
        let each_step = self.recipe.branches().passes();
        let step = (at.pass / each_step) as usize + if low { self.recipe.high_steps } else { 0 };
        let turn = Turn { step, turn: (at.pass % each_step) as usize, low };
        match tasks - at.task {
            _ if at.task == 0 => self.begin_pass(ops, turn, needed(weights)?, host),
            // The last but one task is the tail, the last the sampler.
            2 => self.end_pass(ops, low, needed(weights)?),
            1 if turn.turn as u64 + 1 == each_step => self.sample(ops, step, host),
            1 => Ok(()),
            _ => self.transform(ops, low, at.task - 1, needed(weights)?),
        }
    }

    fn begin_pass(
        &mut self,
        ops: &mut Ops<B>,
        Turn { step, turn, low }: Turn,
        weights: &BlockWeights<B::Weight>,
        host: &mut dyn Host,
    ) -> Result<(), OpError> {
        self.prepare(ops, host)?;
        let recipe = &self.recipe;
        let branches = recipe.branches();
        let Some(latents) = &self.denoise.latents.current else { return Err(unsaved("latents")) };
        let (dit, timestep) = (recipe.transformer(low), recipe.sampler.timesteps()[step]);
        let condition = self.condition.latents.as_ref();
        let beside = match condition.filter(|_| dit.vace.is_none()) {
            Some(condition) => Some(ops.concat(&[latents, condition])?),
            None => None,
        };
        let (latents, control) = (beside.as_ref().unwrap_or(latents), condition.filter(|_| dit.vace.is_some()));
        let image = self.condition.pictures.first().filter(|_| dit.image_dim.is_some());
        let prompts: Vec<_> = self.prompts.iter().skip(turn * branches.per_pass).take(branches.per_pass).collect();
        for members in prompts.chunks(branches.batch) {
            let inputs = Inputs { latents, prompts: members, image, control };
            let branch = wan_dit::start(ops, dit, recipe.grid, weights, timestep, &inputs)?;
            self.denoise.running.push(branch);
        }
        Ok(())
    }

    /// Noise, conditions and rotary tables, where a run or a resumed run has none yet.
    fn prepare(&mut self, ops: &mut Ops<B>, host: &mut dyn Host) -> Result<(), OpError> {
        self.denoise.latents.prepare(ops, &self.recipe.latents, host)?;
        self.prepare_condition(ops, host)?;
        if self.denoise.rotary.is_none() {
            let recipe = &self.recipe;
            self.denoise.rotary = Some(wan_dit::rotary(ops, &recipe.dit, recipe.grid, recipe.branches().batch)?);
        }
        Ok(())
    }

    /// Block `index` behind the front: control blocks come first, and their state ends with the last of them.
    fn transform(
        &mut self,
        ops: &mut Ops<B>,
        low: bool,
        index: usize,
        weights: &BlockWeights<B::Weight>,
    ) -> Result<(), OpError> {
        let Some(rotary) = &self.denoise.rotary else { return Err(unsaved("rotary tables")) };
        let dit = self.recipe.transformer(low);
        let controls = dit.vace.as_ref().map_or(0, |v| v.layers.len());
        for branch in &mut self.denoise.running {
            match index.checked_sub(controls) {
                Some(main) => wan_dit::block(ops, dit, main, weights, rotary, branch)?,
                None => wan_dit::vace_block(ops, dit, index, weights, rotary, branch)?,
            }
            if index + 1 == controls {
                branch.control = None;
            }
        }
        Ok(())
    }

    fn end_pass(&mut self, ops: &mut Ops<B>, low: bool, weights: &BlockWeights<B::Weight>) -> Result<(), OpError> {
        let dit: &WanDitConfig = self.recipe.transformer(low);
        for branch in std::mem::take(&mut self.denoise.running) {
            let velocities = wan_dit::finish(ops, dit, self.recipe.grid, weights, branch)?;
            let kept = velocities.into_iter().map(|v| ops.keep_as(v, ActClass::Latents));
            self.denoise.velocities.extend(kept);
        }
        Ok(())
    }

    fn sample(&mut self, ops: &mut Ops<B>, step: usize, host: &mut dyn Host) -> Result<(), OpError> {
        let outputs = std::mem::take(&mut self.denoise.velocities);
        let plan = &self.recipe.sampler.steps()[step];
        self.denoise.latents.step(ops, plan, outputs, self.recipe.request.guidance, host)?;
        if step + 1 == self.recipe.sampler.steps().len() {
            self.denoise.rotary = None;
            self.prompts.clear();
            self.condition.finish();
        }
        self.observe_latents(ops, step, host)
    }

    fn observe_latents(&self, ops: &mut Ops<B>, step: usize, host: &mut dyn Host) -> Result<(), OpError> {
        let name = format!("latents.{step}");
        let latents = self.denoise.latents.current.as_ref();
        let Some(latents) = latents.filter(|_| host.wants(&name)) else { return Ok(()) };
        let [c, t, h, w] = self.recipe.latents;
        ops.to_host(latents, &mut |values| host.observe(&name, &[1, c, t, h, w], values))
    }
}

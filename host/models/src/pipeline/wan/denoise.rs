//! Noise to latents: the transformer on one or both branches, guidance, the sampler.

use std::collections::VecDeque;

use loadline_core::ActClass;

use super::{WanProgram, needed, restored, unsaved};
use crate::arch::wan_dit::{self, Branch, Inputs, Rotary};
use crate::ops::{Backend, BlockWeights, OpError, Ops, Tensor};
use crate::pipeline::{At, Host};
use crate::schedule::{Source, StepPlan, Term};

/// What lives from step to step, and from task to task.
pub(super) struct State<D> {
    pub(super) latents: Option<Tensor<D>>,
    x0: VecDeque<Tensor<D>>,
    last: Option<Tensor<D>>,
    rotary: Option<Rotary<D>>,
    running: Vec<Branch<D>>,
    velocities: Vec<Tensor<D>>,
}

impl<D> Default for State<D> {
    fn default() -> Self {
        Self {
            latents: None,
            x0: VecDeque::new(),
            last: None,
            rotary: None,
            running: Vec::new(),
            velocities: Vec::new(),
        }
    }
}

impl<D: Clone> State<D> {
    pub(super) fn save<B: Backend<Data = D>>(
        &self,
        ops: &mut Ops<B>,
        sink: &mut dyn FnMut(&str, &[usize], &[f32]),
    ) -> Result<(), OpError> {
        let history = self.x0.iter().enumerate().map(|(i, t)| (format!("x0.{i}"), t));
        let named = [("latents", &self.latents), ("last", &self.last)];
        let named = named.into_iter().filter_map(|(name, t)| Some((name.to_owned(), t.as_ref()?)));
        for (name, tensor) in named.chain(history) {
            ops.to_host(tensor, &mut |values| sink(&name, &tensor.shape, values))?;
        }
        Ok(())
    }

    pub(super) fn restore<B: Backend<Data = D>>(
        &mut self,
        ops: &mut Ops<B>,
        saved: &mut dyn FnMut(&str) -> Option<(Vec<usize>, Vec<f32>)>,
    ) -> Result<(), OpError> {
        let mut get = |ops: &mut Ops<B>, name: &str| match saved(name) {
            Some((shape, values)) => {
                ops.within(ActClass::Latents, |ops| restored(ops, &shape, &values)).map(Some)
            }
            None => Ok(None),
        };
        self.latents = get(ops, "latents")?;
        self.last = get(ops, "last")?;
        self.x0.clear();
        while let Some(tensor) = get(ops, &format!("x0.{}", self.x0.len()))? {
            self.x0.push_back(tensor);
        }
        Ok(())
    }
}

impl<B: Backend> WanProgram<B> {
    pub(super) fn denoise(
        &mut self,
        ops: &mut Ops<B>,
        at: At,
        weights: Option<&BlockWeights<B::Weight>>,
        host: &mut dyn Host,
    ) -> Result<(), OpError> {
        let tasks = self.recipe.script.stages[at.stage].tasks.len();
        let (branches, per_pass) = self.recipe.branches();
        let each_step = (branches / per_pass) as u64;
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
        self.prepare(ops, host)?;
        let recipe = &self.recipe;
        let (_, per_pass) = recipe.branches();
        let batch = if recipe.knobs.cfg == loadline_core::Cfg::Batched { per_pass } else { 1 };
        let Some(latents) = &self.denoise.latents else { return Err(unsaved("latents")) };
        let timestep = recipe.sampler.timesteps()[step];
        let prompts: Vec<_> = self.prompts.iter().skip(turn * per_pass).take(per_pass).collect();
        for members in prompts.chunks(batch) {
            let inputs = Inputs { latents, prompts: members, image: None, control: None };
            let branch = wan_dit::start(ops, &recipe.dit, recipe.grid, weights, timestep, &inputs)?;
            self.denoise.running.push(branch);
        }
        Ok(())
    }

    /// Noise and rotary tables, where a run or a resumed run has none yet.
    fn prepare(&mut self, ops: &mut Ops<B>, host: &mut dyn Host) -> Result<(), OpError> {
        let recipe = &self.recipe;
        if self.denoise.latents.is_none() {
            let noise = ops.within(ActClass::Latents, |ops| {
                ops.filled(&recipe.latents, &mut |out| host.noise(&recipe.latents, out))
            })?;
            self.denoise.latents = Some(noise);
        }
        if self.denoise.rotary.is_none() {
            let (_, per_pass) = recipe.branches();
            let batch = if recipe.knobs.cfg == loadline_core::Cfg::Batched { per_pass } else { 1 };
            self.denoise.rotary = Some(wan_dit::rotary(ops, &recipe.dit, recipe.grid, batch)?);
        }
        Ok(())
    }

    fn transform(
        &mut self,
        ops: &mut Ops<B>,
        index: usize,
        weights: &BlockWeights<B::Weight>,
    ) -> Result<(), OpError> {
        let Some(rotary) = &self.denoise.rotary else { return Err(unsaved("rotary tables")) };
        for branch in &mut self.denoise.running {
            wan_dit::block(ops, &self.recipe.dit, index, weights, rotary, branch)?;
        }
        Ok(())
    }

    fn end_pass(&mut self, ops: &mut Ops<B>, weights: &BlockWeights<B::Weight>) -> Result<(), OpError> {
        for branch in std::mem::take(&mut self.denoise.running) {
            let velocities = wan_dit::finish(ops, &self.recipe.dit, self.recipe.grid, weights, branch)?;
            let kept = velocities.into_iter().map(|v| ops.keep_as(v, ActClass::Latents));
            self.denoise.velocities.extend(kept);
        }
        Ok(())
    }

    fn sample(&mut self, ops: &mut Ops<B>, step: usize, host: &mut dyn Host) -> Result<(), OpError> {
        let guidance = self.recipe.request.guidance as f32;
        let mut velocities = std::mem::take(&mut self.denoise.velocities).into_iter();
        let (Some(guided), unguided) = (velocities.next(), velocities.next()) else {
            return Err(unsaved("velocity"));
        };
        let plan = &self.recipe.sampler.steps()[step];
        let state = &mut self.denoise;
        ops.within(ActClass::Latents, |ops| {
            let velocity = match unguided {
                Some(unguided) => ops.combine(&[(1.0 - guidance, &unguided), (guidance, &guided)])?,
                None => guided,
            };
            advance(ops, state, plan, velocity)
        })?;
        if step + 1 == self.recipe.sampler.steps().len() {
            self.denoise.rotary = None;
            self.prompts.clear();
        }
        self.observe_latents(ops, step, host)
    }

    fn observe_latents(&self, ops: &mut Ops<B>, step: usize, host: &mut dyn Host) -> Result<(), OpError> {
        let name = format!("latents.{step}");
        let Some(latents) = self.denoise.latents.as_ref().filter(|_| host.wants(&name)) else { return Ok(()) };
        let [c, t, h, w] = self.recipe.latents;
        ops.to_host(latents, &mut |values| host.observe(&name, &[1, c, t, h, w], values))
    }
}

/// One step of the sampler, as [`StepPlan`] describes it.
fn advance<B: Backend>(
    ops: &mut Ops<B>,
    state: &mut State<B::Data>,
    plan: &StepPlan,
    velocity: Tensor<B::Data>,
) -> Result<(), OpError> {
    let Some(mut sample) = state.latents.take() else { return Err(unsaved("latents")) };
    let mut velocity = Some(velocity);
    if !plan.convert.is_empty() {
        let x0 = combined(ops, state, &plan.convert, &sample, velocity.as_ref())?;
        state.x0.push_front(x0);
        let used_later = |term: &Term| term.0 == Source::Velocity;
        if !plan.correct.iter().flatten().chain(&plan.predict).any(used_later) {
            velocity = None;
        }
    }
    if let Some(terms) = &plan.correct {
        sample = combined(ops, state, terms, &sample, velocity.as_ref())?;
    }
    state.last = None;
    let next = combined(ops, state, &plan.predict, &sample, velocity.as_ref())?;
    state.x0.truncate(plan.keep);
    state.last = plan.keep_sample.then_some(sample);
    state.latents = Some(next);
    Ok(())
}

fn combined<B: Backend>(
    ops: &mut Ops<B>,
    state: &State<B::Data>,
    terms: &[Term],
    sample: &Tensor<B::Data>,
    velocity: Option<&Tensor<B::Data>>,
) -> Result<Tensor<B::Data>, OpError> {
    let find = |source: Source| match source {
        Source::Sample => Some(sample),
        Source::Velocity => velocity,
        Source::LastSample => state.last.as_ref(),
        Source::X0(i) => state.x0.get(i),
        Source::Noise => None,
    };
    let operands: Option<Vec<_>> = terms.iter().map(|(s, c)| Some((*c, find(*s)?))).collect();
    ops.combine(&operands.ok_or_else(|| unsaved("sampler history"))?)
}

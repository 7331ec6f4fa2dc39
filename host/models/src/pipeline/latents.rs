//! The latents and the sampler's history, which live from step to step.

use std::collections::VecDeque;

use loadline_core::{ActClass, Cfg, Knobs, Request};

use super::Host;
use crate::ops::{Backend, OpError, Ops, Tensor};
pub(super) use crate::ops::{Saved, Sink};
use crate::schedule::{Source, StepPlan, Term};

/// The branches of guidance: how many there are, how many of them one pass runs, and how many of those are rows of the
/// same tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Branches {
    pub(super) all: usize,
    pub(super) per_pass: usize,
    pub(super) batch: usize,
}

impl Branches {
    pub(super) fn new(request: &Request, knobs: &Knobs) -> Self {
        let all = if request.guided() { 2 } else { 1 };
        let per_pass = if knobs.cfg == Cfg::Sequential { 1 } else { all };
        Self { all, per_pass, batch: if knobs.cfg == Cfg::Batched { per_pass } else { 1 } }
    }

    /// Passes that make a step.
    pub(super) fn passes(self) -> u64 {
        (self.all / self.per_pass) as u64
    }
}

/// The latents and the sampler's history.
pub(super) struct Latents<D> {
    pub(super) current: Option<Tensor<D>>,
    x0: VecDeque<Tensor<D>>,
    last: Option<Tensor<D>>,
}

impl<D> Default for Latents<D> {
    fn default() -> Self {
        Self { current: None, x0: VecDeque::new(), last: None }
    }
}

impl<D: Clone> Latents<D> {
    /// Fills the latents with noise where a run has none yet.
    pub(super) fn prepare<B: Backend<Data = D>>(
        &mut self,
        ops: &mut Ops<B>,
        shape: &[usize],
        host: &mut dyn Host,
    ) -> Result<(), OpError> {
        if self.current.is_none() {
            let noise = ops.within(ActClass::Latents, |ops| ops.filled(shape, &mut |out| host.noise(shape, out)))?;
            self.current = Some(noise);
        }
        Ok(())
    }

    /// Applies guidance to the outputs of a step's branches and makes the step, as [`StepPlan`] describes it.
    pub(super) fn step<B: Backend<Data = D>>(
        &mut self,
        ops: &mut Ops<B>,
        plan: &StepPlan,
        outputs: Vec<Tensor<D>>,
        guidance: f64,
        host: &mut dyn Host,
    ) -> Result<(), OpError> {
        let guidance = guidance as f32;
        let mut outputs = outputs.into_iter();
        let (Some(guided), unguided) = (outputs.next(), outputs.next()) else {
            return Err(unsaved("velocity"));
        };
        ops.within(ActClass::Latents, |ops| {
            let velocity = match unguided {
                Some(unguided) => ops.combine(&[(1.0 - guidance, &unguided), (guidance, &guided)])?,
                None => guided,
            };
            self.advance(ops, plan, velocity, host)
        })
    }

    fn advance<B: Backend<Data = D>>(
        &mut self,
        ops: &mut Ops<B>,
        plan: &StepPlan,
        velocity: Tensor<D>,
        host: &mut dyn Host,
    ) -> Result<(), OpError> {
        let Some(mut sample) = self.current.take() else { return Err(unsaved("latents")) };
        let mut velocity = Some(velocity);
        if !plan.convert.is_empty() {
            let x0 = self.combined(ops, &plan.convert, &sample, [velocity.as_ref(), None])?;
            self.x0.push_front(x0);
            let used_later = |term: &Term| term.0 == Source::Velocity;
            if !plan.correct.iter().flatten().chain(&plan.predict).any(used_later) {
                velocity = None;
            }
        }
        if let Some(terms) = &plan.correct {
            sample = self.combined(ops, terms, &sample, [velocity.as_ref(), None])?;
        }
        self.last = None;
        let noise = match plan.noise_draws {
            0 => None,
            // The reference draws more often than it reads; only the last draw counts.
            draws => {
                Some(ops.filled(&sample.shape, &mut |out| (0..draws).try_for_each(|_| host.noise(&sample.shape, out)))?)
            }
        };
        let next = self.combined(ops, &plan.predict, &sample, [velocity.as_ref(), noise.as_ref()])?;
        self.x0.truncate(plan.keep);
        self.last = plan.keep_sample.then_some(sample);
        self.current = Some(next);
        Ok(())
    }

    fn combined<B: Backend<Data = D>>(
        &self,
        ops: &mut Ops<B>,
        terms: &[Term],
        sample: &Tensor<D>,
        [velocity, noise]: [Option<&Tensor<D>>; 2],
    ) -> Result<Tensor<D>, OpError> {
        let find = |source: Source| match source {
            Source::Sample => Some(sample),
            Source::Velocity => velocity,
            Source::LastSample => self.last.as_ref(),
            Source::X0(i) => self.x0.get(i),
            Source::Noise => noise,
        };
        let operands: Option<Vec<_>> = terms.iter().map(|(s, c)| Some((*c, find(*s)?))).collect();
        ops.combine(&operands.ok_or_else(|| unsaved("sampler history"))?)
    }

    pub(super) fn save<B: Backend<Data = D>>(&self, ops: &mut Ops<B>, sink: Sink<'_>) -> Result<(), OpError> {
        let history = self.x0.iter().enumerate().map(|(i, t)| (format!("x0.{i}"), t));
        let named = [("latents", &self.current), ("last", &self.last)];
        let named = named.into_iter().filter_map(|(name, t)| Some((name.to_owned(), t.as_ref()?)));
        for (name, tensor) in named.chain(history) {
            ops.hand_out(&name, tensor, sink)?;
        }
        Ok(())
    }

    pub(super) fn restore<B: Backend<Data = D>>(&mut self, ops: &mut Ops<B>, saved: Saved<'_>) -> Result<(), OpError> {
        let mut get = |ops: &mut Ops<B>, name: &str| match saved(name) {
            Some((shape, values)) => ops.within(ActClass::Latents, |ops| ops.restored(&shape, &values)).map(Some),
            None => Ok(None),
        };
        self.current = get(ops, "latents")?;
        self.last = get(ops, "last")?;
        self.x0.clear();
        while let Some(tensor) = get(ops, &format!("x0.{}", self.x0.len()))? {
            self.x0.push_back(tensor);
        }
        Ok(())
    }
}

/// A tensor that should be there by now: the engine left a task out, or a checkpoint lacks it.
pub(super) fn unsaved(name: &str) -> OpError {
    OpError::Shape { op: "restore", detail: format!("the checkpoint has no tensor '{name}'") }
}

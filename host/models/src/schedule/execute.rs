//! A plain executor of [`StepPlan`]s over `Vec<f32>`, against which real ones are tested.

use super::{Source, StepPlan, Term};

/// The latents that live between two steps.
#[derive(Debug, Clone)]
pub struct ReferenceState {
    /// The current state, which the model is called with.
    pub sample: Vec<f32>,
    /// The (corrected) state of the step before, if this step reads it.
    last_sample: Option<Vec<f32>>,
    /// Predictions of the clean latent, newest first.
    x0: Vec<Vec<f32>>,
}

impl ReferenceState {
    /// Starts from the initial noise.
    pub fn new(sample: Vec<f32>) -> Self {
        Self { sample, last_sample: None, x0: Vec::new() }
    }

    /// Does one step with the model's output. `noise` is read only by steps with `noise_draws` above zero.
    ///
    /// Latents that a plan reads but that do not exist count as zero, which shows as a wrong result.
    pub fn step(&mut self, plan: &StepPlan, velocity: &[f32], noise: &[f32]) {
        if !plan.convert.is_empty() {
            self.x0.insert(0, self.combine(&plan.convert, velocity, noise));
        }
        if let Some(correct) = &plan.correct {
            self.sample = self.combine(correct, velocity, noise);
        }
        let next = self.combine(&plan.predict, velocity, noise);
        let sample = std::mem::replace(&mut self.sample, next);
        self.last_sample = plan.keep_sample.then_some(sample);
        self.x0.truncate(plan.keep);
    }

    fn combine(&self, terms: &[Term], velocity: &[f32], noise: &[f32]) -> Vec<f32> {
        let mut sum = vec![0.0; self.sample.len()];
        for (source, factor) in terms {
            let values = self.source(*source, velocity, noise);
            sum.iter_mut().zip(values).for_each(|(s, v)| *s += factor * v);
        }
        sum
    }

    fn source<'a>(&'a self, source: Source, velocity: &'a [f32], noise: &'a [f32]) -> &'a [f32] {
        match source {
            Source::Sample => &self.sample,
            Source::Velocity => velocity,
            Source::LastSample => self.last_sample.as_deref().unwrap_or(&[]),
            Source::X0(i) => self.x0.get(i).map_or(&[], Vec::as_slice),
            Source::Noise => noise,
        }
    }
}

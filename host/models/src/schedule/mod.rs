//! Samplers as pure coefficient generators.
//!
//! A sampler turns a `scheduler_config.json` and a number of steps into time steps, noise levels and, per step, a
//! [`StepPlan`]: which latents to combine with which factors. It holds no tensors, so the engine can run it on any
//! device and the memory planner can count the latents that live. [`ReferenceState`] is the plain executor that tests
//! compare others with.
//!
//! Followed to the rounding: diffusers 0.42.1, and for [`ScheduleKind::Wan`] the code that Wan itself was published
//! with. Not here: Karras, exponential and beta noise levels, thresholding, and solvers inside a solver (`solver_p`);
//! configurations that ask for them are refused by name.

mod cog;
mod config;
mod error;
mod euler;
mod execute;
mod plan;
mod sigmas;
mod unipc;

pub use error::ScheduleError;
pub use execute::ReferenceState;
pub use plan::{Source, StepPlan, Term};
pub use sigmas::dynamic_mu;

use config::Fields;

/// Scheduler classes that [`Sampler::from_config`] knows.
pub const KNOWN_CLASSES: [&str; 4] =
    ["UniPCMultistepScheduler", "FlowMatchEulerDiscreteScheduler", "CogVideoXDDIMScheduler", "CogVideoXDPMScheduler"];

/// Which of the two published noise schedules UniPC follows. They differ by up to 10 of 1000 in a time step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ScheduleKind {
    /// Unshifted levels from 1 to 1/N, the first clipped to 1 - 1e-6: diffusers from 0.37.
    #[default]
    Diffusers,
    /// Unshifted levels from 1 - 1/N to 0: Wan's own code, and diffusers up to 0.36.
    Wan,
}

/// What a request may change about the published configuration.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SamplerOptions {
    /// Replaces `flow_shift` (UniPC) or `shift` (Euler). More favours the noisy end.
    pub flow_shift: Option<f64>,
    /// UniPC's noise schedule; other classes have one only.
    pub schedule: ScheduleKind,
    /// Size-dependent shift, required if `use_dynamic_shifting` is set; see [`dynamic_mu`].
    pub mu: Option<f64>,
    /// Unshifted noise levels to use for the flow schedulers, one a step, instead of the schedule's own. Flux's
    /// pipeline passes n levels from 1 to 1/n. They are rounded to f32 by Euler, as the reference does.
    pub sigmas: Option<Vec<f64>>,
}

/// A sampler for a fixed number of steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampler {
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    steps: Vec<StepPlan>,
}

impl Sampler {
    /// Builds the sampler that `scheduler_config.json` describes for `steps` steps.
    ///
    /// # Errors
    ///
    /// [`ScheduleError`] if the class or a setting is not implemented, a field is of the wrong type, an option is
    /// out of range, or the settings lead to factors that are not finite.
    pub fn from_config(
        json: &serde_json::Value,
        steps: usize,
        overrides: &SamplerOptions,
    ) -> Result<Self, ScheduleError> {
        let fields = Fields::new(json)?;
        let class = fields.class()?;
        check_options(steps, overrides)?;
        let sampler = match class {
            "UniPCMultistepScheduler" => unipc::build(fields, steps, overrides),
            "FlowMatchEulerDiscreteScheduler" => euler::build(fields, steps, overrides),
            "CogVideoXDDIMScheduler" => cog::build_ddim(fields, steps),
            "CogVideoXDPMScheduler" => cog::build_dpm(fields, steps),
            _ => Err(ScheduleError::UnknownClass { class: class.to_owned(), known: &KNOWN_CLASSES }),
        }?;
        sampler.checked()
    }

    fn new(timesteps: Vec<f64>, sigmas: Vec<f32>, mut steps: Vec<StepPlan>) -> Self {
        plan::mark_lifetimes(&mut steps);
        Self { timesteps, sigmas, steps }
    }

    fn checked(self) -> Result<Self, ScheduleError> {
        match self.steps.iter().position(|step| !step.is_finite()) {
            Some(step) => Err(ScheduleError::NotFinite { step }),
            None => Ok(self),
        }
    }

    /// What the model is told, one per step: whole numbers for UniPC and Cog, f32 values for Euler.
    pub fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    /// Noise levels, one per step and the final one. For the Cog schedulers, which count in products of alphas, this is
    /// sqrt(1 - alpha).
    pub fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    /// The steps in order.
    pub fn steps(&self) -> &[StepPlan] {
        &self.steps
    }

    /// Most latents alive at one time in step `index`, or 0 if there is no such step.
    pub fn live_latents(&self, index: usize) -> usize {
        let Some(step) = self.steps.get(index) else {
            return 0;
        };
        let before = index.checked_sub(1).and_then(|i| self.steps.get(i));
        let (history, has_last) = before.map_or((0, false), |b| (b.keep, b.keep_sample));
        step.live_latents(history, has_last)
    }

    /// Most latents alive at any time in the run, for the latents' reservation.
    pub fn live_latents_peak(&self) -> usize {
        (0..self.steps.len()).map(|i| self.live_latents(i)).max().unwrap_or(0)
    }
}

fn check_options(steps: usize, options: &SamplerOptions) -> Result<(), ScheduleError> {
    let shift_ok = |x: &f64| x.is_finite() && *x > 0.0;
    if let Some(value) = options.flow_shift.filter(|x| !shift_ok(x)) {
        return Err(ScheduleError::BadOption { option: "flow_shift", value, expected: "a number above 0" });
    }
    if let Some(value) = options.mu.filter(|x| !x.is_finite()) {
        return Err(ScheduleError::BadOption { option: "mu", value, expected: "a finite number" });
    }
    let Some(sigmas) = &options.sigmas else {
        return Ok(());
    };
    if sigmas.len() != steps {
        return Err(ScheduleError::BadOption {
            option: "sigmas.len",
            value: sigmas.len() as f64,
            expected: "one a step",
        });
    }
    match sigmas.iter().find(|s| !(**s > 0.0 && **s <= 1.0)) {
        Some(&value) => Err(ScheduleError::BadOption { option: "sigmas", value, expected: "above 0 and at most 1" }),
        None => Ok(()),
    }
}

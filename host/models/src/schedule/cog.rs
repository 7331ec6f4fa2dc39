//! `CogVideoXDDIMScheduler` and `CogVideoXDPMScheduler`: velocity prediction over a discrete table of alphas, with
//! CogVideoX's shift of the signal-to-noise ratio.

use serde_json::Value;

use super::config::{Fields, bad, check_steps, unsupported};
use super::plan::terms;
use super::sigmas::linspace;
use super::{Sampler, ScheduleError, Source, StepPlan};

/// What both classes read from their configuration.
struct Table {
    /// Products of alphas by training step, after shift and rescaling.
    alphas: Vec<f64>,
    /// Product of alphas after the last step.
    final_alpha: f64,
    timesteps: Vec<i64>,
    /// Distance to the step that a step leads to.
    stride: i64,
}

impl Table {
    fn new(fields: Fields<'_>, steps: usize) -> Result<Self, ScheduleError> {
        let train = fields.train_steps()?;
        check_steps(steps, train)?;
        check_kind(fields)?;
        let alphas = alphas(fields, train)?;
        let final_alpha = if fields.flag("set_alpha_to_one", true)? { 1.0 } else { alphas[0] };
        let timesteps = timesteps(fields, train, steps)?;
        Ok(Self { alphas, final_alpha, timesteps, stride: (train / steps) as i64 })
    }

    fn alpha(&self, timestep: i64) -> f64 {
        // Training step indices are in range by construction; those below zero lie beyond the end of the run.
        usize::try_from(timestep).ok().and_then(|t| self.alphas.get(t)).copied().unwrap_or(self.final_alpha)
    }

    fn alpha_next(&self, timestep: i64) -> f64 {
        self.alpha(timestep - self.stride)
    }

    fn sampler(self, plan: impl Fn(&Self, usize) -> StepPlan) -> Sampler {
        let steps = (0..self.timesteps.len()).map(|i| plan(&self, i)).collect();
        let sigma = |alpha: f64| (1.0 - alpha).sqrt() as f32;
        let mut sigmas: Vec<f32> = self.timesteps.iter().map(|&t| sigma(self.alpha(t))).collect();
        sigmas.extend(self.timesteps.last().map(|&t| sigma(self.alpha_next(t))));
        Sampler::new(self.timesteps.iter().map(|&t| t as f64).collect(), sigmas, steps)
    }
}

fn check_kind(fields: Fields<'_>) -> Result<(), ScheduleError> {
    let kind = fields.text("prediction_type", "epsilon")?;
    if kind != "v_prediction" {
        return Err(unsupported(
            "prediction_type",
            &Value::from(kind),
            "set it to \"v_prediction\", as CogVideoX has it",
        ));
    }
    match fields.get("trained_betas") {
        Some(betas) => Err(unsupported("trained_betas", betas, "set it to null")),
        None => Ok(()),
    }
}

/// The table of products of alphas.
fn alphas(fields: Fields<'_>, train: usize) -> Result<Vec<f64>, ScheduleError> {
    let schedule = fields.text("beta_schedule", "scaled_linear")?;
    if schedule != "scaled_linear" {
        return Err(unsupported(
            "beta_schedule",
            &Value::from(schedule),
            "set it to \"scaled_linear\", as CogVideoX has it",
        ));
    }
    let (start, end) = (fields.positive("beta_start", 0.00085)?, fields.positive("beta_end", 0.012)?);
    let shift = fields.positive("snr_shift_scale", 3.0)?;
    let mut product = 1.0;
    let betas = linspace(start.sqrt(), end.sqrt(), train);
    let mut table: Vec<f64> = betas
        .into_iter()
        .map(|root| {
            product *= 1.0 - root * root;
            product / (shift + (1.0 - shift) * product)
        })
        .collect();
    if fields.flag("rescale_betas_zero_snr", false)? {
        rescale_to_zero_snr(&mut table);
    }
    Ok(table)
}

/// Makes the last training step pure noise (Lin et al. 2023, arXiv 2305.08891, algorithm 1).
fn rescale_to_zero_snr(table: &mut [f64]) {
    let (first, last) = (table[0].sqrt(), table[table.len() - 1].sqrt());
    for alpha in table {
        *alpha = ((alpha.sqrt() - last) * (first / (first - last))).powi(2);
    }
}

fn timesteps(fields: Fields<'_>, train: usize, steps: usize) -> Result<Vec<i64>, ScheduleError> {
    let offset = fields.integer("steps_offset", 0, 0, train - 1)? as i64;
    let list: Vec<i64> = match fields.text("timestep_spacing", "leading")? {
        "trailing" => {
            let ratio = train as f64 / steps as f64;
            (0..steps).map(|i| (train as f64 - i as f64 * ratio).round_ties_even() as i64 - 1).collect()
        }
        "leading" => (0..steps).rev().map(|i| (i * (train / steps)) as i64 + offset).collect(),
        "linspace" => {
            linspace(0.0, (train - 1) as f64, steps).into_iter().rev().map(|t| t.round_ties_even() as i64).collect()
        }
        other => {
            return Err(bad("timestep_spacing", "\"trailing\", \"leading\" or \"linspace\"", &Value::from(other)));
        }
    };
    match list.iter().find(|&&t| t < 0 || t >= train as i64) {
        Some(&t) => Err(bad("steps_offset", "small enough that every time step was trained", &Value::from(t))),
        None => Ok(list),
    }
}

/// The clean latent from a velocity: sqrt(alpha) sample - sqrt(1 - alpha) velocity.
fn convert(alpha: f64) -> Vec<(Source, f32)> {
    terms([(Source::Sample, alpha.sqrt()), (Source::Velocity, -(1.0 - alpha).sqrt())])
}

pub(super) fn build_ddim(fields: Fields<'_>, steps: usize) -> Result<Sampler, ScheduleError> {
    let plan = |table: &Table, index: usize| {
        let timestep = table.timesteps[index];
        let (alpha, next) = (table.alpha(timestep), table.alpha_next(timestep));
        let keep = ((1.0 - next) / (1.0 - alpha)).sqrt();
        let predict = [(Source::Sample, keep), (Source::X0(0), next.sqrt() - alpha.sqrt() * keep)];
        StepPlan { convert: convert(alpha), ..StepPlan::direct(terms(predict)) }
    };
    Ok(Table::new(fields, steps)?.sampler(plan))
}

/// Half the logarithm of the signal-to-noise ratio; infinite at both ends.
fn lambda(alpha: f64) -> f64 {
    (alpha / (1.0 - alpha)).sqrt().ln()
}

pub(super) fn build_dpm(fields: Fields<'_>, steps: usize) -> Result<Sampler, ScheduleError> {
    Ok(Table::new(fields, steps)?.sampler(dpm_step))
}

/// DPM-Solver++ (2M) with noise, as CogVideoX has it: first order in the first step and in those that end the run.
fn dpm_step(table: &Table, index: usize) -> StepPlan {
    let timestep = table.timesteps[index];
    let (alpha, next) = (table.alpha(timestep), table.alpha_next(timestep));
    let h = lambda(next) - lambda(alpha);
    let keep = ((1.0 - next) / (1.0 - alpha)).sqrt() * (-h).exp();
    let x0 = -(-2.0 * h).exp_m1() * next.sqrt();
    let noise = (1.0 - next).sqrt() * (1.0 - (-2.0 * h).exp()).sqrt();
    let two_steps = index > 0 && timestep >= table.stride;
    let half_inverse =
        if two_steps { h / (lambda(alpha) - lambda(table.alpha(table.timesteps[index - 1]))) / 2.0 } else { 0.0 };
    let predict = [
        (Source::Sample, keep),
        (Source::X0(0), x0 * (1.0 + half_inverse)),
        (Source::X0(1), -x0 * half_inverse),
        (Source::Noise, noise),
    ];
    let noise_draws = if two_steps { 2 } else { 1 };
    StepPlan { convert: convert(alpha), noise_draws, ..StepPlan::direct(terms(predict)) }
}

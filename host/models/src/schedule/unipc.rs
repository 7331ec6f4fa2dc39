//! `UniPCMultistepScheduler` for flow matching: a multistep predictor-corrector (Zhao et al., "UniPC", 2023,
//! arXiv 2302.04867) whose update is linear in the kept predictions, so every step reduces to fixed factors.

use serde_json::Value;

use super::config::{Fields, bad, check_steps, unsupported};
use super::euler::{terminal, time_shift};
use super::plan::terms;
use super::sigmas::linspace;
use super::{Sampler, SamplerOptions, ScheduleError, ScheduleKind, Source, StepPlan};

/// The function B(h) of the paper.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Solver {
    Bh1,
    Bh2,
}

struct Config {
    train: usize,
    order: usize,
    solver: Solver,
    lower_order_final: bool,
    disable_corrector: Vec<usize>,
}

pub(super) fn build(fields: Fields<'_>, steps: usize, options: &SamplerOptions) -> Result<Sampler, ScheduleError> {
    let config = config(fields)?;
    check_steps(steps, config.train)?;
    let shift = match options.flow_shift {
        Some(shift) => shift,
        None => fields.positive("flow_shift", 1.0)?,
    };
    let time_shift = time_shift(fields, shift, options.mu)?;
    let base = match &options.sigmas {
        Some(list) => list.clone(),
        None => base_sigmas(options.schedule, config.train, steps),
    };
    let mut sigmas = terminal(fields, base.into_iter().map(|s| time_shift.apply(s)).collect())?;
    clip_first(&mut sigmas);
    // The reference cuts time steps to int64, so that the last bit of a sigma can move one by a whole step.
    let timesteps = sigmas.iter().map(|s| (s * config.train as f64).trunc()).collect();
    sigmas.push(final_sigma(fields, &sigmas)?);
    let sigmas: Vec<f32> = sigmas.into_iter().map(|s| s as f32).collect();
    let plans = plan_steps(&config, &sigmas);
    Ok(Sampler::new(timesteps, sigmas, plans))
}

fn config(fields: Fields<'_>) -> Result<Config, ScheduleError> {
    for field in ["thresholding", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"] {
        fields.refuse(field, "set it to false")?;
    }
    if !fields.flag("use_flow_sigmas", false)? {
        return Err(unsupported(
            "use_flow_sigmas",
            &Value::Bool(false),
            "only flow models are sampled with UniPC; set it to true",
        ));
    }
    let kind = fields.text("prediction_type", "epsilon")?;
    if kind != "flow_prediction" {
        return Err(unsupported("prediction_type", &Value::from(kind), "set it to \"flow_prediction\""));
    }
    if !fields.flag("predict_x0", true)? {
        return Err(unsupported(
            "predict_x0",
            &Value::Bool(false),
            "flow prediction has no noise form; set it to true",
        ));
    }
    if let Some(inner) = fields.get("solver_p") {
        return Err(unsupported("solver_p", inner, "set it to null"));
    }
    Ok(Config {
        train: fields.train_steps()?,
        order: fields.integer("solver_order", 2, 1, 3)?,
        solver: solver(fields)?,
        lower_order_final: fields.flag("lower_order_final", true)?,
        disable_corrector: fields.indices("disable_corrector")?,
    })
}

fn solver(fields: Fields<'_>) -> Result<Solver, ScheduleError> {
    match fields.text("solver_type", "bh2")? {
        "bh1" => Ok(Solver::Bh1),
        // Configurations converted from other solvers carry these names; the reference reads them as bh2.
        "bh2" | "midpoint" | "heun" | "logrho" => Ok(Solver::Bh2),
        other => Err(unsupported("solver_type", &Value::from(other), "set it to \"bh1\" or \"bh2\"")),
    }
}

/// Noise levels before the shift.
fn base_sigmas(kind: ScheduleKind, train: usize, steps: usize) -> Vec<f64> {
    let least = 1.0 / train as f64;
    let (first, last) = match kind {
        ScheduleKind::Diffusers => (1.0, least),
        ScheduleKind::Wan => (1.0 - least, 0.0),
    };
    let mut levels = linspace(first, last, steps + 1);
    levels.truncate(steps);
    levels
}

/// Moves a first level of 1 down, since the logarithm of alpha = 1 - sigma must exist.
fn clip_first(sigmas: &mut [f64]) {
    const EPSILON: f64 = 1e-6;
    if let Some(first) = sigmas.first_mut().filter(|s| (**s - 1.0).abs() < EPSILON) {
        *first -= EPSILON;
    }
}

fn final_sigma(fields: Fields<'_>, sigmas: &[f64]) -> Result<f64, ScheduleError> {
    match fields.text("final_sigmas_type", "zero")? {
        "zero" => Ok(0.0),
        "sigma_min" => Ok(sigmas.last().copied().unwrap_or(0.0)),
        other => Err(bad("final_sigmas_type", "\"zero\" or \"sigma_min\"", &Value::from(other))),
    }
}

fn plan_steps(config: &Config, sigmas: &[f32]) -> Vec<StepPlan> {
    let steps = sigmas.len() - 1;
    let mut previous_order = 0;
    let plan = |index: usize| {
        let corrects = index > 0 && !config.disable_corrector.contains(&(index - 1));
        let correct = corrects.then(|| corrector(config.solver, sigmas, index, previous_order));
        let wanted = if config.lower_order_final { config.order.min(steps - index) } else { config.order };
        let order = wanted.min(index + 1);
        previous_order = order;
        StepPlan {
            convert: vec![(Source::Sample, 1.0), (Source::Velocity, -sigmas[index])],
            correct,
            ..StepPlan::direct(predictor(config.solver, sigmas, index, order))
        }
    };
    (0..steps).map(plan).collect()
}

/// Half the logarithm of the signal-to-noise ratio.
fn lambda(sigma: f32) -> f64 {
    f64::from(1.0 - sigma).ln() - f64::from(sigma).ln()
}

/// What predictor and corrector share for going from noise level `s0` to `t` with the help of older levels.
struct Expansion {
    sigma_ratio: f64,
    alpha: f64,
    /// e^-h - 1, for the step h in lambda.
    growth: f64,
    /// B(h) of the chosen solver.
    scale: f64,
    /// Inverse distances of the older levels from `s0`, in units of h.
    inverse_distance: Vec<f64>,
    /// Right-hand side of the order conditions.
    moments: Vec<f64>,
}

impl Expansion {
    fn new(solver: Solver, t: f32, s0: f32, older: &[f32]) -> Self {
        let h = lambda(t) - lambda(s0);
        let growth = (-h).exp_m1();
        let scale = if solver == Solver::Bh1 { -h } else { growth };
        let inverse_distance = older.iter().map(|&s| h / (lambda(s) - lambda(s0))).collect();
        let moments = moments(h, growth, scale, older.len() + 1);
        Self {
            sigma_ratio: f64::from(t) / f64::from(s0),
            alpha: f64::from(1.0 - t),
            growth,
            scale,
            inverse_distance,
            moments,
        }
    }

    /// Weights that satisfy the first `order` conditions at the given nodes.
    fn weights(&self, nodes: &[f64]) -> Vec<f64> {
        let rows = (0..nodes.len()).map(|power| nodes.iter().map(|r| r.powi(power as i32)).collect());
        solve(rows.collect(), self.moments[..nodes.len()].to_vec())
    }

    fn nodes(&self) -> Vec<f64> {
        self.inverse_distance.iter().map(|inverse| 1.0 / inverse).collect()
    }

    /// Factors of the differences (older - m0), for their weights.
    fn difference_factors(&self, weights: &[f64]) -> Vec<f64> {
        if self.inverse_distance.is_empty() {
            return Vec::new(); // also keeps 0 * infinity away from a final sigma of zero
        }
        let pairs = weights.iter().zip(&self.inverse_distance);
        pairs.map(|(weight, inverse)| -self.alpha * self.scale * weight * inverse).collect()
    }

    /// Factor of m0 before the differences take their share.
    fn base_factor(&self) -> f64 {
        -self.alpha * self.growth
    }
}

/// k! phi_(k+1)(-h) h / B(h), for k = 1 to `count`.
fn moments(h: f64, growth: f64, scale: f64, count: usize) -> Vec<f64> {
    let hh = -h;
    let mut phi = growth / hh - 1.0;
    let mut factorial = 1.0;
    let mut result = Vec::with_capacity(count);
    for i in 1..=count {
        result.push(phi * factorial / scale);
        factorial *= (i + 1) as f64;
        phi = phi / hh - 1.0 / factorial;
    }
    result
}

fn predictor(solver: Solver, sigmas: &[f32], index: usize, order: usize) -> Vec<(Source, f32)> {
    let older: Vec<f32> = (1..order).map(|i| sigmas[index - i]).collect();
    let step = Expansion::new(solver, sigmas[index + 1], sigmas[index], &older);
    let weights = match order {
        1 => Vec::new(),
        // One half is what the reference uses here, not the solution of the single condition.
        2 => vec![0.5],
        _ => step.weights(&step.nodes()),
    };
    let differences = step.difference_factors(&weights);
    let m0 = step.base_factor() - differences.iter().sum::<f64>();
    let fixed = [(Source::Sample, step.sigma_ratio), (Source::X0(0), m0)];
    let older = differences.into_iter().enumerate().map(|(i, factor)| (Source::X0(i + 1), factor));
    terms(fixed.into_iter().chain(older))
}

/// Repeats the previous prediction, now that the model has been evaluated where it led to.
fn corrector(solver: Solver, sigmas: &[f32], index: usize, order: usize) -> Vec<(Source, f32)> {
    let older: Vec<f32> = (1..order).map(|i| sigmas[index - 1 - i]).collect();
    let step = Expansion::new(solver, sigmas[index], sigmas[index - 1], &older);
    let mut weights = if order == 1 {
        vec![0.5]
    } else {
        let mut nodes = step.nodes();
        nodes.push(1.0);
        step.weights(&nodes)
    };
    let newest = -step.alpha * step.scale * weights.pop().unwrap_or(0.0);
    let differences = step.difference_factors(&weights);
    let m0 = step.base_factor() - newest - differences.iter().sum::<f64>();
    let fixed = [(Source::LastSample, step.sigma_ratio), (Source::X0(0), newest), (Source::X0(1), m0)];
    let older = differences.into_iter().enumerate().map(|(i, factor)| (Source::X0(i + 2), factor));
    terms(fixed.into_iter().chain(older))
}

/// Solves a linear system of at most 3 unknowns by elimination with row pivoting. A singular system gives values that
/// are not finite, which the caller reports.
fn solve(mut a: Vec<Vec<f64>>, mut b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    for column in 0..n {
        let larger = |&i: &usize, &j: &usize| a[i][column].abs().total_cmp(&a[j][column].abs());
        let pivot = (column..n).max_by(larger).unwrap_or(column);
        a.swap(column, pivot);
        b.swap(column, pivot);
        let row = a[column].clone();
        for below in column + 1..n {
            let factor = a[below][column] / row[column];
            a[below].iter_mut().zip(&row).for_each(|(x, y)| *x -= factor * y);
            b[below] -= factor * b[column];
        }
    }
    for row in (0..n).rev() {
        let known: f64 = (row + 1..n).map(|k| a[row][k] * b[k]).sum();
        b[row] = (b[row] - known) / a[row][row];
    }
    b
}

//! `FlowMatchEulerDiscreteScheduler`: next = sample + (sigma' - sigma) velocity.

use serde_json::Value;

use super::config::{Fields, check_steps, unsupported};
use super::sigmas::{TimeShift, linspace, shift_f32, stretch_to_terminal};
use super::{Sampler, SamplerOptions, ScheduleError, Source, StepPlan};

const USE_PLAIN: &str = "set it to false";

pub(super) fn build(fields: Fields<'_>, steps: usize, options: &SamplerOptions) -> Result<Sampler, ScheduleError> {
    for field in
        ["invert_sigmas", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "stochastic_sampling"]
    {
        fields.refuse(field, USE_PLAIN)?;
    }
    let train = fields.train_steps()?;
    check_steps(steps, train)?;
    let shift = match options.flow_shift {
        Some(shift) => shift,
        None => fields.positive("shift", 1.0)?,
    };
    let time_shift = time_shift(fields, shift, options.mu)?;
    let sigmas = match &options.sigmas {
        Some(list) => list.iter().map(|&s| f64::from(time_shift.apply_f32(s as f32))).collect(),
        None => own_sigmas(train, steps, time_shift),
    };
    Ok(sampler(train, terminal(fields, sigmas)?))
}

/// Which shift a flow scheduler applies: the constant one, or by size if `use_dynamic_shifting` is set.
pub(super) fn time_shift(fields: Fields<'_>, constant: f64, mu: Option<f64>) -> Result<TimeShift, ScheduleError> {
    if !fields.flag("use_dynamic_shifting", false)? {
        return Ok(TimeShift::Static(constant));
    }
    let mu = mu.ok_or(ScheduleError::MissingMu)?;
    match fields.text("time_shift_type", "exponential")? {
        "exponential" => Ok(TimeShift::Exponential(mu)),
        "linear" if mu > 0.0 => Ok(TimeShift::Linear(mu)),
        "linear" => {
            Err(ScheduleError::BadOption { option: "mu", value: mu, expected: "above 0 for a linear time shift" })
        }
        other => Err(unsupported("time_shift_type", &Value::from(other), "set it to \"exponential\" or \"linear\"")),
    }
}

/// Applies `shift_terminal`, if the configuration has one.
pub(super) fn terminal(fields: Fields<'_>, mut sigmas: Vec<f64>) -> Result<Vec<f64>, ScheduleError> {
    match fields.optional_number("shift_terminal")? {
        Some(level) if level > 0.0 && level < 1.0 => stretch_to_terminal(&mut sigmas, level),
        Some(level) if level != 0.0 => {
            return Err(unsupported("shift_terminal", &Value::from(level), "use a level from 0 to 1"));
        }
        _ => {}
    }
    Ok(sigmas)
}

/// Levels evenly spread between the ends of the training schedule. The ends are shifted once here and everything is
/// shifted again, as the reference does; the ends are f32 values, the rest is f64.
fn own_sigmas(train: usize, steps: usize, time_shift: TimeShift) -> Vec<f64> {
    let end = |t: usize| {
        let sigma = t as f32 / train as f32;
        let shifted = if let TimeShift::Static(shift) = time_shift { shift_f32(shift, sigma) } else { sigma };
        f64::from(shifted) * train as f64
    };
    let even = linspace(end(train), end(1), steps);
    even.into_iter().map(|t| time_shift.apply(t / train as f64)).collect()
}

fn sampler(train: usize, sigmas: Vec<f64>) -> Sampler {
    let mut sigmas: Vec<f32> = sigmas.into_iter().map(|s| s as f32).collect();
    let timesteps = sigmas.iter().map(|s| f64::from(s * train as f32)).collect();
    sigmas.push(0.0);
    let step = |pair: &[f32]| StepPlan::direct(vec![(Source::Sample, 1.0), (Source::Velocity, pair[1] - pair[0])]);
    let steps = sigmas.windows(2).map(step).collect();
    Sampler::new(timesteps, sigmas, steps)
}

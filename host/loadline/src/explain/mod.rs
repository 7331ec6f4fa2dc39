//! Why a plan is as it is: the policy's own words, and what anybody can see in the plan without them.
//!
//! For each stage: what stays on the device, what passes through which slots and from where, how long before its use a
//! load starts, where the device waits, and what the time is bound by. At the end: what would make it faster, each with
//! the forecast of the plan that the same policy makes then.

mod help;
mod stage;
mod text;

use loadline_core::check::Finding;
use loadline_core::{Bytes, Estimate, Nanos, PolicyId};

use crate::planning::simulate;
use crate::{Asked, Bench, Error, Planned, Planner};

pub use help::Hint;
pub use stage::{Lead, Share, StageStory, Wait};
pub use text::{explanation_json, explanation_text};

/// A plan, explained.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// Who made the plan.
    pub policy: PolicyId,
    /// Cold time of the whole job.
    pub time: Nanos,
    /// What no schedule with the plan's memory beats.
    pub bound: Nanos,
    /// The device budget.
    pub budget: Bytes,
    /// The most of it that is used.
    pub peak: Bytes,
    /// The fuel that the decision burnt.
    pub fuel: u64,
    /// What the policy says, a line each.
    pub reasons: Vec<String>,
    /// What the check says: advice only, since the plan runs.
    pub findings: Vec<Finding>,
    /// The stages, in order.
    pub stages: Vec<StageStory>,
    /// What would help.
    pub hints: Vec<Hint>,
}

/// Plans a request and explains the plan. The bench must be of the planner's model and machine.
///
/// # Errors
/// As [`Planner::plan`].
pub fn explain(planner: &Planner<'_>, bench: &Bench<'_>, asked: &Asked) -> Result<(Planned, Explanation), Error> {
    let planned = planner.plan_on(bench, asked)?;
    let (job, plan) = (&*planned.job, &planned.plan);
    let times = bench.times(&planned.job, Estimate::Median)?;
    let cold = simulate(job, plan, &times, false, false).trace;
    let warm = simulate(job, plan, &times, true, false).trace;
    let place = stage::Place { job, plan, machine: planner.machine, times: &times };
    let traces = cold.stages.iter().zip(&warm.stages);
    let stages = planned.forecast.stages.iter().zip(traces).enumerate();
    let stages: Vec<StageStory> = stages.map(|(i, (f, (cold, warm)))| place.story(i, f, cold, warm)).collect();
    let hints = help::hints(planner, bench, asked, &planned)?;
    let explanation = Explanation {
        policy: plan.policy.clone(),
        time: planned.forecast.total(|s| s.cold),
        bound: planned.forecast.total(|s| s.bound.time),
        budget: planned.budget.device,
        peak: planned.forecast.device_peak(),
        fuel: planned.fuel,
        reasons: plan.reasons.clone(),
        findings: planned.advice.clone(),
        stages,
        hints,
    };
    Ok((planned, explanation))
}

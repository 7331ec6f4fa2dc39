//! `auto-tune` looks for the plan with the shortest forecast within the budgets.
//!
//! For each stage there is a short list of schedules that are known to be good: residents beside one,
//! two, three and more shared slots, and the eager schedule. Stages do not share device memory over
//! time, so one forecast tries one candidate of every stage at once, and the best of each are put
//! together. A stage whose time is at its lower bound is done: no schedule is faster.

mod search;

use loadline_policy_sdk::{
    Decision, Description, Entry, Host, Job, Policy, Refusal, Situation, Value, describe, duration, export_policy,
    value,
};

use search::{Found, search};

/// The policy.
#[derive(Clone, Copy, Debug, Default)]
pub struct AutoTune;

impl Policy for AutoTune {
    fn describe(&self) -> Description {
        let summary = "Finds the fastest plan that fits, by forecasting candidates.";
        describe("auto-tune", env!("CARGO_PKG_VERSION"), summary, include_str!("settings.json"))
    }

    fn decide(&self, s: &Situation, host: &mut dyn Host) -> Result<Decision, Refusal> {
        let mut best = search(s, &s.job, &[], host).map_err(|index| s.too_small(index, s.budget.device))?;
        let open = best.time.is_some() && !best.at_bound;
        if let Some((job, knobs)) = open.then(|| paired(s, host)).flatten() {
            if let Ok(other) = search(s, &job, &knobs, host) {
                let tried = best.tried + other.tried;
                best = Found { tried, ..if other.is_faster_than(&best) { other } else { best } };
            }
        }
        Ok(Decision::Plan(finish(best)))
    }
}

/// The job with both branches of guidance run while a block is loaded, where that may be chosen: the
/// same bits for half the copies.
fn paired(s: &Situation, host: &mut dyn Host) -> Option<(Job, Vec<Entry>)> {
    let sequential = matches!(value(&s.job.knobs, "cfg"), Some(Value::Text(cfg)) if cfg == "sequential");
    if !s.may_change("cfg") || !sequential {
        return None;
    }
    let knobs = vec![Entry { key: "cfg".to_owned(), value: Value::Text("pair".to_owned()) }];
    let job = host.probe(&knobs).ok()?;
    Some((job, knobs))
}

fn finish(found: Found) -> loadline_policy_sdk::Plan {
    let mut plan = found.plan;
    let summaries = found.names.iter().zip(&plan.stages).map(|(name, stage)| format!("{name}: {}", stage.summary()));
    plan.reasons = summaries.collect();
    plan.reasons.push(match (found.time, found.at_bound) {
        (Some(time), true) => format!("forecast {}, no plan with this memory is faster", duration(time)),
        (Some(time), false) if found.tried == 1 => format!("forecast {}, the only plan tried", duration(time)),
        (Some(time), false) => format!("forecast {}, the best of {} plans tried", duration(time), found.tried),
        (None, _) => format!("without a forecast: {}", found.trouble),
    });
    plan
}

export_policy!(AutoTune);

//! `lazy-load` loads nothing before it is needed and keeps nothing afterwards, except what the next
//! known job will use. An idle process holds no weights.

use loadline_policy_sdk::{
    Decision, Description, Host, Policy, Refusal, Situation, Split, StagePlan, StageView, cause, describe,
    export_policy,
};

/// The policy.
#[derive(Clone, Copy, Debug, Default)]
pub struct LazyLoad;

impl Policy for LazyLoad {
    fn describe(&self) -> Description {
        let summary =
            "Loads components or blocks when they are needed, drops them afterwards, shares them with the next job.";
        describe("lazy-load", env!("CARGO_PKG_VERSION"), summary, include_str!("settings.json"))
    }

    fn decide(&self, s: &Situation, _: &mut dyn Host) -> Result<Decision, Refusal> {
        let mut stages = Vec::new();
        for index in 0..s.job.stages.len() {
            stages.push(stage(s, index).ok_or_else(|| s.too_small(index, s.budget.device))?);
        }
        if s.switch("share") && s.cause != cause::IDLE {
            s.keep_for_upcoming(&s.job, &mut stages, s.budget.device);
        }
        let mut plan = s.plan(stages);
        plan.reasons =
            s.stages().zip(&plan.stages).map(|(v, p)| format!("{}: {}", v.stage.name, p.summary())).collect();
        Ok(Decision::Plan(plan))
    }
}

fn stage(s: &Situation, index: usize) -> Option<StagePlan> {
    let view = s.stage(index);
    let room = s.squeezed(&view, s.room(&view, s.budget.device)?);
    let slots = u32::try_from(s.count("prefetch")).unwrap_or(0) + 1;
    match s.text("granularity") {
        "block" => block_by_block(&view, room, slots),
        _ => StagePlan::within(&view, room, slots),
    }
}

/// Nothing resident; as many of the slots as fit.
fn block_by_block(view: &StageView, room: u64, slots: u32) -> Option<StagePlan> {
    let plans = (1..=slots).rev().map(|slots| StagePlan::rolling(view, &Split::streamed(view), slots));
    plans.into_iter().find(|plan| plan.held(view) <= room)
}

export_policy!(LazyLoad);

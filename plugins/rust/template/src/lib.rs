//! `my-policy`: of each stage as many blocks as fit stay on the device, the others pass through a few slots.

use loadline_policy_sdk::{
    Decision, Description, Host, Policy, Refusal, Situation, StagePlan, StageView, describe, export_policy,
};

/// The policy. It has no state: all that it may know is in the situation.
#[derive(Clone, Copy, Debug, Default)]
pub struct MyPolicy;

impl Policy for MyPolicy {
    fn describe(&self) -> Description {
        let summary = "Keeps what fits on the device and passes the rest through a few slots.";
        describe("my-policy", env!("CARGO_PKG_VERSION"), summary, include_str!("settings.json"))
    }

    fn decide(&self, s: &Situation, _: &mut dyn Host) -> Result<Decision, Refusal> {
        let stages = s.stages().enumerate().map(|(index, view)| {
            // What does not fit is refused, in words that say how much it would need.
            stage(s, &view).ok_or_else(|| s.too_small(index, s.budget.device))
        });
        let mut plan = s.plan(stages.collect::<Result<_, _>>()?);
        plan.reasons =
            s.stages().zip(&plan.stages).map(|(v, p)| format!("{}: {}", v.stage.name, p.summary())).collect();
        Ok(Decision::Plan(plan))
    }
}

/// The plan of one stage, none where its largest block does not fit.
fn stage(s: &Situation, view: &StageView) -> Option<StagePlan> {
    let slots = u32::try_from(s.count("slots")).unwrap_or(1);
    // The room for weights; less of it after the device ran out of memory.
    let room = s.squeezed(view, s.room(view, s.budget.device)?);
    StagePlan::within(view, room, slots)
}

export_policy!(MyPolicy);

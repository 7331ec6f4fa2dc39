//! `threshold` keeps memory in use under a percentage of what it is given: residents up to the mark,
//! the overflow streamed, and a watermark that asks again when reality rises above it.

use loadline_policy_sdk::{
    Budget, Decision, Description, Host, Plan, Policy, Refusal, Situation, StagePlan, Trigger, describe, export_policy,
    size, watch,
};

/// The policy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Threshold;

/// The levels of device memory that the settings name, in bytes.
struct Levels {
    /// Never to be exceeded.
    mark: u64,
    /// What plans aim for.
    aim: u64,
}

impl Policy for Threshold {
    fn describe(&self) -> Description {
        let summary = "Keeps memory in use under a percentage of the budget and streams the overflow.";
        describe("threshold", env!("CARGO_PKG_VERSION"), summary, include_str!("settings.json"))
    }

    fn decide(&self, s: &Situation, _: &mut dyn Host) -> Result<Decision, Refusal> {
        let levels = levels(s);
        let mut stages = Vec::new();
        for index in 0..s.job.stages.len() {
            stages.push(stage(s, index, &levels).ok_or_else(|| refuse(s, index, levels.mark))?);
        }
        let host = part(s.budget.host, s.count("host_percent"));
        let budget = Budget { host, pinned: s.budget.pinned.min(host), ..s.budget };
        let mut plan = s.plan_for(&s.job, &budget, Vec::new(), stages);
        plan.triggers = triggers(s, &levels, host);
        plan.reasons = reasons(s, &plan, &levels);
        Ok(Decision::Plan(plan))
    }
}

/// `percent` hundredths, without overflow.
fn part(bytes: u64, percent: u64) -> u64 {
    (u128::from(bytes) * u128::from(percent.min(100)) / 100) as u64
}

fn levels(s: &Situation) -> Levels {
    let mark = part(s.budget.device, s.count("percent"));
    Levels { mark, aim: mark - part(mark, s.count("reserve_percent")) }
}

/// What fits below the aim, else one slot below the mark.
fn stage(s: &Situation, index: usize, levels: &Levels) -> Option<StagePlan> {
    let view = s.stage(index);
    let slots = u32::try_from(s.count("slots")).unwrap_or(1);
    let aimed = s.room(&view, levels.aim).and_then(|room| StagePlan::within(&view, s.squeezed(&view, room), slots));
    aimed.or_else(|| {
        let room = s.room(&view, levels.mark)?;
        StagePlan::within(&view, room.min(view.round(view.largest())), 1)
    })
}

fn refuse(s: &Situation, index: usize, mark: u64) -> Refusal {
    let mut refusal = s.too_small(index, mark);
    let needs = s.smallest(&s.stage(index));
    let percent = (u128::from(needs) * 100).div_ceil(u128::from(s.budget.device.max(1)));
    let change = match percent {
        0..=100 => format!("set percent to {percent}"),
        _ => "give it a larger budget".to_owned(),
    };
    refusal.message += &format!(" ({} % of {}): {change}", s.count("percent"), size(s.budget.device));
    // The budget of which the percentage would be enough.
    let enough = (u128::from(needs) * 100).div_ceil(u128::from(s.count("percent").max(1)));
    refusal.needs_bytes = Some(u64::try_from(enough).unwrap_or(u64::MAX));
    refusal
}

fn triggers(s: &Situation, levels: &Levels, host: u64) -> Vec<Trigger> {
    let host_free = s.budget.host - host;
    vec![
        Trigger { kind: watch::DEVICE_ABOVE, threshold: levels.mark, hysteresis: levels.mark - levels.aim },
        Trigger { kind: watch::HOST_FREE_BELOW, threshold: host_free, hysteresis: host_free / 10 },
    ]
}

fn reasons(s: &Situation, plan: &Plan, levels: &Levels) -> Vec<String> {
    let stage = |(index, stage): (usize, &StagePlan)| {
        let view = s.stage(index);
        let held = s.machine.fixed_overhead + view.activations() + stage.held(&view);
        format!("{}: {}, {}", view.stage.name, size(held), stage.summary())
    };
    let mark = format!("below {} ({} % of {})", size(levels.mark), s.count("percent"), size(s.budget.device));
    std::iter::once(mark).chain(plan.stages.iter().enumerate().map(stage)).collect()
}

export_policy!(Threshold);

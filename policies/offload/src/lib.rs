//! `offload` moves whole components or single blocks, in the three ways that diffusers offers: `none`,
//! `model` and `sequential`. `auto` forecasts them for the card at hand instead of guessing from its
//! name, and takes the fastest that fits.

use loadline_policy_sdk::{
    Decision, Description, Host, Level, Policy, Refusal, Situation, Split, StagePlan, StageView, describe, duration,
    export_policy, size,
};

/// The policy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Offload;

/// A way to offload. In this order, equals go to the first: it moves least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strategy {
    /// Every component stays on the device.
    None,
    /// One whole component at a time.
    Model,
    /// One block at a time.
    Sequential,
}

const ALL: [Strategy; 3] = [Strategy::None, Strategy::Model, Strategy::Sequential];

/// A strategy that fits, with what `auto` found out about it.
struct Candidate {
    strategy: Strategy,
    stages: Vec<StagePlan>,
    cold: Option<u64>,
}

impl Policy for Offload {
    fn describe(&self) -> Description {
        let summary = "Keeps everything, or loads one component or one block at a time, whichever is fastest and fits.";
        describe("offload", env!("CARGO_PKG_VERSION"), summary, include_str!("settings.json"))
    }

    fn decide(&self, s: &Situation, host: &mut dyn Host) -> Result<Decision, Refusal> {
        let device = (u128::from(s.budget.device) * u128::from(s.count("percent").min(100)) / 100) as u64;
        let chosen = ALL.into_iter().find(|strategy| strategy.name() == s.text("strategy"));
        let (strategy, stages, mut reasons) = match chosen {
            Some(strategy) => (strategy, strategy.stages(s, device)?, Vec::new()),
            None => fastest(s, device, host)?,
        };
        let mut plan = s.plan(stages);
        reasons.insert(0, format!("strategy {}, {}", strategy.name(), strategy.words()));
        reasons.extend(s.stages().zip(&plan.stages).map(|(v, p)| format!("{}: {}", v.stage.name, p.summary())));
        plan.reasons = reasons;
        Ok(Decision::Plan(plan))
    }
}

impl Strategy {
    const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Model => "model",
            Self::Sequential => "sequential",
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::None => "everything stays on the device",
            Self::Model => "one component on the device at a time",
            Self::Sequential => "one block after the other",
        }
    }

    fn stages(self, s: &Situation, device: u64) -> Result<Vec<StagePlan>, Refusal> {
        match self {
            Self::None => all_kept(s, device),
            Self::Model => (0..s.job.stages.len()).map(|index| whole(s, index, device)).collect(),
            Self::Sequential => (0..s.job.stages.len()).map(|index| streamed(s, index, device)).collect(),
        }
    }

    /// What to set instead where this does not fit.
    fn gentler(self, s: &Situation, device: u64) -> String {
        let after = ALL.into_iter().skip_while(|other| *other != self).skip(1);
        let fits = after.into_iter().find(|other| other.stages(s, device).is_ok());
        fits.map_or_else(|| "give it a larger budget".to_owned(), |other| format!("set strategy to {}", other.name()))
    }
}

fn all_kept(s: &Situation, device: u64) -> Result<Vec<StagePlan>, Refusal> {
    let stages: Vec<StagePlan> = s.stages().map(|view| StagePlan::all_resident(&view).kept()).collect();
    if s.fits(&s.job, &stages, device) {
        return Ok(stages);
    }
    let granularity = s.machine.granularity;
    let weights = stages.iter().fold(0, |sum: u64, plan| sum.saturating_add(plan.kept_bytes(granularity)));
    let activations = s.stages().map(|view| view.activations()).max().unwrap_or(0);
    let needs = s.machine.fixed_overhead.saturating_add(activations).saturating_add(weights);
    let message = format!(
        "strategy none needs {} of device memory for all components at once, {} may be used: {}",
        size(needs),
        size(device),
        Strategy::None.gentler(s, device)
    );
    Err(Refusal { stage: s.largest_stage().map(|i| i as u32), needs_bytes: Some(budget_for(s, needs)), message })
}

/// All of one stage's component, which leaves when the stage ends.
fn whole(s: &Situation, index: usize, device: u64) -> Result<StagePlan, Refusal> {
    let view = s.stage(index);
    let plan = StagePlan::all_resident(&view);
    if s.room(&view, device).is_some_and(|room| plan.held(&view) <= room) {
        return Ok(plan);
    }
    let needs = s.machine.fixed_overhead.saturating_add(view.activations()).saturating_add(plan.held(&view));
    let message = format!(
        "stage '{}' needs {} of device memory with all of {} on the device, {} may be used: {}",
        view.stage.name,
        size(needs),
        view.component(),
        size(device),
        Strategy::Model.gentler(s, device)
    );
    Err(Refusal { stage: Some(index as u32), needs_bytes: Some(budget_for(s, needs)), message })
}

/// Nothing resident; as many of the slots as fit.
fn streamed(s: &Situation, index: usize, device: u64) -> Result<StagePlan, Refusal> {
    let view = s.stage(index);
    let slots = u32::try_from(s.count("prefetch")).unwrap_or(15) + 1;
    let room = s.room(&view, device);
    let plans = (1..=slots).rev().map(|slots| by_block(&view, slots));
    let fits = |plan: &StagePlan| room.is_some_and(|room| plan.held(&view) <= room);
    plans.into_iter().find(fits).ok_or_else(|| {
        let mut refusal = s.too_small(index, device);
        refusal.needs_bytes = refusal.needs_bytes.map(|needs| budget_for(s, needs));
        refusal
    })
}

fn by_block(view: &StageView, slots: u32) -> StagePlan {
    StagePlan::rolling(view, &Split::streamed(view), slots)
}

/// The budget of which the percentage is enough.
fn budget_for(s: &Situation, needs: u64) -> u64 {
    let budget = (u128::from(needs) * 100).div_ceil(u128::from(s.count("percent").clamp(1, 100)));
    u64::try_from(budget).unwrap_or(u64::MAX)
}

/// The strategy with the shortest forecast. After memory failed, the strategies that take more are left out.
fn fastest(
    s: &Situation,
    device: u64,
    host: &mut dyn Host,
) -> Result<(Strategy, Vec<StagePlan>, Vec<String>), Refusal> {
    let from = usize::from(s.squeezes()).min(ALL.len() - 1);
    let (mut candidates, mut reasons) = (Vec::new(), Vec::new());
    for strategy in &ALL[from..] {
        match strategy.stages(s, device) {
            Ok(stages) => candidates.push(judged(s, *strategy, stages, host, &mut reasons)),
            Err(refusal) if *strategy == Strategy::Sequential && candidates.is_empty() => return Err(refusal),
            Err(refusal) => reasons.push(format!("{}: {}", strategy.name(), needs(&refusal))),
        }
    }
    let best = candidates.into_iter().min_by_key(|c| c.cold.unwrap_or(u64::MAX));
    let best = best.ok_or_else(|| s.too_small(s.largest_stage().unwrap_or(0), device))?;
    Ok((best.strategy, best.stages, reasons))
}

fn judged(
    s: &Situation,
    strategy: Strategy,
    stages: Vec<StagePlan>,
    host: &mut dyn Host,
    reasons: &mut Vec<String>,
) -> Candidate {
    let reply = host.forecast(&s.plan(stages.clone()));
    let cold = match &reply {
        Ok(reply) => Some(reply.cold_ns),
        Err(trouble) => {
            host.log(Level::Detail, trouble);
            None
        }
    };
    reasons.push(match &reply {
        Ok(reply) => {
            let (cold, warm) = (duration(reply.cold_ns), duration(reply.warm_ns));
            format!("{}: forecast {cold} cold, {warm} warm", strategy.name())
        }
        Err(trouble) => format!("{}: no forecast: {trouble}", strategy.name()),
    });
    Candidate { strategy, stages, cold }
}

fn needs(refusal: &Refusal) -> String {
    refusal.needs_bytes.map_or_else(|| "does not fit".to_owned(), |bytes| format!("needs a budget of {}", size(bytes)))
}

export_policy!(Offload);

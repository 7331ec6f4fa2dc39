//! What would make a plan faster: each answer is a plan that the same policy makes with a little more.

use loadline_core::{Binding, Bytes, Nanos};

use crate::planning::{Attempt, exact};
use crate::{Asked, Bench, Error, Planned, Planner};

/// Something that would help, or would not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// What, in words.
    pub what: String,
    /// The flag to type, if there is one.
    pub flag: Option<String>,
    /// The cold time of the policy's plan then; nothing where no other plan was made.
    pub time: Option<Nanos>,
}

/// What is worth knowing about a plan, the cheapest first.
pub(super) fn hints(
    planner: &Planner<'_>,
    bench: &Bench<'_>,
    asked: &Asked,
    planned: &Planned,
) -> Result<Vec<Hint>, Error> {
    let mut hints = Vec::new();
    hints.extend(unused(planned));
    let then = |what: String, flag: String, asked: &Asked| -> Result<Option<Hint>, Error> {
        let time = forecast(planner, bench, asked)?;
        Ok(time.map(|time| Hint { what, flag: Some(flag), time: Some(time) }))
    };
    let card = planner.machine.device.memory - asked.used_by_others;
    if let Some((stage, more)) = next_block(planner, planned) {
        let budget = planned.budget.device + more;
        if budget <= card {
            let what = format!("{more} more: room for one more block of '{stage}'");
            hints.extend(then(what, format!("--vram {}", exact(budget)), &with_vram(asked, budget))?);
        }
    }
    if planned.budget.device < card {
        hints.extend(then(
            format!("all {card} of the card"),
            format!("--vram {}", exact(card)),
            &with_vram(asked, card),
        )?);
    }
    let disk = planned.forecast.stages.iter().any(|s| s.streamed_blocks > 0 && s.bound.binding == Binding::Disk);
    let short = planned.budget.host < planner.machine.host.memory;
    if disk && short {
        let ram = planner.machine.host.memory;
        let asked = Asked { ram: Some(ram), ..asked.clone() };
        hints.extend(then(format!("all {ram} of the host's memory"), format!("--ram {}", exact(ram)), &asked)?);
    }
    Ok(hints)
}

fn with_vram(asked: &Asked, budget: Bytes) -> Asked {
    Asked { vram: Some(budget), ..asked.clone() }
}

/// The stage that takes longest of those that stream.
fn longest(planned: &Planned) -> Option<usize> {
    let stages = planned.forecast.stages.iter().enumerate();
    stages.filter(|(_, s)| s.streamed_blocks > 0).max_by_key(|(_, s)| s.cold).map(|(i, _)| i)
}

/// Memory that the budget has and the longest stage leaves.
fn unused(planned: &Planned) -> Option<Hint> {
    let i = longest(planned)?;
    let stage = &planned.forecast.stages[i];
    let left = planned.budget.device - stage.peak;
    let smallest = smallest_streamed(planned, i)?;
    let enough = left.0 / smallest.0;
    (enough > 0).then(|| Hint {
        what: format!(
            "'{}' leaves {left} of the budget unused, enough for {enough} more resident blocks or slots of {smallest}: \
             a setting of the policy may use it",
            stage.name
        ),
        flag: None,
        time: None,
    })
}

/// What the budget lacks for one more resident block in the longest stage.
fn next_block(planner: &Planner<'_>, planned: &Planned) -> Option<(String, Bytes)> {
    let i = longest(planned)?;
    let granule = planner.machine.device.granularity;
    let stage = &planned.forecast.stages[i];
    let needs = smallest_streamed(planned, i)?.round_up(granule);
    let left = planned.budget.device - stage.peak;
    let more = (needs - left).round_up(granule);
    (more > Bytes::ZERO).then(|| (stage.name.clone(), more))
}

fn smallest_streamed(planned: &Planned, stage: usize) -> Option<Bytes> {
    let cycle = &planned.plan.stages.get(stage)?.cycle;
    cycle.iter().map(|load| planned.job.block(load.block).slab).min().filter(|bytes| *bytes > Bytes::ZERO)
}

/// The cold time of the policy's plan for something else; nothing if it has none.
fn forecast(planner: &Planner<'_>, bench: &Bench<'_>, asked: &Asked) -> Result<Option<Nanos>, Error> {
    match planner.attempt_on(bench, asked) {
        Ok(Attempt::Fits(planned)) => Ok(Some(planned.forecast.total(|s| s.cold))),
        Ok(Attempt::Refused(_)) | Err(Error::NeverFits(_)) => Ok(None),
        Err(other) => Err(other),
    }
}

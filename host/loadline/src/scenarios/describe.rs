//! A plan in the few lines that a person reviews: how long, how much, what stays and what moves, and why.

use std::fmt::Write;

use super::file::Scenario;
use crate::deviation::Rehearsal;
use crate::planning::exact;
use crate::{Asked, Planned, gap};
use loadline_core::{Bytes, Plan, StageForecast, StagePlan, Tier};

/// The command that plans the same, as the first line. The policy is left out where the scenario names none: a project
/// may be renamed.
pub(super) fn command(scenario: &Scenario, asked: &Asked) -> String {
    let file = &scenario.file;
    let r = &asked.request;
    let mut text = format!("$ loadline plan {} --gpu {}", file.model.as_deref().unwrap_or_default(), file.gpu);
    let mut flag = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            // Writing to a string cannot fail.
            let _ = write!(text, " --{name} {value}");
        }
    };
    flag("vram", asked.vram.map(exact));
    flag("ram", asked.ram.map(exact));
    flag("used-by-others", (asked.used_by_others > Bytes::ZERO).then(|| exact(asked.used_by_others)));
    flag("size", Some(r.size.to_string()));
    flag("frames", Some(r.frames.to_string()));
    flag("steps", Some(r.steps.to_string()));
    flag("guidance", Some(r.guidance.to_string()));
    flag("cfg", asked.knobs.cfg.map(|cfg| cfg.name().to_owned()));
    for (component, dtype) in &asked.knobs.storage {
        let of = if component.is_empty() { String::new() } else { format!("{component}=") };
        flag("storage", Some(format!("{of}{}", dtype.name())));
    }
    flag("tile", asked.knobs.tile.map(|t| t.to_string()));
    flag("tile-overlap", asked.knobs.tile_overlap.map(|n| n.to_string()));
    flag("frame-chunk", asked.knobs.frame_chunk.map(|n| n.to_string()));
    scenario.file.inject.iter().for_each(|fault| flag("inject", Some(fault.clone())));
    flag("policy", scenario.policy.clone());
    scenario.settings.iter().for_each(|(key, value)| flag("set", Some(format!("{key}={value}"))));
    text + "\n"
}

/// The first line of a job that no command plans.
pub(super) fn heading(scenario: &Scenario) -> String {
    let settings: String = scenario.settings.iter().map(|(k, v)| format!(" {k}={v}")).collect();
    let settings = if settings.is_empty() { settings } else { format!(" with{settings}") };
    format!("{} stages on {}{settings}\n", scenario.file.stage.len(), scenario.file.gpu)
}

/// A plan with its forecast.
pub(super) fn plan(planned: &Planned) -> String {
    let (plan, forecast) = (&planned.plan, &planned.forecast);
    let (cold, bound) = (forecast.total(|s| s.cold), forecast.total(|s| s.bound.time));
    let mut text = String::new();
    let mut line = |words: String| {
        let _ = writeln!(text, "{words}");
    };
    let warm = forecast.total(|s| s.warm);
    line(format!(
        "time    {cold}, {warm} once host memory is filled; bound {bound} ({:.1} %)",
        100.0 * gap(cold, bound)
    ));
    line(format!("device  {} of {}", forecast.device_peak(), planned.budget.device));
    line(format!("host    {} of {}: {}", forecast.host_peak(), planned.budget.host, homes(planned)));
    if let (true, Some(tile)) = (planned.tiled_to_fit, plan.knobs.tile) {
        line(format!("tiles   {tile}, overlap {}: nothing else fits", plan.knobs.tile_overlap));
    }
    line(format!("cfg     {}", plan.knobs.cfg.name()));
    for (stage, planned) in forecast.stages.iter().zip(&plan.stages) {
        line(format!("{}: {}", stage.name, stage_words(stage, planned)));
    }
    after(plan).into_iter().for_each(&mut line);
    plan.reasons.iter().for_each(|reason| line(format!("says    {reason}")));
    planned.advice.iter().for_each(|note| line(format!("note    {note}")));
    text
}

/// What came of letting things go wrong.
pub(super) fn rehearsal(rehearsal: &Rehearsal) -> String {
    let mut text: String = rehearsal.redecisions.iter().map(|r| format!("then    {r}\n")).collect();
    let _ = match &rehearsal.stopped {
        Some(why) => writeln!(text, "stops   after {}: {why}", rehearsal.time),
        None => writeln!(text, "ends    after {}, {} at the peak", rehearsal.time, rehearsal.device_peak),
    };
    text
}

fn homes(planned: &Planned) -> String {
    let of = |tier: Tier| planned.plan.homes.iter().filter(|home| **home == tier).count();
    let [pinned, pageable, disk] = [Tier::Pinned, Tier::Host, Tier::Disk].map(of);
    format!("{pinned} blocks pinned, {pageable} pageable, {disk} in files")
}

fn stage_words(stage: &StageForecast, plan: &StagePlan) -> String {
    let slots = (0..plan.slots.len() as u32).filter(|i| plan.streams(*i)).count();
    let kept = plan.slots.iter().filter(|slot| slot.keep).count();
    let kept = if kept > 0 { format!(", {kept} kept afterwards") } else { String::new() };
    format!(
        "{}, waits {}, {} at the peak; {} stay, {} through {slots} slots, {} loads in {} passes{kept}; bound by {}",
        stage.cold,
        stage.stall,
        stage.peak,
        stage.resident_blocks,
        stage.streamed_blocks,
        plan.cycle.len(),
        plan.cycle_passes,
        stage.bound.binding.name()
    )
}

/// What is prepared for later: the ladder, watermarks, what is kept.
fn after(plan: &Plan) -> Vec<String> {
    let mut lines = Vec::new();
    for rung in &plan.ladder {
        lines.push(format!("rung    {} ({} slots)", rung.reason, rung.slots));
    }
    for trigger in &plan.triggers {
        lines.push(format!("trigger {:?} {}, again after {}", trigger.kind, trigger.threshold, trigger.hysteresis));
    }
    if !plan.retain.is_empty() {
        lines.push(format!("retains {} blocks", plan.retain.len()));
    }
    lines
}

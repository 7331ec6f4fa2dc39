//! From the contract's types to the host's. Nothing that a guest says is trusted: what has no
//! meaning is an error that names the field. Whether a plan may run is for
//! [`check`](loadline_core::check::check) to say, not for this module.

use std::fmt::Display;

use loadline_core::{
    BlockId, Bytes, Cfg, Knobs, Load, Plan, PolicyId, Refusal, Situation, Slot, StagePlan, StepDown, Tier, Trigger,
    TriggerKind,
};

use super::bindings::loadline::policy::types as wit;
use super::lower;
use crate::PolicyError;
use crate::text::line;

/// The most lines of reasons, rungs of a ladder or watermarks that make sense to a reader.
const LINES: usize = 256;

type Lifted<T> = Result<T, PolicyError>;

pub(super) fn plan(plan: wit::Plan, id: &PolicyId, situation: &Situation<'_>) -> Lifted<Plan> {
    let blocks = situation.job.blocks.len();
    for (field, entries, most) in [
        ("ladder", plan.ladder.len(), LINES),
        ("triggers", plan.triggers.len(), LINES),
        ("reasons", plan.reasons.len(), LINES),
        ("retain", plan.retain.len(), blocks),
    ] {
        if entries > most {
            return Err(PolicyError::nonsense(field, format!("{entries} entries, at most {most} are taken")));
        }
    }
    Ok(Plan {
        policy: id.clone(),
        knobs: knobs(&plan.knobs, situation)?,
        homes: each("homes", plan.homes, home)?,
        stages: each("stages", plan.stages, |field, plan| stage(field, &plan))?,
        retain: each("retain", plan.retain, |field, block| retained(field, block, blocks))?,
        ladder: plan.ladder.into_iter().map(|s| StepDown { reason: line(&s.reason), slots: s.slots }).collect(),
        triggers: each("triggers", plan.triggers, trigger)?,
        memo: plan.memo,
        reasons: plan.reasons.iter().map(|r| line(r)).collect(),
    })
}

pub(super) fn refusal(refusal: &wit::Refusal) -> Refusal {
    let said = line(&refusal.message);
    // It is all that a user is told.
    let message = if said.trim().is_empty() { "the policy refuses and gives no reason".to_owned() } else { said };
    Refusal { stage: refusal.stage, needs: refusal.needs_bytes.map(Bytes), message }
}

/// The situation's knobs with those changed that may be.
///
/// # Errors
/// If a knob is unknown, has a value that means nothing, or must not be changed.
pub(super) fn knobs(entries: &[wit::Entry], situation: &Situation<'_>) -> Lifted<Knobs> {
    let mut knobs = situation.job.knobs.clone();
    let current = lower::knobs(&knobs);
    for entry in entries {
        let field = || format!("knobs.{}", line(&entry.key));
        match current.iter().find(|c| c.key == entry.key) {
            None => return Err(PolicyError::nonsense(field(), "there is no such knob in this job")),
            Some(same) if same.value == entry.value => {}
            Some(_) if entry.key == "cfg" && situation.may_change_cfg => knobs.cfg = cfg(field, &entry.value)?,
            Some(_) => return Err(PolicyError::nonsense(field(), "this knob must not be changed")),
        }
    }
    Ok(knobs)
}

/// Running both branches in one batch rounds differently, so it is the user's to choose.
fn cfg(field: impl FnOnce() -> String, value: &wit::Value) -> Lifted<Cfg> {
    match value {
        wit::Value::Text(name) if name == "sequential" => Ok(Cfg::Sequential),
        wit::Value::Text(name) if name == "pair" => Ok(Cfg::Pair),
        _ => Err(PolicyError::nonsense(field(), "a policy may choose between `sequential` and `pair`")),
    }
}

fn each<T, U>(field: &str, items: Vec<T>, lift: impl Fn(&dyn Display, T) -> Lifted<U>) -> Lifted<Vec<U>> {
    items.into_iter().enumerate().map(|(i, item)| lift(&format_args!("{field}[{i}]"), item)).collect()
}

fn home(field: &dyn Display, code: u8) -> Lifted<Tier> {
    let reason = || format!("{code} is no home: 1 is pinned memory, 2 pageable memory, 3 disk");
    Tier::from_code(code).ok_or_else(|| PolicyError::nonsense(field.to_string(), reason()))
}

fn retained(field: &dyn Display, block: u32, blocks: usize) -> Lifted<BlockId> {
    let reason = || format!("{block} is no block of the job, which has {blocks}");
    let known = (block as usize) < blocks;
    known.then_some(BlockId(block)).ok_or_else(|| PolicyError::nonsense(field.to_string(), reason()))
}

fn trigger(field: &dyn Display, trigger: wit::Trigger) -> Lifted<Trigger> {
    let kind = match trigger.kind {
        0 => TriggerKind::DeviceAbove,
        1 => TriggerKind::HostFreeBelow,
        other => return Err(PolicyError::nonsense(field.to_string(), format!("{other} is no kind of trigger"))),
    };
    Ok(Trigger { kind, threshold: Bytes(trigger.threshold), hysteresis: Bytes(trigger.hysteresis) })
}

fn stage(field: &dyn Display, stage: &wit::StagePlan) -> Lifted<StagePlan> {
    Ok(StagePlan {
        slots: slots(field, &stage.slot_bytes, &stage.slot_flags)?,
        prologue: loads(&format_args!("{field}.prologue"), &stage.prologue)?,
        cycle: loads(&format_args!("{field}.cycle"), &stage.cycle)?,
        cycle_passes: stage.cycle_passes,
        activations: Bytes(stage.activations),
    })
}

fn slots(field: &dyn Display, bytes: &[u64], flags: &[u8]) -> Lifted<Vec<Slot>> {
    same_length(field, "slot-bytes", bytes.len(), "slot-flags", flags.len())?;
    if let Some(slot) = flags.iter().position(|f| *f > 1) {
        let reason = format!("{:#x} has unknown bits", flags[slot]);
        return Err(PolicyError::nonsense(format!("{field}.slot-flags[{slot}]"), reason));
    }
    Ok(bytes.iter().zip(flags).map(|(b, f)| Slot { bytes: Bytes(*b), keep: *f == 1 }).collect())
}

fn loads(field: &dyn Display, loads: &wit::Loads) -> Lifted<Vec<Load>> {
    same_length(field, "block", loads.block.len(), "slot", loads.slot.len())?;
    same_length(field, "block", loads.block.len(), "after", loads.after.len())?;
    let rows = loads.block.iter().zip(&loads.slot).zip(&loads.after);
    Ok(rows.map(|((block, slot), after)| Load { block: BlockId(*block), slot: *slot, after: *after }).collect())
}

fn same_length(field: &dyn Display, a: &str, len_a: usize, b: &str, len_b: usize) -> Lifted<()> {
    if len_a == len_b {
        return Ok(());
    }
    let reason = format!("the columns {a} and {b} have {len_a} and {len_b} rows");
    Err(PolicyError::nonsense(field.to_string(), reason))
}

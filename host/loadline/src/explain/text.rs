//! An explanation as lines, and as JSON.

use std::fmt::Write;

use loadline_core::{Binding, Bytes, Nanos, Tier};
use serde_json::{Value, json};

use super::{Explanation, Hint, Lead, StageStory};
use crate::gap;

/// Lines for people.
#[must_use]
pub fn explanation_text(e: &Explanation) -> String {
    let mut out = Out(String::new());
    out.line(0, &format!("{} {} takes {}, {} of {} used", e.policy.name, e.policy.version, e.time, e.peak, e.budget));
    out.line(0, &format!("no schedule with this memory takes less than {} ({})", e.bound, above(e.time, e.bound)));
    out.line(0, "");
    out.line(0, "the policy says");
    if e.reasons.is_empty() {
        out.line(1, "nothing");
    }
    e.reasons.iter().for_each(|reason| out.line(1, reason));
    e.findings.iter().for_each(|finding| out.line(1, &format!("the check adds: {finding}")));
    for stage in &e.stages {
        out.line(0, "");
        story(&mut out, stage);
    }
    out.line(0, "");
    out.line(0, "what would help");
    if e.hints.is_empty() {
        out.line(1, "nothing that was tried");
    }
    e.hints.iter().for_each(|h| out.line(1, &hint(h, e.time)));
    out.0
}

struct Out(String);

impl Out {
    fn line(&mut self, depth: usize, text: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{:1$}{text}", "", 2 * depth);
    }
}

fn story(out: &mut Out, s: &StageStory) {
    let passes = if s.passes == 1 { "1 pass".to_owned() } else { format!("{} passes", s.passes) };
    out.line(0, &format!("{}: {passes}, {}, {} of device memory", s.name, s.time, s.peak));
    match s.resident.blocks {
        0 => out.line(1, "stays     nothing"),
        _ => out
            .line(1, &format!("stays     {}: {}", blocks(s.resident.blocks, s.resident.bytes), few(&s.resident.names))),
    }
    if s.streamed.blocks > 0 {
        let slots: Vec<String> = s.slots.iter().map(|(count, size)| slot(*count, *size)).collect();
        let streamed = blocks(s.streamed.blocks, s.streamed.bytes);
        out.line(1, &format!("streams   {streamed} through {}: {}", slots.join(" + "), few(&s.streamed.names)));
    }
    let homes: Vec<String> =
        s.homes.iter().map(|(tier, n, bytes)| format!("{n} in {} ({bytes})", home(*tier))).collect();
    out.line(1, &format!("homes     {}", homes.join(", ")));
    if let Some(lead) = &s.lead {
        out.line(1, &format!("loads     {}", loads(lead)));
    }
    out.line(1, &format!("waits     {}", waits(s)));
    out.line(1, &format!("bound     {} by {}: {}", s.bound, s.binding.name(), binding(s)));
}

fn slot(count: usize, size: Bytes) -> String {
    if count == 1 { format!("1 slot of {size}") } else { format!("{count} slots of {size}") }
}

/// The first rows of a list; spread out blocks make long ones.
fn few(names: &str) -> String {
    const ROWS: usize = 8;
    let rows: Vec<&str> = names.split(", ").collect();
    match rows.len() {
        n if n <= ROWS + 1 => names.to_owned(),
        n => format!("{}, and {} more rows", rows[..ROWS].join(", "), n - ROWS),
    }
}

fn blocks(count: usize, bytes: Bytes) -> String {
    if count == 1 { format!("1 block ({bytes})") } else { format!("{count} blocks ({bytes})") }
}

fn home(tier: Tier) -> &'static str {
    match tier {
        Tier::Device => "device memory",
        Tier::Pinned => "pinned memory",
        Tier::Host => "pageable memory",
        Tier::Disk => "files",
    }
}

fn loads(lead: &Lead) -> String {
    let (least, most) = lead.positions;
    let positions = match (least, most) {
        (0, 0) => "right before its block is needed".to_owned(),
        (a, b) if a == b => format!("{a} positions before its block is needed"),
        (a, b) => format!("{a} to {b} positions before its block is needed"),
    };
    let late = lead.loading > lead.computing;
    let verdict = if late { "the rest is waited for" } else { "that hides it" };
    format!(
        "each starts when its slot is free, {positions}: {} of computing in between, {} of loading; {verdict}",
        lead.computing, lead.loading
    )
}

fn waits(s: &StageStory) -> String {
    let (cold, warm) = s.stall;
    if cold == Nanos::ZERO {
        return "never".to_owned();
    }
    let places: Vec<String> =
        s.waits.iter().map(|w| format!("{} before '{}' (position {})", w.time, w.task, w.position)).collect();
    format!("{cold} in all, {warm} once host memory is filled; most: {}", places.join(", "))
}

fn binding(s: &StageStory) -> String {
    let above = above(s.time, s.bound);
    let why = match s.binding {
        Binding::Compute => "the device computes all the time that counts",
        Binding::H2d => {
            "the link to the device is the narrow place; more resident blocks or half the passes would help"
        }
        Binding::Disk => "the disk is the narrow place; a second run, or more host memory, would help",
    };
    format!("{why} ({above})")
}

fn above(time: Nanos, bound: Nanos) -> String {
    format!("{:.1} % above it", 100.0 * gap(time, bound))
}

fn hint(hint: &Hint, now: Nanos) -> String {
    let flag = hint.flag.as_ref().map(|flag| format!(" ({flag})")).unwrap_or_default();
    let then = match hint.time {
        None => String::new(),
        // Less than a thousandth is nothing that anybody would pay for.
        Some(time) if gap(time, now).abs() < 1e-3 => ": as long as now".to_owned(),
        Some(time) => format!(": {time}, {:+.1} %", 100.0 * gap(time, now)),
    };
    format!("{}{flag}{then}", hint.what)
}

/// For scripts.
#[must_use]
pub fn explanation_json(e: &Explanation) -> Value {
    json!({
        "schema": "loadline-explanation/1",
        "policy": e.policy,
        "time_ns": e.time, "bound_ns": e.bound, "budget_bytes": e.budget, "peak_bytes": e.peak, "fuel": e.fuel,
        "reasons": e.reasons,
        "findings": e.findings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "stages": e.stages.iter().map(stage_json).collect::<Vec<_>>(),
        "hints": e.hints.iter().map(hint_json).collect::<Vec<_>>(),
    })
}

fn hint_json(h: &Hint) -> Value {
    json!({ "what": h.what, "flag": h.flag, "time_ns": h.time })
}

fn stage_json(s: &StageStory) -> Value {
    let share = |s: &super::Share| json!({ "blocks": s.blocks, "bytes": s.bytes, "names": s.names });
    let lead = s.lead.map(|l| {
        let (least, most) = l.positions;
        json!({
            "positions_least": least, "positions_most": most,
            "computing_ns": l.computing, "loading_ns": l.loading,
        })
    });
    let wait = |w: &super::Wait| json!({ "task": w.task, "position": w.position, "time_ns": w.time });
    json!({
        "name": s.name, "passes": s.passes, "time_ns": s.time, "bound_ns": s.bound, "binding": s.binding,
        "peak_bytes": s.peak, "resident": share(&s.resident), "streamed": share(&s.streamed),
        "slots": s.slots.iter().map(|(n, b)| json!({ "count": n, "bytes": b })).collect::<Vec<_>>(),
        "homes": s.homes.iter().map(|(t, n, b)| json!({ "tier": t, "blocks": n, "bytes": b })).collect::<Vec<_>>(),
        "lead": lead,
        "stall_cold_ns": s.stall.0, "stall_warm_ns": s.stall.1,
        "waits": s.waits.iter().map(wait).collect::<Vec<_>>(),
    })
}

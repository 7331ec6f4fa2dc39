//! What became of a locked forecast, in words and as a verdict.

mod inputs;
mod text;

use loadline_core::{Bytes, Nanos};

use super::Lock;
use super::lock::{ForecastPart, StagePart};

pub(super) use inputs::changes;

/// How much worse a forecast may become, in percent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Allowed {
    /// Of the cold time.
    pub slower: f64,
    /// Of the device peak.
    pub more_memory: f64,
}

/// What a gate does with a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing that counts changed.
    Same,
    /// Something changed, within what is allowed.
    Within,
    /// More device memory than is allowed.
    MoreMemory,
    /// Slower than is allowed.
    Slower,
    /// It does not fit any more.
    NoLongerFits,
}

impl Verdict {
    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Within => "within",
            Self::MoreMemory => "more-memory",
            Self::Slower => "slower",
            Self::NoLongerFits => "no-longer-fits",
        }
    }
}

/// One quantity before and after.
#[derive(Clone, Debug, PartialEq)]
pub struct Effect {
    /// The stage; empty for the whole job.
    pub stage: String,
    /// What it is a quantity of, such as `peak`, `cold` or a reservation's name.
    pub what: String,
    /// Its kind.
    pub kind: Kind,
    /// Before.
    pub old: u64,
    /// After.
    pub new: u64,
}

/// What a quantity counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes.
    Memory,
    /// Nanoseconds.
    Time,
    /// Blocks.
    Blocks,
}

impl Effect {
    /// By how many percent it grew; nothing if it was zero.
    #[must_use]
    pub fn percent(&self) -> Option<f64> {
        (self.old > 0).then(|| 100.0 * (self.new as f64 / self.old as f64 - 1.0))
    }

    fn shown(&self, value: u64) -> String {
        match self.kind {
            Kind::Memory => Bytes(value).to_string(),
            Kind::Time => Nanos(value).to_string(),
            Kind::Blocks => value.to_string(),
        }
    }
}

/// Two forecasts, side by side.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// What was forecast.
    pub title: String,
    /// What changed among the inputs, a sentence each.
    pub inputs: Vec<String>,
    /// What it did: the whole job first, then stage by stage.
    pub effects: Vec<Effect>,
    /// Whether the plan is another one.
    pub plan_changed: bool,
    /// Why it does not fit any more, if it does not.
    pub refusal: Option<String>,
    /// The verdict.
    pub verdict: Verdict,
    /// What is allowed.
    pub allowed: Allowed,
}

impl Difference {
    /// Compares two locks.
    #[must_use]
    pub fn new(old: &Lock, new: &Lock, allowed: Allowed) -> Self {
        let (a, b) = (old.body(), new.body());
        let inputs = changes(a, b);
        let effects = effects(&a.forecast, &b.forecast);
        let plan_changed = a.plan != b.plan;
        let over = |old: u64, new: u64, percent: f64| new as f64 > old as f64 * (1.0 + percent / 100.0);
        let verdict = if over(a.forecast.cold_ns.0, b.forecast.cold_ns.0, allowed.slower) {
            Verdict::Slower
        } else if over(a.forecast.device_peak_bytes.0, b.forecast.device_peak_bytes.0, allowed.more_memory) {
            Verdict::MoreMemory
        } else if inputs.is_empty() && effects.is_empty() && !plan_changed {
            Verdict::Same
        } else {
            Verdict::Within
        };
        Self { title: inputs::title(a), inputs, effects, plan_changed, refusal: None, verdict, allowed }
    }

    /// A lock whose request does not fit any more, with the certificate in words.
    #[must_use]
    pub fn refused(old: &Lock, inputs: Vec<String>, certificate: String, allowed: Allowed) -> Self {
        Self {
            title: inputs::title(old.body()),
            inputs,
            effects: Vec::new(),
            plan_changed: true,
            refusal: Some(certificate),
            verdict: Verdict::NoLongerFits,
            allowed,
        }
    }
}

fn effects(old: &ForecastPart, new: &ForecastPart) -> Vec<Effect> {
    let whole = |what: &str, kind, old, new| effect("", what, kind, old, new);
    let (memory, time) = (Kind::Memory, Kind::Time);
    let mut all = vec![
        whole("device peak", memory, old.device_peak_bytes.0, new.device_peak_bytes.0),
        whole("host peak", memory, old.host_peak_bytes.0, new.host_peak_bytes.0),
        whole("disk read", memory, old.disk_read_bytes.0, new.disk_read_bytes.0),
        whole("cold", time, old.cold_ns.0, new.cold_ns.0),
        whole("warm", time, old.warm_ns.0, new.warm_ns.0),
        whole("bound", time, old.bound_ns.0, new.bound_ns.0),
    ];
    for stage in &old.stages {
        let none = empty(&stage.name);
        let after = new.stages.iter().find(|s| s.name == stage.name).unwrap_or(&none);
        all.extend(stage_effects(stage, after));
    }
    for stage in new.stages.iter().filter(|s| !old.stages.iter().any(|o| o.name == s.name)) {
        all.extend(stage_effects(&empty(&stage.name), stage));
    }
    all.retain(|e| e.old != e.new);
    all
}

fn effect(stage: &str, what: &str, kind: Kind, old: u64, new: u64) -> Effect {
    Effect { stage: stage.to_owned(), what: what.to_owned(), kind, old, new }
}

fn empty(name: &str) -> StagePart {
    StagePart {
        name: name.to_owned(),
        cold_ns: Nanos::ZERO,
        warm_ns: Nanos::ZERO,
        p10_ns: Nanos::ZERO,
        p90_ns: Nanos::ZERO,
        stall_ns: Nanos::ZERO,
        peak_bytes: Bytes::ZERO,
        resident_blocks: 0,
        streamed_blocks: 0,
        reservations: std::collections::BTreeMap::new(),
    }
}

fn stage_effects(old: &StagePart, new: &StagePart) -> Vec<Effect> {
    let of = |what: &str, kind, old_value, new_value| effect(&old.name, what, kind, old_value, new_value);
    let mut all = vec![of("peak", Kind::Memory, old.peak_bytes.0, new.peak_bytes.0)];
    let mut names: Vec<&String> = old.reservations.keys().chain(new.reservations.keys()).collect();
    names.sort();
    names.dedup();
    let bytes = |stage: &StagePart, name: &String| stage.reservations.get(name).map_or(0, |b| b.0);
    all.extend(names.into_iter().map(|n| of(n, Kind::Memory, bytes(old, n), bytes(new, n))));
    all.extend([
        of("cold", Kind::Time, old.cold_ns.0, new.cold_ns.0),
        of("warm", Kind::Time, old.warm_ns.0, new.warm_ns.0),
        of("stalls", Kind::Time, old.stall_ns.0, new.stall_ns.0),
        of("resident blocks", Kind::Blocks, old.resident_blocks.into(), new.resident_blocks.into()),
        of("streamed blocks", Kind::Blocks, old.streamed_blocks.into(), new.streamed_blocks.into()),
    ]);
    all
}

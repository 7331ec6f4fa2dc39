//! The same work, forecast.

use std::collections::{BTreeMap, BTreeSet};

use loadline::core::{Bytes, Curve, DType, Machine, Nanos, OpCost, OpKind, Quantiles, Stage, StageForecast};
use loadline::{Asked, KnobChoice, Model, Planned, Planner, Policy, policies, profile, profiles};

use crate::data::{Covers, Imitation, Published, Rows};

/// A time is far off if the error is larger and the published time lies outside of the interval.
const FAR_OFF_TIME: f64 = 0.3;
/// A memory is far off if the error is larger.
pub(crate) const FAR_OFF_MEMORY: f64 = 0.2;

/// What we say about a row. Seconds and bytes.
pub(crate) struct Forecast {
    pub(crate) time: f64,
    pub(crate) p10: f64,
    pub(crate) p90: f64,
    /// The time of attention at the data sheet's peak, and that of all other operations.
    pub(crate) attention: f64,
    pub(crate) others: f64,
    pub(crate) peak: f64,
    pub(crate) context: f64,
    pub(crate) weights: f64,
}

/// A row with both sides.
pub(crate) struct Line<'a> {
    pub(crate) there: &'a Published,
    pub(crate) here: &'a Imitation,
    pub(crate) forecast: Forecast,
}

impl Forecast {
    /// The time of the work if every operation ran at the card's peak.
    pub(crate) fn roofline(&self) -> f64 {
        self.attention + self.others
    }
}

impl Line<'_> {
    pub(crate) fn time_error(&self) -> Option<f64> {
        self.there.time().filter(|_| self.here.card_named).map(|there| self.forecast.time / there - 1.0)
    }

    pub(crate) fn within(&self) -> Option<bool> {
        self.time_error().zip(self.there.time()).map(|(_, t)| self.forecast.p10 <= t && t <= self.forecast.p90)
    }

    pub(crate) fn memory_error(&self, bytes: f64) -> Option<f64> {
        self.there.memory().map(|there| bytes / there - 1.0)
    }

    pub(crate) fn time_far_off(&self) -> bool {
        self.time_error().is_some_and(|e| e.abs() > FAR_OFF_TIME) && self.within() == Some(false)
    }

    pub(crate) fn memory_far_off(&self) -> bool {
        self.memory_error(self.forecast.peak).is_some_and(|e| e.abs() > FAR_OFF_MEMORY)
    }
}

/// The card in a host that is never the limit: the weights lie in its memory when the clock starts, as published times
/// begin after loading.
fn machine(gpu: &str) -> Machine {
    let mut machine = profiles::find(gpu).unwrap().to_machine().unwrap();
    machine.host.memory = Bytes::gib(1024);
    machine.disk.read = Curve::flat(0.0, Quantiles::exactly(1e15));
    machine
}

fn asked(row: &Imitation, model: &Model, storage: &BTreeMap<String, String>) -> Asked {
    let mut request = model.default_request().unwrap();
    request.size = row.size.parse().unwrap();
    request.frames = row.frames;
    request.steps = row.steps;
    request.guidance = row.guidance.unwrap_or(request.guidance);
    let knobs = KnobChoice {
        cfg: Some(row.cfg.parse().unwrap()),
        storage: storage.iter().map(|(name, dtype)| (name.clone(), dtype.parse().unwrap())).collect(),
        tile: row.tile.as_ref().map(|tile| tile.parse().unwrap()),
        ..KnobChoice::default()
    };
    Asked { knobs, ..Asked::new(request) }
}

fn plan(row: &Imitation, model: &Model, policy: &Policy, storage: &BTreeMap<String, String>) -> Planned {
    let given: Vec<_> = row.settings.clone().into_iter().collect();
    let (settings, machine) = (policies::settings(policy, &given).unwrap(), machine(&row.gpu));
    let planner = Planner::new(model, &machine, policy, &settings);
    let planned = planner.plan(&asked(row, model, storage));
    planned.unwrap_or_else(|error| panic!("{}: {error}", row.id))
}

fn forecast(row: &Imitation, policy: &Policy) -> Forecast {
    let model = Model::open_cataloged(&row.model).unwrap();
    let timed = plan(row, &model, policy, &row.storage);
    let memory = if row.stored_as.is_empty() { timed.clone() } else { plan(row, &model, policy, &row.stored_as) };
    let stages: Vec<_> = memory.forecast.stages.iter().filter(|s| !row.on_host.contains(&s.name)).collect();
    let largest = stages.iter().max_by_key(|s| s.peak).unwrap();
    let is_attention = |op: &OpCost| op.kind == OpKind::Attention;
    Forecast {
        time: seconds(row, &timed, |s| s.cold),
        p10: seconds(row, &timed, |s| s.p10),
        p90: seconds(row, &timed, |s| s.p90),
        attention: at_peak(row, &timed, is_attention),
        others: at_peak(row, &timed, |op| !is_attention(op)),
        peak: largest.peak.as_f64(),
        context: reserved(largest, &["fixed"]),
        weights: stages.iter().map(|stage| reserved(stage, &["residents", "slots", "kept"])).fold(0.0, f64::max),
    }
}

/// Whether the published time has a stage in it.
fn counts(row: &Imitation, stage: &str) -> bool {
    let covered = row.covers == Covers::Pipeline || stage.starts_with("denoise");
    covered && !row.on_host.iter().any(|name| name == stage)
}

/// How many times what was published went on in the forecast.
fn repetitions(row: &Imitation) -> f64 {
    if row.covers == Covers::Step { f64::from(row.steps) } else { 1.0 }
}

fn seconds(row: &Imitation, planned: &Planned, time: impl Fn(&StageForecast) -> Nanos) -> f64 {
    let stages = planned.forecast.stages.iter().filter(|stage| counts(row, &stage.name));
    stages.map(|stage| time(stage).as_f64()).sum::<f64>() / 1e9 / repetitions(row)
}

fn reserved(stage: &StageForecast, names: &[&str]) -> f64 {
    let of = stage.reservations.iter().filter(|r| names.contains(&r.name.as_str()));
    of.map(|r| r.bytes.as_f64()).sum()
}

/// The time of some of the work if every operation ran at the card's peak, in seconds.
fn at_peak(row: &Imitation, planned: &Planned, wanted: impl Fn(&OpCost) -> bool) -> f64 {
    let device = profiles::find(&row.gpu).unwrap().device;
    let of = |stage: &Stage| -> f64 {
        let tasks = stage.run_order().flat_map(|pass| &stage.passes[pass].tasks);
        tasks.flat_map(|task| &task.ops).filter(|op| wanted(op)).map(|op| peak_time(&device, op)).sum()
    };
    let stages = planned.job.stages.iter().filter(|stage| counts(row, &stage.name));
    stages.map(of).sum::<f64>() / repetitions(row)
}

fn peak_time(device: &profile::DevicePart, op: &OpCost) -> f64 {
    let dtype = if op.kind == OpKind::Elementwise { DType::F32 } else { op.dtype };
    let flops = device.peak_flops_per_s[&dtype].value;
    let bytes = device.peak_bytes_per_s.as_ref().unwrap().value;
    (op.flops as f64 / flops).max(op.bytes as f64 / bytes)
}

/// Every forecast row with its measurement, in the order of the measurements.
pub(crate) fn lines<'a>(there: &'a [Published], rows: &'a Rows) -> Vec<Line<'a>> {
    let names: BTreeSet<&str> = rows.forecast.iter().map(|row| row.policy.as_str()).collect();
    let loaded: BTreeMap<&str, Policy> = names.into_iter().map(|n| (n, policies::load(n).unwrap())).collect();
    let line = |there: &'a Published| {
        let here = rows.forecast.iter().find(|row| row.id == there.text("id"))?;
        Some(Line { there, here, forecast: forecast(here, &loaded[here.policy.as_str()]) })
    };
    there.iter().filter_map(line).collect()
}

//! The same work, forecast.

use std::collections::{BTreeMap, BTreeSet};

use loadline::core::{Bytes, Curve, DType, Machine, OpCost, OpKind, Quantiles, Stage, StageForecast};
use loadline::{Asked, KnobChoice, Model, Planned, Planner, Policy, SamplerOptions, policies, profile, profiles};

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
    let knobs = KnobChoice {
        cfg: Some(row.cfg.parse().unwrap()),
        storage: storage.iter().map(|(name, dtype)| (name.clone(), dtype.parse().unwrap())).collect(),
        tile: row.tile.as_ref().map(|tile| tile.parse().unwrap()),
        ..KnobChoice::default()
    };
    let sampling = SamplerOptions::default();
    Asked { request, knobs, sampling, vram: None, ram: None, used_by_others: Bytes::ZERO }
}

fn plan(row: &Imitation, model: &Model, policy: &Policy, storage: &BTreeMap<String, String>) -> Planned {
    let given: Vec<_> = row.settings.clone().into_iter().collect();
    let (settings, machine) = (policies::settings(policy, &given).unwrap(), machine(&row.gpu));
    let planner = Planner { model, machine: &machine, policy, settings: &settings, loaded: &[], more_to_come: false };
    let planned = planner.plan(&asked(row, model, storage));
    planned.unwrap_or_else(|error| panic!("{}: {error}", row.id))
}

fn forecast(row: &Imitation, policy: &Policy) -> Forecast {
    let model = Model::open_cataloged(&row.model).unwrap();
    let timed = plan(row, &model, policy, &BTreeMap::new());
    let stored = if row.stored_as.is_empty() { timed.clone() } else { plan(row, &model, policy, &row.stored_as) };
    let (parts, per) = match row.covers {
        Covers::Pipeline => ("", 1.0),
        Covers::Step => ("denoise", f64::from(row.steps)),
    };
    let counts = |name: &str| name.starts_with(parts) && !row.on_host.iter().any(|h| h == name);
    let seconds = |time: &dyn Fn(&StageForecast) -> f64| -> f64 {
        timed.forecast.stages.iter().filter(|s| counts(&s.name)).map(time).sum::<f64>() / 1e9 / per
    };
    let on_device: Vec<_> = stored.forecast.stages.iter().filter(|s| !row.on_host.contains(&s.name)).collect();
    let largest = on_device.iter().max_by_key(|s| s.peak).unwrap();
    let reserved = |stage: &StageForecast, names: &[&str]| -> f64 {
        stage.reservations.iter().filter(|r| names.contains(&r.name.as_str())).map(|r| r.bytes.as_f64()).sum()
    };
    let weights = |stage| reserved(stage, &["residents", "slots", "kept"]);
    Forecast {
        time: seconds(&|s| s.cold.as_f64()),
        p10: seconds(&|s| s.p10.as_f64()),
        p90: seconds(&|s| s.p90.as_f64()),
        attention: at_peak(&row.gpu, &timed, &|stage, op| counts(stage) && op.kind == OpKind::Attention) / per,
        others: at_peak(&row.gpu, &timed, &|stage, op| counts(stage) && op.kind != OpKind::Attention) / per,
        peak: largest.peak.as_f64(),
        context: reserved(largest, &["fixed"]),
        weights: on_device.iter().map(|stage| weights(stage)).fold(0.0, f64::max),
    }
}

/// The time of some of the work if every operation ran at the card's peak, in seconds.
fn at_peak(gpu: &str, planned: &Planned, counts: &dyn Fn(&str, &OpCost) -> bool) -> f64 {
    let device = profiles::find(gpu).unwrap().device;
    let of = |stage: &Stage| -> f64 {
        let tasks = stage.run_order().flat_map(|pass| &stage.passes[pass].tasks);
        tasks.flat_map(|task| &task.ops).filter(|op| counts(&stage.name, op)).map(|op| peak_time(&device, op)).sum()
    };
    planned.job.stages.iter().map(of).sum()
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

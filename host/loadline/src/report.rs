//! The JSON that scripts read. Fields are only ever added; `schema` says which version this is.

use loadline_core::{Bytes, Machine, Nanos, Reservation, StageForecast};
use loadline_device::disk::{Report as DiskReport, Way};
use serde_json::{Value, json};

use crate::deviation::Rehearsal;
use crate::planning::{Certificate, Planned};
use crate::running::Measured;

/// The version of the JSON; it changes when a field changes its meaning.
const SCHEMA: &str = "loadline-plan/1";

/// A plan with its forecast.
#[must_use]
pub fn forecast_json(planned: &Planned, machine: &Machine) -> Value {
    let forecast = &planned.forecast;
    let peak = forecast.peak_stage();
    let bound: Nanos = forecast.total(|s| s.bound.time);
    let cold = forecast.total(|s| s.cold);
    json!({
        "schema": SCHEMA,
        "fits": true,
        "model": planned.job.model,
        "model_hash": planned.job.model_hash,
        "machine": described(machine),
        "request": planned.job.request,
        "knobs": planned.plan.knobs,
        "tiled_to_fit": planned.tiled_to_fit,
        "memory": {
            "budget_bytes": planned.budget.device,
            "peak_bytes": forecast.device_peak(),
            "peak_stage": peak.map(|s| &s.name),
            "reservations": peak.map_or_else(Vec::new, |s| s.reservations.clone()),
        },
        "host": memory(planned.budget.host, &forecast.host),
        "disk": { "read_bytes": forecast.disk_read, "written_bytes": 0 },
        "time": {
            "p10_ns": forecast.total(|s| s.p10),
            "p50_ns": cold,
            "p90_ns": forecast.total(|s| s.p90),
            "cold_ns": cold,
            "warm_ns": forecast.total(|s| s.warm),
            "stall_ns": forecast.total(|s| s.stall),
            "stages": forecast.stages.iter().map(stage).collect::<Vec<_>>(),
        },
        "bound": { "time_ns": bound, "gap": gap(cold, bound), "binding": binding(&forecast.stages) },
        "policy": planned.plan.policy,
        "advice": planned.advice.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "plan_hash": planned.plan.hash(),
        "plan": planned.plan,
    })
}

fn described(machine: &Machine) -> Value {
    let Machine { name, device, hash, provenance, .. } = machine;
    json!({ "name": name, "device": device.name, "hash": hash, "provenance": provenance })
}

fn memory(budget: Bytes, reservations: &[Reservation]) -> Value {
    let peak: Bytes = reservations.iter().map(|r| r.bytes).sum();
    json!({ "budget_bytes": budget, "peak_bytes": peak, "reservations": reservations })
}

fn stage(stage: &StageForecast) -> Value {
    json!({
        "name": stage.name,
        "cold_ns": stage.cold, "warm_ns": stage.warm,
        "p10_ns": stage.p10, "p50_ns": stage.cold, "p90_ns": stage.p90,
        "stall_ns": stage.stall,
        "busy_ns": stage.busy,
        "peak_bytes": stage.peak,
        "reservations": stage.reservations,
        "resident_blocks": stage.resident_blocks,
        "streamed_blocks": stage.streamed_blocks,
        "bound": {
            "time_ns": stage.bound.time,
            "gap": gap(stage.cold, stage.bound.time),
            "binding": stage.bound.binding,
        },
    })
}

/// How far a time is above its bound, as a share of the bound.
#[must_use]
pub fn gap(time: Nanos, bound: Nanos) -> f64 {
    if bound == Nanos::ZERO { 0.0 } else { time.as_f64() / bound.as_f64() - 1.0 }
}

/// What binds the stage that takes longest.
fn binding(stages: &[StageForecast]) -> Value {
    stages.iter().max_by_key(|s| s.cold).map_or(Value::Null, |s| json!(s.bound.binding))
}

/// A refusal with its certificate.
#[must_use]
pub fn refusal_json(certificate: &Certificate) -> Value {
    json!({ "schema": SCHEMA, "fits": false, "refusal": certificate })
}

/// What came of letting things go wrong.
#[must_use]
pub fn rehearsal_json(rehearsal: &Rehearsal) -> Value {
    json!({
        "redecisions": rehearsal.redecisions,
        "time_ns": rehearsal.time,
        "device_peak_bytes": rehearsal.device_peak,
        "stopped": rehearsal.stopped,
    })
}

/// How weights were read; `reads` is null if none were, or on a GPU.
#[must_use]
pub fn disk_json(disk: &DiskReport) -> Value {
    json!({
        "reads": disk.way.map(Way::name),
        "in_flight": disk.in_flight,
        "bytes": disk.bytes,
        "straight_bytes": disk.straight,
        "notes": disk.notes,
    })
}

/// A run: its forecast and what was measured.
#[must_use]
pub fn run_json(planned: &Planned, machine: &Machine, measured: &Measured) -> Value {
    let mut value = forecast_json(planned, machine);
    let stages = measured
        .stages
        .iter()
        .map(|s| json!({ "name": s.name, "time_ns": s.time, "device_peak_bytes": s.device_peak, "stall_ns": s.stall }));
    value["measured"] = json!({
        "device_peak_bytes": measured.device_peak(),
        "time_ns": measured.time(),
        "resumed": measured.resumed,
        "first_pass": measured.first_pass,
        "stages": stages.collect::<Vec<_>>(),
        "redecisions": measured.redecisions,
        "disk": disk_json(&measured.disk),
    });
    value
}

//! A forecast or a run as a trace file that Perfetto and chrome://tracing open.
//!
//! Format: the Chrome trace event format, JSON array form, timestamps in microseconds.

use loadline_core::{Job, Machine, Plan, Reservation};
use loadline_engine::Trace;
use loadline_sim::Times;
use serde_json::{Value, json};

use super::forecasting::{simulate, stage_reservations};

/// The timeline of a checked plan's cold run.
///
/// # Errors
/// If the machine's profile lacks a rate.
pub fn of_forecast(job: &Job, plan: &Plan, machine: &Machine) -> Result<Value, loadline_core::MissingRate> {
    let times = Times::new(job, machine, loadline_core::Estimate::Median)?;
    let trace = simulate(job, plan, &times, false, true).trace;
    let reservations = |stage: usize| stage_reservations(job, plan, machine, stage);
    Ok(of_trace(job, plan, &trace, &reservations))
}

/// The timeline of a recorded trace.
#[must_use]
pub fn of_trace(job: &Job, plan: &Plan, trace: &Trace, reservations: &dyn Fn(usize) -> Vec<Reservation>) -> Value {
    let mut events = vec![lane_name(1, "compute"), lane_name(2, "h2d"), lane_name(3, "disk")];
    for stage in &trace.stages {
        let index = stage.stage as usize;
        let tasks = &job.stages[index].passes[0].tasks;
        for span in &stage.tasks {
            let name = tasks.get(span.task as usize).map_or("task", |t| t.name.as_str());
            events.push(slice(1, name, span.start.0, span.end.0, &json!({ "pass": span.pass })));
        }
        for span in &stage.loads {
            let lane = if span.from == loadline_core::Tier::Disk { 3 } else { 2 };
            let name = &job.blocks[span.block.0 as usize].name;
            events.push(slice(lane, name, span.start.0, span.end.0, &json!({ "from": span.from })));
        }
        let bytes = reservations(index).into_iter().map(|r| (r.name, json!(r.bytes.0)));
        let at = stage.start.0 as f64 / 1e3;
        let values: serde_json::Map<String, Value> = bytes.collect();
        events.push(json!({ "name": "device bytes", "ph": "C", "pid": 1, "ts": at, "args": values }));
    }
    json!({ "displayTimeUnit": "ms", "otherData": { "model": job.model, "plan": plan.hash() }, "traceEvents": events })
}

fn lane_name(lane: u32, name: &str) -> Value {
    json!({ "name": "thread_name", "ph": "M", "pid": 1, "tid": lane, "args": { "name": name } })
}

fn slice(lane: u32, name: &str, start: u64, end: u64, args: &Value) -> Value {
    let (ts, dur) = (start as f64 / 1e3, (end - start) as f64 / 1e3);
    json!({ "name": name, "ph": "X", "pid": 1, "tid": lane, "ts": ts, "dur": dur, "args": args })
}

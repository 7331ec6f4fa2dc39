//! A forecast or a run as a trace file that Perfetto and chrome://tracing open.
//!
//! Format: the Chrome trace event format, JSON array form, timestamps in microseconds.

use loadline_core::{ActClass, Job, Machine, Nanos, Plan, Reservation, Task, Tier};
use loadline_engine::Trace;
use loadline_sim::Times;
use serde_json::{Value, json};

use super::forecasting::{simulate, stage_reservations};
use crate::card::CardSample;
use crate::running::TaskHigh;

/// The timeline of a checked plan's cold run.
///
/// # Errors
/// If the machine's profile lacks a rate.
pub fn of_forecast(job: &Job, plan: &Plan, machine: &Machine) -> Result<Value, loadline_core::MissingRate> {
    let times = Times::new(job, machine, loadline_core::Estimate::Median)?;
    let trace = simulate(job, plan, &times, false, true).trace;
    let reservations = |stage: usize| stage_reservations(job, plan, machine, stage);
    let send = |stage: usize, template: usize, task: usize| times.send(stage, template, task);
    Ok(timeline(job, plan, &trace, &reservations, &send))
}

/// The timeline of a recorded trace.
#[must_use]
pub fn of_trace(job: &Job, plan: &Plan, trace: &Trace, reservations: &dyn Fn(usize) -> Vec<Reservation>) -> Value {
    // On the CPU results are host memory already: sending them takes no time of its own.
    timeline(job, plan, trace, reservations, &|_, _, _| Nanos::ZERO)
}

/// Adds what each task of a run took at most, as it was measured.
pub fn add_highs(trace: &mut Value, highs: &[TaskHigh]) {
    let event = |high: &TaskHigh| {
        let args = json!({ "live": high.device });
        json!({ "name": "device bytes, measured", "ph": "C", "pid": 1, "ts": micros(high.end), "args": args })
    };
    if let Some(events) = trace["traceEvents"].as_array_mut() {
        events.extend(highs.iter().map(event));
    }
}

/// Adds what the GPU's management library said while a run went on.
pub fn add_cards(trace: &mut Value, cards: &[CardSample]) {
    let Some(events) = trace["traceEvents"].as_array_mut() else { return };
    for sample in cards {
        let counter = |name: &str, args: Value| json!({ "name": format!("card: {name}"), "ph": "C", "pid": 1, "ts": micros(sample.at), "args": args });
        events.extend(sample.used.map(|used| counter("bytes in use", json!({ "used": used }))));
        events.extend(sample.clock_mhz.map(|mhz| counter("clock", json!({ "MHz": mhz }))));
        events.extend(sample.power_mw.map(|mw| counter("power", json!({ "mW": mw }))));
        events.extend(sample.busy_percent.map(|busy| counter("busy", json!({ "percent": busy }))));
    }
}

const LANES: [(u32, &str); 4] = [(1, "compute"), (2, "h2d"), (3, "d2h"), (4, "disk")];

fn timeline(
    job: &Job,
    plan: &Plan,
    trace: &Trace,
    reservations: &dyn Fn(usize) -> Vec<Reservation>,
    send: &dyn Fn(usize, usize, usize) -> Nanos,
) -> Value {
    let mut events: Vec<Value> = LANES.iter().map(|(lane, name)| lane_name(*lane, name)).collect();
    for stage in &trace.stages {
        let index = stage.stage as usize;
        let templates: Vec<usize> = job.stages[index].run_order().collect();
        let fixed = reservations(index);
        for span in &stage.tasks {
            let template = templates.get(span.pass as usize).copied().unwrap_or(0);
            let task = &job.stages[index].passes[template].tasks[span.task as usize];
            events.push(slice(1, &task.name, span.start, span.end, &json!({ "pass": span.pass })));
            events.push(counter(span.start, &fixed, task));
            let sending = send(index, template, span.task as usize);
            if sending > Nanos::ZERO {
                events.push(slice(3, "frames", span.end, span.end + sending, &json!({ "bytes": task.to_host })));
            }
        }
        for span in &stage.loads {
            let lane = if span.from == Tier::Disk { 4 } else { 2 };
            let name = &job.blocks[span.block.0 as usize].name;
            events.push(slice(lane, name, span.start, span.end, &json!({ "from": span.from })));
        }
    }
    json!({ "displayTimeUnit": "ms", "otherData": { "model": job.model, "plan": plan.hash() }, "traceEvents": events })
}

/// Device bytes while a task runs: the stage's weights, and the task's own activations by class.
fn counter(at: Nanos, fixed: &[Reservation], task: &Task) -> Value {
    let class = |name: &str| ActClass::ALL.into_iter().find(|c| c.name() == name);
    let weights = fixed.iter().filter(|r| class(&r.name).is_none()).map(|r| (r.name.clone(), json!(r.bytes)));
    let mut values: serde_json::Map<String, Value> = weights.collect();
    values.extend(ActClass::ALL.map(|c| (c.name().to_owned(), json!(task.memory.at_peak[c as usize]))));
    json!({ "name": "device bytes", "ph": "C", "pid": 1, "ts": micros(at), "args": values })
}

fn lane_name(lane: u32, name: &str) -> Value {
    json!({ "name": "thread_name", "ph": "M", "pid": 1, "tid": lane, "args": { "name": name } })
}

fn slice(lane: u32, name: &str, start: Nanos, end: Nanos, args: &Value) -> Value {
    let (ts, dur) = (micros(start), micros(end.saturating_sub(start)));
    json!({ "name": name, "ph": "X", "pid": 1, "tid": lane, "ts": ts, "dur": dur, "args": args })
}

fn micros(time: Nanos) -> f64 {
    time.as_f64() / 1e3
}

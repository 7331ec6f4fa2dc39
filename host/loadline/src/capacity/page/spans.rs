//! The part of the timeline that is worth looking at: stages as a whole, and a few passes of the longest.

use loadline_core::{Machine, Nanos};
use serde_json::Value;

use crate::{Error, Planned, perfetto};

/// So many passes of the longest stage are drawn task by task.
const PASSES: u64 = 4;
/// More marks than this make a browser slow.
const MARKS_MOST: usize = 4000;

/// Something that keeps a lane busy.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Span {
    pub(super) lane: &'static str,
    pub(super) name: String,
    /// Seconds from the start of the run.
    pub(super) start: f64,
    pub(super) length: f64,
}

/// A window of the timeline.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Spans {
    /// The stage and how many of how many passes are drawn.
    pub(super) stage: String,
    pub(super) passes: u64,
    pub(super) of: u64,
    pub(super) spans: Vec<Span>,
}

const LANES: [(u64, &str); 4] = [(1, "compute"), (2, "h2d"), (3, "d2h"), (4, "disk")];

pub(super) fn spans(planned: &Planned, machine: &Machine) -> Result<Spans, Error> {
    let trace = perfetto::of_forecast(&planned.job, &planned.plan, machine)?;
    let events = trace["traceEvents"].as_array().map_or(&[][..], Vec::as_slice);
    let stages = &planned.forecast.stages;
    let Some(longest) = (0..stages.len()).max_by_key(|i| stages[*i].cold) else { return Ok(Spans::default()) };
    let before: Nanos = stages[..longest].iter().map(|s| s.cold).sum();
    let from = before.as_f64() / 1e9;
    let whole = from + stages[longest].cold.as_f64() / 1e9;
    let stage = &planned.job.stages[longest];
    let until = end_of_passes(events, from, whole);
    let inside = |s: &Span| s.start + s.length > from && s.start < until && s.start < whole;
    let spans: Vec<Span> = events.iter().filter_map(span).filter(inside).take(MARKS_MOST).collect();
    Ok(Spans {
        stage: stages[longest].name.clone(),
        passes: PASSES.min(stage.pass_count()),
        of: stage.pass_count(),
        spans,
    })
}

/// When the last of the drawn passes ends.
fn end_of_passes(events: &[Value], from: f64, whole: f64) -> f64 {
    let early = events.iter().filter(|e| e["args"]["pass"].as_u64().is_some_and(|p| p < PASSES));
    let of_stage = early.filter_map(span).filter(|s| s.start >= from - 1e-9 && s.start < whole);
    of_stage.map(|s| s.start + s.length).fold(from, f64::max)
}

fn span(event: &Value) -> Option<Span> {
    if event["ph"] != "X" {
        return None;
    }
    let lane = LANES.iter().find(|(id, _)| event["tid"] == *id)?.1;
    let seconds = |field: &str| Some(event[field].as_f64()? / 1e6);
    Some(Span { lane, name: event["name"].as_str()?.to_owned(), start: seconds("ts")?, length: seconds("dur")? })
}

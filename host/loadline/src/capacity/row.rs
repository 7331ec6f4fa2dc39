//! One combination of a comparison, and many of them as a table.

use std::cmp::Ordering;
use std::str::FromStr;

use loadline_core::{Binding, Bytes, Machine, Nanos, PolicyId, Provenance, Request, Reservation};
use serde_json::{Value, json};

use super::Contender;
use super::table::{Align, Table};
pub(super) use crate::planning::exact;
use crate::{Asked, Certificate, Error, Planned, gap};

/// How long several jobs take in one process: the first with weights on disk, the others with what the plan keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throughput {
    /// The number of jobs.
    pub jobs: u32,
    /// All of them together.
    pub time: Nanos,
}

impl Throughput {
    /// Jobs in an hour.
    #[must_use]
    pub fn per_hour(&self) -> f64 {
        if self.time == Nanos::ZERO { 0.0 } else { f64::from(self.jobs) / self.time.as_f64() * 3.6e12 }
    }
}

/// What a plan that fits takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// The most device bytes of any stage.
    pub peak: Bytes,
    /// The stage of the peak.
    pub peak_stage: String,
    /// Host bytes at the peak.
    pub host_peak: Bytes,
    /// Median time with weights on disk at the start.
    pub cold: Nanos,
    /// Median time of the second run of a process.
    pub warm: Nanos,
    /// The cold time at the fast end of the profile's intervals.
    pub p10: Nanos,
    /// The cold time at the slow end.
    pub p90: Nanos,
    /// Time that the device waits for weights.
    pub stall: Nanos,
    /// What no schedule with the same memory beats.
    pub bound: Nanos,
    /// What binds the stage that takes longest.
    pub binding: Option<Binding>,
    /// Blocks that stay on the device, over all stages.
    pub resident_blocks: u32,
    /// Blocks that pass through slots.
    pub streamed_blocks: u32,
    /// Whether the VAE is tiled only because nothing else fits.
    pub tiled_to_fit: bool,
    /// Several jobs in one process, if that was asked for.
    pub throughput: Option<Throughput>,
}

impl Figures {
    pub(super) fn new(planned: &Planned) -> Self {
        let forecast = &planned.forecast;
        let (cold, warm) = (forecast.total(|s| s.cold), forecast.total(|s| s.warm));
        Self {
            peak: forecast.device_peak(),
            peak_stage: forecast.peak_stage().map_or_else(String::new, |s| s.name.clone()),
            host_peak: forecast.host_peak(),
            cold,
            warm,
            p10: forecast.total(|s| s.p10),
            p90: forecast.total(|s| s.p90),
            stall: forecast.total(|s| s.stall),
            bound: forecast.total(|s| s.bound.time),
            binding: forecast.stages.iter().max_by_key(|s| s.cold).map(|s| s.bound.binding),
            resident_blocks: forecast.stages.iter().map(|s| s.resident_blocks).sum(),
            streamed_blocks: forecast.stages.iter().map(|s| s.streamed_blocks).sum(),
            tiled_to_fit: planned.tiled_to_fit,
            throughput: None,
        }
    }

    /// The same with several jobs in one process, each after the first taking `following`.
    pub(super) fn with_jobs(self, jobs: u32, following: Nanos) -> Self {
        let time = self.cold + following * u64::from(jobs.saturating_sub(1));
        Self { throughput: Some(Throughput { jobs, time }), ..self }
    }

    /// How far the cold time is above the bound, as a share of it.
    #[must_use]
    pub fn gap(&self) -> f64 {
        gap(self.cold, self.bound)
    }
}

/// Why a combination has no figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoFit {
    /// The reason in words.
    pub reason: String,
    /// The smallest budget with which it has figures; nothing if there is none.
    pub min_budget: Option<Bytes>,
    /// The stage that does not fit.
    pub stage: String,
    /// What breaks the budget.
    pub tensor: String,
    /// What that stage needs, by reservation.
    pub needs: Vec<Reservation>,
    /// False where no budget helps: the model or the machine does not allow the request at all.
    pub possible: bool,
}

impl NoFit {
    pub(super) fn certified(certificate: &Certificate) -> Self {
        Self {
            reason: certificate.reason.clone(),
            min_budget: certificate.min_budget_bytes,
            stage: certificate.stage.clone(),
            tensor: certificate.tensor.clone(),
            needs: Vec::new(),
            possible: true,
        }
    }

    pub(super) fn impossible(reason: String) -> Self {
        let none = String::new;
        Self { reason, min_budget: None, stage: none(), tensor: none(), needs: Vec::new(), possible: false }
    }

    /// The reason in a few words, for a cell of a table.
    #[must_use]
    pub fn short(&self) -> String {
        match (self.possible, self.min_budget) {
            (false, _) => format!("not possible: {}", self.reason),
            (true, Some(least)) => format!("needs a budget of {} at least (stage {})", exact(least), self.stage),
            (true, None) => format!("no budget helps: {}", self.reason),
        }
    }
}

/// One combination.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The model.
    pub model: String,
    /// What is asked of it.
    pub request: Request,
    /// The profile's name.
    pub gpu: String,
    /// The product's name.
    pub device: String,
    /// Memory of the whole device.
    pub device_memory: Bytes,
    /// How the profile's figures were obtained.
    pub provenance: Provenance,
    /// The policy.
    pub policy: PolicyId,
    /// The settings that were given.
    pub given: Vec<(String, String)>,
    /// The device budget.
    pub budget: Bytes,
    /// The figures, or why there are none.
    pub outcome: Result<Box<Figures>, NoFit>,
}

impl Row {
    pub(super) fn new(
        asked: &Asked,
        machine: &Machine,
        contender: &Contender,
        model: &str,
        budget: Bytes,
        outcome: Result<Box<Figures>, NoFit>,
    ) -> Self {
        Self {
            model: model.to_owned(),
            request: asked.request.clone(),
            gpu: machine.name.clone(),
            device: machine.device.name.clone(),
            device_memory: machine.device.memory,
            provenance: machine.provenance,
            policy: contender.policy.id().clone(),
            given: contender.given.clone(),
            budget,
            outcome,
        }
    }

    /// The policy's name with its settings.
    #[must_use]
    pub fn policy_name(&self) -> String {
        let given = self.given.iter().map(|(k, v)| format!(" {k}={v}"));
        format!("{}{}", self.policy.name, given.collect::<String>())
    }

    /// The figures, if it fits.
    #[must_use]
    pub fn figures(&self) -> Option<&Figures> {
        self.outcome.as_deref().ok()
    }
}

/// What rows are sorted by. Rows that do not fit come last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortKey {
    /// The cold time; with several jobs the time of all of them.
    Time,
    /// The warm time.
    Warm,
    /// The device peak.
    Vram,
    /// The host peak.
    Host,
    /// The gap to the bound.
    Gap,
    /// Time that the device waits for weights.
    Stall,
    /// The order of the lists.
    Grid,
}

impl SortKey {
    const ALL: [(&'static str, Self); 7] = [
        ("time", Self::Time),
        ("warm", Self::Warm),
        ("vram", Self::Vram),
        ("host", Self::Host),
        ("gap", Self::Gap),
        ("stall", Self::Stall),
        ("grid", Self::Grid),
    ];

    fn compare(self, a: &Figures, b: &Figures) -> Ordering {
        let time = |f: &Figures| f.throughput.map_or(f.cold, |t| t.time);
        match self {
            Self::Time => time(a).cmp(&time(b)),
            Self::Warm => a.warm.cmp(&b.warm),
            Self::Vram => a.peak.cmp(&b.peak),
            Self::Host => a.host_peak.cmp(&b.host_peak),
            Self::Gap => a.gap().total_cmp(&b.gap()),
            Self::Stall => a.stall.cmp(&b.stall),
            Self::Grid => Ordering::Equal,
        }
    }
}

impl FromStr for SortKey {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(|(name, _)| name).join(", ");
        let found = Self::ALL.into_iter().find(|(name, _)| *name == text);
        found.map(|(_, key)| key).ok_or_else(|| format!("'{text}' is nothing to sort by: use one of {}", known()))
    }
}

/// Sorts rows, best first; equals stay in their order.
pub fn sort(rows: &mut [Row], key: SortKey) {
    rows.sort_by(|a, b| match (a.figures(), b.figures()) {
        (Some(a), Some(b)) => key.compare(a, b),
        (Some(_), None) if key != SortKey::Grid => Ordering::Less,
        (None, Some(_)) if key != SortKey::Grid => Ordering::Greater,
        _ => Ordering::Equal,
    });
}

/// The row that comes first when sorted.
#[must_use]
pub fn best(rows: &[Row], key: SortKey) -> Option<&Row> {
    let fitting = rows.iter().filter_map(|row| Some((row, row.figures()?)));
    fitting.min_by(|(_, a), (_, b)| key.compare(a, b)).map(|(row, _)| row)
}

/// Why not a single row fits; where the model or the machine allows none of them it is the request's fault.
#[must_use]
pub fn none_fits(rows: &[Row]) -> Error {
    let refusals = || rows.iter().filter_map(|r| r.outcome.as_ref().err());
    let least = refusals().filter_map(|no| no.min_budget).min();
    let count = rows.len();
    match (refusals().find(|no| !no.possible), refusals().any(|no| no.possible), least) {
        (Some(no), false, _) => Error::Request(no.reason.clone()),
        (_, _, Some(least)) => {
            Error::NothingFits(format!("none of {count} rows fits; the least budget is {}", exact(least)))
        }
        _ => Error::NothingFits(format!("none of {count} rows fits, and no budget helps; change the request")),
    }
}

/// Rows for people.
#[must_use]
pub fn rows_table(rows: &[Row]) -> Table {
    let (left, right) = (Align::Left, Align::Right);
    let mut table = Table::new(&[
        ("model", left),
        ("gpu", left),
        ("policy", left),
        ("budget", right),
        ("peak", right),
        ("host", right),
        ("cold", right),
        ("likely between", right),
        ("warm", right),
        ("all jobs", right),
        ("jobs/h", right),
        ("stalls", right),
        ("gap", right),
        ("note", left),
    ]);
    for row in rows {
        let mut cells = vec![row.model.clone(), row.gpu.clone(), row.policy_name(), row.budget.to_string()];
        match &row.outcome {
            Ok(figures) => cells.extend(figure_cells(figures)),
            Err(no) => {
                cells.resize(13, String::new());
                cells.push(no.short());
            }
        }
        table.push(cells);
    }
    table.compact()
}

fn figure_cells(f: &Figures) -> Vec<String> {
    let jobs = f.throughput;
    vec![
        f.peak.to_string(),
        f.host_peak.to_string(),
        f.cold.to_string(),
        format!("{} and {}", f.p10, f.p90),
        f.warm.to_string(),
        jobs.map_or_else(String::new, |t| t.time.to_string()),
        jobs.map_or_else(String::new, |t| per_hour(t.per_hour())),
        f.stall.to_string(),
        format!("{:.1}%", 100.0 * f.gap()),
        if f.tiled_to_fit { "VAE tiled to fit".to_owned() } else { String::new() },
    ]
}

/// Jobs in an hour with three digits.
pub(super) fn per_hour(value: f64) -> String {
    let digits = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.digits$}")
}

/// Rows for spreadsheets: whole bytes and nanoseconds, empty cells where nothing is known.
#[must_use]
pub fn rows_csv(rows: &[Row]) -> Table {
    let names = [
        "model",
        "size",
        "frames",
        "steps",
        "guidance",
        "gpu",
        "provenance",
        "policy",
        "policy_hash",
        "settings",
        "budget_bytes",
        "fits",
        "peak_bytes",
        "peak_stage",
        "host_peak_bytes",
        "cold_ns",
        "warm_ns",
        "p10_ns",
        "p90_ns",
        "stall_ns",
        "bound_ns",
        "gap",
        "binding",
        "resident_blocks",
        "streamed_blocks",
        "tiled_to_fit",
        "jobs",
        "jobs_ns",
        "jobs_per_hour",
        "min_budget_bytes",
        "stage",
        "tensor",
        "reason",
    ];
    let mut table = Table::new(&names.map(|name| (name, Align::Left)));
    for row in rows {
        let value = row_json(row);
        let cell = |name: &str| match value.pointer(&format!("/{}", csv_pointer(name))) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        let special = |name: &str| match name {
            "size" => Some(row.request.size.to_string()),
            "settings" => Some(row.given.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ")),
            _ => None,
        };
        table.push(names.iter().map(|name| special(name).unwrap_or_else(|| cell(name))).collect());
    }
    table
}

/// Where a column's value lies in a row's JSON.
fn csv_pointer(column: &str) -> String {
    match column {
        "frames" | "steps" | "guidance" => format!("request/{column}"),
        "gpu" => "machine/name".to_owned(),
        "provenance" => "machine/provenance".to_owned(),
        "policy" => "policy/name".to_owned(),
        "policy_hash" => "policy/hash".to_owned(),
        "jobs" => "throughput/jobs".to_owned(),
        "jobs_ns" => "throughput/time_ns".to_owned(),
        "jobs_per_hour" => "throughput/per_hour".to_owned(),
        "min_budget_bytes" | "stage" | "tensor" | "reason" => format!("refusal/{column}"),
        other => other.to_owned(),
    }
}

/// The version of a comparison's JSON.
const SCHEMA: &str = "loadline-compare/1";

/// Rows for scripts.
#[must_use]
pub fn rows_json(rows: &[Row]) -> Value {
    let fits = rows.iter().any(|r| r.outcome.is_ok());
    json!({ "schema": SCHEMA, "fits": fits, "rows": rows.iter().map(row_json).collect::<Vec<_>>() })
}

pub(super) fn row_json(row: &Row) -> Value {
    let given: serde_json::Map<String, Value> = row.given.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
    let mut value = json!({
        "model": row.model,
        "request": row.request,
        "machine": {
            "name": row.gpu, "device": row.device, "memory_bytes": row.device_memory, "provenance": row.provenance,
        },
        "policy": row.policy,
        "settings": given,
        "budget_bytes": row.budget,
        "fits": row.outcome.is_ok(),
    });
    let more = match &row.outcome {
        Ok(figures) => figures_json(figures),
        Err(no) => json!({ "refusal": {
            "reason": no.reason, "min_budget_bytes": no.min_budget, "stage": no.stage, "tensor": no.tensor,
            "needs": no.needs, "possible": no.possible,
        } }),
    };
    if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
        value.extend(more);
    }
    value
}

pub(super) fn figures_json(f: &Figures) -> Value {
    json!({
        "peak_bytes": f.peak, "peak_stage": f.peak_stage, "host_peak_bytes": f.host_peak,
        "cold_ns": f.cold, "warm_ns": f.warm, "p10_ns": f.p10, "p50_ns": f.cold, "p90_ns": f.p90,
        "stall_ns": f.stall, "bound_ns": f.bound, "gap": f.gap(), "binding": f.binding,
        "resident_blocks": f.resident_blocks, "streamed_blocks": f.streamed_blocks, "tiled_to_fit": f.tiled_to_fit,
        "throughput": f.throughput.map(|t| json!({ "jobs": t.jobs, "time_ns": t.time, "per_hour": t.per_hour() })),
    })
}

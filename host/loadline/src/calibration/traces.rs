//! Traces as calibration reads them.

use std::path::{Path, PathBuf};

use loadline_core::{Bytes, ContentHash, DType, Quantiles, StageKind};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{StageSample, sample};
use crate::Error;
use crate::planning::Planned;
use crate::running::StageMeasured;

/// The version of the record in a trace's `otherData`.
const SCHEMA: &str = "loadline-run/1";

/// A run beside its forecast, as it stands in the `otherData.run` of a trace.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    schema: String,
    profile: String,
    profile_hash: ContentHash,
    resumed: bool,
    stages: Vec<StageRecord>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct StageRecord {
    kind: StageKind,
    dtype: DType,
    p10_ns: f64,
    p50_ns: f64,
    p90_ns: f64,
    operations_ns: f64,
    time_ns: f64,
    computing_ns: f64,
    forecast_peak_bytes: Bytes,
    device_peak_bytes: Bytes,
}

/// What a trace says about the run and its forecast, for the `otherData` of the trace.
#[must_use]
pub fn run_record(
    planned: &Planned,
    machine: &loadline_core::Machine,
    measured: &[StageMeasured],
    resumed: bool,
) -> Value {
    let peaks = |name: &str| planned.forecast.stages.iter().find(|s| s.name == name).map_or(Bytes::ZERO, |s| s.peak);
    let of = |m| Some((sample(&planned.job, machine, &planned.forecast, m)?, m));
    let stages = measured.iter().filter_map(of).map(|(s, m): (StageSample, &StageMeasured)| StageRecord {
        kind: s.stage,
        dtype: s.dtype,
        p10_ns: s.forecast.p10,
        p50_ns: s.forecast.p50,
        p90_ns: s.forecast.p90,
        operations_ns: s.operations,
        time_ns: s.measured,
        computing_ns: s.computing,
        forecast_peak_bytes: peaks(&m.name),
        device_peak_bytes: m.device_peak,
    });
    let record = Record {
        schema: SCHEMA.to_owned(),
        profile: machine.name.clone(),
        profile_hash: machine.hash.clone(),
        resumed,
        stages: stages.collect(),
    };
    json!(record)
}

/// A trace of a run.
#[derive(Clone, Debug)]
pub struct TraceFile {
    /// The file.
    pub path: PathBuf,
    /// The hash of the profile that made the forecast.
    pub profile: ContentHash,
    /// Its stages beside their forecast.
    pub samples: Vec<StageSample>,
}

impl TraceFile {
    /// Reads a trace that `loadline run --trace` wrote.
    ///
    /// # Errors
    /// If the file cannot be read, is no trace, is the trace of a forecast, or is of another version.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let failed = |text: String| Error::Profile(format!("trace '{}': {text}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
        let mut value: Value = serde_json::from_str(&text).map_err(|e| failed(format!("not valid JSON: {e}")))?;
        let run = value.get_mut("otherData").and_then(|data| data.get_mut("run")).map(Value::take);
        let again = "write one with `loadline run ... --trace FILE`";
        let run = run.ok_or_else(|| failed(format!("it is not the trace of a run; {again}")))?;
        if run.get("schema").and_then(Value::as_str) != Some(SCHEMA) {
            let found = run.get("schema").map_or("missing".to_owned(), Value::to_string);
            return Err(failed(format!("field 'otherData.run.schema' is {found}, not \"{SCHEMA}\"; {again}")));
        }
        let record: Record =
            serde_json::from_value(run).map_err(|e| failed(format!("field 'otherData.run': {e}; {again}")))?;
        let samples = if record.resumed { Vec::new() } else { record.stages.iter().map(of_record).collect() };
        Ok(Self { path: path.to_owned(), profile: record.profile_hash, samples })
    }
}

fn of_record(stage: &StageRecord) -> StageSample {
    StageSample {
        stage: stage.kind,
        dtype: stage.dtype,
        forecast: Quantiles { p10: stage.p10_ns, p50: stage.p50_ns, p90: stage.p90_ns },
        operations: stage.operations_ns,
        measured: stage.time_ns,
        computing: stage.computing_ns,
    }
}

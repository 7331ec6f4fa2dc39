//! What memory a run or a forecast takes: by stage, by reservation, and block by block.
//!
//! Every trace carries it, in its `otherData.memory`, so that a report can be made of the trace alone.

use std::path::Path;

use loadline_core::{ActClass, Bytes, Machine, Reservation, Stage};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;
use crate::planning::Planned;
use crate::running::{Measured, StageMeasured, StageMemory, TaskAt, TaskHigh};

/// The version of the report; it changes when a field changes its meaning.
const SCHEMA: &str = "loadline-memory/1";

/// Memory of a run or of a forecast.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryReport {
    /// `loadline-memory/1`.
    pub schema: String,
    /// The model.
    pub model: String,
    /// The machine's device.
    pub device_name: String,
    /// The policy that made the plan.
    pub policy: String,
    /// What the job may use of the device.
    pub device_budget_bytes: Bytes,
    /// What it may use of the host.
    pub host_budget_bytes: Bytes,
    /// What the plan sets aside on the host.
    pub host_reservations: Vec<Reservation>,
    /// The stages; of a run those that ran in its process.
    pub stages: Vec<StageReport>,
}

/// Memory of one stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageReport {
    /// Its name.
    pub name: String,
    /// Its passes.
    pub passes: u64,
    /// What the plan sets aside on the device at the stage's peak.
    pub reservations: Vec<Reservation>,
    /// Device bytes of the forecast's peak.
    pub forecast_peak_bytes: Bytes,
    /// Where the forecast has its peak.
    pub forecast_peak_at: Option<Spot>,
    /// What was measured; nothing in a forecast.
    pub measured: Option<MeasuredReport>,
    /// Every position of a pass.
    pub blocks: Vec<BlockReport>,
}

/// A place in a stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spot {
    /// The pass, from 1; of a denoising stage with sequential guidance a step is one pass or two.
    pub pass: u64,
    /// The task, as its block is called.
    pub block: String,
}

/// Memory of a stage as measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeasuredReport {
    /// The high water of live device bytes.
    pub peak_bytes: Bytes,
    /// The first task with whose end it was reached.
    pub peak_at: Option<Spot>,
    /// The rest.
    #[serde(flatten)]
    pub memory: StageMemory,
}

/// Device memory while a position of a pass runs, over all passes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockReport {
    /// The task, as its block is called.
    pub block: String,
    /// What the stage's weights and the task's activations take by the forecast, in the pass that takes most.
    pub forecast_bytes: Bytes,
    /// The high water as measured; nothing in a forecast.
    pub measured_bytes: Option<Bytes>,
    /// The pass that had it, from 1.
    pub measured_pass: Option<u64>,
}

impl MemoryReport {
    /// Of a plan.
    #[must_use]
    pub fn of_forecast(planned: &Planned, machine: &Machine) -> Self {
        let stages = (0..planned.job.stages.len()).filter_map(|index| stage(planned, index, None, &[]));
        Self::new(planned, machine, stages.collect())
    }

    /// Of a run. What it measured task by task is there if it was recorded.
    #[must_use]
    pub fn of_run(planned: &Planned, machine: &Machine, measured: &Measured) -> Self {
        let of = |m: &StageMeasured| {
            let index = planned.job.stages.iter().position(|s| s.name == m.name)?;
            stage(planned, index, Some(m), &measured.highs)
        };
        Self::new(planned, machine, measured.stages.iter().filter_map(of).collect())
    }

    fn new(planned: &Planned, machine: &Machine, stages: Vec<StageReport>) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            model: planned.job.model.clone(),
            device_name: machine.device.name.clone(),
            policy: planned.plan.policy.name.clone(),
            device_budget_bytes: planned.budget.device,
            host_budget_bytes: planned.budget.host,
            host_reservations: planned.forecast.host.iter().filter(|r| r.bytes > Bytes::ZERO).cloned().collect(),
            stages,
        }
    }

    /// Reads the report that a trace carries.
    ///
    /// # Errors
    /// If the file cannot be read, is no trace, carries no report, or one of another version.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let failed = |text: String| Error::Profile(format!("trace '{}': {text}", path.display()));
        let again = "write one with `loadline run ... --trace FILE` or `loadline plan ... --trace FILE`";
        let text = std::fs::read_to_string(path).map_err(|e| failed(format!("{e}; {again}")))?;
        let mut value: Value =
            serde_json::from_str(&text).map_err(|e| failed(format!("not valid JSON: {e}; {again}")))?;
        let memory = value.get_mut("otherData").and_then(|data| data.get_mut("memory")).map(Value::take);
        let memory = memory.ok_or_else(|| failed(format!("there is no field 'otherData.memory'; {again}")))?;
        if memory.get("schema").and_then(Value::as_str) != Some(SCHEMA) {
            let found = memory.get("schema").map_or("missing".to_owned(), Value::to_string);
            return Err(failed(format!("field 'otherData.memory.schema' is {found}, not \"{SCHEMA}\"; {again}")));
        }
        serde_json::from_value(memory).map_err(|e| failed(format!("field 'otherData.memory': {e}; {again}")))
    }
}

fn stage(planned: &Planned, index: usize, measured: Option<&StageMeasured>, highs: &[TaskHigh]) -> Option<StageReport> {
    let (stage, forecast) = (planned.job.stages.get(index)?, planned.forecast.stages.get(index)?);
    let is_weights = |r: &&Reservation| ActClass::ALL.into_iter().all(|class| class.name() != r.name);
    let weights: Bytes = forecast.reservations.iter().filter(is_weights).map(|r| r.bytes).sum();
    let blocks: Vec<_> = (0..stage.tasks_per_pass()).map(|task| block(stage, index, task, weights, highs)).collect();
    let spot = |at: TaskAt| Some(Spot { pass: at.pass + 1, block: name(stage, at) });
    Some(StageReport {
        name: stage.name.clone(),
        passes: stage.pass_count(),
        reservations: forecast.reservations.clone(),
        forecast_peak_bytes: forecast.peak,
        forecast_peak_at: peak_at(stage).and_then(spot),
        measured: measured.map(|m| MeasuredReport {
            peak_bytes: m.device_peak,
            peak_at: m.memory.peak_at.and_then(spot),
            memory: m.memory,
        }),
        blocks,
    })
}

fn name(stage: &Stage, at: TaskAt) -> String {
    let template = stage.run_order().nth(at.pass as usize).unwrap_or(0);
    let task = stage.passes.get(template).and_then(|pass| pass.tasks.get(at.task));
    task.map_or_else(String::new, |task| task.name.clone())
}

/// The first task that needs most.
fn peak_at(stage: &Stage) -> Option<TaskAt> {
    let most = stage.activation_peak();
    let order = stage.run_order().enumerate();
    let mut places = order.flat_map(|(pass, template)| {
        let tasks = stage.passes.get(template).map_or(&[][..], |pass| &pass.tasks);
        tasks.iter().enumerate().map(move |(task, t)| (TaskAt { pass: pass as u64, task }, t.memory.peak))
    });
    places.find(|(_, peak)| *peak == most).map(|(at, _)| at)
}

fn block(stage: &Stage, index: usize, task: usize, weights: Bytes, highs: &[TaskHigh]) -> BlockReport {
    let peaks = stage.passes.iter().filter_map(|pass| pass.tasks.get(task)).map(|t| t.memory.peak);
    // The first of equals, as for the stage.
    let own = highs.iter().filter(|high| (high.stage, high.task) == (index, task)).rev();
    let high = own.max_by_key(|high| high.device);
    BlockReport {
        block: name(stage, TaskAt { pass: 0, task }),
        forecast_bytes: weights + peaks.max().unwrap_or(Bytes::ZERO),
        measured_bytes: high.map(|high| high.device),
        measured_pass: high.map(|high| high.pass + 1),
    }
}

//! A job that a scenario describes itself, for situations that no published model is in.

use std::sync::Arc;

use loadline_core::check::{Severity, check, least_host, offered};
use loadline_core::{
    ActMemory, BlockId, Budget, Bytes, Cause, ContentHash, DType, Decision, Estimate, Job, JobBlock, Knobs, Machine,
    Op, OpCost, OpKind, Pass, Plan, Request, Settings, Site, Situation, Size, Stage, StageKind, Task,
};
use loadline_policy::{Oracle, Outlook, Policy, PolicyError};
use loadline_sim::Times;
use serde::Deserialize;

use super::file::Text;
use crate::planning::outlook;
use crate::{Error, Planned, forecast};

/// Alike blocks that are walked over.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct StageTable {
    name: String,
    blocks: u32,
    block: Text<Bytes>,
    gflop: f64,
    activations: Text<Bytes>,
    passes: Option<u32>,
    /// The component; the stage's name if absent. Policies know components by name.
    component: Option<String>,
}

/// More blocks than any model has; each costs memory here.
const BLOCKS: u32 = 100_000;
/// More passes than any request has.
const PASSES: u32 = 1_000_000;

/// The job of some stages.
///
/// # Errors
/// In words, what is out of range.
pub(super) fn job(tables: &[StageTable], machine: &Machine) -> Result<Job, String> {
    let (mut blocks, mut stages, mut components) = (Vec::new(), Vec::<Stage>::new(), Vec::new());
    for (n, table) in tables.iter().enumerate() {
        let wrong = |what: &str| format!("stage '{}': {what}", table.name);
        if table.blocks == 0 || table.blocks > BLOCKS || table.passes.is_some_and(|p| p == 0 || p > PASSES) {
            return Err(wrong("a stage has 1 to 100000 blocks and 1 to 1000000 passes"));
        }
        if !(table.gflop.is_finite() && (0.0..1e9).contains(&table.gflop)) {
            return Err(wrong("gflop is a number from 0 to below 1e9"));
        }
        if stages.iter().any(|stage| stage.name == table.name) {
            return Err(wrong("the name is there twice; choose another"));
        }
        components.push(table.component.clone().unwrap_or_else(|| table.name.clone()));
        stages.push(stage(table, n as u32, &components[n], &mut blocks));
    }
    Ok(Job {
        model: "stages".to_owned(),
        model_hash: ContentHash::of(&(&blocks, &stages)),
        request: Request {
            size: Size { width: 1, height: 1 },
            frames: 1,
            steps: 1,
            guidance: 1.0,
            prompt_tokens: 0,
            negative_tokens: 0,
        },
        knobs: Knobs { frame_chunk: 1, ..Knobs::default() },
        kernel_set: machine.device.kernel_set.clone(),
        components,
        blocks,
        stages,
        frames_host: Bytes::ZERO,
    })
}

fn stage(table: &StageTable, component: u32, of: &str, blocks: &mut Vec<JobBlock>) -> Stage {
    let first = blocks.len() as u32;
    let slab = table.block.0;
    let block = |index: u32| JobBlock {
        component,
        index,
        name: format!("{of}.blocks.{index}"),
        slab,
        file: slab,
        conversion: None,
    };
    blocks.extend((0..table.blocks).map(block));
    let tasks = (0..table.blocks).map(|index| task(table, index, BlockId(first + index))).collect();
    Stage {
        kind: kind(&table.name),
        name: table.name.clone(),
        component,
        passes: vec![Pass { tasks, safe_point: true }],
        sequence: vec![(0, table.passes.unwrap_or(1))],
    }
}

fn kind(name: &str) -> StageKind {
    match name {
        "text-encode" => StageKind::TextEncode,
        "image-encode" => StageKind::ImageEncode,
        "vae-encode" => StageKind::VaeEncode,
        "vae-decode" => StageKind::VaeDecode,
        _ => StageKind::Denoise,
    }
}

fn task(table: &StageTable, index: u32, block: BlockId) -> Task {
    let peak = table.activations.0;
    let none = Bytes::ZERO;
    Task {
        name: format!("blocks.{index}"),
        block: Some(block),
        ops: vec![OpCost {
            kind: OpKind::Linear,
            site: Site { op: Op::Linear, weight: DType::Bf16, dims: [1; 4] },
            dtype: DType::Bf16,
            count: 1,
            flops: (table.gflop * 1e9) as u64,
            bytes: table.block.0.0,
        }],
        memory: ActMemory { before: none, peak, after: none, at_peak: [peak, none, none, none, none] },
        gathered: none,
        to_host: none,
    }
}

/// Forecasts for one job whose knobs nobody may change.
struct Fixed<'a> {
    job: &'a Job,
    machine: &'a Machine,
    budget: Budget,
    times: &'a Times,
}

impl Oracle for Fixed<'_> {
    fn probe(&mut self, knobs: &Knobs) -> Result<Job, String> {
        let same = *knobs == self.job.knobs;
        if same { Ok(self.job.clone()) } else { Err("this job has no other knobs".to_owned()) }
    }

    fn forecast(&mut self, plan: &Plan) -> Result<Outlook, String> {
        outlook(self.job, plan, self.machine, &self.budget, self.times)
    }
}

/// A plan for a job that is no model's, or the reason of the refusal.
///
/// # Errors
/// What the policy did wrong, or a rate that the profile lacks.
pub(super) fn plan(
    job: Job,
    machine: &Machine,
    policy: &Policy,
    settings: &Settings,
    budget: Budget,
) -> Result<Result<Planned, String>, Error> {
    let times = Times::new(&job, machine, Estimate::Median)?;
    let mut oracle = Fixed { job: &job, machine, budget, times: &times };
    let situation = Situation {
        cause: Cause::Start,
        job: &job,
        from_stage: 0,
        from_pass: 0,
        machine,
        budget: offered(budget, machine),
        settings,
        may_change_cfg: false,
        observed_device: Bytes::ZERO,
        loaded: &[],
        upcoming: &[],
        memo: &[],
    };
    let bad_plan = |finding: String| Error::BadPlan { policy: policy.id().name.clone(), finding };
    let decided = match policy.decide(&situation, &mut oracle) {
        Ok(decided) => decided,
        Err(PolicyError::Refused(refusal)) => return Ok(Err(refusal.message)),
        Err(source) => return Err(Error::Policy { name: policy.id().name.clone(), source }),
    };
    let Decision::Plan(plan) = decided.decision else {
        return Err(bad_plan("there is no plan to keep before the first".to_owned()));
    };
    let advice = check(&plan, &job, machine, &budget);
    if let Some(finding) = advice.iter().find(|f| f.severity() == Severity::Error) {
        if least_host(&job, machine) > budget.host {
            return Ok(Err(finding.to_string()));
        }
        return Err(bad_plan(finding.to_string()));
    }
    let forecast = forecast(&job, &plan, machine)?;
    let (job, plan, fuel) = (Arc::new(job), *plan, decided.fuel);
    Ok(Ok(Planned { job, plan, forecast, budget, advice, tiled_to_fit: false, fuel }))
}

//! From the host's types to the contract's: rows become columns.

use loadline_core::{
    BlockId, Bytes, Estimate, Job, JobBlock, Knobs, LoadedBlock, Machine, MissingRate, Nanos, OpCost, Request,
    SettingValue, Settings, Situation, Stage, StageKind, Task,
};

use super::bindings::loadline::policy::types as wit;
use crate::Limits;
use crate::oracle::Outlook;

/// A position without weights, and a loaded block that the job does not use.
const NONE: u32 = u32::MAX;

pub(super) fn situation(situation: &Situation<'_>, limits: &Limits) -> Result<wit::Situation, MissingRate> {
    let budget = situation.budget;
    Ok(wit::Situation {
        cause: situation.cause as u32,
        job: job(situation.job, situation.machine)?,
        from_stage: situation.from_stage,
        machine: machine(situation.machine),
        budget: wit::Budget {
            device: budget.device.0,
            host: budget.host.0,
            pinned: budget.pinned.0,
            disk: budget.disk.0,
        },
        settings: settings(situation.settings),
        may_change: if situation.may_change_cfg { vec!["cfg".to_owned()] } else { Vec::new() },
        observed_device: situation.observed_device.0,
        loaded: loaded(situation.loaded),
        upcoming: situation.upcoming.iter().map(|b| b.0).collect(),
        memo: situation.memo.to_vec(),
        facts: facts(situation, limits),
    })
}

fn facts(situation: &Situation<'_>, limits: &Limits) -> Vec<wit::Entry> {
    let job = situation.job;
    vec![
        integer("forecast-calls", u64::from(limits.forecast_calls)),
        integer("forecast-fuel", limits.call_fuel(job)),
        integer("from-pass", situation.from_pass),
        integer("fuel", limits.fuel(job)),
        integer("probe-calls", u64::from(limits.probe_calls)),
        integer("probe-fuel", limits.call_fuel(job)),
    ]
}

pub(super) fn job(job: &Job, machine: &Machine) -> Result<wit::Job, MissingRate> {
    let mut clock = Clock { machine, known: Vec::new() };
    let stages = job.stages.iter().map(|s| stage(s, &mut clock)).collect::<Result<_, _>>()?;
    Ok(wit::Job {
        model: job.model.clone(),
        request: request(&job.request),
        knobs: knobs(&job.knobs),
        components: job.components.clone(),
        blocks: blocks(&job.blocks, machine),
        stages,
        frames_host: job.frames_host.0,
    })
}

fn request(request: &Request) -> Vec<wit::Entry> {
    vec![
        integer("frames", u64::from(request.frames)),
        wit::Entry { key: "guidance".to_owned(), value: number(request.guidance) },
        integer("height", u64::from(request.size.height)),
        integer("negative-tokens", u64::from(request.negative_tokens)),
        integer("prompt-tokens", u64::from(request.prompt_tokens)),
        integer("steps", u64::from(request.steps)),
        integer("width", u64::from(request.size.width)),
    ]
}

/// The contract promises that no number is infinite or NaN.
fn number(value: f64) -> wit::Value {
    wit::Value::Number(if value.is_finite() { value } else { 0.0 })
}

fn integer(key: &str, value: u64) -> wit::Entry {
    wit::Entry { key: key.to_owned(), value: wit::Value::Integer(i64::try_from(value).unwrap_or(i64::MAX)) }
}

fn text(key: impl Into<String>, value: impl Into<String>) -> wit::Entry {
    wit::Entry { key: key.into(), value: wit::Value::Text(value.into()) }
}

/// The knobs as entries, sorted by key.
pub(super) fn knobs(knobs: &Knobs) -> Vec<wit::Entry> {
    let mut entries = vec![
        text("cfg", knobs.cfg.name()),
        integer("frame-chunk", u64::from(knobs.frame_chunk)),
        integer("tile-overlap", u64::from(knobs.tile_overlap)),
    ];
    entries.extend(knobs.storage.iter().map(|(name, dtype)| text(format!("storage.{name}"), dtype.name())));
    entries.extend(knobs.tile.map(|tile| text("tile", tile.to_string())));
    entries.sort_by(|a, b| a.key.cmp(&b.key));
    entries
}

fn settings(settings: &Settings) -> Vec<wit::Entry> {
    let value = |value: &SettingValue| match value {
        SettingValue::Boolean(b) => wit::Value::Boolean(*b),
        SettingValue::Integer(i) => wit::Value::Integer(*i),
        SettingValue::Number(n) => number(*n),
        SettingValue::Text(t) => wit::Value::Text(t.clone()),
    };
    settings.iter().map(|(key, v)| wit::Entry { key: key.clone(), value: value(v) }).collect()
}

fn machine(machine: &Machine) -> wit::Machine {
    wit::Machine {
        name: machine.name.clone(),
        kernel_set: machine.device.kernel_set.clone(),
        memory: machine.device.memory.0,
        granularity: machine.device.granularity.max(1),
        fixed_overhead: machine.device.fixed_overhead.0,
        facts: vec![
            integer("host-memory", machine.host.memory.0),
            wit::Entry { key: "unified".to_owned(), value: wit::Value::Boolean(machine.device.unified) },
        ],
    }
}

/// What copying and reading a block takes.
#[derive(Clone, Copy)]
struct Moves {
    pinned: Nanos,
    pageable: Nanos,
    read: Nanos,
}

fn moves(block: &JobBlock, machine: &Machine) -> Moves {
    use loadline_core::Tier::{Host, Pinned};
    Moves {
        pinned: machine.copy_time(Pinned, block.slab, Estimate::Median),
        pageable: machine.copy_time(Host, block.slab, Estimate::Median),
        read: machine.read_time(block.file, block.conversion, Estimate::Median),
    }
}

fn blocks(blocks: &[JobBlock], machine: &Machine) -> wit::Blocks {
    // Blocks come in few sizes; a curve with its logarithms costs more than a look at the last block.
    let mut last: Option<(&JobBlock, Moves)> = None;
    let alike = |a: &JobBlock, b: &JobBlock| (a.slab, a.file, a.conversion) == (b.slab, b.file, b.conversion);
    let moves: Vec<Moves> = blocks
        .iter()
        .map(|block| {
            let moves = last.filter(|(l, _)| alike(l, block)).map_or_else(|| moves(block, machine), |(_, m)| m);
            last = Some((block, moves));
            moves
        })
        .collect();
    wit::Blocks {
        component: blocks.iter().map(|b| b.component).collect(),
        index: blocks.iter().map(|b| b.index).collect(),
        slab: blocks.iter().map(|b| b.slab.0).collect(),
        file: blocks.iter().map(|b| b.file.0).collect(),
        flags: blocks.iter().map(flags).collect(),
        copy_pinned_ns: moves.iter().map(|m| m.pinned.0).collect(),
        copy_pageable_ns: moves.iter().map(|m| m.pageable.0).collect(),
        read_ns: moves.iter().map(|m| m.read.0).collect(),
        extra: control(blocks).into_iter().collect(),
    }
}

/// The column `control`: 1 for a block of a control branch (VACE's). Absent where the job has none.
fn control(blocks: &[JobBlock]) -> Option<wit::Column> {
    let values: Vec<u64> = blocks.iter().map(|b| u64::from(b.name.contains(".vace_blocks."))).collect();
    values.contains(&1).then(|| wit::Column { name: "control".to_owned(), values })
}

/// Looks at the end of the name alone: names are long, and there are thousands.
fn flags(block: &JobBlock) -> u32 {
    let mut rest = block.name.as_bytes();
    while let [before @ .., b'0'..=b'9'] = rest {
        rest = before;
    }
    let digits = block.name.len() - rest.len();
    let numbered = digits > 0 && matches!(rest, [] | [.., b'.']);
    u32::from(block.conversion.is_some()) | u32::from(numbered) << 1
}

/// Remembers how long tasks take: the blocks of a transformer are all alike.
struct Clock<'a> {
    machine: &'a Machine,
    known: Vec<(&'a [OpCost], Bytes, Nanos)>,
}

impl<'a> Clock<'a> {
    /// More distinct tasks than this are not looked for: searching would cost more than computing.
    const KNOWN: usize = 16;

    fn time(&mut self, stage: StageKind, task: &'a Task) -> Result<Nanos, MissingRate> {
        let same = |(ops, gathered, _): &&(&[OpCost], Bytes, Nanos)| *ops == task.ops && *gathered == task.gathered;
        if let Some((_, _, time)) = self.known.iter().find(same) {
            return Ok(*time);
        }
        let time = self.machine.task_time(stage, task, Estimate::Median)?;
        if self.known.len() < Self::KNOWN {
            self.known.push((&task.ops, task.gathered, time));
        }
        Ok(time)
    }
}

fn stage<'a>(stage: &'a Stage, clock: &mut Clock<'a>) -> Result<wit::Stage, MissingRate> {
    // A recorded machine may know the level of one kind of stage and not of another.
    clock.known.clear();
    Ok(wit::Stage {
        kind: stage.kind as u32,
        name: stage.name.clone(),
        component: stage.component,
        passes: stage.pass_count(),
        blocks: stage.blocks().map(|b| b.map_or(NONE, |b: BlockId| b.0)).collect(),
        compute_ns: compute(stage, clock)?,
        activation_peak: stage.activation_peak().0,
        extra: Vec::new(),
    })
}

/// The time of each position, averaged over the passes as often as each runs.
fn compute<'a>(stage: &'a Stage, clock: &mut Clock<'a>) -> Result<Vec<u64>, MissingRate> {
    // A sequence names the same few passes again and again.
    let mut counts = vec![0u128; stage.passes.len()];
    for (pass, times) in &stage.sequence {
        if let Some(count) = counts.get_mut(*pass as usize) {
            *count += u128::from(*times);
        }
    }
    let mut sums = vec![0u128; stage.tasks_per_pass()];
    for (pass, times) in stage.passes.iter().zip(counts).filter(|(_, times)| *times > 0) {
        for (sum, task) in sums.iter_mut().zip(&pass.tasks) {
            *sum += u128::from(clock.time(stage.kind, task)?.0) * times;
        }
    }
    let passes = u128::from(stage.pass_count().max(1));
    Ok(sums.into_iter().map(|sum| u64::try_from(sum / passes).unwrap_or(u64::MAX)).collect())
}

fn loaded(loaded: &[LoadedBlock]) -> wit::Loaded {
    wit::Loaded {
        block: loaded.iter().map(|l| l.block.map_or(NONE, |b| b.0)).collect(),
        tier: loaded.iter().map(|l| l.tier.code()).collect(),
        bytes: loaded.iter().map(|l| l.bytes.0).collect(),
        hash: loaded.iter().map(|l| u64::from_str_radix(l.hash.as_str(), 16).unwrap_or(0)).collect(),
    }
}

pub(super) fn outlook(outlook: &Outlook) -> wit::ForecastReply {
    let forecast = &outlook.forecast;
    let stages = |figure: fn(&loadline_core::StageForecast) -> u64| forecast.stages.iter().map(figure).collect();
    wit::ForecastReply {
        cold_ns: forecast.total(|s| s.cold).0,
        warm_ns: forecast.total(|s| s.warm).0,
        host_peak: forecast.host_peak().0,
        disk_read: forecast.disk_read.0,
        stage_cold_ns: stages(|s| s.cold.0),
        stage_warm_ns: stages(|s| s.warm.0),
        stage_stall_ns: stages(|s| s.stall.0),
        stage_peak: stages(|s| s.peak.0),
        stage_bound_ns: stages(|s| s.bound.time.0),
        stalls: outlook.stalls.iter().map(|s| s.iter().map(|ns| ns.0).collect()).collect(),
        findings: outlook.findings.clone(),
        facts: Vec::new(),
    }
}

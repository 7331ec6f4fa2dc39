//! A synthetic job, a machine and an oracle, for the tests of this crate.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use loadline_core::check::{self, has_errors};
use loadline_core::*;
use loadline_policy::{Oracle, Outlook};

/// What a stage is made of.
#[derive(Clone, Debug)]
pub struct Shape {
    pub component: &'static str,
    pub kind: StageKind,
    /// Slab bytes of alike blocks, and how many there are.
    pub block: u64,
    pub blocks: u32,
    /// Slab bytes of a block in front of them and one after them; 0 for none.
    pub front: u64,
    pub tail: u64,
    /// Times that each block is used in a row in a pass.
    pub branches: u32,
    pub passes: u32,
    pub activations: u64,
    pub flops: u64,
}

pub const GRANULE: u64 = 2 << 20;
pub const FIXED: u64 = 300 << 20;

/// Three stages: a text encoder, a transformer with a front and a tail, a VAE.
pub fn shapes() -> Vec<Shape> {
    let base = Shape {
        component: "transformer",
        kind: StageKind::Denoise,
        block: 100 << 20,
        blocks: 40,
        front: 30 << 20,
        tail: 5 << 20,
        branches: 1,
        passes: 20,
        activations: 500 << 20,
        flops: 50_000_000_000,
    };
    vec![
        Shape {
            component: "text_encoder",
            kind: StageKind::TextEncode,
            block: 60 << 20,
            blocks: 24,
            front: 0,
            passes: 2,
            activations: 100 << 20,
            ..base.clone()
        },
        base.clone(),
        Shape {
            component: "vae",
            kind: StageKind::VaeDecode,
            block: 12 << 20,
            blocks: 5,
            passes: 7,
            activations: 900 << 20,
            ..base
        },
    ]
}

pub fn job(shapes: &[Shape], knobs: Knobs) -> Job {
    let mut blocks = Vec::new();
    let stages = shapes.iter().zip(0..).map(|(shape, component)| stage(shape, component, &mut blocks)).collect();
    Job {
        model: "synthetic".into(),
        model_hash: ContentHash::of_bytes(b"synthetic"),
        request: Request {
            size: Size { width: 832, height: 480 },
            frames: 81,
            steps: 20,
            guidance: 5.0,
            prompt_tokens: 77,
            negative_tokens: 1,
        },
        knobs,
        kernel_set: "test".into(),
        components: shapes.iter().map(|s| s.component.to_owned()).collect(),
        blocks,
        stages,
        frames_host: Bytes(90 << 20),
    }
}

fn stage(shape: &Shape, component: u32, blocks: &mut Vec<JobBlock>) -> Stage {
    let first = blocks.len() as u32;
    let mut add = |name: String, slab: u64| {
        let index = blocks.len() as u32 - first;
        let name = format!("{}.{name}", shape.component);
        blocks.push(JobBlock { component, index, name, slab: Bytes(slab), file: Bytes(slab), conversion: None });
    };
    (shape.front > 0).then(|| add("front".into(), shape.front));
    (0..shape.blocks).for_each(|i| add(format!("blocks.{i}"), shape.block));
    (shape.tail > 0).then(|| add("tail".into(), shape.tail));
    let ids = first..blocks.len() as u32;
    let blocks_in_turn = ids.flat_map(|id| (0..shape.branches).map(move |_| task(shape, id)));
    let unweighted = Task { name: "step".into(), block: None, ..task(shape, 0) };
    let tasks = std::iter::once(unweighted).chain(blocks_in_turn).collect();
    Stage {
        kind: shape.kind,
        name: shape.component.to_owned(),
        component,
        passes: vec![Pass { tasks, safe_point: true }],
        sequence: vec![(0, shape.passes)],
    }
}

fn task(shape: &Shape, id: u32) -> Task {
    let peak = Bytes(shape.activations);
    Task {
        name: format!("block {id}"),
        block: Some(BlockId(id)),
        ops: vec![OpCost {
            kind: OpKind::Linear,
            site: Site { op: Op::Linear, weight: DType::Bf16, dims: [1; 4] },
            dtype: DType::Bf16,
            count: 4,
            flops: shape.flops,
            bytes: 1 << 20,
        }],
        memory: ActMemory {
            before: Bytes(0),
            peak,
            after: Bytes(0),
            at_peak: [peak, Bytes(0), Bytes(0), Bytes(0), Bytes(0)],
        },
        gathered: Bytes(0),
        to_host: Bytes(0),
    }
}

pub fn machine() -> Machine {
    let flat = |latency, rate| Curve::flat(latency, Quantiles::exactly(rate));
    Machine {
        name: "test".into(),
        hash: ContentHash::of_bytes(b"test"),
        provenance: Provenance::Datasheet,
        device: Device {
            name: "test".into(),
            memory: Bytes::gib(12),
            allocation: None,
            unified: false,
            granularity: GRANULE,
            fixed_overhead: Bytes(FIXED),
            kernel_set: "test".into(),
        },
        host: HostSpec { memory: Bytes::gib(64), convert: flat(0.0, 1e9), conversions: Vec::new() },
        link: LinkSpec {
            h2d_pinned: flat(10_000.0, 20e9),
            h2d_pageable: flat(10_000.0, 6e9),
            d2h: flat(10_000.0, 20e9),
        },
        disk: DiskSpec { read: flat(100_000.0, 2e9), cached: None },
        sites: Vec::new(),
        contention: Contention::NONE,
        calibration: Vec::new(),
        ops: vec![OpRate {
            kind: OpKind::Linear,
            dtype: DType::Bf16,
            flops: flat(5_000.0, 15e12),
            bytes: flat(5_000.0, 300e9),
        }],
    }
}

pub fn budget(device: u64) -> Budget {
    Budget { device: Bytes(device), host: Bytes::gib(32), pinned: Bytes::gib(16), disk: Bytes::gib(100) }
}

pub fn situation<'a>(job: &'a Job, machine: &'a Machine, budget: Budget, settings: &'a Settings) -> Situation<'a> {
    Situation {
        cause: Cause::Start,
        job,
        from_stage: 0,
        from_pass: 0,
        machine,
        budget,
        settings,
        may_change_cfg: false,
        observed_device: Bytes(0),
        loaded: &[],
        upcoming: &[],
        memo: &[],
    }
}

/// The smallest device budget that the job runs in.
pub fn smallest(job: &Job) -> u64 {
    let of = |s: &Stage| s.activation_peak().round_up(GRANULE) + job.largest_block(s).round_up(GRANULE);
    FIXED + job.stages.iter().map(of).max().unwrap().0
}

/// Walks plans with one link and one compute lane.
pub struct Simulator<'a> {
    pub job: &'a Job,
    pub pair: Option<&'a Job>,
    pub machine: &'a Machine,
    pub budget: Budget,
    pub forecasts: u32,
}

impl<'a> Simulator<'a> {
    pub fn new(job: &'a Job, machine: &'a Machine, budget: Budget) -> Self {
        Self { job, pair: None, machine, budget, forecasts: 0 }
    }
}

impl Oracle for Simulator<'_> {
    fn probe(&mut self, knobs: &Knobs) -> Result<Job, String> {
        let jobs = [Some(self.job), self.pair];
        jobs.into_iter().flatten().find(|j| j.knobs == *knobs).cloned().ok_or_else(|| "no such knobs".to_owned())
    }

    fn forecast(&mut self, plan: &Plan) -> Result<Outlook, String> {
        self.forecasts += 1;
        let job = self.probe(&plan.knobs)?;
        let findings = check::check(plan, &job, self.machine, &self.budget);
        if has_errors(&findings) {
            return Err(findings[0].to_string());
        }
        let walks =
            job.stages.iter().zip(&plan.stages).map(|(stage, p)| walk(&job, stage, p, &plan.homes, self.machine));
        let (stages, stalls) = walks.unzip();
        let forecast = Forecast {
            stages,
            host: check::host_reservations(plan, &job, self.machine),
            disk_read: Bytes(0),
            provenance: Provenance::Datasheet,
        };
        Ok(Outlook { forecast, stalls, findings: Vec::new() })
    }
}

fn walk(job: &Job, stage: &Stage, plan: &StagePlan, homes: &[Tier], machine: &Machine) -> (StageForecast, Vec<Nanos>) {
    let resolved = check::resolve(job, stage, plan).unwrap();
    let copy = |b: BlockId| {
        let block = job.block(b);
        let tier = homes[b.0 as usize];
        let link = machine.copy_time(tier, block.slab, Estimate::Median).0;
        if tier == Tier::Disk {
            link.max(machine.read_time(block.file, block.conversion, Estimate::Median).0)
        } else {
            link
        }
    };
    let (mut link, mut now, mut stall) = (0, 0, 0);
    let mut ready = vec![0; plan.slots.len()];
    for load in &plan.prologue {
        link += copy(load.block);
        ready[load.slot as usize] = link;
    }
    let tasks = &stage.passes[0].tasks;
    let times: Vec<u64> =
        tasks.iter().map(|t| machine.task_time(StageKind::Denoise, t, Estimate::Median).unwrap().0).collect();
    let mut stalls = vec![Nanos(0); tasks.len()];
    for pass in 0..stage.pass_count() as usize {
        for position in 0..tasks.len() {
            let at = (pass % plan.cycle_passes as usize) * tasks.len() + position;
            let start = resolved.slots[at].map_or(now, |slot| now.max(ready[slot as usize]));
            stall += start - now;
            stalls[position] += Nanos(start - now);
            now = start + times[position];
            for load in plan.cycle.iter().filter(|l| l.after as usize == at) {
                link = link.max(now) + copy(load.block);
                ready[load.slot as usize] = link;
            }
        }
    }
    let memory: Bytes = plan.slots.iter().map(|s| s.bytes).sum();
    // This walk reads no files of blocks that live in host memory, so its bound must not either.
    let read = Curve::flat(0.0, Quantiles::exactly(1e15));
    let machine = &Machine { disk: DiskSpec { read, cached: None }, ..machine.clone() };
    let forecast = StageForecast {
        name: stage.name.clone(),
        cold: Nanos(now),
        warm: Nanos(now),
        p10: Nanos(now),
        p90: Nanos(now),
        stall: Nanos(stall),
        busy: LaneUse::default(),
        peak: Bytes(0),
        reservations: Vec::new(),
        bound: stage_bound(job, stage, machine, memory).unwrap(),
        resident_blocks: 0,
        streamed_blocks: 0,
    };
    (forecast, stalls)
}

/// A small generator of random numbers (xorshift), so that a failing case can be repeated by its seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number from 0 to `below` - 1.
    pub fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below
    }
}

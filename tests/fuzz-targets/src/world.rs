//! A made-up job and machine, and what must hold when an admitted plan runs on them.

use loadline_core::check::{Finding, Severity, check, fixed_and_stage, has_errors};
use loadline_core::*;
use loadline_engine::{Budgeted, Engine, Flow, Silent, StageTrace, Start, Trace};
use loadline_sim::{Interval, SimDevice, Times};

use crate::supply::Supply;
use crate::watched::Watched;

/// What a plan is made for.
pub(crate) struct World {
    pub(crate) job: Job,
    pub(crate) machine: Machine,
    pub(crate) budget: Budget,
}

const KIB: u64 = 1 << 10;

impl World {
    /// A few stages over a few blocks, on a machine of any kind; never too large to be simulated in full.
    pub(crate) fn new(supply: &mut Supply<'_>) -> Self {
        let mut job = job();
        for index in 0..1 + supply.below(3) {
            let blocks = blocks(&mut job, supply);
            job.stages.push(stage(index, &blocks, supply));
        }
        job.frames_host = Bytes(supply.one_of(&[0, 700, 1 << 20]));
        let machine = machine(supply);
        let budget = Budget {
            device: Bytes(KIB * (u64::from(u16::MAX) - u64::from(supply.short()))),
            host: Bytes(KIB * supply.one_of(&[1 << 40, 0, 200, 4000])),
            pinned: Bytes(KIB * supply.one_of(&[1 << 40, 0, 100, 2000])),
            disk: Bytes::ZERO,
        };
        Self { job, machine, budget }
    }

    /// Whether the plan may run.
    pub(crate) fn admits(&self, plan: &Plan) -> bool {
        !has_errors(&self.findings(plan))
    }

    pub(crate) fn findings(&self, plan: &Plan) -> Vec<Finding> {
        check(plan, &self.job, &self.machine, &self.budget)
    }

    /// Whether the plan could run with more memory: whatever is wrong with it is a budget.
    pub(crate) fn would_admit(&self, plan: &Plan) -> bool {
        let findings = self.findings(plan);
        let of_budget = |f: &Finding| matches!(f, Finding::DeviceBudget { .. } | Finding::HostBudget { .. });
        findings.iter().all(|f| f.severity() == Severity::Advice || of_budget(f))
    }

    /// An admitted plan comes to its end within the budget, in every one of several jobs in a row, and gives back all
    /// memory; the simulator's leaps change nothing; and no stage is faster than its lower bound.
    pub(crate) fn check_run(&self, plan: &Plan) {
        let times = Times::new(&self.job, &self.machine, Estimate::Median).unwrap();
        let leaping = self.run(&[plan; 2], &times, false);
        let full = self.run(&[plan; 2], &times, true);
        for (job, (leapt, walked)) in leaping.iter().zip(&full).enumerate() {
            assert_eq!(sums(leapt), sums(walked), "going over periods changes job {job}");
        }
        self.check_counts(plan, &full[0]);
        self.check_bounds(plan, &leaping[0], &times);
    }

    /// Admitted plans come to their end one after the other in one process, whatever each keeps.
    pub(crate) fn check_turns(&self, plans: &[&Plan]) {
        let times = Times::new(&self.job, &self.machine, Estimate::Median).unwrap();
        self.run(plans, &times, false);
    }

    fn run(&self, plans: &[&Plan], times: &Times, record: bool) -> Vec<Trace> {
        let granule = self.machine.device.granularity;
        let room = self.budget.device - self.machine.device.fixed_overhead;
        let sim = SimDevice::new(times, self.job.blocks.len(), false, record);
        let device = Watched::new(Budgeted::new(sim, room, granule), &self.job, room, granule);
        let mut engine = Engine::new(device, record);
        let realise = |plan: &&Plan| match engine.realise(&self.job, plan, Start::default(), &mut Silent) {
            Ok((trace, Flow::Continue)) => trace,
            other => panic!("an admitted plan did not come to its end: {other:?}"),
        };
        let traces = plans.iter().map(realise).collect();
        engine.release_all();
        engine.device.check_empty();
        traces
    }

    fn check_counts(&self, plan: &Plan, trace: &Trace) {
        assert_eq!(trace.stages.len(), self.job.stages.len());
        for ((stage, planned), ran) in self.job.stages.iter().zip(&plan.stages).zip(&trace.stages) {
            let tasks = stage.pass_count() * stage.tasks_per_pass() as u64;
            assert_eq!(ran.tasks.len() as u64, tasks, "tasks of '{}'", stage.name);
            assert!(
                ran.tasks.is_sorted_by_key(|t| (t.pass, t.task)) && ran.tasks.is_sorted_by(|a, b| a.end <= b.start)
            );
            assert!(ran.loads.is_sorted_by(|a, b| a.end <= b.start), "loads overlap");
            // What an earlier stage keeps is there already.
            let fresh = planned.prologue.iter().filter(|load| !planned.slots[load.slot as usize].keep);
            assert!(ran.loads.len() >= fresh.count(), "the prologue was not loaded");
        }
    }

    fn check_bounds(&self, plan: &Plan, trace: &Trace, times: &Times) {
        for (i, (stage, ran)) in self.job.stages.iter().zip(&trace.stages).enumerate() {
            let needs = fixed_and_stage(plan, i, &self.machine);
            let room = needs - self.machine.device.fixed_overhead - stage.activation_peak();
            let time = |pass, task| times.task(i, pass, task);
            let bound = stage_bound_timed(&self.job, stage, &self.machine, room, &time).time;
            // Each load and each task is rounded to a whole nanosecond.
            let slack = Nanos(1 + stage.pass_count() * (stage.tasks_per_pass() as u64 + 64));
            assert!(ran.length() + slack >= bound, "'{}' took {:?}, bound {bound:?}", stage.name, ran.length());
        }
    }
}

/// What a run came to, without its single tasks and loads.
fn sums(trace: &Trace) -> Vec<StageTrace> {
    trace.stages.iter().map(|s| StageTrace { tasks: Vec::new(), loads: Vec::new(), ..s.clone() }).collect()
}

/// A sound machine has a forecast for a job of all its kinds of work, if it has the rates.
pub(crate) fn check_forecast(machine: &Machine) {
    let mut supply = Supply::new(&[]);
    let mut job = job();
    let blocks = blocks(&mut job, &mut supply);
    job.stages.push(stage(0, &blocks, &mut supply));
    for block in &mut job.blocks {
        (block.slab, block.file) = (Bytes::mib(100), Bytes::mib(200));
        block.conversion = Some((DType::F32, DType::Bf16));
    }
    let Ok(times) = Interval::new(&job, machine) else { return };
    for times in [&times.fast, &times.median, &times.slow] {
        let sim = SimDevice::new(times, job.blocks.len(), false, false);
        let plan = resident(&job);
        let (trace, flow) = Engine::new(sim, false).realise(&job, &plan, Start::default(), &mut Silent).unwrap();
        assert_eq!(flow, Flow::Continue);
        assert_eq!(trace.stages.len(), job.stages.len());
    }
}

/// Every block in a slot of its own.
pub(crate) fn resident(job: &Job) -> Plan {
    let stage = |stage: &Stage| {
        let blocks = stage.distinct_blocks();
        StagePlan {
            slots: blocks.iter().map(|b| Slot { bytes: job.block(*b).slab, keep: false }).collect(),
            prologue: blocks.iter().zip(0..).map(|(b, slot)| Load { block: *b, slot, after: AT_ONCE }).collect(),
            cycle: Vec::new(),
            cycle_passes: 1,
            activations: stage.activation_peak(),
        }
    };
    Plan {
        policy: PolicyId { name: "made-up".into(), version: "1".into(), hash: ContentHash::of_bytes(b"") },
        knobs: job.knobs.clone(),
        homes: vec![Tier::Disk; job.blocks.len()],
        stages: job.stages.iter().map(stage).collect(),
        retain: Vec::new(),
        ladder: Vec::new(),
        triggers: Vec::new(),
        memo: Vec::new(),
        reasons: Vec::new(),
    }
}

fn job() -> Job {
    Job {
        model: "made-up".into(),
        model_hash: ContentHash::of_bytes(b"made-up"),
        request: Request {
            size: Size { width: 64, height: 64 },
            frames: 1,
            steps: 1,
            guidance: 1.0,
            prompt_tokens: 1,
            negative_tokens: 0,
        },
        knobs: Knobs::default(),
        kernel_set: "made-up".into(),
        components: vec!["transformer".into()],
        blocks: Vec::new(),
        stages: Vec::new(),
        frames_host: Bytes::ZERO,
    }
}

/// The blocks that a stage walks: new ones, or those of the stages before.
fn blocks(job: &mut Job, supply: &mut Supply<'_>) -> Vec<BlockId> {
    if job.blocks.is_empty() || supply.flip() {
        let from = job.blocks.len() as u32;
        for index in from..=from + supply.below(8) as u32 {
            let bytes = Bytes(KIB * supply.one_of(&[10, 0, 1, 7, 40]) + supply.one_of(&[0, 1, 513]));
            let name = format!("blocks.{index}");
            job.blocks.push(JobBlock { component: 0, index, name, slab: bytes, file: bytes, conversion: None });
        }
    }
    let all = (0..job.blocks.len() as u32).map(BlockId);
    all.rev().take(8).collect()
}

fn stage(index: usize, blocks: &[BlockId], supply: &mut Supply<'_>) -> Stage {
    let mut walk: Vec<Option<BlockId>> = blocks.iter().copied().map(Some).collect();
    for _ in 0..supply.below(3) {
        let at = supply.below(walk.len() + 1);
        walk.insert(at, supply.flip().then(|| blocks[supply.below(blocks.len())]));
    }
    let passes: Vec<Pass> = (0..1 + supply.below(2)).map(|_| pass(&walk, supply)).collect();
    let templates = passes.len();
    let run = |supply: &mut Supply<'_>| (supply.below(templates) as u32, 1 + supply.below(24) as u32);
    let sequence = (0..1 + supply.below(3)).map(|_| run(supply)).collect();
    let name = format!("stage {index}");
    Stage { kind: StageKind::Denoise, name, component: 0, passes, sequence }
}

fn pass(walk: &[Option<BlockId>], supply: &mut Supply<'_>) -> Pass {
    let mut task = |block: &Option<BlockId>| {
        let peak = Bytes(KIB * supply.one_of(&[30, 0, 3, 100]));
        Task {
            name: "task".into(),
            block: *block,
            ops: vec![op(OpKind::Linear, Op::Linear, supply), op(OpKind::Elementwise, Op::Add, supply)],
            memory: ActMemory { before: Bytes::ZERO, peak, after: Bytes::ZERO, at_peak: [peak; 5] },
            gathered: Bytes(supply.one_of(&[0, 0, 3000])),
            to_host: Bytes(supply.one_of(&[0, 0, 0, 500, 50_000])),
        }
    };
    Pass { tasks: walk.iter().map(&mut task).collect(), safe_point: true }
}

fn op(kind: OpKind, op: Op, supply: &mut Supply<'_>) -> OpCost {
    let (flops, bytes) = (supply.one_of(&[1000, 0, 20_000, 123_457]), supply.one_of(&[1000, 0, 70_001]));
    let site = Site { op, weight: DType::F32, dims: [64, 1536, 1536, 0] };
    OpCost { kind, site, dtype: DType::F32, count: 1, flops, bytes }
}

fn machine(supply: &mut Supply<'_>) -> Machine {
    let mut curve =
        |rates: &[f64]| Curve::flat(supply.one_of(&[0.0, 100.0, 5000.5]), Quantiles::exactly(supply.one_of(rates)));
    let link = LinkSpec { h2d_pinned: curve(&[1e9, 3e9]), h2d_pageable: curve(&[1e9, 7e8]), d2h: curve(&[1e9, 1e7]) };
    let disk = DiskSpec { read: curve(&[2e8, 1e9, 3e9]), cached: None };
    let rate = |kind| OpRate {
        kind,
        dtype: DType::F32,
        flops: Curve::flat(0.0, Quantiles::exactly(1e9)),
        bytes: Curve::flat(0.0, Quantiles::exactly(1e10)),
    };
    let ops = vec![rate(OpKind::Linear), rate(OpKind::Elementwise)];
    let allocation = supply.flip().then(|| Curve::flat(10.0, Quantiles::exactly(1e9)));
    let share = [1.0, 0.5, 0.001, 0.731];
    Machine {
        name: "made-up".into(),
        hash: ContentHash::of_bytes(b"made-up"),
        provenance: Provenance::Datasheet,
        device: Device {
            name: "made-up".into(),
            memory: Bytes::gib(8),
            granularity: supply.one_of(&[1, 4096, 512, 2 << 20]),
            fixed_overhead: Bytes(supply.one_of(&[0, 5000])),
            kernel_set: "made-up".into(),
            allocation,
            unified: supply.flip(),
        },
        host: HostSpec {
            memory: Bytes::gib(64),
            convert: Curve::flat(0.0, Quantiles::exactly(1e9)),
            conversions: Vec::new(),
        },
        link,
        disk,
        sites: Vec::new(),
        contention: Contention { compute: supply.one_of(&share), load: supply.one_of(&share) },
        calibration: Vec::new(),
        ops,
    }
}

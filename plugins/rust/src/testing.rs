//! Native tests of policies: situations that are made up, a checker and a host that simulates; and whether the
//! component that a policy is built to says the same as the library, see [`same_as_component`].
//!
//! The checker follows the rules of the contract; the host's own is stricter in its wording and the
//! one that counts. The simulation knows one link and one device that computes, which is enough to
//! tell a good order from a bad one.

mod program;
mod transcript;
mod wave;
mod words;

use crate::{
    Blocks, Budget, Column, Entry, ForecastReply, Host, Job, Level, Loaded, Machine, NO_BLOCK, Plan, Situation, Stage,
    StagePlan, Value, copy_times,
};
pub use program::{recorded, same_as_component};
pub use transcript::{Compared, Transcript};

/// One stage to make up. Its component's name is the stage's name.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The name of stage and component.
    pub name: &'static str,
    /// Bytes of each block, in order of use.
    pub slabs: Vec<u64>,
    /// Which of them are one of their kind.
    pub odd: Vec<usize>,
    /// Which of them belong to a control branch.
    pub control: Vec<usize>,
    /// Nanoseconds of computing at each block.
    pub compute_ns: u64,
    /// The number of passes.
    pub passes: u64,
    /// Device bytes of everything but weights.
    pub activations: u64,
}

impl Shape {
    /// Alike blocks.
    #[must_use]
    pub fn alike(name: &'static str, blocks: usize, slab: u64, compute_ns: u64, passes: u64) -> Self {
        Self {
            name,
            slabs: vec![slab; blocks],
            odd: Vec::new(),
            control: Vec::new(),
            compute_ns,
            passes,
            activations: 0,
        }
    }
}

/// A situation at the start of a job. One byte takes a nanosecond from pinned memory, four from
/// pageable memory and sixteen from disk; the device hands out single bytes and has no overhead.
#[must_use]
pub fn situation(shapes: &[Shape], device: u64, settings: &[(&str, Value)]) -> Situation {
    Situation {
        cause: crate::cause::START,
        job: job(shapes),
        from_stage: 0,
        machine: Machine {
            name: "test".into(),
            kernel_set: "test".into(),
            memory: u64::MAX,
            granularity: 1,
            fixed_overhead: 0,
            facts: Vec::new(),
        },
        budget: Budget { device, host: u64::MAX, pinned: u64::MAX, disk: u64::MAX },
        settings: settings.iter().map(|(key, v)| Entry { key: (*key).into(), value: v.clone() }).collect(),
        may_change: Vec::new(),
        observed_device: 0,
        loaded: Loaded { block: Vec::new(), tier: Vec::new(), bytes: Vec::new(), hash: Vec::new() },
        upcoming: Vec::new(),
        memo: Vec::new(),
        facts: Vec::new(),
    }
}

fn job(shapes: &[Shape]) -> Job {
    let slab: Vec<u64> = shapes.iter().flat_map(|s| s.slabs.clone()).collect();
    let flags = |s: &Shape| (0..s.slabs.len()).map(|i| if s.odd.contains(&i) { 0 } else { 2 }).collect::<Vec<u32>>();
    let blocks = Blocks {
        component: shapes.iter().zip(0..).flat_map(|(s, c)| vec![c; s.slabs.len()]).collect(),
        index: shapes.iter().flat_map(|s| 0..s.slabs.len() as u32).collect(),
        file: slab.clone(),
        flags: shapes.iter().flat_map(flags).collect(),
        copy_pinned_ns: slab.clone(),
        copy_pageable_ns: slab.iter().map(|b| b * 4).collect(),
        read_ns: slab.iter().map(|b| b * 16).collect(),
        slab,
        extra: control(shapes),
    };
    let mut first = 0;
    let stages = shapes.iter().zip(0..).map(|(shape, component)| stage(shape, component, &mut first)).collect();
    Job {
        model: "test".into(),
        request: Vec::new(),
        knobs: Vec::new(),
        components: shapes.iter().map(|s| s.name.into()).collect(),
        blocks,
        stages,
        frames_host: 0,
    }
}

/// As the host does it: no column where there is no control branch.
fn control(shapes: &[Shape]) -> Vec<Column> {
    let of = |s: &Shape| (0..s.slabs.len()).map(|i| u64::from(s.control.contains(&i))).collect::<Vec<u64>>();
    let values: Vec<u64> = shapes.iter().flat_map(of).collect();
    if values.contains(&1) { vec![Column { name: "control".into(), values }] } else { Vec::new() }
}

fn stage(shape: &Shape, component: u32, first: &mut u32) -> Stage {
    let blocks: Vec<u32> = (*first..*first + shape.slabs.len() as u32).collect();
    *first += blocks.len() as u32;
    Stage {
        kind: 3,
        name: shape.name.into(),
        component,
        passes: shape.passes,
        compute_ns: vec![shape.compute_ns; blocks.len()],
        blocks,
        activation_peak: shape.activations,
        extra: Vec::new(),
    }
}

/// What is wrong with a plan; nothing if it may run.
#[must_use]
pub fn faults(s: &Situation, plan: &Plan) -> Vec<String> {
    let mut faults: Vec<String> = s.stages().zip(&plan.stages).filter_map(|(v, p)| follow(v.stage, p).err()).collect();
    if !s.fits(&s.job, &plan.stages, s.budget.device) {
        faults.push("the device budget does not hold".into());
    }
    if plan.homes.len() != s.job.blocks.slab.len() || plan.stages.len() != s.job.stages.len() {
        faults.push("homes or stages are missing".into());
    }
    let sizes = |p: &StagePlan| {
        let fits = |(block, slot, _): (u32, u32, u32)| s.job.blocks.slab[block as usize] <= p.slot_bytes[slot as usize];
        p.prologue.rows().chain(p.cycle.rows()).all(fits)
    };
    if !plan.stages.iter().all(sizes) {
        faults.push("a block is larger than its slot".into());
    }
    faults
}

/// The slot of each position of a cycle.
fn follow(stage: &Stage, plan: &StagePlan) -> Result<Vec<Option<usize>>, String> {
    let mut content = vec![NO_BLOCK; plan.slot_bytes.len()];
    plan.prologue.rows().for_each(|(block, slot, _)| content[slot as usize] = block);
    let start = content.clone();
    let mut loads = plan.cycle.rows().peekable();
    let mut slots = Vec::new();
    for position in 0..stage.blocks.len() * plan.cycle_passes as usize {
        let block = stage.blocks[position % stage.blocks.len()];
        let slot = content.iter().position(|b| *b == block);
        if block != NO_BLOCK && slot.is_none() {
            return Err(format!("{}: block {block} is missing at position {position}", stage.name));
        }
        slots.push(slot.filter(|_| block != NO_BLOCK));
        while let Some((block, slot, _)) = loads.next_if(|(.., after)| *after as usize <= position) {
            content[slot as usize] = block;
        }
    }
    match loads.next() {
        Some(load) => Err(format!("{}: {load:?} is after the end of the cycle", stage.name)),
        None if content != start => Err(format!("{}: the cycle does not close", stage.name)),
        None => Ok(slots),
    }
}

/// Nanoseconds that a stage takes from an empty device on, if each block's copy takes `copy_ns`.
///
/// # Errors
/// Why the schedule cannot run.
pub fn simulate(stage: &Stage, plan: &StagePlan, copy_ns: &[u64]) -> Result<u64, String> {
    let slots = follow(stage, plan)?;
    let (mut link, mut now) = (0, 0);
    let mut ready = vec![0; plan.slot_bytes.len()];
    for (block, slot, _) in plan.prologue.rows() {
        link += copy_ns[block as usize];
        ready[slot as usize] = link;
    }
    for pass in 0..stage.passes as usize {
        let mut loads = plan.cycle.rows().peekable();
        for (position, compute) in stage.compute_ns.iter().enumerate() {
            let at = pass % plan.cycle_passes as usize * stage.blocks.len() + position;
            now = slots[at].map_or(now, |slot| now.max(ready[slot])) + compute;
            while loads.next_if(|(.., after)| (*after as usize) < at).is_some() {}
            while let Some((block, slot, _)) = loads.next_if(|(.., after)| *after as usize == at) {
                link = link.max(now) + copy_ns[block as usize];
                ready[slot as usize] = link;
            }
        }
    }
    Ok(now)
}

/// A host that simulates, and remembers what was said.
#[derive(Debug)]
pub struct Simulated<'a> {
    situation: &'a Situation,
    /// Every line of the log.
    pub log: Vec<String>,
    /// How many forecasts were made.
    pub forecasts: u32,
}

impl<'a> Simulated<'a> {
    /// A host for a situation.
    #[must_use]
    pub const fn new(situation: &'a Situation) -> Self {
        Self { situation, log: Vec::new(), forecasts: 0 }
    }
}

impl Host for Simulated<'_> {
    fn log(&mut self, _: Level, text: &str) {
        self.log.push(text.into());
    }

    fn probe(&mut self, _: &[Entry]) -> Result<Job, String> {
        Err("nothing can be probed".into())
    }

    fn forecast(&mut self, plan: &Plan) -> Result<ForecastReply, String> {
        self.forecasts += 1;
        if let Some(fault) = faults(self.situation, plan).first() {
            return Err(fault.clone());
        }
        let job = &self.situation.job;
        let copy_ns = copy_times(job, &plan.homes);
        let times = job.stages.iter().zip(&plan.stages).map(|(stage, p)| simulate(stage, p, &copy_ns));
        let times: Vec<u64> = times.collect::<Result<_, _>>()?;
        let compute = |stage: &Stage| stage.compute_ns.iter().sum::<u64>() * stage.passes;
        let stages = times.len();
        Ok(ForecastReply {
            cold_ns: times.iter().sum(),
            warm_ns: times.iter().sum(),
            host_peak: 0,
            disk_read: 0,
            stage_cold_ns: times.clone(),
            stage_warm_ns: times,
            stage_stall_ns: vec![0; stages],
            stage_peak: vec![0; stages],
            stage_bound_ns: job.stages.iter().map(compute).collect(),
            stalls: vec![Vec::new(); stages],
            findings: Vec::new(),
            facts: Vec::new(),
        })
    }
}

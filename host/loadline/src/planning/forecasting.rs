//! A plan realised on a machine that exists only as numbers.

use loadline_core::check::{fixed_and_stage, host_reservations};
use loadline_core::{
    ActClass, Bytes, Estimate, Forecast, Job, LaneUse, Machine, MissingRate, Nanos, Plan, Reservation, StageForecast,
    Tier, stage_bound,
};
use loadline_engine::{Budgeted, Engine, Metered, Observer, StageTrace, Start, Trace};
use loadline_sim::{SimDevice, Times};

/// The simulated stack. Its twin is `running::session::Real`.
type Simulated<'a> = Metered<Budgeted<SimDevice<'a>>>;

/// What a simulated run gives.
#[derive(Default)]
pub(crate) struct Simulation {
    pub(crate) trace: Trace,
    /// How long disk and link to the host had been busy when each stage ended.
    lanes: Vec<(Nanos, Nanos)>,
}

impl<'a> Observer<Simulated<'a>> for Simulation {
    fn stage_ended(&mut self, device: &mut Simulated<'a>, _: &StageTrace) {
        let sim = &device.inner.inner;
        self.lanes.push((sim.disk_busy(), sim.send_busy()));
    }
}

impl Simulation {
    /// How long disk and link to the host were busy during a stage.
    fn busy(&self, stage: usize) -> (Nanos, Nanos) {
        let until = |i: usize| self.lanes.get(i).copied().unwrap_or_default();
        let before = stage.checked_sub(1).map(until).unwrap_or_default();
        let (disk, send) = until(stage);
        (disk - before.0, send - before.1)
    }
}

/// Realises a plan on the simulator.
pub(crate) fn simulate(job: &Job, plan: &Plan, times: &Times, warm: bool, record: bool) -> Simulation {
    let sim = SimDevice::new(times, job.blocks.len(), warm, record);
    // A checked plan is within its budget; the decorator is here because both worlds have it.
    let device: Simulated<'_> = Metered::new(Budgeted::new(sim, Bytes::MAX, 1));
    let mut engine = Engine::new(device, record);
    let mut simulation = Simulation::default();
    let trace = engine.realise(job, plan, Start::default(), &mut simulation).map(|(t, _)| t).unwrap_or_default();
    Simulation { trace, ..simulation }
}

/// The forecast of a checked plan: cold and warm, with the interval of the machine's figures, and the bound.
///
/// # Errors
/// If the machine's profile lacks a rate.
pub fn forecast(job: &Job, plan: &Plan, machine: &Machine) -> Result<Forecast, MissingRate> {
    let times = |estimate| Times::new(job, machine, estimate);
    let (fast, median, slow) = (times(Estimate::Fast)?, times(Estimate::Median)?, times(Estimate::Slow)?);
    let cold = simulate(job, plan, &median, false, true);
    let warm = simulate(job, plan, &median, true, false);
    let fast = simulate(job, plan, &fast, false, false);
    let slow = simulate(job, plan, &slow, false, false);
    let length = |s: &Simulation, i: usize| s.trace.stages.get(i).map_or(Nanos::ZERO, StageTrace::length);
    let mut stages = Vec::with_capacity(job.stages.len());
    for (i, stage) in job.stages.iter().enumerate() {
        let reservations = stage_reservations(job, plan, machine, i);
        let trace = &cold.trace.stages[i];
        let streamed = streamed_blocks(job, plan, i);
        let (disk, send) = cold.busy(i);
        stages.push(StageForecast {
            name: stage.name.clone(),
            cold: length(&cold, i),
            warm: length(&warm, i),
            p10: length(&fast, i),
            p90: length(&slow, i),
            stall: trace.stall,
            busy: LaneUse { compute: trace.compute, h2d: trace.load, d2h: send, disk },
            peak: reservations.iter().map(|r| r.bytes).sum(),
            reservations,
            bound: stage_bound(job, stage, machine, weight_room(job, plan, machine, i))?,
            resident_blocks: stage.distinct_blocks().len() as u32 - streamed,
            streamed_blocks: streamed,
        });
    }
    let disk_read = disk_read(job, plan, &cold.trace);
    Ok(Forecast { stages, host: host_reservations(plan, job, machine), disk_read, provenance: machine.provenance })
}

fn streamed_blocks(job: &Job, plan: &Plan, stage: usize) -> u32 {
    let cycle = &plan.stages[stage].cycle;
    let streams = |b: &loadline_core::BlockId| cycle.iter().any(|l| l.block == *b);
    job.stages[stage].distinct_blocks().iter().filter(|b| streams(b)).count() as u32
}

/// Bytes that a stage's weights may take: what its slots do.
pub(super) fn weight_room(job: &Job, plan: &Plan, machine: &Machine, stage: usize) -> Bytes {
    let needs = fixed_and_stage(plan, stage, machine);
    needs - machine.device.fixed_overhead - job.stages[stage].activation_peak()
}

/// The named shares of a stage's device peak.
pub(crate) fn stage_reservations(job: &Job, plan: &Plan, machine: &Machine, stage: usize) -> Vec<Reservation> {
    let granule = if machine.device.unified { 1 } else { machine.device.granularity };
    let slots = |streaming: bool| -> Bytes {
        let stage = &plan.stages[stage];
        let of = stage.slots.iter().zip(0..).filter(|(_, i)| stage.streams(*i) == streaming);
        of.map(|(s, _)| s.bytes.round_up(granule)).sum()
    };
    let named = |name: &str, bytes: Bytes| Reservation { name: name.to_owned(), bytes };
    let mut reservations = vec![
        named("fixed", machine.device.fixed_overhead),
        named("residents", slots(false)),
        named("slots", slots(true)),
        named("kept", plan.kept_before(stage) + plan.kept_after(stage)),
    ];
    if let Some(task) = job.stages[stage].peak_task() {
        reservations.extend(ActClass::ALL.into_iter().map(|c| named(c.name(), task.memory.at_peak[c as usize])));
    }
    reservations.retain(|r| r.bytes > Bytes::ZERO);
    reservations
}

fn disk_read(job: &Job, plan: &Plan, trace: &Trace) -> Bytes {
    let mut in_host = vec![false; job.blocks.len()];
    let mut total = Bytes::ZERO;
    for load in trace.stages.iter().flat_map(|s| &s.loads) {
        let index = load.block.0 as usize;
        if plan.homes[index] == Tier::Disk || !std::mem::replace(&mut in_host[index], true) {
            total += job.blocks[index].file;
        }
    }
    total
}

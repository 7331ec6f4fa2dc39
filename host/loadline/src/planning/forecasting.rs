//! A plan realised on a machine that exists only as numbers.

use loadline_core::check::{fixed_and_stage, host_reservations};
use loadline_core::{
    ActClass, Bytes, ContentHash, Forecast, Job, LaneUse, Load, LoadedBlock, Machine, MissingRate, Nanos, Plan,
    Reservation, StageForecast, StagePlan, stage_bound_timed,
};
use loadline_engine::{Budgeted, Engine, Metered, Observer, Silent, StageTrace, Start, Trace};
use loadline_sim::{Interval, SimDevice, Times};

/// The simulated stack. Its twin is `running::session::Real`.
type Simulated<'a> = Metered<Budgeted<SimDevice<'a>>>;

/// What a simulated run gives.
#[derive(Default)]
pub(crate) struct Simulation {
    pub(crate) trace: Trace,
    /// How long disk and link to the host had been busy when each stage ended.
    lanes: Vec<(Nanos, Nanos)>,
    /// Bytes read from disk.
    pub(crate) disk_read: Bytes,
}

impl<'a> Observer<Simulated<'a>> for Simulation {
    fn stage_ended(&mut self, device: &mut Simulated<'a>, _: &StageTrace) {
        let sim = &device.inner.inner;
        self.lanes.push((sim.disk_busy(), sim.send_busy()));
        self.disk_read = sim.disk_read();
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

/// Realises a plan on the simulator. With `record` the trace lists every task and load, and all of them are simulated;
/// its other figures are the same without.
pub(crate) fn simulate(job: &Job, plan: &Plan, times: &Times, warm: bool, record: bool) -> Simulation {
    let sim = SimDevice::new(times, job.blocks.len(), warm, record);
    // A checked plan is within its budget; the decorator is here because both worlds have it.
    let device: Simulated<'_> = Metered::new(Budgeted::new(sim, Bytes::MAX, 1));
    let mut engine = Engine::new(device, record);
    let mut simulation = Simulation::default();
    let trace = engine.realise(job, plan, Start::default(), &mut simulation).map(|(t, _)| t).unwrap_or_default();
    Simulation { trace, ..simulation }
}

/// The time of a job that follows one with the same plan in the same process: masters in host memory are filled, and
/// what the plan keeps is still on the device.
pub(crate) fn following(job: &Job, plan: &Plan, times: &Times) -> Nanos {
    let sim = SimDevice::new(times, job.blocks.len(), false, false);
    let device: Simulated<'_> = Metered::new(Budgeted::new(sim, Bytes::MAX, 1));
    let mut engine = Engine::new(device, false);
    let mut run = || engine.realise(job, plan, Start::default(), &mut Silent).map(|(t, _)| t).unwrap_or_default();
    run();
    run().stages.iter().map(StageTrace::length).sum()
}

/// The forecast of a checked plan: cold and warm, with the interval of the machine's figures, and the bound.
///
/// # Errors
/// If the machine's profile lacks a rate.
pub fn forecast(job: &Job, plan: &Plan, machine: &Machine) -> Result<Forecast, MissingRate> {
    Ok(forecast_timed(job, plan, machine, &Interval::new(job, machine)?))
}

/// The same where the times of the job on the machine are known already, as for many plans of one job.
#[must_use]
pub fn forecast_timed(job: &Job, plan: &Plan, machine: &Machine, times: &Interval) -> Forecast {
    let cold = simulate(job, plan, &times.median, false, false);
    let warm = simulate(job, plan, &times.median, true, false);
    let fast = simulate(job, plan, &times.fast, false, false);
    let slow = simulate(job, plan, &times.slow, false, false);
    let length = |s: &Simulation, i: usize| s.trace.stages.get(i).map_or(Nanos::ZERO, StageTrace::length);
    let mut stages = Vec::with_capacity(job.stages.len());
    for ((i, stage), trace) in job.stages.iter().enumerate().zip(&cold.trace.stages) {
        let reservations = stage_reservations(job, plan, machine, i);
        let (resident_blocks, streamed_blocks) = blocks_by_way(job, plan, i);
        let (disk, send) = cold.busy(i);
        let (room, time) = (weight_room(job, plan, machine, i), |pass, task| times.median.task(i, pass, task));
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
            bound: stage_bound_timed(job, stage, machine, room, &time),
            resident_blocks,
            streamed_blocks,
        });
    }
    let host = host_reservations(plan, job, machine);
    Forecast { stages, host, disk_read: cold.disk_read, provenance: machine.provenance }
}

/// What names a block that is kept on the device, whichever job of a model it belongs to.
pub(crate) fn kept_hash(model: &str, block: &str, bytes: Bytes) -> ContentHash {
    ContentHash::of(&(model, block, bytes))
}

/// Adds to the forecast of a job what earlier ones have kept on the device for its later stages.
pub(crate) fn add_kept_from_before(forecast: &mut Forecast, job: &Job, plan: &Plan, loaded: &[LoadedBlock]) {
    let is_loaded = |load: &Load| {
        let block = job.block(load.block);
        let hash = kept_hash(&job.model, &block.name, block.slab);
        loaded.iter().any(|l| l.hash == hash)
    };
    let kept = |stage: &StagePlan| -> Bytes {
        let slots = stage.slots.iter().zip(0u32..).filter(|(slot, _)| slot.keep);
        let there = |i: u32| stage.prologue.iter().any(|load| load.slot == i && is_loaded(load));
        slots.filter(|(_, i)| there(*i)).map(|(slot, _)| slot.bytes).sum()
    };
    let mut later: Bytes = plan.stages.iter().map(kept).sum();
    for (stage, planned) in forecast.stages.iter_mut().zip(&plan.stages) {
        later = later - kept(planned);
        if later == Bytes::ZERO {
            continue;
        }
        stage.peak += later;
        match stage.reservations.iter_mut().find(|r| r.name == "kept") {
            Some(reservation) => reservation.bytes += later,
            None => stage.reservations.push(Reservation { name: "kept".to_owned(), bytes: later }),
        }
    }
}

/// How many of a stage's blocks stay, and how many pass through slots.
fn blocks_by_way(job: &Job, plan: &Plan, stage: usize) -> (u32, u32) {
    let cycle = &plan.stages[stage].cycle;
    let blocks = job.stages[stage].distinct_blocks();
    let streams = |b: &&loadline_core::BlockId| cycle.iter().any(|l| l.block == **b);
    let streamed = blocks.iter().filter(streams).count() as u32;
    (blocks.len() as u32 - streamed, streamed)
}

/// Bytes that a stage's weights may take: what its slots do.
pub(super) fn weight_room(job: &Job, plan: &Plan, machine: &Machine, stage: usize) -> Bytes {
    let needs = fixed_and_stage(plan, stage, machine);
    needs - machine.device.fixed_overhead - job.stages[stage].activation_peak()
}

/// The named shares of a stage's device peak, in a job before which nothing was kept.
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
        named("kept", plan.kept_before(stage)),
    ];
    if let Some(task) = job.stages[stage].peak_task() {
        reservations.extend(ActClass::ALL.into_iter().map(|c| named(c.name(), task.memory.at_peak[c as usize])));
    }
    reservations.retain(|r| r.bytes > Bytes::ZERO);
    reservations
}

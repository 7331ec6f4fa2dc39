//! Going over periods at once gives what simulating them gives, and without contention both give what plain lanes do.
#![allow(clippy::unwrap_used)]

mod common;

use common::cases::{Case, case, contention};
use common::eager::Eager;
use common::{job, machine, rolling};
use loadline_core::check::resolve;
use loadline_core::*;
use loadline_engine::{At, Audited, Device, Engine, Faulty, Metered, Observer, Silent, Start, Trace, Usage};
use loadline_sim::{SimDevice, Times};

const SEEDS: u64 = 600;

/// Counts what is simulated: nobody hears of passes that are gone over.
#[derive(Default)]
struct Heard(u64);

impl<D: Device> Observer<D> for Heard {
    fn task_ended(&mut self, _: &mut D, _: At) {
        self.0 += 1;
    }
}

/// Everything that a run tells: its trace without the lists of a recorded one, and the device's own figures.
#[derive(Debug, PartialEq)]
struct Told {
    traces: Vec<Trace>,
    disk: Nanos,
    send: Nanos,
    read: Bytes,
    usage: Usage,
}

/// Runs a plan twice on one engine, for what the first run keeps; gives what it tells and how many tasks were heard.
fn told(case: &Case, warm: bool, full: bool, record: bool) -> (Told, u64) {
    let Case { job, plan, machine } = case;
    let times = Times::new(job, machine, Estimate::Median).unwrap();
    let mut engine = Engine::new(Metered::new(SimDevice::new(&times, job.blocks.len(), warm, full)), record);
    let mut heard = Heard::default();
    let mut run = || engine.realise(job, plan, Start::default(), &mut heard).unwrap().0;
    let traces = [run(), run()].map(bare).to_vec();
    let sim = &engine.device.inner;
    let (disk, send, read) = (sim.disk_busy(), sim.send_busy(), sim.disk_read());
    (Told { traces, disk, send, read, usage: engine.device.usage().clone() }, heard.0)
}

fn bare(mut trace: Trace) -> Trace {
    trace.stages.iter_mut().for_each(|s| (s.tasks, s.loads) = (Vec::new(), Vec::new()));
    trace
}

fn is_honest(case: &Case) -> bool {
    case.job.stages.iter().zip(&case.plan.stages).all(|(stage, plan)| resolve(&case.job, stage, plan).is_ok())
}

#[test]
fn going_over_periods_changes_no_figure() {
    let (mut heard, mut all) = (0, 0);
    for seed in 0..SEEDS {
        let mut case = case(seed, contention(seed));
        // Slots that take time are a part of a stage that no cycle comes back to.
        case.machine.device.allocation = (seed % 2 == 0).then(|| Curve::flat(0.0, Quantiles::exactly(1e9)));
        assert!(is_honest(&case), "seed {seed}");
        for warm in [false, true] {
            let (full, tasks) = told(&case, warm, true, false);
            let (leaping, simulated) = told(&case, warm, false, false);
            assert_eq!(leaping, full, "seed {seed}, warm {warm}");
            let stages = || leaping.traces.iter().flat_map(|t| &t.stages);
            assert!(stages().all(|s| s.waits.iter().copied().sum::<Nanos>() == s.stall), "seed {seed}, warm {warm}");
            assert_eq!(told(&case, warm, false, true).0, full, "seed {seed}, warm {warm}, recorded");
            (heard, all) = (heard + simulated, all + tasks);
        }
    }
    assert!(heard * 50 < all, "{heard} of {all} tasks were simulated: nothing is gone over");
}

/// With a resumed stage the period begins elsewhere.
#[test]
fn a_resumed_stage_is_gone_over_too() {
    for seed in 0..200 {
        let Case { job, plan, machine } = case(seed, contention(seed));
        let times = Times::new(&job, &machine, Estimate::Median).unwrap();
        let last = job.stages.len() - 1;
        let start = Start { stage: last, pass: job.stages[last].pass_count() / 3 };
        let trace = |full| {
            let mut engine = Engine::new(SimDevice::new(&times, job.blocks.len(), false, full), false);
            engine.realise(&job, &plan, start, &mut Silent).unwrap().0
        };
        assert_eq!(trace(false), trace(true), "seed {seed}");
    }
}

#[test]
fn without_contention_lanes_are_plain_clocks() {
    for seed in 0..SEEDS {
        let case = case(seed, Contention::NONE);
        let Case { job, plan, machine } = &case;
        let times = Times::new(job, machine, Estimate::Median).unwrap();
        for warm in [false, true] {
            let mut plain = Engine::new(Eager::new(&times, job.blocks.len(), warm), true);
            let mut sim = Engine::new(SimDevice::new(&times, job.blocks.len(), warm, true), true);
            let (mut in_host, mut read) = (vec![warm; job.blocks.len()], Bytes::ZERO);
            for _ in 0..2 {
                let expected = plain.realise(job, plan, Start::default(), &mut Silent).unwrap().0;
                let got = sim.realise(job, plan, Start::default(), &mut Silent).unwrap().0;
                assert_eq!(got, expected, "seed {seed}, warm {warm}");
                // From disk each time, or once to fill the host's copy.
                for load in got.stages.iter().flat_map(|s| &s.loads) {
                    let master = std::mem::replace(&mut in_host[load.block.0 as usize], true);
                    let filled = master && load.from != Tier::Disk;
                    read += if filled { Bytes::ZERO } else { job.block(load.block).file };
                }
            }
            assert_eq!(sim.device.disk_read(), read, "seed {seed}, warm {warm}");
            let busy = (plain.device.disk_busy, plain.device.send_busy);
            assert_eq!((sim.device.disk_busy(), sim.device.send_busy()), busy, "seed {seed}, warm {warm}");
        }
    }
}

/// A thousand passes take the work of a few.
#[test]
fn a_long_stage_is_a_short_one() {
    let job = job(&[(20, 10), (50, 5), (20, 40), (7, 7)], 100_000);
    let plan = rolling(&job, &[false, true, false, false], 2, Tier::Host);
    let case = Case { job, plan, machine: machine(4, false) };
    let (_, heard) = told(&case, false, false, false);
    assert!(heard < 2 * 4 * 40, "{heard} tasks were simulated");
}

/// A decorator that must see every call sees every call.
#[test]
fn an_audited_run_goes_over_nothing() {
    let job = job(&[(20, 10), (50, 5), (20, 40)], 50);
    let plan = rolling(&job, &[false; 3], 2, Tier::Host);
    let times = Times::new(&job, &machine(4, false), Estimate::Median).unwrap();
    let mut heard = [Heard::default(), Heard::default()];
    let mut audited = Engine::new(Audited::new(SimDevice::new(&times, 3, false, false)), false);
    audited.realise(&job, &plan, Start::default(), &mut heard[0]).unwrap();
    let mut faulty = Engine::new(Faulty::new(SimDevice::new(&times, 3, false, false), Vec::new()), false);
    faulty.realise(&job, &plan, Start::default(), &mut heard[1]).unwrap();
    assert_eq!(heard.map(|h| h.0), [150, 150]);
}

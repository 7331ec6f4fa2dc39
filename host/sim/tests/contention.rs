//! Computing and loading beside each other: both slow down while both are busy, and nothing else changes.
#![allow(clippy::unwrap_used)]

mod common;

use common::cases::{Case, case, contention};
use common::{job, machine, rolling};
use loadline_core::*;
use loadline_engine::{Engine, Silent, Start, Trace};
use loadline_sim::{SimDevice, Times};

fn simulate(case: &Case, warm: bool) -> Trace {
    let times = Times::new(&case.job, &case.machine, Estimate::Median).unwrap();
    let mut engine = Engine::new(SimDevice::new(&times, case.job.blocks.len(), warm, true), true);
    engine.realise(&case.job, &case.plan, Start::default(), &mut Silent).unwrap().0
}

/// Spans of the tasks and loads of the only stage.
fn spans(rows: &[common::Row], resident: &[bool], shares: (f64, f64)) -> [Vec<(u64, u64)>; 2] {
    let job = job(rows, 1);
    let plan = rolling(&job, resident, 1, Tier::Host);
    let mut machine = machine(1, false);
    machine.contention = Contention { compute: shares.0, load: shares.1 };
    let trace = simulate(&Case { job, plan, machine }, true);
    let stage = &trace.stages[0];
    let tasks = stage.tasks.iter().map(|s| (s.start.0, s.end.0)).collect();
    [tasks, stage.loads.iter().map(|s| (s.start.0, s.end.0)).collect()]
}

/// Three residents load in turn; the tasks run behind and beside them.
#[test]
fn both_slow_down_while_both_are_busy() {
    let check = |rows: &[common::Row], shares, tasks: &[(u64, u64)], loads: &[(u64, u64)]| {
        let resident = vec![true; rows.len()];
        assert_eq!(spans(rows, &resident, shares), [tasks.to_vec(), loads.to_vec()], "{rows:?} {shares:?}");
    };
    let rows = [(100, 60), (100, 60)];
    check(&rows, (1.0, 1.0), &[(100, 160), (200, 260)], &[(0, 100), (100, 200)]);
    // The task needs 120 at half its speed. In these the load gets 60 done; 40 are left for alone.
    check(&rows, (0.5, 0.5), &[(100, 220), (260, 320)], &[(0, 100), (100, 260)]);
    // Only the load is slowed: 30 done in 60, then 70 alone.
    check(&rows, (1.0, 0.5), &[(100, 160), (230, 290)], &[(0, 100), (100, 230)]);
    // Only the task is slowed: 50 done when the load ends, then 10 at full speed.
    check(&rows, (0.5, 1.0), &[(100, 210), (210, 270)], &[(0, 100), (100, 200)]);
    // The long first task is slowed by the second load, then by the third, then by nothing.
    let rows = [(10, 100), (30, 5), (20, 5)];
    check(&rows, (0.5, 1.0), &[(10, 135), (135, 140), (140, 145)], &[(0, 10), (10, 40), (40, 60)]);
    // Ends are rounded up to the next nanosecond: 10 at 0.7 of the speed are 14.3.
    check(&[(5, 10), (100, 1)], (0.7, 1.0), &[(5, 20), (105, 106)], &[(0, 5), (5, 105)]);
}

/// Shares of the whole speed change nothing even where the calculation is made: the nearest share below it, over
/// times too short for it to show.
#[test]
fn a_share_of_nearly_all_is_nearly_none() {
    for seed in 0..300 {
        let plain = simulate(&case(seed, Contention::NONE), false);
        let nearly = 1.0 - 1.0 / 65536.0;
        let slowed = simulate(&case(seed, Contention { compute: nearly, load: nearly }), false);
        for (a, b) in plain.stages.iter().zip(&slowed.stages) {
            let more = b.length().as_f64() / a.length().as_f64().max(1.0);
            // A nanosecond at most for each task and load, and one part in 2^16.
            let most = 1.0 + 2e-5 + (a.tasks.len() + a.loads.len()) as f64 / a.length().as_f64().max(1.0);
            assert!(more <= most, "seed {seed}: {more} above {most}");
        }
    }
}

/// No task and no load is faster than alone, and while both are busy each gets its share done.
#[test]
fn contention_only_slows() {
    for seed in 0..600 {
        let mut case = case(seed, contention(seed));
        // What a stage takes once is in its first task, which would then be no task alone.
        case.machine.calibration.clear();
        let times = Times::new(&case.job, &case.machine, Estimate::Median).unwrap();
        let trace = simulate(&case, true);
        // Every pair of a task and a load is looked at, so long stages are left out.
        for stage in trace.stages.iter().filter(|s| s.tasks.len() < 2000) {
            let order: Vec<_> = case.job.stages[stage.stage as usize].run_order().collect();
            for task in &stage.tasks {
                let alone = times.task(stage.stage as usize, order[task.pass as usize], task.task as usize);
                let took = task.end - task.start;
                let beside = overlap((task.start, task.end), stage.loads.iter().map(|l| (l.start, l.end)));
                share_is_done(took, alone, beside, case.machine.contention.compute, seed);
            }
            for load in stage.loads.iter().filter(|_| !times.unified()) {
                let alone = times.copy(load.block, load.from);
                let beside = overlap((load.start, load.end), stage.tasks.iter().map(|t| (t.start, t.end)));
                share_is_done(load.end - load.start, alone, beside, case.machine.contention.load, seed);
            }
        }
    }
}

fn overlap(span: (Nanos, Nanos), others: impl Iterator<Item = (Nanos, Nanos)>) -> Nanos {
    others.map(|(start, end)| end.min(span.1) - start.max(span.0)).sum()
}

/// What was done alone and beside the other lane is the work, but for the nanosecond that the end is rounded up by.
fn share_is_done(took: Nanos, alone: Nanos, beside: Nanos, share: f64, seed: u64) {
    assert!(took >= alone, "seed {seed}: {took:?} is faster than alone, {alone:?}");
    let done = (took - beside).as_f64() + beside.as_f64() * share;
    let slack = 2.0 + took.as_f64() / 65536.0;
    assert!((done - alone.as_f64()).abs() <= slack, "seed {seed}: {done} done of {alone:?}, beside {beside:?}");
}

/// The bound is computed from speeds alone, and contention only slows.
#[test]
fn bounds_hold_beside_contention() {
    for seed in 0..600 {
        let case = case(seed, contention(seed));
        let trace = simulate(&case, false);
        for (i, stage) in case.job.stages.iter().enumerate() {
            let memory = case.plan.stage_device_bytes(i);
            let bound = stage_bound(&case.job, stage, &case.machine, memory).unwrap();
            let got = trace.stages[i].length();
            assert!(got >= bound.time, "seed {seed}, stage {i}: {got:?} is below the bound {bound:?}");
        }
    }
}

/// A machine without a link has one lane for reading and copying, and that is what computing slows.
#[test]
fn a_unified_machine_slows_reads_too() {
    let job = job(&[(100, 60), (100, 60)], 1);
    let plan = rolling(&job, &[true; 2], 1, Tier::Disk);
    let mut machine = machine(2, true);
    machine.contention = Contention { compute: 1.0, load: 0.5 };
    let trace = simulate(&Case { job, plan, machine }, false);
    let ends: Vec<_> = trace.stages[0].loads.iter().map(|l| l.end.0).collect();
    // A read takes 200; beside the first task 30 of the second are done in 60.
    assert_eq!(ends, [200, 200 + 60 + 170]);
}

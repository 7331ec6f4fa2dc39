//! Schedules against closed forms: the figures for alike blocks in steady state.
#![allow(clippy::unwrap_used)]

use loadline_policy_sdk::testing::{Shape, faults, situation};
use loadline_policy_sdk::{Situation, Split, StagePlan, spread, testing};

/// 40 alike blocks of 1000 bytes, with the computing time per block in nanoseconds.
fn forty(compute_ns: u64) -> Situation {
    situation(&[Shape::alike("denoise", 40, 1000, compute_ns, 120)], u64::MAX, &[])
}

/// Time of a pass in steady state, in units of the computing time of a block.
fn per_pass(s: &Situation, plan: &StagePlan) -> f64 {
    let stage = &s.job.stages[0];
    let time = |passes: u64| {
        let stage = loadline_policy_sdk::Stage { passes, ..stage.clone() };
        testing::simulate(&stage, plan, &s.job.blocks.copy_pinned_ns).unwrap()
    };
    (time(120) - time(60)) as f64 / 60.0 / stage.compute_ns[0] as f64
}

#[track_caller]
fn check_time(slots: u64, ratio: f64, plan: impl Fn(&Situation, u64) -> StagePlan, expected: f64) {
    let s = forty((1000.0 / ratio) as u64);
    let plan = plan(&s, slots * 1000);
    assert_eq!(faults(&s, &s.plan(vec![plan.clone()])), [""; 0]);
    let got = per_pass(&s, &plan);
    assert!((got - expected).abs() < 0.35, "{slots} slots, copy {ratio}: {got}, expected {expected}");
}

#[test]
fn interleaved_residents_with_two_slots() {
    let plan = |s: &Situation, room| StagePlan::with_slots(&s.stage(0), room, 2).unwrap();
    check_time(6, 1.5, plan, 54.0);
    check_time(12, 1.25, plan, 42.5);
    check_time(12, 1.5, plan, 45.0);
    check_time(22, 2.0, plan, 40.0);
    check_time(22, 3.0, plan, 60.0);
    check_time(32, 5.0, plan, 50.0);
}

#[test]
fn leading_residents_are_slower() {
    let plan = |s: &Situation, room: u64| {
        let split = Split::count(&s.stage(0), 42 - (room / 1000) as usize, true);
        StagePlan::rolling(&s.stage(0), &split, 2)
    };
    check_time(12, 1.5, plan, 54.0);
    check_time(22, 2.0, plan, 58.0);
    check_time(32, 5.0, plan, 72.0);
}

#[test]
fn eager_beats_residents_where_copies_dominate() {
    let plan = |s: &Situation, room| StagePlan::eager_within(&s.stage(0), room, &s.job.blocks.copy_pinned_ns).unwrap();
    check_time(12, 1.25, plan, 40.0);
    check_time(6, 3.0, plan, 107.8);
    check_time(22, 3.0, plan, 58.4);
    check_time(32, 5.0, plan, 46.1);
}

#[test]
fn picks_are_spread() {
    let check =
        |n: u32, count: usize, expected: &[u32]| assert_eq!(spread(&(0..n).collect::<Vec<_>>(), count), expected);
    check(4, 0, &[]);
    check(4, 2, &[1, 3]);
    check(5, 2, &[2, 4]);
    check(3, 3, &[0, 1, 2]);
    check(0, 0, &[]);
}

//! A run says how it stands while it runs, and where its memory went.
#![allow(clippy::unwrap_used)]

mod support;

use std::alloc::System;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use loadline::core::{Bytes, Nanos};
use loadline::live::{Board, Phase, Status, Who};
use loadline::memory::Counting;
use loadline::{MemoryReport, Outcome, Planner, policies};
use support::{cpu, fixture, golden_job, session};

#[global_allocator]
static ALLOCATOR: Counting<System> = Counting(System);

/// Device bytes are counted for the whole process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Every state of a run, and how it ended.
fn watched(vram: Option<Bytes>) -> (Vec<Status>, Outcome) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let (mut session, job) = (session("auto-tune"), golden_job(folder.path(), vram));
    let machine = session.machine().clone();
    let mut board = Board::new(&Who { pid: 7, machine: &machine, output: "out.mp4", job: Some((2, 3)) });
    let mut states = vec![board.status().clone()];
    let outcome = session.run(&job, &AtomicBool::new(false), &mut |event| {
        if board.hear(&event) {
            states.push(board.status().clone());
        }
    });
    (states, outcome.unwrap())
}

#[test]
fn a_run_is_seen_from_planning_to_writing() {
    let (states, outcome) = watched(Some(Bytes::mib(8)));
    assert_eq!((states[0].phase, states[0].pid, states[0].job.unwrap().n), (Phase::Planning, 7, 2));
    assert_eq!(states.last().unwrap().phase, Phase::Writing);
    let names = |state: &Status| state.stages.iter().map(|s| s.name.clone()).collect::<Vec<_>>();
    let stages: Vec<_> = outcome.planned.job.stages.iter().map(|s| s.name.clone()).collect();
    for state in &states[1..] {
        assert_eq!(names(state), stages);
        assert_eq!(state.device.budget_bytes, Bytes::mib(8));
        assert!(state.compute.share() <= 1.0 && state.load.share() <= 1.0);
        let round: Status = serde_json::from_str(&serde_json::to_string(state).unwrap()).unwrap();
        assert_eq!(&round, state);
    }
    // Every stage tells how it stands at least once, and what it took at its end.
    for (n, stage) in outcome.measured.stages.iter().enumerate() {
        let running: Vec<_> = states.iter().filter(|s| s.stage == n && s.task > 0).collect();
        assert!(!running.is_empty(), "{}", stage.name);
        let told = &states.last().unwrap().stages[n];
        assert_eq!((told.measured_bytes, told.measured_ns.is_some()), (Some(stage.device_peak), true));
    }
    let left: Vec<Nanos> = states[1..].iter().map(|s| s.left.forecast_ns).collect();
    assert!(left.is_sorted_by(|a, b| a >= b), "{left:?}");
    assert_eq!(left.last(), Some(&Nanos::ZERO));
}

#[test]
fn a_stage_knows_where_its_peak_was() {
    let (_, outcome) = watched(None);
    let measured = &outcome.measured;
    for (n, stage) in measured.stages.iter().enumerate() {
        let at = stage.memory.peak_at.unwrap();
        let highs: Vec<_> = measured.highs.iter().filter(|high| high.stage == n).collect();
        let of_peak = highs.iter().find(|high| (high.pass, high.task) == (at.pass, at.task)).unwrap();
        assert_eq!(of_peak.device, stage.device_peak, "{}", stage.name);
        assert!(highs.iter().all(|high| high.device <= stage.device_peak), "{}", stage.name);
        assert!(stage.memory.reserved >= stage.device_peak, "{}", stage.name);
        assert!(stage.memory.allocations.device > 0 && stage.memory.free_before > Some(Bytes::ZERO));
        assert!(stage.memory.left < stage.device_peak);
    }
}

#[test]
fn a_report_says_the_same_as_the_run_and_its_forecast() {
    let (_, outcome) = watched(None);
    let machine = cpu();
    let report = MemoryReport::of_run(&outcome.planned, &machine, &outcome.measured);
    for ((stage, measured), forecast) in
        report.stages.iter().zip(&outcome.measured.stages).zip(&outcome.planned.forecast.stages)
    {
        let told = stage.measured.as_ref().unwrap();
        assert_eq!((told.peak_bytes, &told.memory), (measured.device_peak, &measured.memory));
        assert_eq!(stage.blocks.iter().filter_map(|b| b.measured_bytes).max(), Some(measured.device_peak));
        // The forecast's highest block is its peak, but for what the whole is rounded up by.
        let highest = stage.blocks.iter().map(|b| b.forecast_bytes).max().unwrap();
        assert!(highest <= forecast.peak && forecast.peak.0 - highest.0 < 1 << 20, "{highest} {}", forecast.peak);
        let at = stage.forecast_peak_at.as_ref().unwrap();
        assert!(stage.blocks.iter().any(|b| b.block == at.block && b.forecast_bytes == highest), "{at:?}");
        for block in &stage.blocks {
            assert!(block.measured_bytes.unwrap() <= forecast.peak, "{block:?}");
        }
    }
    let model = loadline::Model::open(fixture("wan_t2v/model").to_str().unwrap()).unwrap();
    let policy = policies::load("auto-tune").unwrap();
    let settings = policies::settings(&policy, &[]).unwrap();
    let planner = Planner::new(&model, &machine, &policy, &settings);
    let folder = tempfile::tempdir().unwrap();
    let planned = planner.plan(&golden_job(folder.path(), None).asked).unwrap();
    let report = MemoryReport::of_forecast(&planned, &machine);
    assert_eq!(report.stages.len(), planned.job.stages.len());
    assert!(report.stages.iter().all(|s| s.measured.is_none() && s.blocks.iter().all(|b| b.measured_bytes.is_none())));
}

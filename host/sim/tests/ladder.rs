//! A rung of a plan's ladder is a plan that runs.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Random, job, machine, rolling};
use loadline_core::check::{check, has_errors};
use loadline_core::*;
use loadline_engine::{Engine, Silent, Start};
use loadline_sim::{SimDevice, Times};

const ALL: Budget = Budget { device: Bytes::MAX, host: Bytes::MAX, pinned: Bytes::MAX, disk: Bytes::MAX };

/// The time of the plan's only stage, once every check has passed.
fn time(job: &Job, plan: &Plan, machine: &Machine) -> Nanos {
    let findings = check(plan, job, machine, &ALL);
    assert!(!has_errors(&findings), "{findings:?}");
    let times = Times::new(job, machine, Estimate::Median).unwrap();
    let mut engine = Engine::new(SimDevice::new(&times, job.blocks.len(), false, false), false);
    engine.realise(job, plan, Start::default(), &mut Silent).unwrap().0.stages[0].length()
}

#[test]
fn a_rung_has_the_slots_that_it_says_and_runs() {
    let machine = machine(2, false);
    let check = |rows: &[common::Row], slots: u32, sizes: &[u64]| {
        let job = job(rows, 5);
        let plan = rolling(&job, &vec![true; rows.len()], 1, Tier::Host);
        let rung = step_down(&job, &plan, 0, slots);
        let found: Vec<u64> = rung.stages[0].slots.iter().map(|s| s.bytes.0).collect();
        assert_eq!(found, sizes, "{rows:?} in {slots}");
        assert!(time(&job, &rung, &machine) > Nanos::ZERO);
    };
    let rows = [(10, 5), (20, 5), (30, 5), (40, 5), (50, 5)];
    check(&rows, 0, &[50]);
    check(&rows, 1, &[50]);
    check(&rows, 2, &[50, 40]);
    check(&rows, 3, &[40, 50, 30]);
    check(&rows, 5, &[10, 20, 30, 40, 50]);
    check(&rows, 9, &[10, 20, 30, 40, 50]);
    check(&rows[..1], 3, &[10]);
}

/// A block that several tasks in a row need stays for them; one that comes back later is loaded again.
#[test]
fn tasks_that_share_a_block_share_its_load() {
    let mut job = job(&[(10, 5), (20, 5), (30, 5), (40, 5)], 3);
    for (task, block) in [Some(0), Some(0), Some(1), None].into_iter().enumerate() {
        job.stages[0].passes[0].tasks[task].block = block.map(BlockId);
    }
    let plan = rolling(&job, &[true; 4], 1, Tier::Host);
    let rung = step_down(&job, &plan, 0, 1);
    assert_eq!(rung.stages[0].cycle.len(), 2);
    let machine = machine(2, false);
    time(&job, &rung, &machine);
    let two = step_down(&job, &plan, 0, 2);
    assert!(two.stages[0].cycle.is_empty(), "both blocks have a slot");
    time(&job, &two, &machine);
}

#[test]
fn every_rung_of_any_job_runs() {
    let mut random = Random(11);
    for _ in 0..300 {
        let count = random.within(1..9) as usize;
        let rows: Vec<common::Row> = (0..count).map(|_| (random.within(1..60), random.within(1..60))).collect();
        let mut job = job(&rows, 4);
        for task in &mut job.stages[0].passes[0].tasks {
            task.block = (random.within(0..8) > 0).then(|| BlockId(random.within(0..count as u64) as u32));
        }
        let plan = rolling(&job, &vec![true; count], 1, Tier::Host);
        let machine = machine(2, random.within(0..2) == 0);
        for slots in 1..=count as u32 + 1 {
            let rung = step_down(&job, &plan, 0, slots);
            assert!(rung.stages[0].slots.len() <= slots as usize);
            time(&job, &rung, &machine);
        }
    }
}

/// What has ended stays as it was, but keeps nothing: a rung is there to give memory back.
#[test]
fn stages_that_have_ended_keep_nothing() {
    let mut job = job(&[(10, 5), (20, 5)], 2);
    job.stages.push(Stage { name: "again".into(), ..job.stages[0].clone() });
    let mut plan = rolling(&job, &[true; 2], 1, Tier::Host);
    plan.stages.push(plan.stages[0].clone());
    plan.stages[0].slots.iter_mut().for_each(|slot| slot.keep = true);
    plan.retain = vec![BlockId(0), BlockId(1)];
    let rung = step_down(&job, &plan, 1, 1);
    assert_eq!(rung.stages[0].prologue, plan.stages[0].prologue);
    assert!(rung.stages.iter().flat_map(|s| &s.slots).all(|slot| !slot.keep) && rung.retain.is_empty());
    assert_eq!(rung.stages[1].slots.len(), 1);
}

//! The shortest forecast wins.
#![allow(clippy::unwrap_used)]

use auto_tune::AutoTune;
use loadline_policy_sdk::testing::{Shape, Simulated, faults, simulate, situation};
use loadline_policy_sdk::{Decision, Plan, Policy, Situation, StagePlan, Value, copy_times};

fn made(device: u64, compute_ns: u64) -> Situation {
    let settings =
        [("most_slots", Value::Integer(8)), ("gap_percent", Value::Number(0.1)), ("keep", Value::Boolean(true))];
    let shapes = [
        Shape::alike("text_encoder", 10, 1000, 500, 1),
        Shape { activations: 5000, ..Shape::alike("transformer", 40, 1000, compute_ns, 60) },
    ];
    situation(&shapes, device, &settings)
}

fn decide(s: &Situation) -> (Plan, u32) {
    let mut host = Simulated::new(s);
    let Decision::Plan(plan) = AutoTune.decide(s, &mut host).unwrap() else { panic!("a plan was expected") };
    assert_eq!(faults(s, &plan), [""; 0]);
    (plan, host.forecasts)
}

fn time(s: &Situation, stage: usize, plan: &StagePlan, homes: &[u8]) -> u64 {
    simulate(&s.job.stages[stage], plan, &copy_times(&s.job, homes)).unwrap()
}

#[test]
fn no_simple_layout_is_faster() {
    for device in [6000, 7000, 9000, 15_000, 30_000, 50_000] {
        for compute_ns in [100, 700, 1200] {
            let s = made(device, compute_ns);
            let (plan, _) = decide(&s);
            let found = time(&s, 1, &plan.stages[1], &plan.homes);
            for slots in 1..=8 {
                let Some(simple) = StagePlan::with_slots(&s.stage(1), device - 5000, slots) else { continue };
                let simple = time(&s, 1, &simple, &plan.homes);
                // Within the gap that ends a search.
                assert!(
                    found <= simple + simple / 1000,
                    "{device} bytes, {compute_ns} ns, {slots} slots: {found} {simple}"
                );
            }
        }
    }
}

#[test]
fn more_memory_is_never_slower() {
    let times: Vec<u64> = (6..50)
        .map(|k| {
            let s = made(k * 1000, 400);
            let (plan, _) = decide(&s);
            time(&s, 1, &plan.stages[1], &plan.homes)
        })
        .collect();
    assert!(times.windows(2).all(|w| w[1] <= w[0] + w[0] / 200), "{times:?}");
}

#[test]
fn a_stage_at_its_bound_is_not_searched() {
    let mut s = made(45_000, 400);
    s.job.stages.iter_mut().for_each(|stage| stage.passes = 100_000);
    let (plan, forecasts) = decide(&s);
    // Everything is resident: one try, and one more of the winners.
    assert!(forecasts <= 2, "{forecasts}");
    assert!(plan.reasons.last().unwrap().ends_with("no plan with this memory is faster"), "{:?}", plan.reasons);
}

#[test]
fn the_next_job_finds_its_blocks() {
    let mut s = made(55_000, 400);
    s.upcoming = (0..50).collect();
    assert_eq!(decide(&s).0.retain.len(), 50);
    s.budget.device = 54_999;
    assert_eq!(decide(&s).0.retain.len(), 40);
}

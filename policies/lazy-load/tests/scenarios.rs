//! Nothing is loaded before it is needed, and nothing stays without a use.
#![allow(clippy::unwrap_used)]

use lazy_load::LazyLoad;
use loadline_policy_sdk::testing::{Shape, Simulated, faults, situation};
use loadline_policy_sdk::{Decision, Plan, Policy, Situation, Value, cause};

fn made(device: u64, granularity: &str) -> Situation {
    let settings = [
        ("granularity", Value::Text(granularity.into())),
        ("prefetch", Value::Integer(1)),
        ("share", Value::Boolean(true)),
    ];
    let shapes = [Shape::alike("text_encoder", 10, 100, 10, 2), Shape::alike("transformer", 40, 100, 100, 20)];
    situation(&shapes, device, &settings)
}

fn decide(s: &Situation) -> Plan {
    let Decision::Plan(plan) = LazyLoad.decide(s, &mut Simulated::new(s)).unwrap() else {
        panic!("a plan was expected")
    };
    assert_eq!(faults(s, &plan), [""; 0]);
    plan
}

#[test]
fn components_are_loaded_as_far_as_they_fit() {
    let check = |device: u64, resident: [usize; 2]| {
        let plan = decide(&made(device, "component"));
        assert_eq!([0, 1].map(|i| plan.stages[i].residents().len()), resident, "{device}");
        assert!(plan.retain.is_empty());
    };
    check(4000, [10, 40]);
    check(2000, [10, 18]);
    check(500, [3, 3]);
    check(100, [0, 0]);
}

#[test]
fn blocks_are_loaded_one_after_the_other() {
    let check = |device: u64, slots: usize| {
        let plan = decide(&made(device, "block"));
        assert!(plan.stages.iter().all(|stage| stage.slot_bytes.len() == slots), "{device}");
    };
    check(10_000, 2);
    check(199, 1);
}

#[test]
fn the_next_job_shares_what_costs_nothing() {
    let retained = |device: u64, upcoming: std::ops::Range<u32>, cause: u32| {
        let s = Situation { upcoming: upcoming.collect(), cause, ..made(device, "component") };
        decide(&s).retain.len()
    };
    assert_eq!(retained(5000, 0..50, cause::START), 50);
    assert_eq!(retained(4999, 0..50, cause::START), 0);
    assert_eq!(retained(5000, 0..10, cause::START), 10);
    assert_eq!(retained(3000, 0..10, cause::START), 0);
    assert_eq!(retained(5000, 0..0, cause::START), 0);
    assert_eq!(retained(5000, 0..50, cause::IDLE), 0);
}

//! Three ways to offload, and the fastest of them.
#![allow(clippy::unwrap_used)]

use loadline_policy_sdk::testing::{Shape, Simulated, faults, situation};
use loadline_policy_sdk::{Decision, Plan, Policy, Refusal, Situation, Value, cause};
use offload::Offload;

/// An encoder of 1000 bytes and a transformer of 4000 with 500 for activations.
fn made(device: u64, strategy: &str, prefetch: i64, percent: i64) -> Situation {
    let settings = [
        ("strategy", Value::Text(strategy.into())),
        ("prefetch", Value::Integer(prefetch)),
        ("percent", Value::Integer(percent)),
    ];
    let transformer = Shape { activations: 500, ..Shape::alike("transformer", 40, 100, 100, 20) };
    situation(&[Shape::alike("text_encoder", 10, 100, 10, 2), transformer], device, &settings)
}

fn decide(s: &Situation) -> Result<Plan, Refusal> {
    let Decision::Plan(plan) = Offload.decide(s, &mut Simulated::new(s))? else { panic!("a plan was expected") };
    assert_eq!(faults(s, &plan), [""; 0]);
    Ok(plan)
}

/// Blocks that stay after the job, and slots that the transformer streams through.
fn shape(plan: &Plan) -> (usize, usize) {
    (plan.retain.len(), plan.stages[1].shared_slots())
}

#[test]
fn each_strategy_is_what_its_name_says() {
    let check = |device: u64, strategy: &str, expected: (usize, usize)| {
        assert_eq!(shape(&decide(&made(device, strategy, 1, 100)).unwrap()), expected, "{device} {strategy}");
    };
    check(5500, "none", (50, 0));
    check(5500, "model", (0, 0));
    check(4500, "model", (0, 0));
    check(5500, "sequential", (0, 2));
    check(700, "sequential", (0, 2));
    check(600, "sequential", (0, 1));
}

#[test]
fn depth_and_share_are_the_users() {
    let slots = |device: u64, prefetch: i64| shape(&decide(&made(device, "sequential", prefetch, 100)).unwrap()).1;
    assert_eq!((slots(5500, 0), slots(5500, 3), slots(800, 3)), (1, 4, 3));
    assert!(decide(&made(9000, "model", 1, 50)).is_ok());
    assert!(decide(&made(8998, "model", 1, 50)).is_err());
}

#[test]
fn auto_takes_the_fastest_that_fits() {
    let chosen = |device: u64| decide(&made(device, "auto", 1, 100)).unwrap().reasons.swap_remove(0);
    assert_eq!(chosen(5500), "strategy none, everything stays on the device");
    assert_eq!(chosen(5499), "strategy model, one component on the device at a time");
    assert_eq!(chosen(4499), "strategy sequential, one block after the other");
    let reasons = decide(&made(4499, "auto", 1, 100)).unwrap().reasons;
    assert_eq!(&reasons[1..3], ["none: needs a budget of 5.38 KiB", "model: needs a budget of 4.40 KiB"]);
    assert!(reasons[3].starts_with("sequential: forecast "), "{reasons:?}");
}

#[test]
fn auto_gives_way_when_memory_fails() {
    let mut s = made(5500, "auto", 1, 100);
    s.cause = cause::OUT_OF_MEMORY;
    let plan = decide(&s).unwrap();
    assert_eq!(shape(&plan), (0, 0));
    s.memo = plan.memo;
    assert_eq!(shape(&decide(&s).unwrap()), (0, 2));
}

#[test]
fn a_refusal_names_the_strategy_that_fits() {
    let check = |device: u64, strategy: &str, needs: u64, expected: &str| {
        let refusal = decide(&made(device, strategy, 1, 100)).unwrap_err();
        assert!(refusal.message.ends_with(expected), "{}", refusal.message);
        assert_eq!(refusal.needs_bytes, Some(needs));
        // What it asks for is enough, and one byte less is not.
        assert!(decide(&made(needs, strategy, 1, 100)).is_ok());
        assert!(decide(&made(needs - 1, strategy, 1, 100)).is_err());
    };
    check(5000, "none", 5500, "set strategy to model");
    check(1000, "none", 5500, "set strategy to sequential");
    check(500, "none", 5500, "give it a larger budget");
    check(1000, "model", 4500, "set strategy to sequential");
    check(500, "sequential", 600, "500 B may be used");
    check(500, "auto", 600, "500 B may be used");
}

//! Memory in use stays under the percentage.
#![allow(clippy::unwrap_used)]

use loadline_policy_sdk::testing::{Shape, Simulated, faults, situation};
use loadline_policy_sdk::{Decision, Plan, Policy, Refusal, Situation, Value, cause, tier, watch};
use threshold::Threshold;

fn made(device: u64, percent: i64, reserve: i64) -> Situation {
    let settings = [("percent", percent), ("reserve_percent", reserve), ("host_percent", 80), ("slots", 2)];
    let settings = settings.map(|(key, value)| (key, Value::Integer(value)));
    let transformer = Shape { activations: 500, ..Shape::alike("transformer", 40, 100, 100, 20) };
    situation(&[transformer], device, &settings)
}

fn decide(s: &Situation) -> Result<Plan, Refusal> {
    let Decision::Plan(plan) = Threshold.decide(s, &mut Simulated::new(s))? else { panic!("a plan was expected") };
    assert_eq!(faults(s, &plan), [""; 0]);
    Ok(plan)
}

#[test]
fn the_overflow_is_streamed() {
    let check = |device: u64, percent: i64, reserve: i64, resident: usize, slots: usize| {
        let stage = decide(&made(device, percent, reserve)).unwrap().stages.swap_remove(0);
        assert_eq!((stage.residents().len(), stage.shared_slots()), (resident, slots), "{device} {percent} {reserve}");
    };
    check(9000, 50, 0, 40, 0);
    check(4000, 50, 0, 13, 2);
    check(4000, 50, 10, 11, 2);
    check(1400, 50, 0, 0, 2);
    // The margin is given up before the threshold is.
    check(1200, 50, 10, 0, 1);
}

#[test]
fn watermarks_come_with_a_hysteresis() {
    let mut s = made(4000, 50, 10);
    s.budget.host = 10_000;
    let triggers = decide(&s).unwrap().triggers;
    let [device, host] = triggers.as_slice() else { panic!("{triggers:?}") };
    assert_eq!((device.kind, device.threshold, device.hysteresis), (watch::DEVICE_ABOVE, 2000, 200));
    assert_eq!((host.kind, host.threshold, host.hysteresis), (watch::HOST_FREE_BELOW, 2000, 200));
}

#[test]
fn a_fired_watermark_makes_it_spill() {
    let mut s = made(4000, 50, 10);
    let held = |s: &Situation| decide(s).unwrap().stages[0].slot_bytes.iter().sum::<u64>();
    let before = held(&s);
    s.cause = cause::TRIGGER;
    let after = held(&s);
    assert!(after < before, "{after} {before}");
    s.memo = decide(&s).unwrap().memo;
    assert!(held(&s) < after);
}

#[test]
fn host_memory_has_a_percentage_too() {
    let mut s = made(1400, 50, 0);
    s.budget.host = 2500;
    s.budget.pinned = 1000;
    let homes = decide(&s).unwrap().homes;
    let count = |tier: u8| homes.iter().filter(|home| **home == tier).count();
    // 80 % of 2500, less 100 for the block that is read from disk.
    assert_eq!((count(tier::PINNED), count(tier::HOST), count(tier::DISK)), (10, 9, 21));
}

#[test]
fn a_refusal_says_which_percentage_is_enough() {
    let refusal = decide(&made(1000, 50, 10)).unwrap_err();
    assert!(refusal.message.ends_with("set percent to 60"), "{}", refusal.message);
    assert_eq!(refusal.needs_bytes, Some(1200));
    let refusal = decide(&made(500, 100, 0)).unwrap_err();
    assert!(refusal.message.ends_with("give it a larger budget"), "{}", refusal.message);
}

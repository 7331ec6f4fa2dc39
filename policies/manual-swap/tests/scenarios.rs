//! What the user says is what happens.
#![allow(clippy::unwrap_used)]

use loadline_policy_sdk::testing::{Shape, Simulated, faults, situation};
use loadline_policy_sdk::{Decision, Plan, Policy, Refusal, Value};
use manual_swap::ManualSwap;

/// An encoder of 10 blocks and a transformer of 40 with a front, in units of 100 bytes a block.
fn decide(device: u64, given: &[(&str, Value)]) -> Result<Plan, Refusal> {
    let mut transformer = Shape::alike("transformer", 41, 100, 100, 20);
    (transformer.slabs[0], transformer.odd) = (30, vec![0]);
    let defaults = [
        ("blocks_to_swap", Value::Integer(20)),
        ("text_encoder_blocks_to_swap", Value::Integer(-1)),
        ("prefetch", Value::Integer(1)),
    ];
    let defaults = defaults.into_iter().filter(|(key, _)| given.iter().all(|(k, _)| k != key));
    let settings: Vec<_> = given.iter().cloned().chain(defaults).collect();
    let s = situation(&[Shape::alike("text_encoder", 10, 100, 10, 2), transformer], device, &settings);
    let decision = ManualSwap.decide(&s, &mut Simulated::new(&s))?;
    let Decision::Plan(plan) = decision else { panic!("a plan was expected") };
    assert_eq!(faults(&s, &plan), [""; 0]);
    Ok(plan)
}

#[test]
fn counts_slots_and_order_are_the_users() {
    let check = |given: &[(&str, Value)], resident: usize, slots: usize| {
        let stage = decide(10_000, given).unwrap().stages.swap_remove(1);
        assert_eq!((stage.residents().len(), stage.shared_slots()), (resident, slots), "{given:?}");
    };
    check(&[], 21, 2);
    check(&[("blocks_to_swap", Value::Integer(0))], 41, 0);
    check(&[("blocks_to_swap", Value::Integer(40))], 1, 2);
    check(&[("blocks_to_swap", Value::Integer(99))], 0, 2);
    check(&[("prefetch", Value::Integer(3))], 21, 4);
    check(&[("slots", Value::Integer(5))], 21, 5);
}

#[test]
fn leading_keeps_the_first_blocks() {
    let plan = decide(10_000, &[("residency", Value::Text("leading".into()))]).unwrap();
    assert_eq!(plan.stages[1].residents(), (10..31).collect::<Vec<u32>>());
}

#[test]
fn encoders_are_streamed_when_the_budget_asks_for_it() {
    let swapped = |device: u64| decide(device, &[]).unwrap().stages[0].streamed().len();
    assert_eq!(swapped(2230), 0);
    let tight = [("blocks_to_swap", Value::Integer(41)), ("slots", Value::Integer(2))];
    assert_eq!(decide(500, &tight).unwrap().stages[0].streamed().len(), 7);
}

#[test]
fn everything_stays_if_everything_fits() {
    let kept = |device: u64, given: &[(&str, Value)]| decide(device, given).unwrap().retain.len();
    assert_eq!(kept(3230, &[]), 31);
    assert_eq!(kept(3229, &[]), 0);
    assert_eq!(kept(3230, &[("offload_text_encoder", Value::Text("true".into()))]), 21);
    let forced = [("offload_text_encoder", Value::Text("false".into())), ("blocks_to_swap", Value::Integer(21))];
    assert_eq!(kept(3230, &forced), 30);
    assert_eq!(kept(3230, &[forced[0].clone(), ("offload_transformer", Value::Text("true".into()))]), 10);
}

#[test]
fn a_refusal_says_what_to_change() {
    let check = |device: u64, given: &[(&str, Value)], expected: &str| {
        let message = decide(device, given).unwrap_err().message;
        assert!(message.ends_with(expected), "{message}");
    };
    check(1500, &[], "set blocks_to_swap to 28");
    check(150, &[], "set blocks_to_swap to 41 and slots to 1");
    check(99, &[], "100 B for its largest block), 99 B may be used");
    let stay = ("offload_text_encoder", Value::Text("false".into()));
    check(1050, &[stay], "held by components with offload_... = false: set it to true");
}

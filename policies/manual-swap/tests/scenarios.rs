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

/// A transformer with a front, 10 blocks of a control branch and 30 others; each block computes twice as long as it is
/// copied.
fn vace(device: u64, given: &[(&str, Value)]) -> Result<(Vec<u32>, Vec<String>), Refusal> {
    let (odd, control) = (vec![0], (1..11).collect());
    let transformer = Shape { odd, control, ..Shape::alike("transformer", 41, 100, 200, 20) };
    let defaults = [("blocks_to_swap", Value::Integer(20)), ("vace_blocks_to_swap", Value::Integer(-1))];
    let defaults = defaults.into_iter().filter(|(key, _)| given.iter().all(|(k, _)| k != key));
    let settings: Vec<_> = given.iter().cloned().chain(defaults).chain([("prefetch", Value::Integer(1))]).collect();
    let s = situation(&[transformer], device, &settings);
    let Decision::Plan(plan) = ManualSwap.decide(&s, &mut Simulated::new(&s))? else { panic!("a plan was expected") };
    assert_eq!(faults(&s, &plan), [""; 0]);
    Ok((plan.stages[0].streamed(), plan.reasons))
}

#[test]
fn the_control_branch_has_a_number_of_its_own() {
    let check = |blocks: i64, branch: i64, front: usize, control: usize, main: usize| {
        let given = [("blocks_to_swap", Value::Integer(blocks)), ("vace_blocks_to_swap", Value::Integer(branch))];
        let streamed = vace(9000, &given).unwrap().0;
        let count = |range: std::ops::Range<u32>| streamed.iter().filter(|b| range.contains(b)).count();
        assert_eq!((count(0..1), count(1..11), count(11..41)), (front, control, main), "{blocks} {branch}");
    };
    check(20, -1, 0, 5, 15);
    check(20, 0, 0, 0, 20);
    check(20, 7, 0, 7, 20);
    check(0, 10, 0, 10, 0);
    check(0, 99, 0, 10, 0);
    check(30, 0, 0, 0, 30);
    check(31, 0, 1, 0, 30);
}

#[test]
fn the_front_goes_with_its_embeddings() {
    for key in ["offload_txt_emb", "offload_img_emb"] {
        let streamed = vace(9000, &[(key, Value::Boolean(true))]).unwrap().0;
        assert_eq!((streamed.contains(&0), streamed.len()), (true, 21), "{key}");
    }
    assert!(!vace(9000, &[]).unwrap().0.contains(&0));
}

#[test]
fn as_few_blocks_as_the_budget_asks_for() {
    let streamed = |device: u64, more: &[(&str, Value)]| {
        let given: Vec<_> = more.iter().cloned().chain([("blocks_to_swap", Value::Integer(-1))]).collect();
        vace(device, &given).unwrap().0.len()
    };
    assert_eq!((streamed(4100, &[]), streamed(4099, &[]), streamed(2000, &[])), (0, 3, 23));
    assert_eq!(streamed(2000, &[("residency", Value::Text("leading".into()))]), 23);
    assert_eq!(streamed(2000, &[("vace_blocks_to_swap", Value::Integer(0))]), 23);
    assert_eq!(streamed(4100, &[("offload_txt_emb", Value::Boolean(true))]), 0);
}

#[test]
fn the_link_carries_its_share_and_no_more() {
    let given = |blocks: i64, target: f64| {
        [("blocks_to_swap", Value::Integer(blocks)), ("bandwidth_target", Value::Number(target))]
    };
    let swapped = |blocks: i64, target: f64| vace(9000, &given(blocks, target)).unwrap().0.len();
    // 41 blocks of 200 ns, copies of 100 ns: 41 copies keep the link busy for half of a pass.
    assert_eq!((swapped(20, 1.0), swapped(41, 0.5), swapped(20, 0.5)), (20, 41, 20));
    assert_eq!((swapped(41, 0.25), swapped(20, 0.2), swapped(41, 0.0)), (20, 16, 0));
    let reasons = vace(9000, &given(41, 0.25)).unwrap().1;
    assert_eq!(reasons[1], "transformer: 20 blocks to swap: more would keep the link busy for over 25 % of a pass");
    // 2000 bytes hold 18 blocks beside two slots.
    for blocks in [-1, 30] {
        let message = vace(2000, &given(blocks, 0.25)).unwrap_err().message;
        assert!(message.ends_with("allows 25 %: set bandwidth_target to 0.29"), "{message}");
        assert!(vace(2000, &given(blocks, 0.29)).is_ok(), "{blocks}");
    }
    let message = vace(2000, &given(20, 0.25)).unwrap_err().message;
    assert!(message.ends_with("set blocks_to_swap to 23"), "{message}");
}

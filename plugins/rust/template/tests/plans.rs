//! The policy as an ordinary library, in situations that are made up: one byte takes a nanosecond to copy.

use loadline_policy_sdk::testing::{Shape, Simulated, faults, situation};
use loadline_policy_sdk::{Decision, Plan, Policy, Refusal, Value};
use policy::MyPolicy;

/// The plan for 40 blocks of 100 bytes, in `device` bytes.
fn plan(device: u64, slots: i64) -> Result<Plan, Refusal> {
    let settings = [("slots", Value::Integer(slots))];
    let s = situation(&[Shape::alike("denoise", 40, 100, 100, 20)], device, &settings);
    match MyPolicy.decide(&s, &mut Simulated::new(&s))? {
        Decision::Plan(plan) => {
            assert_eq!(faults(&s, &plan), [""; 0], "{device} bytes, {slots} slots");
            Ok(plan)
        }
        Decision::Keep => panic!("there is no plan to keep"),
    }
}

#[test]
fn what_fits_stays_and_the_rest_is_streamed() {
    let residents = |device, slots| plan(device, slots).map(|plan| plan.stages[0].residents().len());
    assert_eq!(residents(4000, 2), Ok(40));
    assert_eq!(residents(2000, 2), Ok(18));
    assert_eq!(residents(2000, 4), Ok(16));
    assert_eq!(residents(100, 2), Ok(0));
}

#[test]
fn what_cannot_fit_is_refused_with_what_it_needs() {
    let refusal = plan(99, 2).unwrap_err();
    assert_eq!((refusal.stage, refusal.needs_bytes), (Some(0), Some(100)));
}

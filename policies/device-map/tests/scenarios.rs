//! Places are fixed, and limits hold.
#![allow(clippy::unwrap_used)]

use device_map::DeviceMap;
use loadline_policy_sdk::testing::{Shape, Simulated, faults, situation};
use loadline_policy_sdk::{Decision, Plan, Policy, Refusal, Situation, Value, cause, tier};

const GIB: u64 = 1 << 30;

/// An encoder of 10 blocks, a transformer of 40 and a decoder of 5, of 1 GiB each.
fn made(device: u64, given: &[(&str, Value)]) -> Situation {
    let shapes = [
        Shape::alike("text_encoder", 10, GIB, 10, 2),
        Shape { activations: GIB / 2, ..Shape::alike("transformer", 40, GIB, 100, 20) },
        Shape::alike("vae", 5, GIB, 100, 3),
    ];
    let defaults = [
        ("prefetch", Value::Integer(1)),
        ("text_encoder", Value::Text("host".into())),
        ("transformer", Value::Text("device".into())),
        ("vae", Value::Text("device".into())),
    ];
    let defaults = defaults.into_iter().filter(|(key, _)| given.iter().all(|(k, _)| k != key));
    let settings: Vec<_> = given.iter().cloned().chain(defaults).collect();
    let mut s = situation(&shapes, device, &settings);
    s.budget.host = 100 * GIB;
    s.budget.pinned = 50 * GIB;
    s
}

fn decide(s: &Situation) -> Result<Plan, Refusal> {
    let Decision::Plan(plan) = DeviceMap.decide(s, &mut Simulated::new(s))? else { panic!("a plan was expected") };
    assert_eq!(faults(s, &plan), [""; 0]);
    let in_host = plan.homes.iter().filter(|home| **home != tier::DISK).count() as u64;
    assert!(in_host * GIB <= s.budget.host, "{in_host}");
    Ok(plan)
}

fn map(name: &str) -> (&'static str, Value) {
    ("map", Value::Text(name.into()))
}

fn text(key: &'static str, value: &str) -> (&'static str, Value) {
    (key, Value::Text(value.into()))
}

fn residents(plan: &Plan) -> [usize; 3] {
    [0, 1, 2].map(|stage| plan.stages[stage].residents().len())
}

#[test]
fn auto_prefers_what_is_used_most_and_sequential_what_comes_first() {
    let check = |device: u64, name: &str, expected: [usize; 3]| {
        assert_eq!(residents(&decide(&made(device * GIB, &[map(name)])).unwrap()), expected, "{device} {name}");
    };
    check(60, "auto", [10, 40, 5]);
    check(60, "sequential", [10, 40, 5]);
    // Two slots and the activations come out of the device.
    check(23, "auto", [0, 20, 0]);
    check(23, "sequential", [10, 10, 0]);
    check(50, "auto", [3, 40, 5]);
    check(3, "auto", [0, 0, 0]);
}

#[test]
fn what_is_on_the_device_stays_for_the_whole_job() {
    let plan = decide(&made(23 * GIB, &[map("sequential")])).unwrap();
    assert_eq!(plan.retain, (0..20).collect::<Vec<u32>>());
    assert_eq!(plan.stages[1].residents(), (10..20).collect::<Vec<u32>>());
}

#[test]
fn tiers_are_filled_in_order() {
    let given =
        [map("sequential"), ("max_memory_host", Value::Number(21.0)), ("max_memory_pinned", Value::Number(5.0))];
    let plan = decide(&made(23 * GIB, &given)).unwrap();
    // 20 on the device, one for the buffer of reads, 20 of the transformer in host memory, then disk.
    let homes: Vec<u8> = plan.homes[20..].to_vec();
    assert_eq!(homes[..5], [tier::PINNED; 5]);
    assert_eq!(homes[5..20], [tier::HOST; 15]);
    assert_eq!(homes[20..], [tier::DISK; 15]);
    assert_eq!(
        plan.reasons[0],
        "map sequential: device 20 blocks (20.0 GiB), host 20 blocks (20.0 GiB), disk 15 blocks (15.0 GiB)"
    );
}

#[test]
fn the_device_has_a_limit_of_its_own() {
    let held = |most: f64| {
        let s = made(60 * GIB, &[map("auto"), ("max_memory_device", Value::Number(most))]);
        let plan = decide(&s).unwrap();
        assert!(s.fits(&s.job, &plan.stages, (most * GIB as f64) as u64));
        residents(&plan)
    };
    assert_eq!((held(23.0), held(2.5)), ([0, 20, 0], [0, 0, 0]));
    assert!(decide(&made(60 * GIB, &[map("auto"), ("max_memory_device", Value::Number(1.0))])).is_err());
}

#[test]
fn custom_places_components_as_a_whole() {
    let given = [map("custom"), text("text_encoder", "disk"), text("transformer", "host"), text("vae", "device")];
    let plan = decide(&made(20 * GIB, &given)).unwrap();
    assert_eq!(residents(&plan), [0, 0, 5]);
    assert_eq!(plan.homes[..10], [tier::DISK; 10]);
    assert!(plan.homes[10..50].iter().all(|home| *home == tier::PINNED));
    assert_eq!(residents(&decide(&made(60 * GIB, &[map("custom")])).unwrap()), [0, 40, 5]);
}

#[test]
fn a_refusal_says_what_to_change() {
    let check = |device: u64, given: &[(&str, Value)], expected: &str| {
        let message = decide(&made(device * GIB, given)).unwrap_err().message;
        assert!(message.contains(expected), "{message}");
    };
    check(
        40,
        &[map("custom")],
        "45.0 GiB of it for components mapped to the device, 40.0 GiB may be used: set transformer to host",
    );
    check(1, &[map("auto")], "stage 'transformer' needs at least");
    let small = ("max_memory_host", Value::Number(8.0));
    check(60, &[map("custom"), small.clone()], "text_encoder = host needs 10.0 GiB");
    let none = ("max_memory_host", Value::Number(0.5));
    check(
        23,
        &[map("sequential"), none.clone()],
        "1.00 GiB of host memory are needed for output frames and the buffer",
    );
    check(23, &[map("auto"), none], "max_memory_host allows 512 MiB: raise max_memory_host");
    check(23, &[map("auto"), small, ("max_memory_disk", Value::Number(4.0))], "max_memory_disk allows 4.00 GiB");
}

#[test]
fn it_gives_way_when_memory_fails() {
    let mut s = made(23 * GIB, &[map("auto")]);
    let before = residents(&decide(&s).unwrap())[1];
    s.cause = cause::OUT_OF_MEMORY;
    let after = residents(&decide(&s).unwrap())[1];
    assert!(after < before, "{after} {before}");
}

//! Whatever is wrong with a file, the error names the field and what it may hold.
#![allow(clippy::unwrap_used)]

use loadline_profile::{Basis, Profile, ProfileError, catalog};
use serde_json::{Value, json};

fn sound() -> Value {
    let text = catalog::find("rtx-3060-12gb").unwrap().to_json().unwrap();
    serde_json::from_str(&text).unwrap()
}

fn error_of(text: &str) -> String {
    Profile::parse(text, "card.json").unwrap_err().to_string()
}

fn expect(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "'{part}' is not in: {error}");
    }
}

/// Puts `value` at a JSON pointer of a sound profile and expects an error with these parts.
fn check(pointer: &str, value: Value, parts: &[&str]) {
    let mut profile = sound();
    *profile.pointer_mut(pointer).unwrap() = value;
    expect(&error_of(&profile.to_string()), &[&["card.json"], parts].concat());
}

/// Takes a field out of a sound profile and expects an error with these parts.
fn check_without(pointer: &str, parts: &[&str]) {
    let mut profile = sound();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    profile.pointer_mut(parent).unwrap().as_object_mut().unwrap().shift_remove(name).unwrap();
    expect(&error_of(&profile.to_string()), &[&["card.json"], parts].concat());
}

const READ: &str = "/disk/read/points";

#[test]
fn numbers_out_of_range_are_named() {
    check("/link/latency_ns/value", json!(-1), &["'link.latency_ns.value' is -1", "between 0e0 and 1e9"]);
    check(
        "/disk/read/points/0/p10",
        json!(-3e9),
        &["'disk.read.points[0].p10' is -3000000000", "between 1e4 and 1e15"],
    );
    check("/disk/read/points/0/p90", json!(1e300), &["'disk.read.points[0].p90'", "between 1e4 and 1e15"]);
    check("/host/convert/points/0/p50", json!(0), &["'host.convert.points[0].p50' is 0"]);
    check("/device/peak_flops_per_s/bf16/value", json!(25.5e20), &["'device.peak_flops_per_s.bf16.value'", "1e18"]);
    check(
        "/device/ops/0/flops/utilisation/p90",
        json!(1.01),
        &["'device.ops[0].flops.utilisation.p90' is 1.01", "1e0"],
    );
    check("/device/memory_bytes/value", json!(12), &["'device.memory_bytes.value' is 12", "67108864"]);
    check("/device/granularity_bytes/value", json!(3), &["'device.granularity_bytes.value' is 3", "power of two"]);
    check("/device/fixed_overhead_bytes/p90", json!(13e9), &["'device.fixed_overhead_bytes.p90'", "1.2884901888e10"]);
    check("/link/pcie/value/generation", json!(9), &["'link.pcie.value.generation' is 9", "between 1 and 6"]);
    check("/link/pcie/value/width", json!(12), &["'link.pcie.value.width' is 12", "1, 2, 4, 8 or 16"]);
}

#[test]
fn what_is_no_number_is_named() {
    let field = "/link/h2d_pinned/utilisation/p50";
    check(field, json!("NaN"), &["'link.h2d_pinned.utilisation.p50' is the text 'NaN'", "a number"]);
    check(field, Value::Null, &["'link.h2d_pinned.utilisation.p50' is null", "a number"]);
    check("/device/memory_bytes/value", json!(1.5), &["'device.memory_bytes.value' is 1.5", "a whole number"]);
    check("/device/memory_bytes/value", json!(-1), &["'device.memory_bytes.value' is -1", "a whole number"]);
    check("/device/ops", json!({}), &["'device.ops' is an object", "a list"]);
    check("/disk", json!([]), &["'disk' is a list", "an object"]);
    check("/device/unified", json!("no"), &["'device.unified' is the text 'no'", "true or false"]);
    check("/title", json!(7), &["'title' is 7", "a text"]);
}

#[test]
fn names_out_of_closed_sets_are_named() {
    check("/disk/read/provenance", json!("guessed"), &["'disk.read.provenance'", "measured, derived or datasheet"]);
    check("/device/ops/1/kind", json!("matmul"), &["'device.ops[1].kind' is the text 'matmul'", "linear"]);
    check("/device/ops/1/dtypes/0", json!("f64"), &["'device.ops[1].dtypes[0]' is the text 'f64'", "bf16"]);
    check("/device/peak_flops_per_s", json!({"int9": 1}), &["'device.peak_flops_per_s.int9'", "element type"]);
    check("/name", json!("RTX 3060"), &["'name' is 'RTX 3060'", "lower-case"]);
    check("/device/ops/1/dtypes", json!(["f32"]), &["'device.ops[1].dtypes' is f32", "once for each kind"]);
}

#[test]
fn missing_fields_are_named() {
    check_without("/link", &["'link' is missing"]);
    check_without("/device/kernel_set", &["'device.kernel_set' is missing"]);
    check_without("/device/launch_ns/source", &["'device.launch_ns.source' is missing"]);
    check_without("/disk/read/provenance", &["'disk.read.provenance' is missing"]);
    check_without("/disk/read/points", &["'disk.read' is an object with neither", "'utilisation' or 'points'"]);
    check_without("/disk/read/points/0/p10", &["'disk.read.points[0].p10' is missing"]);
    check_without("/link/pcie", &["'link.pcie' is missing", "'link.h2d_pinned' is a utilisation"]);
    check_without("/device/peak_bytes_per_s", &["'device.peak_bytes_per_s' is missing", "'device.ops[0].bytes'"]);
    check_without("/device/peak_flops_per_s/bf16", &["'device.peak_flops_per_s.bf16' is missing"]);
    check("/host/convert/source", json!(" "), &["'host.convert.source' is empty", "a text"]);
    check(READ, json!([]), &["'disk.read.points' is an empty list", "at least one point"]);
    check("/device/ops", json!([]), &["'device.ops' is an empty list"]);
}

#[test]
fn figures_out_of_order_are_named() {
    check("/disk/read/points/0/p10", json!(9e9), &["'disk.read.points[0].p50'", "at least p10, which is 9000000000"]);
    check("/disk/read/points/0/p90", json!(2e9), &["'disk.read.points[0].p90'", "at least p50, which is 2800000000"]);
    let point = |amount: f64| json!({"amount": amount, "p10": 1e9, "p50": 2e9, "p90": 3e9});
    let twice = json!([point(4096.0), point(4096.0)]);
    check(READ, twice, &["'disk.read.points[1].amount' is 4096", "above the amount of the point before"]);
    let falling = json!([point(1.0), point(8192.0), point(4096.0)]);
    check(READ, falling, &["'disk.read.points[2].amount' is 4096", "8192"]);
}

#[test]
fn a_rate_above_its_peak_is_named() {
    let points = |p90: f64| json!([{"amount": 1e9, "p10": 1e9, "p50": 2e9, "p90": p90}]);
    let rate = |p90| json!({"points": points(p90), "provenance": "measured", "source": "a clock"});
    check("/link/h2d_pinned", rate(32e9), &["'link.h2d_pinned.points[0].p90' is 32000000000", "at most 'link.pcie'"]);
    check("/device/ops/6/bytes", rate(361e9), &["'device.ops[6].bytes.points[0].p90'", "device.peak_bytes_per_s"]);
    // What a cache holds is not bound by memory.
    let mut cached = sound();
    cached["device"]["ops"][6]["bytes"] = rate(361e9);
    cached["device"]["ops"][6]["bytes"]["points"][0]["amount"] = json!(1e6);
    assert!(Profile::parse(&cached.to_string(), "card.json").is_ok());
    // Counted with sparsity, or with f16 accumulation.
    check("/device/ops/1/flops", rate(51e12), &["'device.ops[1].flops.points[0].p90'", "device.peak_flops_per_s.bf16"]);
    check(
        "/disk/read",
        json!({"utilisation": {"p10": 0.1, "p50": 0.2, "p90": 0.3}, "provenance": "measured",
        "source": "a clock"}),
        &["'disk.read' is a utilisation", "'points'"],
    );
    let mut both = rate(1e9);
    both["utilisation"] = json!({"p10": 0.1, "p50": 0.2, "p90": 0.3});
    check("/disk/read", both, &["'disk.read' is an object with both"]);
}

#[test]
fn more_work_in_less_time_is_named() {
    let point = |amount: f64, p50: f64| json!({"amount": amount, "p10": 0.9 * p50, "p50": p50, "p90": 1.1 * p50});
    // 1 MiB in about 1 ms and 2 MiB in 0.4 ms.
    let falling = json!([point(1048576.0, 1e9), point(2097152.0, 5e9)]);
    check(READ, falling, &["'disk.read.points[1].p50' is 5000000000", "0.4000", "at most about 2.0000e9"]);
    // A tenth is what timers, caches and larger pages do.
    let mut profile = sound();
    *profile.pointer_mut(READ).unwrap() = json!([point(1048576.0, 1e9), point(2097152.0, 2.2e9)]);
    assert!(Profile::parse(&profile.to_string(), "card.json").is_ok());
}

#[test]
fn a_slot_for_a_device_without_one_is_named() {
    check("/device/unified", json!(true), &["'link.pcie' is PCI Express 4.0 x16", "absent", "'device.unified'"]);
}

#[test]
fn tables_of_a_recording_are_looked_at() {
    let site = |rows: Value| {
        json!({"sites": [{"op": "linear", "dtype": "f32", "weight": "f32", "provenance": "measured",
            "source": "a clock", "rows": rows}]})
    };
    let parse = |recorded: Value| {
        let mut profile = sound();
        profile["device"]["recorded"] = recorded;
        Profile::parse(&profile.to_string(), "card.json")
    };
    assert!(parse(site(json!(["64x64x64 900 1000 1100", "128x64x64 1800 2000 2200"]))).is_ok());
    let cases = [
        (site(json!([])), "'device.recorded.sites[0].rows' is an empty list"),
        (site(json!(["64x64x64 0 1000 1100"])), "'device.recorded.sites[0].rows[0].p10' is 0"),
        (site(json!(["64x64x64 900 1000 1e30"])), "'device.recorded.sites[0].rows[0].p90'"),
        (site(json!(["64x64x64 1200 1000 1100"])), "at least p10, which is 1200"),
        (site(json!(["128x64x64 9 10 11", "64x64x64 900 1000 1100"])), "for the larger of two shapes"),
    ];
    for (recorded, part) in cases {
        expect(&parse(recorded).unwrap_err().to_string(), &["card.json", part]);
    }
}

#[test]
fn every_finding_is_reported_once() {
    let mut profile = sound();
    profile["disk"]["read"]["points"][0]["p10"] = json!(-1);
    profile["device"]["ops"][1]["flops"]["utilisation"]["p10"] = json!(-1);
    let Err(ProfileError::Lint { findings, .. }) = Profile::parse(&profile.to_string(), "x") else {
        panic!("accepted");
    };
    let fields: Vec<_> = findings.iter().map(|f| f.field.as_str()).collect();
    assert_eq!(fields, ["device.ops[1].flops.utilisation.p10", "disk.read.points[0].p10"]);
}

#[test]
fn other_versions_and_other_files_are_refused() {
    check("/schema", json!("loadline-profile/99"), &["'schema'", "'loadline-profile/99'", "'loadline-profile/1'"]);
    check_without("/schema", &["'schema' is missing", "'loadline-profile/1'"]);
    expect(&error_of("[]"), &["'schema' is missing"]);
    expect(&error_of("{\n  \"schema\": NaN}"), &["card.json", "not valid JSON", "line 2"]);
    expect(&error_of("{\"schema\": 1e999}"), &["not valid JSON", "line 1"]);
    let endless = Profile::read(std::io::repeat(b' '), "card.json").unwrap_err().to_string();
    expect(&endless, &["card.json", "longer than 1048576 bytes"]);
    let binary = Profile::read(&b"\xff\xfe"[..], "card.json").unwrap_err().to_string();
    expect(&binary, &["card.json", "cannot be read"]);
}

#[test]
fn a_profile_made_in_code_is_checked_too() {
    let mut profile = catalog::find("rtx-3060-12gb").unwrap();
    let Basis::Points(points) = &mut profile.disk.read.basis else { panic!("points expected") };
    points[0].rate.p50 = f64::NAN;
    for error in [profile.to_machine().unwrap_err().to_string(), profile.to_json().unwrap_err().to_string()] {
        expect(&error, &["rtx-3060-12gb", "'disk.read.points[0].p50' is NaN"]);
    }
}

#[test]
fn fields_that_are_not_known_do_no_harm() {
    let mut profile = sound();
    let hash = Profile::parse(&profile.to_string(), "x").unwrap().hash();
    profile["note"] = json!("recorded on a rainy day");
    profile["device"]["ops"][0]["note"] = json!(1);
    assert_eq!(Profile::parse(&profile.to_string(), "x").unwrap().hash(), hash);
}

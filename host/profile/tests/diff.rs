//! What is different, what is unknown, and what a hash stands for.
#![allow(clippy::unwrap_used)]

use loadline_profile::{Profile, catalog, parts, unknown_fields};
use serde_json::{Map, Value, json};

fn card() -> Profile {
    catalog::find("rtx-3060-12gb").unwrap()
}

fn value() -> Value {
    serde_json::from_str(&card().to_json().unwrap()).unwrap()
}

/// Puts `new` at a JSON pointer and expects exactly this to be said.
fn check(pointer: &str, new: Value, expected: &[&str]) {
    let mut other = value();
    *other.pointer_mut(pointer).unwrap() = new;
    let other = Profile::parse(&other.to_string(), "other").unwrap();
    let said: Vec<_> = card().diff(&other).iter().map(ToString::to_string).collect();
    assert_eq!(said, expected, "{pointer}");
    assert_ne!(card().hash(), other.hash(), "{pointer}");
}

#[test]
fn changes_are_said_in_words() {
    check("/host/memory_bytes/value", json!(17179869184_u64), &["host.memory_bytes: 32.0 GiB -> 16.0 GiB (-50.0 %)"]);
    check("/device/launch_ns/value", json!(6000), &["device.launch_ns: 5 us -> 6 us (+20.0 %)"]);
    check("/title", json!("Mine"), &["title: 'NVIDIA GeForce RTX 3060 12 GB (data sheet)' -> 'Mine'"]);
    check("/device/kernel_set", json!("cuda-2"), &["device.kernel_set: 'cuda' -> 'cuda-2'"]);
    check(
        "/disk/read/points/0/p50",
        json!(3.08e9),
        &["disk.read: 2.8 GB/s (1.5 GB/s to 3.4 GB/s) -> 3.08 GB/s (1.5 GB/s to 3.4 GB/s) (+10.0 %)"],
    );
    check(
        "/disk/read/points",
        json!([{"amount": 4096, "p10": 1e9, "p50": 1.4e9, "p90": 2e9}, {"amount": 1e6, "p10": 2e9, "p50": 3e9, "p90": 4e9}]),
        &["disk.read: 2.8 GB/s (1.5 GB/s to 3.4 GB/s) -> 1.4 GB/s to 3 GB/s over 2 amounts (-50.0 %)"],
    );
}

#[test]
fn the_same_profile_has_no_changes_and_another_part_has_its_own() {
    assert_eq!(card().diff(&card()), []);
    let mut other = card();
    other.link = parts::link("pcie-3.0-x8").unwrap();
    let fields: Vec<_> = card().diff(&other).into_iter().map(|change| change.field).collect();
    assert_eq!(fields, ["link.pcie", "link.h2d_pinned", "link.h2d_pageable", "link.d2h", "link.name"]);
}

/// The same value with the fields of every object the other way round.
fn reversed(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            Value::Object(fields.iter().rev().map(|(k, v)| (k.clone(), reversed(v))).collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.iter().map(reversed).collect()),
        other => other.clone(),
    }
}

#[test]
fn a_hash_is_of_the_figures_and_not_of_the_layout() {
    for name in ["cpu", "rtx-3060-12gb"] {
        let profile = catalog::find(name).unwrap();
        let value: Value = serde_json::from_str(&profile.to_json().unwrap()).unwrap();
        let other = reversed(&value);
        assert_ne!(other.to_string(), value.to_string());
        for text in [other.to_string(), format!("{other:#}\n\n"), value.to_string().replace("\":", "\" :\n")] {
            assert_eq!(Profile::parse(&text, "other").unwrap().hash(), profile.hash(), "{name}");
        }
    }
}

#[test]
fn fields_without_a_meaning_are_listed_by_their_path() {
    assert_eq!(unknown_fields(&value().to_string(), "x").unwrap(), Vec::<String>::new());
    let mut other = value();
    other["note"] = json!("a rainy day");
    other["device"]["peak_flop_per_s"] = json!(1);
    other["device"]["ops"][2]["remark"] = json!({"a": 1});
    other["device"]["measurements"] = json!([]);
    let mut fields = unknown_fields(&other.to_string(), "x").unwrap();
    fields.sort();
    assert_eq!(fields, ["device.ops[2].remark", "device.peak_flop_per_s", "note"]);
}

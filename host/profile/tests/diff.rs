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

#[test]
fn tables_of_a_recording_are_compared_too() {
    let with = |time: u64, cause: u64| {
        let mut other = value();
        other["device"]["launch_ns"]["value"] = json!(cause);
        other["device"]["recorded"] = json!({"sites": [{"op": "linear", "dtype": "f32", "weight": "f32",
            "provenance": "measured", "source": "a clock", "rows": [format!("64x64x64 {time} {time} {time}")]}]});
        Profile::parse(&other.to_string(), "other").unwrap()
    };
    let said = |a: &Profile, b: &Profile| a.diff(b).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(said(&with(900, 5000), &with(1000, 5000)), ["device.recorded.sites: different"]);
    let both = ["device.launch_ns: 5 us -> 6 us (+20.0 %)", "device.recorded.sites: different"];
    assert_eq!(said(&with(900, 5000), &with(1000, 6000)), both);
    assert_eq!(said(&card(), &with(900, 5000)), ["device.recorded: different"]);
}

/// Every field of a profile, one at a time: none can change the hash without being said.
#[test]
fn no_change_of_the_hash_goes_unsaid() {
    let profile = value();
    let mut paths = Vec::new();
    leaves(&profile, String::new(), &mut paths);
    let mut changed = 0;
    for path in paths {
        let mut other = profile.clone();
        let leaf = other.pointer_mut(&path).unwrap();
        *leaf = match leaf.clone() {
            Value::Number(number) if number.is_u64() => json!(number.as_u64().unwrap() / 2),
            Value::Number(number) => json!(number.as_f64().unwrap() * 0.99),
            Value::String(text) => json!(format!("{text}x")),
            other => other.clone(),
        };
        // Not every change leaves a sound profile.
        let Ok(other) = Profile::parse(&other.to_string(), "other") else { continue };
        if other.hash() != card().hash() {
            changed += 1;
            assert!(!card().diff(&other).is_empty(), "{path}");
        }
    }
    assert!(changed > 60, "{changed}");
    let mut reordered = card();
    reordered.device.ops.reverse();
    assert_eq!(card().diff(&reordered).iter().map(ToString::to_string).collect::<Vec<_>>(), ["device.ops: different"]);
}

fn leaves(value: &Value, path: String, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, v)| leaves(v, format!("{path}/{key}"), found)),
        Value::Array(items) => items.iter().enumerate().for_each(|(i, v)| leaves(v, format!("{path}/{i}"), found)),
        _ => found.push(path),
    }
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

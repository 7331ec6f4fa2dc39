//! `loadline profile` as people and scripts use it.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

fn loadline(dir: &Path, args: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadline"));
    command.current_dir(dir).args(args.split_whitespace()).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", out(output)))
}

/// The exit code is `code`, and what is printed on either stream holds every part.
fn check(dir: &Path, args: &str, code: i32, parts: &[&str]) {
    let output = loadline(dir, args);
    let text = out(&output) + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args}: {text}");
    for part in parts {
        assert!(text.contains(part), "{args}: '{part}' is not in: {text}");
    }
    assert!(!text.contains("panicked"), "{args}: {text}");
}

#[test]
fn list_is_a_table_whose_columns_stand() {
    let dir = tempfile::tempdir().unwrap();
    let text = out(&loadline(dir.path(), "profile list"));
    let lines: Vec<_> = text.lines().take_while(|line| !line.is_empty()).collect();
    assert!(lines.len() > 27, "{text}");
    let heading = lines[0];
    // Text columns begin where their heading begins, for every row.
    for column in ["device", "link", "figures"] {
        let at = heading.find(column).unwrap();
        for line in &lines[1..] {
            let chars: Vec<_> = line.chars().collect();
            assert!(chars[at - 1] == ' ' && chars[at] != ' ', "{column}: {line}");
        }
    }
    let rtx = lines.iter().find(|line| line.starts_with("rtx-3060-12gb ")).unwrap();
    for part in ["NVIDIA GeForce RTX 3060", "12.0 GiB", "360 GB/s", "25.5 TFLOP/s", "PCIe 4.0 x16", "datasheet"] {
        assert!(rtx.contains(part), "{part}: {rtx}");
    }
    let t4 = lines.iter().find(|line| line.starts_with("t4 ")).unwrap();
    assert!(t4.contains("8.1 TFLOP/s*"), "{t4}");
}

#[test]
fn list_and_show_give_json_with_the_hash_of_the_forecast() {
    let dir = tempfile::tempdir().unwrap();
    let list = json_of(&loadline(dir.path(), "profile list --json"));
    let row = list.as_array().unwrap().iter().find(|row| row["name"] == "rtx-4090").unwrap().clone();
    assert_eq!(row["memory_bytes"], 25_769_803_776_u64);
    assert_eq!(row["peak_flops_per_s"]["bf16"], 165.2e12);
    assert_eq!((&row["provenance"], &row["architecture"]), (&json!("datasheet"), &json!("ada")));
    let shown = json_of(&loadline(dir.path(), "profile show rtx-4090 --json"));
    assert_eq!(shown["hash"], row["hash"]);
    assert_eq!(shown["profile"]["device"]["memory_bytes"]["value"], row["memory_bytes"]);
    let plan = "plan wan2.1-t2v-1.3b --gpu rtx-4090 --size 480x272 --frames 17 --json";
    let plan = json_of(&loadline(dir.path(), plan));
    assert_eq!(plan["machine"]["hash"], row["hash"]);
    assert_eq!(plan["machine"]["provenance"], "datasheet");
}

#[test]
fn show_gives_every_figure_with_interval_provenance_and_source() {
    let dir = tempfile::tempdir().unwrap();
    check(
        dir.path(),
        "profile show rtx-3070",
        0,
        &[
            "from its data sheet with assumed utilisation",
            "peak_flops_per_s.bf16      40.6 TFLOP/s [datasheet]",
            "NVIDIA Ampere GA102 whitepaper",
            "linear.bf16.flops          32.48 TFLOP/s (25.13 TFLOP/s to 39.22 TFLOP/s) [datasheet]",
            "carried to another card of the same architecture: interval 5 % wider",
            "memory_bytes               8.00 GiB [datasheet]",
        ],
    );
    check(dir.path(), "profile show cpu", 0, &["cpu · ", "[measured]", " over "]);
}

#[test]
fn a_composed_machine_can_be_planned_with() {
    let dir = tempfile::tempdir().unwrap();
    let compose =
        "profile compose rtx-3060-12gb --link pcie-3.0-x8 --disk sata-ssd --host ddr4-3200 --ram 48GiB -o mine.json";
    check(dir.path(), compose, 0, &["mine.json: NVIDIA GeForce RTX 3060, PCIe 3.0 x8", "SATA SSD"]);
    check(dir.path(), "profile lint mine.json", 0, &["mine.json: sound ("]);
    let plan = |gpu: &str| {
        let args = format!("plan wan2.1-t2v-14b --gpu {gpu} --size 480x272 --frames 17 --json");
        json_of(&loadline(dir.path(), &args))
    };
    let (mine, stock) = (plan("mine.json"), plan("rtx-3060-12gb"));
    assert_eq!(mine["machine"]["name"], "mine");
    assert_eq!(mine["host"]["budget_bytes"], 48_u64 << 30);
    assert!(mine["time"]["cold_ns"].as_u64() > stock["time"]["cold_ns"].as_u64(), "a slower slot and disk");
    check(
        dir.path(),
        "profile diff rtx-3060-12gb mine.json",
        20,
        &[
            "link.h2d_pinned: 25.52 GB/s (22.06 GB/s to 27.1 GB/s) -> 6.3 GB/s (5.51 GB/s to 6.62 GB/s) (-75.3 %)",
            "disk.read: 2.8 GB/s",
            "(-82.1 %)",
            "host.memory_bytes: 32.0 GiB -> 48.0 GiB (+50.0 %)",
        ],
    );
    check(dir.path(), "profile diff mine.json ./mine.json", 0, &["the same: mine"]);
    let diff = json_of(&loadline(dir.path(), "profile diff mine.json rtx-3060-12gb --json"));
    assert_eq!(diff["same"], false);
    assert!(diff["changes"].as_array().unwrap().iter().any(|c| c["field"] == "disk.read" && c["relative"].is_f64()));
}

#[test]
fn parts_come_from_other_profiles_too() {
    let dir = tempfile::tempdir().unwrap();
    let args = "profile compose rtx-4090 --disk-of cpu --host-of h100-80gb";
    let made = json_of(&loadline(dir.path(), args));
    assert_eq!(made["name"], "rtx-4090-h100-80gb-cpu");
    let cpu = json_of(&loadline(dir.path(), "profile show cpu --json"));
    assert_eq!(made["disk"], cpu["profile"]["disk"], "with its own provenance and sources");
    assert_eq!(made["host"]["memory_bytes"]["value"], 256_u64 << 30);
    let refused = [
        ("profile compose rtx-4060 --link pcie-4.0-x16", "--link pcie-4.0-x8"),
        ("profile compose cpu --link pcie-4.0-x16", "leave --link out"),
        ("profile compose rtx-4090 --link pcie-9", "no link is called 'pcie-9'"),
        ("profile compose rtx-4090 --disk floppy", "choose from hdd"),
        ("profile compose rtx-4090 --host ddr4", "ddr4-3200"),
        ("profile compose 4060ti --disk hdd", "did you mean 'rtx-4060-ti-8gb' or 'rtx-4060-ti-16gb'?"),
        ("profile compose rtx-4090 --ram 1B", "'host.memory_bytes.value' is 1"),
    ];
    for (args, part) in refused {
        check(dir.path(), args, 5, &[part]);
    }
    check(dir.path(), "profile compose rtx-4090 -o nowhere/x.json", 10, &["nowhere/x.json"]);
}

/// A recording of an RTX 3070, made up.
fn recording(dir: &Path) {
    let shown = json_of(&loadline(dir, "profile show rtx-3070 --json"));
    let mut profile = shown["profile"].clone();
    profile["name"] = json!("my-3070");
    profile["device"]["ops"] = json!([{
        "kind": "linear", "dtypes": ["bf16"],
        "flops": {"points": [{"amount": 1e9, "p10": 18e12, "p50": 20e12, "p90": 21e12}],
            "provenance": "measured", "source": "made up for a test"},
        "bytes": {"points": [{"amount": 1e6, "p10": 300e9, "p50": 350e9, "p90": 400e9}],
            "provenance": "measured", "source": "made up for a test"},
    }]);
    for name in ["memory_bytes", "granularity_bytes", "fixed_overhead_bytes", "launch_ns"] {
        profile["device"][name]["provenance"] = json!("measured");
    }
    for (part, name) in [
        ("link", "latency_ns"),
        ("link", "h2d_pinned"),
        ("link", "h2d_pageable"),
        ("link", "d2h"),
        ("host", "memory_bytes"),
        ("host", "convert"),
        ("disk", "latency_ns"),
        ("disk", "read"),
    ] {
        profile[part][name]["provenance"] = json!("measured");
    }
    std::fs::write(dir.join("my.json"), profile.to_string()).unwrap();
}

#[test]
fn what_is_derived_from_a_recording_is_derived() {
    let dir = tempfile::tempdir().unwrap();
    recording(dir.path());
    check(dir.path(), "profile show my.json", 0, &["my-3070 · measured"]);
    check(
        dir.path(),
        "profile derive --from my.json --for rtx-4090 -o there.json",
        0,
        &[
            "rtx-4090 (ada (half)) from my-3070 (ampere (half)), a card of a neighbouring architecture: interval 15 % wider",
        ],
    );
    let made: Value = serde_json::from_slice(&std::fs::read(dir.path().join("there.json")).unwrap()).unwrap();
    let rate = &made["device"]["ops"][0]["flops"];
    assert_eq!(rate["provenance"], "derived");
    assert!(rate["source"].as_str().unwrap().contains("'my-3070'"), "{rate}");
    assert!((rate["points"][0]["p50"].as_f64().unwrap() / (20e12 * 165.2 / 40.6) - 1.0).abs() < 1e-9);
    assert!(!made["device"].to_string().contains("measured"), "nothing derived calls itself measured");
    check(dir.path(), "profile derive --for rtx-4090 -o My_card.v2.json", 0, &["My_card.v2.json: "]);
    check(dir.path(), "profile show My_card.v2.json --json", 0, &["\"name\": \"my-card-v2\""]);
    check(dir.path(), "profile derive --for rtx-4090 --name A_b", 0, &["\"name\": \"a-b\""]);
    check(dir.path(), "profile derive --for rtx-4090 -o .", 2, &["this names no file"]);
    check(dir.path(), "profile derive --for rtx-4090 -o nowhere/x.json", 10, &["there is no folder nowhere"]);
    check(dir.path(), "profile derive --for rtx-4090", 0, &["half-ada", "\"name\": \"rtx-4090\""]);
    check(dir.path(), "profile derive --from rtx-4090 --for rtx-4080", 0, &["holds assumptions, not a recording"]);
    check(dir.path(), "profile derive --from cpu --for rtx-4080", 5, &["which the catalog does not have"]);
    check(dir.path(), "profile derive --for rtx3080", 5, &["did you mean 'rtx-3080-10gb' or 'rtx-3080-12gb'"]);
}

/// Puts `value` at a pointer of a sound profile; `lint` names the field.
fn check_damage(dir: &Path, pointer: &str, value: Value, field: &str) {
    let shown = json_of(&loadline(dir, "profile show rtx-3060-12gb --json"));
    let mut profile = shown["profile"].clone();
    *profile.pointer_mut(pointer).unwrap() = value;
    std::fs::write(dir.join("bad.json"), profile.to_string()).unwrap();
    for command in ["profile lint bad.json", "profile show bad.json", "plan wan2.1-t2v-1.3b --gpu bad.json"] {
        check(dir, command, 5, &["bad.json", field]);
    }
}

#[test]
fn damaged_profiles_are_refused_by_file_and_field() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    check_damage(
        d,
        "/schema",
        json!("loadline-profile/7"),
        "'loadline-profile/7', but this version reads 'loadline-profile/1'",
    );
    check_damage(d, "/device/memory_bytes/value", json!(-1), "'device.memory_bytes.value' is -1");
    check_damage(d, "/device/launch_ns/value", json!("NaN"), "'device.launch_ns.value' is the text 'NaN'");
    check_damage(d, "/disk/read/points/0/p50", json!(1e30), "'disk.read.points[0].p50'");
    check_damage(d, "/link/h2d_pinned/utilisation/p90", json!(1.2), "'link.h2d_pinned.utilisation.p90' is 1.2");
    check_damage(d, "/device/peak_flops_per_s/bf16", json!({}), "'device.peak_flops_per_s.bf16.value' is missing");
    std::fs::write(d.join("half.json"), "{\"schema\": \"loadline-profile/1\",").unwrap();
    check(d, "profile lint half.json", 5, &["half.json", "not valid JSON (line 1", "EOF"]);
    std::fs::write(d.join("binary.json"), b"\xff\xfe\x00").unwrap();
    check(d, "profile lint binary.json lost.json", 5, &["binary.json", "no text", "lost.json", "cannot be opened"]);
}

#[test]
fn lint_looks_at_many_and_notes_what_means_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let shown = json_of(&loadline(dir.path(), "profile show rtx-3060-12gb --json"));
    let mut profile = shown["profile"].clone();
    profile["device"]["peak_flop_per_s"] = json!({});
    profile["remark"] = json!("from the attic");
    profile["device"]["peak_flop_per_s"]["f32"] = json!(1);
    std::fs::write(dir.path().join("noted.json"), profile.to_string()).unwrap();
    check(
        dir.path(),
        "profile lint noted.json cpu h200",
        0,
        &["noted.json: sound (", "cpu: sound (", "h200: sound (", "field 'device.peak_flop_per_s'", "field 'remark'"],
    );
    profile["disk"]["latency_ns"]["value"] = json!(-5);
    std::fs::write(dir.path().join("bad.json"), profile.to_string()).unwrap();
    let output = loadline(dir.path(), "profile lint noted.json bad.json --json");
    assert_eq!(output.status.code(), Some(5));
    let value = json_of(&output);
    assert_eq!((&value[0]["sound"], &value[1]["sound"]), (&json!(true), &json!(false)));
    assert_eq!(value[1]["findings"][0]["field"], "disk.latency_ns.value");
    assert_eq!(value[0]["hash"], shown["hash"], "what means nothing changes no hash");
}

#[test]
fn every_forecast_says_what_its_figures_rest_on() {
    let dir = tempfile::tempdir().unwrap();
    recording(dir.path());
    let said =
        |gpu: &str| out(&loadline(dir.path(), &format!("plan wan2.1-t2v-1.3b --gpu {gpu} --size 480x272 --frames 17")));
    for gpu in ["rtx-3060-12gb", "l4", "b200", "rtx-2060-12gb"] {
        let text = said(gpu);
        assert!(text.contains("(from its data sheet with assumed utilisation)"), "{gpu}: {text}");
        assert!(text.contains("likely between"), "{gpu}: {text}");
    }
    let cpu = json_of(&loadline(dir.path(), "profile show cpu --json"));
    let words = if cpu["provenance"] == "measured" { "(measured)" } else { "(derived from a measured machine)" };
    assert!(said("cpu").contains(words));
}

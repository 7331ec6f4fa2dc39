//! What runs and traces say of memory.
#![allow(clippy::unwrap_used)]

use serde_json::Value;

mod common;
use common::{expect, fixture, loadline, run_args};

fn bytes(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

#[test]
fn a_trace_of_a_run_has_a_report_of_its_memory() {
    let dir = tempfile::tempdir().unwrap();
    let out = loadline(dir.path(), &run_args(&fixture(), "--frames 5 --vram 8MiB -o x.mp4 --trace t.json --json"));
    expect(&out, 0, &[]);
    let run: Value = serde_json::from_slice(&out.stdout).unwrap();
    let out = loadline(dir.path(), "memory t.json --json");
    expect(&out, 0, &[]);
    let report: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(report["schema"], "loadline-memory/1");
    assert_eq!(bytes(&report["device_budget_bytes"]), 8 << 20);
    for (stage, measured) in
        report["stages"].as_array().unwrap().iter().zip(run["measured"]["stages"].as_array().unwrap())
    {
        let found = &stage["measured"];
        assert_eq!(found["peak_bytes"], measured["device_peak_bytes"], "{stage:#}");
        assert!(bytes(&found["allocations"]["device"]) > 0 && bytes(&found["free_before"]) > 0, "{found:#}");
        let (pass, block) = (bytes(&found["peak_at"]["pass"]), found["peak_at"]["block"].as_str().unwrap());
        assert!(pass >= 1 && pass <= bytes(&stage["passes"]), "{found:#}");
        let of_block = stage["blocks"].as_array().unwrap().iter().filter(|b| b["block"] == block);
        assert!(of_block.clone().any(|b| b["measured_bytes"] == found["peak_bytes"]), "{stage:#}");
    }
    let text = String::from_utf8(loadline(dir.path(), "memory t.json --blocks 2").stdout).unwrap();
    for part in ["a run on", "budget 8.00 MiB", "denoise: the highest of", "pass ", "allocations on device and host"] {
        assert!(text.contains(part), "no '{part}' in: {text}");
    }
    assert!(
        !String::from_utf8(loadline(dir.path(), "memory t.json --blocks 0").stdout).unwrap().contains("highest of")
    );
    let trace: Value = serde_json::from_slice(&std::fs::read(dir.path().join("t.json")).unwrap()).unwrap();
    let highs = trace["traceEvents"].as_array().unwrap().iter().filter(|e| e["name"] == "device bytes, measured");
    let tasks = trace["traceEvents"].as_array().unwrap().iter().filter(|e| e["ph"] == "X" && e["tid"] == 1);
    assert_eq!(highs.count(), tasks.count());
}

#[test]
fn a_trace_of_a_forecast_has_one_too() {
    let dir = tempfile::tempdir().unwrap();
    let args = "plan wan2.1-t2v-1.3b --gpu rtx-3060-12gb --vram 6GiB --steps 3 --trace t.json --json";
    let out = loadline(dir.path(), args);
    expect(&out, 0, &[]);
    let plan: Value = serde_json::from_slice(&out.stdout).unwrap();
    let report: Value = serde_json::from_slice(&loadline(dir.path(), "memory t.json --json").stdout).unwrap();
    let peaks: Vec<u64> =
        report["stages"].as_array().unwrap().iter().map(|s| bytes(&s["forecast_peak_bytes"])).collect();
    assert_eq!(peaks.iter().max(), Some(&bytes(&plan["memory"]["peak_bytes"])));
    assert!(report["stages"].as_array().unwrap().iter().all(|s| s["measured"].is_null()));
    let text = String::from_utf8(loadline(dir.path(), "memory t.json").stdout).unwrap();
    assert!(text.contains("a forecast on") && text.contains("residents") && !text.contains("allocations"), "{text}");
}

#[test]
fn what_is_no_trace_says_how_to_get_one() {
    let dir = tempfile::tempdir().unwrap();
    let again = "loadline run ... --trace FILE";
    for (name, content, text) in [
        ("none.json", None, "No such file"),
        ("text.json", Some("hello"), "not valid JSON"),
        ("other.json", Some("{}"), "otherData.memory"),
        ("old.json", Some("{\"otherData\":{\"memory\":{\"schema\":\"loadline-memory/0\"}}}"), "loadline-memory/0"),
        ("half.json", Some("{\"otherData\":{\"memory\":{\"schema\":\"loadline-memory/1\"}}}"), "missing field"),
    ] {
        if let Some(content) = content {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        expect(&loadline(dir.path(), &format!("memory {name}")), 5, &[name, text, again]);
    }
}

#[test]
fn memory_can_be_followed_on_standard_error() {
    let dir = tempfile::tempdir().unwrap();
    let out = loadline(dir.path(), &run_args(&fixture(), "--frames 5 --vram 8MiB -o x.mp4 --debug-memory --json"));
    let parts = [
        "[memory]   host RAM: ",
        "[memory]   device budget: 8.00 MiB",
        "[memory] plan of auto-tune:",
        "[memory] denoise begins: device: ",
        "[memory]   allocated ",
        "[memory] denoise ended: peak",
        "reserved",
        "allocations on the device",
    ];
    expect(&out, 0, &parts);
    // What it says is what the run measured.
    let run: Value = serde_json::from_slice(&out.stdout).unwrap();
    let message = String::from_utf8_lossy(&out.stderr);
    for stage in run["measured"]["stages"].as_array().unwrap() {
        let peak = loadline::core::Bytes(bytes(&stage["device_peak_bytes"]));
        let line = format!("{} ended: peak {peak} of ", stage["name"].as_str().unwrap());
        assert!(message.contains(&line), "no '{line}' in: {message}");
    }
}

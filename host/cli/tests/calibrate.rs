//! `loadline calibrate` from the traces of real runs to a profile that plans.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod common;

use std::fs;
use std::path::Path;

use common::{expect, fixture, loadline, run_args};
use serde_json::{Value, json};

/// The traces of five runs. Each stage took `factors` times its operations, whatever else this machine was doing.
fn traces(dir: &Path, factors: [f64; 5]) {
    fs::create_dir(dir.join("traces")).unwrap();
    for (run, factor) in factors.iter().enumerate() {
        let trace = format!("traces/{run}.json");
        let rest = format!("--frames 5 -o v.mp4 --trace {trace}");
        expect(&loadline(dir, &run_args(&fixture(), &rest)), 0, &[]);
        let mut value: Value = serde_json::from_slice(&fs::read(dir.join(&trace)).unwrap()).unwrap();
        for stage in value["otherData"]["run"]["stages"].as_array_mut().unwrap() {
            let operations = stage["operations_ns"].as_f64().unwrap();
            assert!(stage["time_ns"].as_f64().unwrap() > 0.0 && operations > 0.0, "{stage}");
            stage["computing_ns"] = json!(factor * operations);
        }
        fs::write(dir.join(&trace), value.to_string()).unwrap();
    }
}

#[test]
fn traces_of_runs_become_a_calibrated_profile() {
    let dir = tempfile::tempdir().unwrap();
    traces(dir.path(), [1.1, 1.2, 1.3, 1.4, 1.5]);
    let printed = loadline(dir.path(), "calibrate traces --json -o mine.json");
    expect(&printed, 0, &[]);
    let value: Value = serde_json::from_slice(&printed.stdout).unwrap();
    let stages = value["stages"].as_array().unwrap();
    assert_eq!(stages.len(), 3, "{value}");
    for stage in stages {
        assert_eq!(stage["runs"], 5, "{stage}");
        let worst = stage["worst"].as_f64().unwrap();
        assert!(stage["median"].as_f64().unwrap().abs() <= worst.abs(), "{stage}");
    }
    // What was recorded is still there, and the levels are new.
    let before = loadline(dir.path(), "profile show cpu --json");
    let before: Value = serde_json::from_slice(&before.stdout).unwrap();
    let after: Value = serde_json::from_slice(&fs::read(dir.path().join("mine.json")).unwrap()).unwrap();
    assert_eq!(after["device"]["recorded"]["sites"], before["profile"]["device"]["recorded"]["sites"]);
    let levels = after["device"]["recorded"]["calibration"].as_array().unwrap();
    let new: Vec<_> = levels.iter().filter(|level| level["runs"] == 5).collect();
    assert_eq!(new.len(), 3, "{after}");
    for level in new {
        assert!((level["factor"]["p50"].as_f64().unwrap() - 1.3).abs() < 1e-9, "{level}");
    }
    expect(&loadline(dir.path(), &format!("plan {} --gpu mine.json", fixture().display())), 0, &[]);
    // Its forecasts are its own: traces of another profile say nothing about it.
    let other = loadline(dir.path(), "calibrate traces --profile mine.json");
    expect(&other, 5, &["traces/0.json", "not with 'mine.json'", "--profile"]);
}

#[test]
fn runs_that_lie_too_far_apart_are_named_and_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    traces(dir.path(), [1.1, 1.2, 1.3, 1.4, 1172.0]);
    let refused = loadline(dir.path(), "calibrate traces -o mine.json");
    expect(&refused, 2, &["no level of text_encode f32", "times as long as their operations", "does nothing else"]);
    assert!(!dir.path().join("mine.json").exists());
    let printed = loadline(dir.path(), "calibrate traces");
    expect(&printed, 0, &[]);
    assert!(String::from_utf8_lossy(&printed.stdout).contains("no level of vae_decode f32"));
}

#[test]
fn what_is_no_trace_of_a_run_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let check = |name: &str, text: &str, parts: &[&str]| {
        fs::write(dir.path().join(name), text).unwrap();
        let mut all = vec![name];
        all.extend_from_slice(parts);
        expect(&loadline(dir.path(), &format!("calibrate {name}")), 5, &all);
    };
    check("text.json", "once upon a time", &["not valid JSON"]);
    check("forecast.json", "{\"otherData\": {}, \"traceEvents\": []}", &["not the trace of a run", "--trace"]);
    let future = "{\"otherData\": {\"run\": {\"schema\": \"loadline-run/9\"}}}";
    check("future.json", future, &["otherData.run.schema", "loadline-run/9"]);
    let damaged = "{\"otherData\": {\"run\": {\"schema\": \"loadline-run/1\", \"profile\": 7}}}";
    check("damaged.json", damaged, &["otherData.run"]);
    expect(&loadline(dir.path(), "calibrate nowhere.json"), 5, &["nowhere.json"]);
    fs::create_dir(dir.path().join("empty")).unwrap();
    expect(&loadline(dir.path(), "calibrate empty"), 5, &["there is no trace"]);
}

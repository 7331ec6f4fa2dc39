//! `loadline calibrate` from the traces of real runs to a profile that plans.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod common;

use std::fs;

use common::{expect, fixture, loadline, run_args};
use serde_json::Value;

#[test]
fn traces_of_runs_become_a_calibrated_profile() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("traces")).unwrap();
    for run in 0..5 {
        let rest = format!("--frames 5 -o v.mp4 --trace traces/{run}.json");
        expect(&loadline(dir.path(), &run_args(&fixture(), &rest)), 0, &[]);
    }
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
    assert!(after["device"]["recorded"]["calibration"].as_array().unwrap().len() >= 3, "{after}");
    expect(&loadline(dir.path(), &format!("plan {} --gpu mine.json", fixture().display())), 0, &[]);
    // Its forecasts are its own: traces of another profile say nothing about it.
    let other = loadline(dir.path(), "calibrate traces --profile mine.json");
    expect(&other, 5, &["traces/0.json", "not with 'mine.json'", "--profile"]);
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

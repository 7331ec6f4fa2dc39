//! `loadline doctor` on the machine that the tests run on: whatever it has, what is printed has a form, and what the
//! test arranges is found.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// With `settings` in front, in a shell: limits and variables.
fn doctor(dir: &Path, settings: &str, args: &str) -> Output {
    let script = format!("{settings} exec {} doctor {args}", env!("CARGO_BIN_EXE_loadline"));
    Command::new("sh").current_dir(dir).args(["-c", &script]).output().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The finding of a check.
fn find<'a>(report: &'a Value, check: &str) -> &'a Value {
    report["findings"].as_array().unwrap().iter().find(|finding| finding["check"] == check).unwrap()
}

#[test]
fn every_finding_that_is_not_ok_has_a_reason_and_a_fix() {
    let dir = tempfile::tempdir().unwrap();
    let output = doctor(dir.path(), "", "--json");
    let report = json(&output);
    assert_eq!(report["schema"], "loadline-doctor/1");
    let findings = report["findings"].as_array().unwrap();
    assert!(findings.len() > 10, "{report:#}");
    for finding in findings {
        let is_ok = finding["severity"] == "ok";
        assert_eq!((finding["reason"].is_null(), finding["fix"].is_null()), (is_ok, is_ok), "{finding:#}");
    }
    assert!(report["facts"]["processor"]["threads"].as_u64().unwrap() > 0);
    let problems = report["problems"].as_u64().unwrap();
    assert_eq!(output.status.code(), Some(if problems > 0 { 25 } else { 0 }));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "it leaves nothing behind");
}

#[test]
fn a_problem_has_an_exit_code_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let output = doctor(dir.path(), "", "--folder gone --json");
    assert_eq!(output.status.code(), Some(25));
    assert_eq!(find(&json(&output), "folder")["severity"], "problem");
    let text = doctor(dir.path(), "", "--folder gone");
    assert_eq!(text.status.code(), Some(25));
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("\n  problem  gone: No such file") && text.contains("-> loadline doctor --folder"), "{text}");
}

#[test]
fn limits_of_the_shell_are_seen() {
    let dir = tempfile::tempdir().unwrap();
    let report = json(&doctor(dir.path(), "ulimit -n 32;", "--json"));
    assert_eq!(report["facts"]["limits"]["open_files"]["soft"], 32);
    assert_eq!(find(&report, "open-files")["severity"], "problem");
}

#[test]
fn the_cache_is_where_the_variable_says() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("compiled");
    std::fs::create_dir(&cache).unwrap();
    Command::new("chmod").arg("755").arg(&cache).status().unwrap();
    let settings = format!("LOADLINE_CACHE={}", dir.path().display());
    let report = json(&doctor(dir.path(), &settings, "--json"));
    let fix = find(&report, "cache")["fix"].as_str().unwrap();
    assert_eq!(fix, format!("chmod 700 '{}'", cache.display()));
    let off = json(&doctor(dir.path(), "LOADLINE_CACHE=off", "--json"));
    assert_eq!(find(&off, "cache")["severity"], "note");
}

#[test]
fn a_rate_is_of_a_file_that_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let none = json(&doctor(dir.path(), "", "--no-measure --json"));
    assert_eq!(none["facts"]["folder"]["reading"]["kind"], "not-asked");
    let quick = json(&doctor(dir.path(), "", "--json"));
    let quick = &quick["facts"]["folder"]["reading"];
    assert!(quick["made"] == true || quick["kind"] == "no-file", "{quick:#}");
    let below = dir.path().join("vae");
    std::fs::create_dir(&below).unwrap();
    std::fs::write(below.join("a.safetensors"), vec![7; 65 << 20]).unwrap();
    let report = json(&doctor(dir.path(), "", "--measure --json"));
    let reading = &report["facts"]["folder"]["reading"];
    assert_eq!(reading["kind"], "done", "{report:#}");
    assert!(reading["file"].as_str().unwrap().ends_with("vae/a.safetensors"));
    assert!(reading["seconds"].as_f64().unwrap() > 0.0);
    assert!(find(&report, "rate")["what"].as_str().unwrap().contains("GB/s"));
}

//! `loadline policy check | test | bench | explain` as their users meet them: words, exit codes, JSON.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

#[path = "../../policy/tests/common/guest.rs"]
mod guest;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use guest::{WIT, encode, module};
use serde_json::Value;

const POLICY: i32 = 6;
const SCENARIOS: i32 = 24;

fn loadline(dir: &Path, args: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadline"));
    command.current_dir(dir).env("LOADLINE_POLICIES", dir.join("installed"));
    command.args(args.split_whitespace()).output().unwrap()
}

#[track_caller]
fn ends(dir: &Path, args: &str, code: i32) -> (String, String) {
    let out = loadline(dir, args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&out.stdout), text(&out.stderr));
    assert_eq!(out.status.code(), Some(code), "{args}: {stdout}{stderr}");
    assert!(!stderr.contains("panicked"), "{args}: {stderr}");
    (stdout, stderr)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn check_says_a_line_for_each_check() {
    let dir = tempfile::tempdir().unwrap();
    let (said, _) = ends(dir.path(), "policy check lazy-load", 0);
    for line in ["size         ok ", "imports      ok ", "determinism  ok ", "lazy-load@"] {
        assert!(said.contains(line), "no '{line}' in: {said}");
    }
    let (said, _) = ends(dir.path(), "policy check lazy-load --json", 0);
    let said = json(&said);
    assert_eq!((said["admitted"].as_bool(), said["policy"]["name"].as_str()), (Some(true), Some("lazy-load")));
}

#[test]
fn check_names_the_first_failure_and_ends_with_the_code_of_policies() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        ("loop.wasm", encode(WIT, &module("(loop $again (br $again))", "")), "fuel", "units of fuel"),
        ("keep.wasm", encode(WIT, &module("", "")), "answers", "no plan runs yet"),
        ("text.wasm", b"text".to_vec(), "component", "this is no WebAssembly"),
    ];
    for (name, component, check, reason) in cases {
        fs::write(dir.path().join(name), component).unwrap();
        let (said, error) = ends(dir.path(), &format!("policy check ./{name}"), POLICY);
        let line = said.lines().find(|line| line.contains("FAILED")).unwrap();
        assert!(line.starts_with(check) && line.contains(reason), "{said}");
        assert!(error.contains(&format!("policy './{name}' is not admitted: {check}: ")), "{error}");
        let (said, _) = ends(dir.path(), &format!("policy check ./{name} --json"), POLICY);
        assert_eq!(json(&said)["admitted"], false, "{said}");
    }
    let (_, error) = ends(dir.path(), "policy check ./none.wasm", POLICY);
    assert!(error.contains("there is no such file"), "{error}");
}

const SCENARIO: &str = "about = \"a small job\"\nmodel = \"wan2.1-t2v-1.3b\"\ngpu = \"rtx-4090\"\nvram = \"6GiB\"\n\
                        expect = \"fits\"\n[request]\nframes = 17\nsteps = 4\n[settings]\nprefetch = 1\n";

fn project(scenario: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("scenarios")).unwrap();
    fs::write(dir.path().join("scenarios/small.toml"), scenario).unwrap();
    dir
}

#[test]
fn a_scenario_is_written_once_and_compared_from_then_on() {
    let dir = project(SCENARIO);
    let test = "policy test --policy lazy-load";
    let (said, _) = ends(dir.path(), test, 0);
    assert!(said.contains("new      small") && said.contains("--bless writes this"), "{said}");
    let (said, _) = ends(dir.path(), &format!("{test} --bless"), 0);
    assert!(said.contains("written  small"), "{said}");
    let (said, _) = ends(dir.path(), test, 0);
    assert!(said.contains("ok       small                a small job"), "{said}");
    let text = fs::read_to_string(dir.path().join("scenarios/small.snap.txt")).unwrap();
    assert!(text.starts_with("$ loadline plan wan2.1-t2v-1.3b --gpu rtx-4090 --vram 6144MiB "), "{text}");

    fs::write(dir.path().join("scenarios/small.toml"), SCENARIO.replace("prefetch = 1", "prefetch = 3")).unwrap();
    let (said, error) = ends(dir.path(), &format!("{test} scenarios/small.toml"), SCENARIOS);
    assert!(error.contains("1 of 1 scenarios did not end as expected: small"), "{error}");
    assert!(said.contains("    - $ loadline plan") && said.contains("    + $ loadline plan"), "{said}");
    let (said, _) = ends(dir.path(), &format!("{test} --json"), SCENARIOS);
    assert_eq!(json(&said)["scenarios"][0]["status"], "failed");
}

/// The command in a snapshot is one that can be typed.
#[test]
fn the_first_line_of_a_text_plans_the_same() {
    let dir = project(SCENARIO);
    ends(dir.path(), "policy test --policy lazy-load --bless", 0);
    let text = fs::read_to_string(dir.path().join("scenarios/small.snap.txt")).unwrap();
    let command = text.lines().next().unwrap().strip_prefix("$ loadline ").unwrap();
    let (said, _) = ends(dir.path(), &format!("{command} --policy lazy-load"), 0);
    let time = text.lines().nth(1).unwrap().split_whitespace().nth(1).unwrap().to_owned();
    assert!(said.lines().any(|line| line.starts_with("  all") && line.contains(&time)), "{text}\n{said}");
}

#[test]
fn another_ending_than_expected_is_not_blessed() {
    let dir = project(&SCENARIO.replace("\"fits\"", "\"refused\""));
    let (said, _) = ends(dir.path(), "policy test --policy lazy-load --bless", SCENARIOS);
    assert!(said.contains("expected: refused, and it ended: fits"), "{said}");
    assert!(!dir.path().join("scenarios/small.snap.txt").exists());
    fs::write(dir.path().join("guest.wasm"), encode(WIT, &module("unreachable", ""))).unwrap();
    let plain = SCENARIO.replace("[settings]\nprefetch = 1\n", "");
    fs::write(dir.path().join("scenarios/small.toml"), plain).unwrap();
    // The only component of the project is the one that is tested.
    let (said, _) = ends(dir.path(), "policy test --bless", SCENARIOS);
    assert!(said.contains("policy 'test': the policy broke off"), "{said}");
}

#[test]
fn a_test_without_scenarios_or_policy_says_what_to_do() {
    let dir = project(SCENARIO);
    let (_, error) = ends(dir.path(), "policy test", POLICY);
    assert!(error.contains("run `loadline policy build`, or say --policy NAME"), "{error}");
    for name in ["a.wasm", "b.wasm"] {
        fs::write(dir.path().join(name), "").unwrap();
    }
    let (_, error) = ends(dir.path(), "policy test", POLICY);
    assert!(error.contains("a.wasm") && error.contains("Say --policy FILE"), "{error}");
    let (_, error) = ends(dir.path(), "policy test nowhere", 2);
    assert!(error.contains("nowhere: no scenarios/*.toml here"), "{error}");
    let wrong = project("model = 3");
    let (_, error) = ends(wrong.path(), "policy test --policy lazy-load", 2);
    assert!(error.contains("small.toml"), "{error}");
}

#[test]
fn bench_ranks_and_takes_settings_of_one_policy() {
    let dir = tempfile::tempdir().unwrap();
    let args = "policy bench --set threshold.percent=80,100 --set lazy-load.prefetch=2";
    let (said, _) = ends(dir.path(), &format!("{args} --json"), 0);
    assert_eq!(said, ends(dir.path(), &format!("{args} --json"), 0).0);
    let policies = json(&said)["policies"].as_array().unwrap().clone();
    let names: Vec<&str> = policies.iter().map(|p| p["policy"].as_str().unwrap()).collect();
    assert_eq!(names[0], "auto-tune");
    for name in ["threshold percent=80", "threshold percent=100", "lazy-load prefetch=2", "manual-swap"] {
        assert!(names.contains(&name), "{names:?}");
    }
    let scores: Vec<f64> = policies.iter().map(|p| p["score"].as_f64().unwrap()).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    let (said, _) = ends(dir.path(), &format!("{args} --csv --cases"), 0);
    let cases = json(&ends(dir.path(), "policy bench --json", 0).0)["cases"].as_u64().unwrap() as usize;
    assert_eq!(said.lines().count(), 1 + cases * names.len());
}

#[test]
fn bench_knows_whose_setting_is_meant() {
    let dir = tempfile::tempdir().unwrap();
    let check = |set: &str, expected: &str| {
        let (_, error) = ends(dir.path(), &format!("policy bench --set {set}"), POLICY);
        assert!(error.contains(expected), "{error}");
    };
    check("percent", "write KEY=VALUE");
    check("thresold.percent=80", "no policy 'thresold' takes part; there are auto-tune");
    check("threshold.percnt=80", "did you mean 'percent'?");
    check("nonsense=80", "none of auto-tune");
    check("threshold.percent=101", "whole number from 1 to 100");
}

#[test]
fn bench_takes_a_stranger_beside_the_built_in_ones() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("keep.wasm"), encode(WIT, &module("", ""))).unwrap();
    let (said, _) = ends(dir.path(), "policy bench ./keep.wasm", 0);
    assert!(said.lines().any(|line| line.starts_with("test ")), "{said}");
    assert!(said.contains("FAULT of test in 60 cases: "), "{said}");
    assert!(said.contains("there is no plan to keep before the first"), "{said}");
}

#[test]
fn explain_says_why_whoever_made_the_plan() {
    let dir = tempfile::tempdir().unwrap();
    let args = "policy explain wan2.1-t2v-14b --gpu rtx-4090 --vram 8GiB --frames 17 --steps 8 --policy";
    for policy in ["auto-tune", "lazy-load"] {
        let (said, _) = ends(dir.path(), &format!("{args} {policy}"), 0);
        for part in [
            "the policy says",
            "\n  stays ",
            "\n  streams ",
            "\n  loads ",
            "\n  waits ",
            "\n  bound ",
            "what would help",
        ] {
            assert!(said.contains(part), "{policy}: no '{part}' in {said}");
        }
        let (said, _) = ends(dir.path(), &format!("{args} {policy} --json"), 0);
        assert_eq!(json(&said)["policy"]["name"], policy);
    }
    let (_, error) = ends(dir.path(), "policy explain wan2.1-t2v-14b --gpu rtx-4090 --vram 1GiB", 3);
    assert!(error.contains("it does not fit"), "{error}");
}

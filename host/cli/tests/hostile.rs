//! The hostile policy of `plugins/hostile` in the hands of a person: each attack ends in a message and an exit code of
//! its class, or in the video that every other policy makes, within the budget. Nothing panics, and nothing half done
//! lies under the result's name.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::fs;
use std::path::Path;
use std::process::Output;

mod common;
use common::{expect, fixture, loadline, names, run_args};

static HOSTILE: &[u8] = include_bytes!("../../../plugins/hostile/components/hostile.wasm");
/// Less than the fixture has weights, so that blocks are streamed.
const BUDGET: u64 = 1_700_000;

const FINE: i32 = 0;
const NEVER_FITS: i32 = 3;
const POLICY: i32 = 6;

/// Every attack with the exit code of a run. A policy that has no ladder or keeps nothing harms nobody.
const ATTACKS: &[(&str, i32)] = &[
    ("none", FINE),
    ("over-budget", POLICY),
    ("overflowing-sizes", POLICY),
    ("keep-everything", POLICY),
    ("no-activations", POLICY),
    ("all-activations", POLICY),
    ("unknown-block", POLICY),
    ("unknown-slot", POLICY),
    ("unknown-home", POLICY),
    ("home-on-device", POLICY),
    ("all-pinned", FINE),
    ("slot-too-small", POLICY),
    ("slot-in-use", POLICY),
    ("never-loaded", POLICY),
    ("not-cyclic", POLICY),
    ("out-of-order", POLICY),
    ("ragged-columns", POLICY),
    ("endless-cycle", POLICY),
    ("no-cycle", POLICY),
    ("many-slots", POLICY),
    ("many-loads", POLICY),
    ("few-stages", POLICY),
    ("many-stages", POLICY),
    ("few-homes", POLICY),
    ("forbidden-knob", POLICY),
    ("unknown-knob", POLICY),
    ("nan-knob", POLICY),
    ("long-memo", POLICY),
    ("retain-unknown", POLICY),
    ("retain-flood", POLICY),
    ("trigger-flood", POLICY),
    ("unknown-trigger", POLICY),
    ("largest-trigger", FINE),
    ("empty-ladder", FINE),
    ("ladder-up", FINE),
    ("reason-flood", POLICY),
    ("megabyte-reason", FINE),
    ("giant-answer", POLICY),
    ("escapes", FINE),
    ("log-flood", POLICY),
    ("log-giants", POLICY),
    ("forecast-flood", POLICY),
    ("forecast-nonsense", FINE),
    ("forecast-giants", POLICY),
    ("probe-flood", POLICY),
    ("probe-nonsense", FINE),
    ("endless-loop", POLICY),
    ("deep-recursion", POLICY),
    ("memory-bomb", POLICY),
    ("panic", POLICY),
    ("addresses", FINE),
    ("hash-order", FINE),
    ("nan-bits", FINE),
    ("keep", POLICY),
    ("refusal", NEVER_FITS),
    ("refusal-escapes", NEVER_FITS),
];

fn install(dir: &Path) {
    fs::write(dir.join("hostile.wasm"), HOSTILE).unwrap();
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Both streams hold no character that a terminal acts on, but for ends of lines.
#[track_caller]
fn shown(out: &Output) {
    for stream in [&out.stdout, &out.stderr] {
        let acts = |c: char| c != '\n' && c.is_control() || ('\u{200b}'..='\u{202e}').contains(&c);
        assert!(!text(stream).chars().any(acts), "{:?}", text(stream));
    }
}

fn attack(dir: &Path, name: &str) -> Output {
    let output = format!("--frames 1 --vram {BUDGET} --json -o {name}.png");
    loadline(dir, &run_args(&fixture(), &format!("{output} --policy ./hostile.wasm --set attack={name}")))
}

#[test]
fn every_attack_ends_by_its_class_or_in_the_right_video_within_the_budget() {
    let dir = tempfile::tempdir().unwrap();
    install(dir.path());
    let good = format!("--frames 1 --vram {BUDGET} -o good.png");
    expect(&loadline(dir.path(), &run_args(&fixture(), &good)), 0, &[]);
    let good = fs::read(dir.path().join("good.png")).unwrap();
    for (name, code) in ATTACKS {
        let out = attack(dir.path(), name);
        let message = text(&out.stderr);
        assert_eq!(out.status.code(), Some(*code), "{name}: {message}");
        // The guest's own panic is told in one line; one of ours would name its thread.
        assert!(!message.contains("thread '") && !message.contains("this is a bug"), "{name}: {message}");
        shown(&out);
        let result = dir.path().join(format!("{name}.png"));
        if *code != FINE {
            assert!(!result.exists(), "{name} left something under the result's name");
            continue;
        }
        assert!(fs::read(&result).unwrap() == good, "{name}: the picture is another");
        let told: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        let peak = told["measured"]["device_peak_bytes"].as_u64().unwrap();
        assert!(peak > 0 && peak <= BUDGET, "{name}: {peak}");
        fs::remove_file(result).unwrap();
    }
    assert_eq!(names(dir.path()), ["good.png", "hostile.wasm"], "nothing else is left");
}

#[test]
fn what_a_policy_says_is_text_in_every_report() {
    let dir = tempfile::tempdir().unwrap();
    install(dir.path());
    let plan = "wan2.1-t2v-1.3b --gpu rtx-4090 --frames 17 --policy ./hostile.wasm";
    let run = |args: &str| {
        let out = loadline(dir.path(), args);
        assert!(!text(&out.stderr).contains("panicked"), "{args}");
        shown(&out);
        out
    };
    let said = run(&format!("plan {plan} --set attack=escapes"));
    assert!(text(&said.stdout).contains("[2J ]0;mine"), "{}", text(&said.stdout));
    run(&format!("plan {plan} --set attack=escapes --json"));
    let refused = run(&format!("plan {plan} --set attack=refusal-escapes"));
    assert_eq!(refused.status.code(), Some(NEVER_FITS));
    let compare = format!("compare --model {plan} --set attack=none,refusal-escapes");
    let markdown = text(&run(&format!("{compare} --markdown")).stdout);
    assert!(!markdown.contains("<script") && !markdown.contains("![x]("), "{markdown}");
    run(&format!("{compare} --csv"));
    run("policy show ./hostile.wasm");
    run("policy check ./hostile.wasm");
    let page = run(&format!("report {plan} --set attack=escapes -o page.html"));
    assert_eq!(page.status.code(), Some(FINE), "{}", text(&page.stderr));
    let page = fs::read_to_string(dir.path().join("page.html")).unwrap();
    assert!(!page.contains("<script>alert") && !page.contains('\u{1b}'));
}

#[test]
fn limits_are_set_by_the_person_who_runs() {
    let dir = tempfile::tempdir().unwrap();
    install(dir.path());
    let plan = |attack: &str, flags: &str, code: i32, parts: &[&str]| {
        let args = format!("plan wan2.1-t2v-1.3b --gpu rtx-4090 --policy ./hostile.wasm --set attack={attack} {flags}");
        expect(&loadline(dir.path(), &args), code, parts);
    };
    plan("none", "--policy-fuel 1000", POLICY, &["policy 'hostile': the policy used up its 1000 units of fuel"]);
    plan("none", "--policy-fuel 20000000 --policy-time 10min --policy-log 1KiB", FINE, &[]);
    plan("memory-bomb", "--policy-memory 8MiB", POLICY, &["more than its 8.00 MiB of memory"]);
    plan("deep-recursion", "--policy-stack 64KiB", POLICY, &["more than its 64.0 KiB of stack"]);
    plan("giant-answer", "--policy-answer 64KiB", POLICY, &["handed over more than 64.0 KiB"]);
    plan("forecast-flood", "--policy-forecasts 2", POLICY, &["forecast was called 2 times, which is the limit"]);
    plan(
        "endless-loop",
        "--policy-fuel 4000000000000 --policy-time 200ms",
        POLICY,
        &["the policy took longer than 200ms"],
    );
    plan("none", "--policy-size 10KiB", POLICY, &["a component may have at most 10240", "--policy-size"]);
    plan("none", "--policy-memory 1B", POLICY, &["the limit 'memory' is 1, it must be from 65536"]);
    plan("none", "--policy-time soon", 2, &["'soon' is no time", "such as 500ms or 10s"]);
    let shown = loadline(dir.path(), "policy show ./hostile.wasm --policy-memory 8MiB --policy-fuel 77");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("memory     8.00 MiB") && shown.contains("fuel       77 and 0 more"), "{shown}");
}

/// More than 32 MiB are read if the person who runs says so, and by every command that reads a component.
#[test]
fn a_large_component_is_loaded_by_who_asks_for_it() {
    let dir = tempfile::tempdir().unwrap();
    // A custom section says nothing: its name, of one byte, and 33 MiB.
    let bytes: u32 = 33 << 20;
    let length = (0..5).map(|n| (bytes >> (7 * n) & 0x7f) as u8 | if n < 4 { 0x80 } else { 0 });
    let mut large = HOSTILE.to_vec();
    large.push(0);
    large.extend(length);
    large.extend([1, b'x']);
    large.resize(large.len() + bytes as usize - 2, 0);
    fs::write(dir.path().join("large.wasm"), large).unwrap();
    for command in ["policy show ./large.wasm", "plan wan2.1-t2v-1.3b --gpu rtx-4090 --policy ./large.wasm"] {
        let out = loadline(dir.path(), command);
        expect(&out, POLICY, &["large.wasm has 34", "a component may have at most 33554432", "--policy-size"]);
        expect(&loadline(dir.path(), &format!("{command} --policy-size 64MiB")), FINE, &[]);
    }
}

/// What no plan could do is nobody's fault; what the policy need not have done is its own.
#[test]
fn too_little_host_memory_is_the_policys_fault_where_another_plan_fits() {
    let dir = tempfile::tempdir().unwrap();
    install(dir.path());
    let plan = |policy: &str, ram: &str, code: i32, part: &str| {
        let args = format!("plan wan2.1-t2v-14b --gpu rtx-4090 --frames 17 --ram {ram} --policy {policy}");
        expect(&loadline(dir.path(), &args), code, &[part]);
    };
    plan("./hostile.wasm --set attack=all-pinned", "8GiB", POLICY, "made a plan that must not run: the plan needs");
    plan("auto-tune", "8GiB", FINE, "");
    for policy in ["./hostile.wasm --set attack=all-pinned", "auto-tune"] {
        plan(policy, "64MiB", NEVER_FITS, "every plan needs");
    }
}

/// A stranger's policy may call itself what it likes; the name that is typed is found in the program first.
#[test]
fn a_name_of_ours_is_ours() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("auto-tune"), HOSTILE).unwrap();
    let out = loadline(dir.path(), "plan wan2.1-t2v-1.3b --gpu rtx-4090 --policy auto-tune");
    expect(&out, FINE, &[]);
    assert!(text(&out.stdout).contains("auto-tune"), "{}", text(&out.stdout));
}

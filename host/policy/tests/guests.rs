//! Guests of every version of the contract, as they were built then: each must load, say what it is, and plan what it
//! planned. A version that changes types comes with an adapter, and this test says whether it is right.
//!
//! `tests/guests/VERSION` holds them with where they are from; what they plan lies beside them in `plans`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test reads its guests from the workspace")]

mod common;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use common::*;
use loadline_core::*;
use loadline_policy::settings::resolve;
use loadline_policy::{Limits, Policy, PolicyEngine, PolicyError};

fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/guests");
    let mut folders: Vec<PathBuf> = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|path| path.is_dir());
    folders.sort();
    folders
}

fn guests(folder: &Path) -> Vec<PathBuf> {
    let mut guests: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    guests.retain(|path| path.extension().is_some_and(|extension| extension == "wasm"));
    guests.sort();
    guests
}

fn name(path: &Path) -> String {
    path.file_stem().unwrap().to_str().unwrap().to_owned()
}

/// What a guest says that it is, and what it plans for one job, machine and budget that never change.
fn said(policy: &Policy) -> String {
    let settings = resolve(policy.schema(), &[]).unwrap();
    let keys: Vec<&str> = settings.keys().map(String::as_str).collect();
    let mut text = format!("{} {}\n{}\n", policy.id().name, policy.id().version, policy.summary());
    let _ = writeln!(text, "settings: {}", keys.join(" "));
    for gib in [4, 12] {
        let (job, machine, budget) = (job(&shapes(), Knobs::default()), machine(), budget(gib << 30));
        let situation = situation(&job, &machine, budget, &settings);
        let decided = policy.decide(&situation, &mut Simulator::new(&job, &machine, budget));
        let _ = write!(text, "\n{gib} GiB\n{}", answer(decided.map(|decided| decided.decision), &job));
    }
    text
}

fn answer(decision: Result<Decision, PolicyError>, job: &Job) -> String {
    match decision {
        Ok(Decision::Plan(plan)) => written(&plan, job),
        Ok(Decision::Keep) => "keep\n".to_owned(),
        Err(error) => format!("{error}\n"),
    }
}

fn written(plan: &Plan, job: &Job) -> String {
    let homes: Vec<String> = runs(&plan.homes.iter().map(|tier| tier.code().to_string()).collect::<Vec<_>>());
    let mut text = format!("homes: {}\nretain: {} blocks\n", homes.join(" "), plan.retain.len());
    for (stage, of) in plan.stages.iter().zip(&job.stages) {
        let slots: Vec<String> =
            stage.slots.iter().map(|slot| format!("{}{}", slot.bytes.0, if slot.keep { "k" } else { "" })).collect();
        let _ =
            writeln!(text, "{}: activations {}, {} passes a cycle", of.name, stage.activations.0, stage.cycle_passes);
        let _ = writeln!(text, "  slots {}", runs(&slots).join(" "));
        let _ = writeln!(text, "  prologue {}\n  cycle {}", loads(&stage.prologue), loads(&stage.cycle));
    }
    let rungs: Vec<String> = plan.ladder.iter().map(|rung| format!("{} ({})", rung.slots, rung.reason)).collect();
    let _ = writeln!(text, "ladder: {}\ntriggers: {:?}\nmemo: {:?}", rungs.join(", "), plan.triggers, plan.memo);
    plan.reasons.iter().for_each(|reason| {
        let _ = writeln!(text, "- {reason}");
    });
    text
}

/// Equal neighbours as one word: `100x40`.
fn runs(words: &[String]) -> Vec<String> {
    let runs = words.chunk_by(|a, b| a == b);
    runs.map(|run| if run.len() > 1 { format!("{}x{}", run[0], run.len()) } else { run[0].clone() }).collect()
}

/// Each load as `block>slot@after`; a row of loads that counts up is written as its first and its length.
fn loads(loads: &[Load]) -> String {
    if loads.is_empty() {
        return "nothing".to_owned();
    }
    let next = |a: &Load, b: &Load| (b.block.0, b.slot, b.after) == (a.block.0 + 1, a.slot + 1, a.after);
    let rows = loads.chunk_by(next);
    let row = |row: &[Load]| {
        let after = if row[0].after == u32::MAX { "-".to_owned() } else { row[0].after.to_string() };
        let more = if row.len() > 1 { format!("..{}", row.len()) } else { String::new() };
        format!("{}>{}@{after}{more}", row[0].block.0, row[0].slot)
    };
    rows.map(row).collect::<Vec<_>>().join(" ")
}

#[test]
fn guests_of_every_version_load_and_plan_what_they_planned() {
    let engine = PolicyEngine::new(Limits::default()).unwrap();
    let mut tried = 0;
    for folder in folders() {
        for path in guests(&folder) {
            let policy =
                engine.load(&std::fs::read(&path).unwrap()).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            insta::with_settings!({
                snapshot_path => folder.join("plans"), prepend_module_to_snapshot => false, omit_expression => true,
            }, {
                insta::assert_snapshot!(name(&path), said(&policy));
            });
            tried += 1;
        }
    }
    assert!(tried >= 4, "{tried} guests were tried; tests/guests has lost some");
}

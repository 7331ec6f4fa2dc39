//! A guest of another version than the newest goes the whole way through an adapter of its own.
#![allow(clippy::unwrap_used, dead_code)]

#[path = "../../../tests/common/mod.rs"]
mod common;
#[path = "../../../tests/common/guest.rs"]
mod guest;
pub(super) mod v0_0_9;

use std::collections::BTreeSet;

use loadline_core::check::check;
use loadline_core::{Decision, Knobs, Plan, Settings, Tier};

use super::{NEWEST, Number, SPOKEN, Version};
use crate::{Decided, Limits, Oracle, Policy, PolicyEngine, PolicyError, Silent};
use common::*;

const OLDER: &str = include_str!("../../../tests/wit/policy@0.0.9/policy.wit");

/// A guest of version 0.0.9 that gives every block a home in pageable memory, having asked for the time of that.
/// If it is not told the time, it passes on why.
fn module(first: &str) -> String {
    format!(
        r#"(module
  (import "loadline:policy/host@0.0.9" "log" (func $log (param i32 i32)))
  (import "loadline:policy/host@0.0.9" "time" (func $time (param i32 i32 i32)))
  (memory (export "memory") 17)
  (data (i32.const 512) "elder")
  (data (i32.const 256) "\00\02\00\00\05\00\00\00")
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65536))
  (func (export "loadline:policy/policy@0.0.9#describe") (result i32) (i32.const 256))
  (func (export "loadline:policy/policy@0.0.9#decide") (param $slabs i32) (param $count i32) (result i32)
    {first}
    (call $log (i32.const 512) (i32.const 5))
    (memory.fill (i32.const 131072) (i32.const 2) (local.get $count))
    (call $time (i32.const 131072) (local.get $count) (i32.const 4096))
    (i32.store8 (i32.const 1024) (i32.load8_u (i32.const 4096)))
    (i32.store (i32.const 1028) (i32.const 131072))
    (i32.store (i32.const 1032) (local.get $count))
    (if (i32.load8_u (i32.const 4096)) (then
      (i32.store (i32.const 1028) (i32.load (i32.const 4104)))
      (i32.store (i32.const 1032) (i32.load (i32.const 4108)))))
    (i32.const 1024)))"#
    )
}

fn load(bytes: &[u8]) -> Result<Policy, PolicyError> {
    PolicyEngine::new(Limits::default()).unwrap().load(bytes)
}

fn older(first: &str) -> Policy {
    load(&guest::encode(OLDER, &module(first))).unwrap()
}

fn decide(policy: &Policy) -> Result<Decided, PolicyError> {
    let (job, machine) = (job(&shapes(), Knobs::default()), machine());
    decide_with(policy, &mut Simulator::new(&job, &machine, budget(12 << 30)))
}

fn decide_with(policy: &Policy, oracle: &mut dyn Oracle) -> Result<Decided, PolicyError> {
    let (job, machine, settings) = (job(&shapes(), Knobs::default()), machine(), Settings::new());
    policy.decide(&situation(&job, &machine, budget(12 << 30), &settings), oracle)
}

fn plan(decided: Decided) -> Plan {
    match decided.decision {
        Decision::Plan(plan) => *plan,
        Decision::Keep => panic!("a plan was expected"),
    }
}

#[test]
fn an_older_guest_is_asked_in_its_own_words() {
    let policy = older("");
    assert_eq!((policy.contract(), policy.id().name.as_str(), policy.summary()), ("0.0.9", "elder", ""));
    let decided = decide(&policy).unwrap();
    assert_eq!((decided.forecasts, decided.log[0].text.as_str()), (1, "elder"));
    let (plan, job) = (plan(decided), job(&shapes(), Knobs::default()));
    assert_eq!(plan.homes, vec![Tier::Host; job.blocks.len()]);
    assert_eq!(check(&plan, &job, &machine(), &budget(12 << 30)), []);
}

#[test]
fn what_the_oracle_says_reaches_an_older_guest() {
    let error = decide_with(&older(""), &mut Silent).unwrap_err();
    assert_eq!(error.to_string(), "no forecasts are made here");
}

#[test]
fn limits_are_the_same_for_every_version() {
    let endless = decide(&older("(loop $again (br $again))"));
    assert!(matches!(endless, Err(PolicyError::OutOfFuel { .. })), "{endless:?}");
    let many = "(local $i i32) (loop $again (call $time (i32.const 0) (i32.const 0) (i32.const 4096))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $again (i32.lt_u (local.get $i) (i32.const 2000))))";
    let error = decide(&older(many)).unwrap_err();
    assert_eq!(error.to_string(), "forecast was called 1024 times, which is the limit");
}

#[test]
fn types_of_another_version_under_this_number_are_told() {
    let other = OLDER.replace("decide: func(slabs: list<u64>)", "decide: func(slabs: list<u32>)");
    let error = load(&guest::encode(&other, &module(""))).unwrap_err().to_string();
    assert!(error.starts_with("this is no policy: it names contract 0.0.9, but its functions have other"), "{error}");
    let other = OLDER.replace("time: func(homes: list<u8>)", "time: func(homes: list<u16>)");
    let error = load(&guest::encode(&other, &module(""))).unwrap_err().to_string();
    assert!(error.starts_with("this is no policy: it names contract 0.0.9, but its functions have other"), "{error}");
}

#[test]
fn the_table_is_in_order() {
    let numbers: Vec<Number> = SPOKEN.iter().map(|version| version.number.parse().unwrap()).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    for (version, number) in SPOKEN.iter().zip(&numbers) {
        assert_eq!(Version::of(*number).unwrap().number, version.number);
    }
    assert_eq!(NEWEST.number, crate::CONTRACT);
}

/// What lies in `wit/` was published or will be; a program that does not speak it would be a broken promise.
#[test]
fn every_version_in_wit_is_spoken() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let written: BTreeSet<String> = entries.filter_map(|n| Some(n.strip_prefix("policy@")?.to_owned())).collect();
    let spoken = SPOKEN.iter().map(|version| version.number.to_owned()).filter(|number| number != "0.0.9");
    let unspoken: Vec<_> = written.iter().filter(|n| Version::of(n.parse().unwrap()).is_none()).collect();
    assert!(unspoken.is_empty(), "give host/policy/src/versions an adapter for {unspoken:?}");
    assert!(spoken.clone().all(|number| written.contains(&number)), "{:?}", spoken.collect::<Vec<_>>());
}

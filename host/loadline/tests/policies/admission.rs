//! Which components may be asked for plans, and what is said about those that may not.

use loadline::PolicyLimits;
use std::path::Path;

use loadline::admission::{Admission, CHECKS, Status, admit};
use loadline::policies::{self, Places};

use crate::guest::{WIT, encode, module};
use crate::{builtin, store};

fn admitted(component: &[u8]) -> Admission {
    with(component, &[])
}

fn with(component: &[u8], given: &[(&str, &str)]) -> Admission {
    let given: Vec<_> = given.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    admit("a policy", component, &Places::default(), PolicyLimits::default(), &given).unwrap()
}

/// The component fails exactly this check: all before it pass, none is skipped that could be made.
#[track_caller]
fn fails(component: &[u8], check: &str, reason: &str) -> Admission {
    let admission = admitted(component);
    let failed = admission.failed().unwrap_or_else(|| panic!("admitted, and should fail '{check}'"));
    assert_eq!(failed.name, check, "{}", failed.detail);
    assert!(failed.detail.contains(reason), "{}", failed.detail);
    let at = CHECKS.iter().position(|name| *name == check).unwrap();
    assert!(admission.checks[..at].iter().all(|c| c.status == Status::Passed), "{admission:#?}");
    assert!(!admission.admitted());
    admission
}

fn guest(body: &str) -> Vec<u8> {
    encode(WIT, &module(body, ""))
}

#[test]
fn every_policy_that_ships_is_admitted() {
    for name in builtin() {
        let component = policies::find(name, &Places::default(), &PolicyLimits::default()).unwrap().component;
        let admission = admitted(&component);
        assert!(admission.admitted(), "{name}: {admission:#?}");
        assert_eq!(admission.checks.iter().map(|c| c.name).collect::<Vec<_>>(), CHECKS);
        assert_eq!(admission.policy.as_ref().unwrap().name, name);
        let json = admission.json();
        assert_eq!((json["admitted"].as_bool(), json["checks"].as_array().unwrap().len()), (Some(true), CHECKS.len()));
    }
}

#[test]
fn what_is_no_policy_fails_where_it_is_none() {
    fails(b"", "component", "the file is empty");
    fails(b"#!/bin/sh\n", "component", "this is no WebAssembly; give a component");
    fails(b"\0asm\x0d\0\x01\0broken", "component", "this is no policy");
    fails(b"\0asm\x01\0\0\0", "component", "it is a core module; encode it as a component");
    let mut large = guest("");
    large.resize((32 << 20) + 1, 0);
    fails(&large, "size", "at most 32.0 MiB are loaded");
    fails(&wat::parse_str("(component)").unwrap(), "exports", "it exports no 'loadline:policy/policy@0.1.0'");
    let admission = fails(b"text", "component", "this is no WebAssembly");
    assert!(admission.checks[1..].iter().all(|c| c.status == Status::Skipped), "{admission:#?}");
}

#[test]
fn other_versions_of_the_contract_say_what_to_do() {
    let of = |version: &str| encode(&WIT.replace("@0.1.0", version), &module("", "").replace("@0.1.0", version));
    fails(&of("@9.0.0"), "contract", "made for contract 9.0.0, and the newest that this program speaks is 0.1.0");
    fails(&of("@0.0.1"), "contract", "made for contract 0.0.1, and the oldest that this program speaks");
}

#[test]
fn wasi_is_named() {
    let clocks = "\npackage wasi:clocks@0.2.3 { interface monotonic-clock { now: func() -> u64; } }\n\
                  package wasi:cli@0.2.3 { interface stdout { get: func() -> u32; } }";
    let wit = WIT.replace(
        "  import host;",
        "  import host;\n  import wasi:clocks/monotonic-clock@0.2.3;\n  import wasi:cli/stdout@0.2.3;",
    ) + clocks;
    let calls = r#"(import "wasi:clocks/monotonic-clock@0.2.3" "now" (func (result i64)))
        (import "wasi:cli/stdout@0.2.3" "get" (func (result i32))) (memory"#;
    let component = encode(&wit, &module("", "").replace("(memory", calls));
    let named = "it imports wasi:clocks/monotonic-clock@0.2.3, wasi:cli/stdout@0.2.3; a policy gets no WASI";
    fails(&component, "imports", named);
}

#[test]
fn what_a_policy_says_about_itself_must_mean_something() {
    let describing = |from: &str, to: &str| encode(WIT, &module("", "").replace(from, to));
    fails(&describing("\"testcfg\"", "\"a b\\00\""), "describe", "its name 'a b ' is not made of");
    // The settings' schema is 4 bytes at 512: "test".
    let schema = r#""\00\02\00\00\04\00\00\00\00\02\00\00\00\00\00\00")"#;
    let broken = schema.replace(r#"\00\02\00\00\00\00\00\00")"#, r#"\00\02\00\00\04\00\00\00")"#);
    fails(&describing(schema, &broken), "settings", "the settings of 'test'");
    let endless = encode(WIT, &module("", "(func $start (loop $again (br $again))) (start $start)"));
    fails(&endless, "instance", "the policy used up its 50000000 units of fuel");
}

#[test]
fn what_a_policy_does_wrong_is_on_the_line_of_its_kind() {
    fails(&guest("unreachable"), "answers", "some room, wan2.1-t2v-1.3b on rtx-3060-12gb: the policy broke off");
    fails(&guest(""), "answers", "it says to go on, but no plan runs yet");
    fails(&guest("(loop $again (br $again))"), "fuel", "units of fuel; forecast less, or search less");
    fails(&guest("(drop (call $decide (i32.const 0)))"), "limits", "256 KiB of stack");
    let bomb = "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 64)) (i32.const -1)))) unreachable";
    fails(&guest(bomb), "limits", "64.0 MiB of memory");
    // A plan for no blocks and no stages.
    fails(&guest(&store(1032, &[1])), "plans", "the plan must not run: the plan has 0 block homes, the job");
    // A home that is none.
    let home = store(2048, &[9]) + &store(1032, &[1]) + &store(1044, &[2048, 1]);
    fails(&guest(&home), "answers", "homes[0]: 9 is no home");
}

/// A guest that can do every harm: what it does is on the line of its kind, and nowhere else.
#[test]
fn every_attack_is_on_its_line() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/hostile/components/hostile.wasm");
    let component = std::fs::read(path).unwrap();
    let check = |attack: &str, line: Option<&str>| {
        let admission = with(&component, &[("attack", attack)]);
        // Its settings are attacks, so their ends always fail.
        let failed = admission.checks.iter().filter(|c| c.status == Status::Failed && c.name != "settings");
        assert_eq!(failed.map(|c| c.name).collect::<Vec<_>>(), line.into_iter().collect::<Vec<_>>(), "{attack}");
        assert!(!admission.admitted());
    };
    check("none", None);
    // What looks like a source of chance in other places is none here.
    ["addresses", "hash-order", "nan-bits"].into_iter().for_each(|attack| check(attack, None));
    ["over-budget", "unknown-block", "few-homes"].into_iter().for_each(|a| check(a, Some("plans")));
    ["panic", "keep", "refusal", "ragged-columns", "unknown-knob"].into_iter().for_each(|a| check(a, Some("answers")));
    ["deep-recursion", "memory-bomb"].into_iter().for_each(|attack| check(attack, Some("limits")));
    check("endless-loop", Some("fuel"));
}

/// A policy that does one thing at a start and breaks off for every number that it does not know.
#[test]
fn a_cause_of_the_future_must_not_break_a_policy() {
    // The cause is the first word of the situation; a plan for nothing answers the others.
    let body =
        format!("(if (i32.gt_u (i32.load (local.get 0)) (i32.const 8)) (then unreachable)) {}", store(1032, &[1]));
    fails(&guest(&body), "answers", "a cause that no version knows (4096): the policy broke off");
}

//! What is said about components that are no policies, or policies of another time.
#![allow(clippy::unwrap_used)]

#[path = "common/guest.rs"]
mod guest;

use guest::{WIT, encode, module};
use loadline_policy::{CONTRACT, Limits, Policy, PolicyEngine, PolicyError, contracts};

fn load(bytes: &[u8]) -> Result<Policy, PolicyError> {
    PolicyEngine::new(Limits::default()).unwrap().load(bytes)
}

#[track_caller]
fn refused(bytes: &[u8], expected: &str) {
    assert_eq!(load(bytes).unwrap_err().to_string(), expected);
}

/// A component that behaves, of another version.
fn of(version: &str) -> Vec<u8> {
    encode(&WIT.replace("0.1.0", version), &module("", "").replace("0.1.0", version))
}

/// A component that exports `name`, an instance with at most one function, which does nothing.
fn exporting(name: &str, function: Option<&str>) -> Vec<u8> {
    let inside = function.map(|function| format!(r#"(export "{function}" (func $f))"#)).unwrap_or_default();
    let text = format!(
        r#"(component (core module $M (func (export "f"))) (core instance $m (instantiate $M))
        (func $f (canon lift (core func $m "f"))) (instance $i {inside}) (export "{name}" (instance $i)))"#
    );
    wat::parse_str(text).unwrap()
}

#[test]
fn policies_of_another_time_are_told_what_to_do() {
    let old = "and the oldest that this program speaks is 0.1.0: rebuild it with an SDK of version 0.1.0";
    let new = "and the newest that this program speaks is 0.1.0: update loadline, or rebuild the policy with an SDK of \
               version 0.1.0";
    refused(&of("0.0.9"), &format!("the policy was made for contract 0.0.9, {old}"));
    refused(&of("0.1.0-draft"), &format!("the policy was made for contract 0.1.0-draft, {old}"));
    refused(&of("0.2.0"), &format!("the policy was made for contract 0.2.0, {new}"));
    refused(&of("1.0.0"), &format!("the policy was made for contract 1.0.0, {new}"));
}

#[test]
fn a_later_patch_version_is_the_same_contract_unless_it_calls_what_is_not_there() {
    let policy = load(&of("0.1.7")).unwrap();
    assert_eq!(policy.contract(), "0.1.0");
    let more = "log: func(level: u8, text: string);\n  now: func() -> u64;";
    let wit = WIT.replace("0.1.0", "0.1.7").replace("log: func(level: u8, text: string);", more);
    let calls = r#"(import "loadline:policy/host@0.1.7" "now" (func (result i64))) (memory"#;
    let guest = module("", "").replace("0.1.0", "0.1.7").replace("(memory", calls);
    refused(
        &encode(&wit, &guest),
        "the policy was made for contract 0.1.7, and the newest that this program speaks is 0.1.0: update loadline, or \
         rebuild the policy with an SDK of version 0.1.0",
    );
}

#[test]
fn what_is_nearly_a_policy_is_told_what_it_lacks() {
    refused(
        &wat::parse_str("(component)").unwrap(),
        "this is no policy: it exports no 'loadline:policy/policy@0.1.0' (it exports nothing)",
    );
    refused(
        &exporting("wasi:cli/run@0.2.3", Some("run")),
        "this is no policy: it exports no 'loadline:policy/policy@0.1.0' (it exports wasi:cli/run@0.2.3)",
    );
    refused(
        &exporting("loadline:policy/types@0.1.0", None),
        "this is no policy: it exports no 'loadline:policy/policy@0.1.0' (it exports loadline:policy/types@0.1.0)",
    );
    refused(
        &exporting("loadline:policy/policy@0.1.0", Some("describe")),
        "this is no policy: its 'loadline:policy/policy@0.1.0' lacks the function 'decide' (it has describe); rebuild it \
         with an SDK of version 0.1.0",
    );
    refused(
        &exporting("loadline:policy/policy@0.1.0", None),
        "this is no policy: its 'loadline:policy/policy@0.1.0' lacks the function 'describe' (it has no functions); \
         rebuild it with an SDK of version 0.1.0",
    );
}

#[test]
fn functions_that_are_exported_one_by_one_are_understood() {
    let bare = r#"(component (core module $M (func (export "f"))) (core instance $m (instantiate $M))
        (func $f (canon lift (core func $m "f"))) (export "describe" (func $f)) (export "decide" (func $f)))"#;
    refused(
        &wat::parse_str(bare).unwrap(),
        "this is no policy: it exports no 'loadline:policy/policy@0.1.0' (it exports describe, decide); export the \
         interface, not its functions one by one",
    );
}

#[test]
fn types_that_are_not_those_of_the_version_are_told() {
    let check = |from: &str, to: &str, expected: &str| {
        assert!(WIT.contains(from), "{from}");
        let error = load(&encode(&WIT.replace(from, to), &module("", ""))).unwrap_err().to_string();
        let start = "this is no policy: it names contract 0.1.0, but its functions have other types than that";
        assert!(error.starts_with(start) && error.contains(expected), "{error}");
        assert!(error.ends_with("; rebuild it with an SDK of version 0.1.0"), "{error}");
    };
    check("frames-host: u64,", "frames-host: u64, more: u64,", "expected record of 7 fields, found 8");
    check("plan(plan),", "plan(plan), stop,", "expected variant of 2 cases, found 3");
    check("log: func(level: u8, text: string);", "log: func(level: u32, text: string);", "log");
}

#[test]
fn the_program_says_which_versions_it_speaks() {
    assert_eq!(contracts().collect::<Vec<_>>(), [CONTRACT]);
}

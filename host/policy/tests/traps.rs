//! Guests that break off, never end or lie at each place where a host calls them, and components that are no
//! components: what cannot be written in Rust, as WebAssembly text.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/guest.rs"]
mod guest;

use std::time::Duration;

use common::*;
use guest::{WIT, encode, module};
use loadline_core::*;
use loadline_policy::{Decided, FaultClass, Limits, PolicyEngine, PolicyError, Silent};

const FOREVER: &str = "(loop $again (br $again))";
const DESCRIBE: &str = r#"(func (export "loadline:policy/policy@0.1.0#describe") (result i32) (i32.const 256))"#;

fn engine(limits: Limits) -> PolicyEngine {
    PolicyEngine::new(limits).unwrap()
}

/// Loads a module's component and asks it, as far as it gets.
fn asked(limits: Limits, module: &str) -> Result<Decided, PolicyError> {
    let policy = engine(limits).load(&encode(WIT, module))?;
    let (job, machine, settings) = (job(&shapes(), Knobs::default()), machine(), Settings::new());
    policy.decide(&situation(&job, &machine, budget(4 << 30), &settings), &mut Silent)
}

fn ask(module: &str) -> Result<Decided, PolicyError> {
    asked(Limits::default(), module)
}

#[track_caller]
fn fault(module: &str, class: FaultClass, text: &str) {
    let error = ask(module).unwrap_err();
    assert_eq!(FaultClass::of(&error), Some(class), "{error}");
    assert!(error.to_string().contains(text), "no '{text}' in: {error}");
}

/// A module in which a part is another.
fn with(part: &str, other: &str) -> String {
    let text = module("", "");
    assert!(text.contains(part), "{part}");
    text.replacen(part, other, 1)
}

#[test]
fn a_trap_at_every_export_is_a_fault() {
    let traps = |body: &str| {
        vec![
            with(DESCRIBE, &DESCRIBE.replace("(i32.const 256)", body)),
            module(body, ""),
            module("", &format!("(func $start {body} drop) (start $start)").replace("unreachable drop", "unreachable")),
            with(
                "(global.set $heap (i32.and",
                &format!("{body} drop (global.set $heap (i32.and").replace("unreachable drop", "unreachable"),
            ),
            module("", &post("describe", body)),
            module("", &post("decide", body)),
        ]
    };
    for module in traps("unreachable") {
        fault(&module, FaultClass::Trap, "wasm `unreachable` instruction executed");
    }
    for module in traps(&format!("{FOREVER} unreachable")) {
        fault(&module, FaultClass::OutOfFuel, "units of fuel");
    }
}

/// What a guest is called with when the host has read its answer.
fn post(name: &str, body: &str) -> String {
    let body = body.trim_end_matches("drop");
    format!(r#"(func (export "cabi_post_loadline:policy/policy@0.1.0#{name}") (param i32) {body})"#)
}

#[test]
fn memory_that_is_handed_out_must_be_there() {
    let realloc = "(global.get $heap)\n    (global.set $heap (i32.add (global.get $heap) (local.get 3)))";
    for address in ["-1", "-8", "0x7ffffff8", "0x110000", "3"] {
        let module = with(realloc, &format!("(i32.const {address})"));
        let error = ask(&module).unwrap_err();
        assert_eq!(FaultClass::of(&error), Some(FaultClass::Trap), "{address}: {error}");
    }
    // All answers at one place: the guest harms itself, and the host sees a decision.
    assert!(ask(&with(realloc, "(i32.const 65536)")).is_ok());
}

#[test]
fn words_that_are_no_words_are_a_fault() {
    let broken = "(i32.store (i32.const 512) (i32.const 0x80c0fffe))";
    fault(
        &module(&format!("{broken} (call $log (i32.const 1) (i32.const 512) (i32.const 4))"), ""),
        FaultClass::Trap,
        "utf-8",
    );
    let described = DESCRIBE.replace("(i32.const 256)", &format!("{broken} (i32.const 256)"));
    fault(&with(DESCRIBE, &described), FaultClass::Trap, "utf-8");
    // The words lie outside of the memory.
    fault(&module("(call $log (i32.const 1) (i32.const -4) (i32.const 8))", ""), FaultClass::Trap, "");
    fault(&module("(call $log (i32.const 1) (i32.const 0) (i32.const -1))", ""), FaultClass::Trap, "");
}

#[test]
fn a_table_grows_only_so_far() {
    let table = "(table $t 1 funcref)";
    let grow = "(loop $again (br_if $again (i32.ne (table.grow $t (ref.null func) (i32.const 5000)) (i32.const -1))))
        (if (i32.gt_u (table.size $t) (i32.const 100000)) (then unreachable))
        (if (i32.lt_u (table.size $t) (i32.const 90000)) (then unreachable))";
    assert_eq!(ask(&module(grow, table)).unwrap().decision, Decision::Keep);
    let small = Limits { table_entries: 10, ..Limits::default() };
    let smaller = "(if (i32.ne (table.grow $t (ref.null func) (i32.const 10)) (i32.const -1)) (then unreachable))";
    assert!(asked(small, &module(smaller, table)).is_ok());
}

#[track_caller]
fn refused(bytes: &[u8], text: &str) {
    let error = engine(Limits::default()).load(bytes).unwrap_err();
    assert_eq!(FaultClass::of(&error), Some(FaultClass::Admission), "{error}");
    assert!(error.to_string().contains(text), "no '{text}' in: {error}");
}

#[test]
fn what_starts_too_large_is_refused_before_it_starts() {
    refused(&encode(WIT, &with("17)", "1025)")), "memory");
    refused(&encode(WIT, &with("17)", "65536)")), "memory");
    refused(&encode(WIT, &module("", "(table 200000 funcref)")), "table");
    refused(&encode(WIT, &module("", &"(table 1 funcref)".repeat(5))), "tables");
    refused(&encode(WIT, &module("", &"(func) ".repeat(8001))), "functions, at most 8000 are compiled");
    let instances = "(core instance (instantiate $m))".repeat(5000);
    refused(&wat::parse_str(format!("(component (core module $m) {instances})")).unwrap(), "instance");
    // A memory that is there, and data for a place that is not.
    let error = ask(&module("", r#"(data (i32.const 0x7fffffff) "x")"#)).unwrap_err();
    assert_eq!(FaultClass::of(&error), Some(FaultClass::Trap), "{error}");
}

#[test]
fn types_that_double_with_each_level_are_refused() {
    let mut text = "(component (type $t0 (tuple u8 u8))".to_owned();
    for level in 1..40 {
        text += &format!("(type $t{level} (tuple $t{0} $t{0}))", level - 1);
    }
    refused(&wat::parse_str(text + ")").unwrap(), "this is no policy");
}

#[test]
fn the_interfaces_of_a_system_are_forbidden_by_name() {
    let import = |interface: &str, function: &str| {
        let (package, rest) = interface.split_once('/').unwrap();
        let (name, version) = rest.split_once('@').unwrap();
        let world = WIT.replace("import host;", &format!("import host; import {interface};"));
        let wit =
            format!("{world}\npackage {package}@{version} {{ interface {name} {{ {function}: func() -> u64; }} }}");
        let calls = format!("(import \"{interface}\" \"{function}\" (func (result i64))) (memory");
        encode(&wit, &module("", "").replacen("(memory", &calls, 1))
    };
    for (interface, function) in [
        ("wasi:cli/environment@0.2.0", "get-environment"),
        ("wasi:clocks/monotonic-clock@0.2.0", "now"),
        ("wasi:random/random@0.2.0", "get-random-u64"),
        ("wasi:filesystem/preopens@0.2.0", "get-directories"),
        ("somebody:else/secrets@1.0.0", "read"),
    ] {
        let name = interface.to_owned();
        let got = engine(Limits::default()).load(&import(interface, function)).unwrap_err();
        assert_eq!(got, PolicyError::ForbiddenImport { name });
    }
}

/// Memory instructions that do much for one instruction pay for what they do, so that fuel bounds time for them too.
#[test]
fn work_in_bulk_burns_fuel_by_the_byte() {
    // Zeros are an answer, too: keep.
    let once = |bytes: u32| {
        let body = format!("(memory.fill (i32.const 0) (i32.const 0) (i32.const {bytes}))");
        ask(&module(&body, "")).unwrap().fuel
    };
    let (small, large) = (once(1000), once(1_001_000));
    assert!(large - small >= 1_000_000, "{small} {large}");
}

#[test]
fn work_in_bulk_does_not_escape_the_watchdog() {
    let limit = Duration::from_millis(50);
    let limits = Limits { decide_fuel: u64::MAX / 4, watchdog: Some(limit), ..Limits::default() };
    let grown = "(drop (memory.grow (i32.const 1000)))";
    for body in [
        "(memory.fill (i32.const 0) (i32.const 0) (i32.const 60000000))",
        "(memory.copy (i32.const 0) (i32.const 8) (i32.const 60000000))",
        "(drop (memory.grow (i32.const 0)))",
        "(call $log (i32.const 1) (i32.const 20000000) (i32.const 1000000))",
    ] {
        let text = module(&format!("{grown} (loop $again {body} (br $again))"), "");
        assert_eq!(asked(limits, &text).unwrap_err(), PolicyError::Watchdog { limit }, "{body}");
    }
}

#[test]
fn asking_often_does_not_turn_the_watchdog_back() {
    let limit = Duration::from_millis(50);
    let limits =
        Limits { decide_fuel: u64::MAX / 4, forecast_calls: u32::MAX, watchdog: Some(limit), ..Limits::default() };
    let work = "(local.set $i (i32.const 0)) (loop $work (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $work (i32.lt_u (local.get $i) (i32.const 1000000))))";
    let asks = format!("(call $forecast {} (i32.const 4096))", "(i32.const 0) ".repeat(16));
    let text = module(&format!("(local $i i32) (loop $again {work} {asks} (br $again))"), "");
    assert_eq!(asked(limits, &text).unwrap_err(), PolicyError::Watchdog { limit });
}

/// A watchdog that never has to act changes nothing: the same decision and the same fuel.
#[test]
fn the_watchdog_changes_no_decision() {
    let text = module("(call $log (i32.const 2) (i32.const 512) (i32.const 4))", "");
    let watched = Limits { watchdog: Some(Duration::from_secs(600)), ..Limits::default() };
    assert_eq!(asked(watched, &text), ask(&text));
}

#[test]
fn a_question_while_describing_is_answered_and_paid_for() {
    let zeros = "(i32.const 0) ".repeat(16);
    let asks = format!("(loop $again (call $forecast {zeros} (i32.const 4096)) (br $again)) (i32.const 256)");
    let described = DESCRIBE.replace("(i32.const 256)", &asks);
    fault(
        &with(DESCRIBE, &described),
        FaultClass::Trap,
        "while a policy describes itself; it was asked again and again",
    );
}

#[test]
fn a_guest_may_not_call_its_host_while_the_host_hands_it_something() {
    let realloc = "(global.set $heap (i32.and";
    let calls = format!("(call $log (i32.const 1) (i32.const 512) (i32.const 4)) {realloc}");
    fault(&with(realloc, &calls), FaultClass::Trap, "cannot leave component instance");
}

//! Guests that mean harm, or are broken: every one ends in an error that says what it did, none in a
//! panic. They are written in WebAssembly text, so that they need no toolchain.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/guest.rs"]
mod guest;

use std::time::Duration;

use common::*;
use guest::{WIT, encode, module};
use loadline_core::*;
use loadline_policy::{Decided, Limits, Policy, PolicyEngine, PolicyError, Silent, builtin};

fn engine(limits: Limits) -> PolicyEngine {
    PolicyEngine::new(limits).unwrap()
}

fn load(bytes: &[u8]) -> Result<Policy, PolicyError> {
    engine(Limits::default()).load(bytes)
}

fn decide_within(limits: Limits, body: &str, more: &str) -> Result<Decided, PolicyError> {
    let policy = engine(limits).load(&encode(WIT, &module(body, more))).unwrap();
    let (job, machine, settings) = (job(&shapes(), Knobs::default()), machine(), Settings::new());
    policy.decide(&situation(&job, &machine, budget(4 << 30), &settings), &mut Silent)
}

fn decide(body: &str) -> Result<Decided, PolicyError> {
    decide_within(Limits::default(), body, "")
}

/// Instructions that store words from an address on.
fn store(address: u32, words: &[u32]) -> String {
    let store =
        |(word, i): (&u32, u32)| format!("(i32.store (i32.const {}) (i32.const {}))", address + i * 4, *word as i32);
    words.iter().zip(0..).map(store).collect()
}

/// Instructions that make the answer a plan with the given list (0 knobs, 1 homes, 2 stages, 3 retain,
/// 4 ladder, 5 triggers, 6 memo, 7 reasons); all others are empty.
fn plan(list: u32, pointer: u32, len: u32) -> String {
    store(1032, &[1]) + &store(1036 + list * 8, &[pointer, len])
}

const FOREVER: &str = "(loop $again (br $again))";

#[test]
fn a_guest_that_behaves_is_heard() {
    let decided = decide("(call $log (i32.const 2) (i32.const 512) (i32.const 4))").unwrap();
    assert_eq!(decided.decision, Decision::Keep);
    assert_eq!((decided.log[0].level, decided.log[0].text.as_str()), (2, "test"));
}

#[test]
fn endless_work_runs_out_of_fuel() {
    let blocks = job(&shapes(), Knobs::default()).blocks.len() as u64;
    let limit = 50_000_000 + 50_000 * blocks;
    assert_eq!(decide(FOREVER), Err(PolicyError::OutOfFuel { limit }));
    let start = format!("(func $start {FOREVER}) (start $start)");
    let endless = load(&encode(WIT, &module("", &start)));
    assert_eq!(endless.unwrap_err(), PolicyError::OutOfFuel { limit: 50_000_000 });
}

#[test]
fn too_much_memory_is_not_given() {
    let bomb = "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 64)) (i32.const -1)))) unreachable";
    assert_eq!(decide(bomb), Err(PolicyError::OutOfMemory { limit: Bytes::mib(64) }));
}

#[test]
fn a_trap_is_reported_with_the_last_words() {
    assert_eq!(
        decide("unreachable").unwrap_err().to_string(),
        "the policy broke off: wasm trap: wasm `unreachable` instruction executed"
    );
    let words = "(call $log (i32.const 0) (i32.const 512) (i32.const 4)) unreachable";
    assert_eq!(decide(words), Err(PolicyError::Trap { reason: "test".into() }));
}

#[test]
fn deep_recursion_overflows_the_guests_own_stack() {
    let got = decide("(drop (call $decide (i32.const 0)))");
    assert_eq!(got, Err(PolicyError::StackOverflow { limit: Bytes(256 << 10) }));
}

#[test]
fn a_guest_without_a_sign_of_life_is_stopped() {
    let limit = Duration::from_millis(30);
    let limits = Limits { decide_fuel: u64::MAX / 2, watchdog: Some(limit), ..Limits::default() };
    assert_eq!(decide_within(limits, FOREVER, ""), Err(PolicyError::Watchdog { limit }));
}

#[test]
fn answers_that_mean_nothing_name_the_field() {
    let check = |body: String, field: &str, reason: &str| match decide(&body) {
        Err(PolicyError::Nonsense { field: f, reason: r }) => {
            assert_eq!(f, field);
            assert!(r.contains(reason), "{r}");
        }
        other => panic!("{other:?}"),
    };
    check(store(2048, &[0x0901_0203]) + &plan(1, 2048, 4), "homes[3]", "9 is no home");
    check(store(2048, &[u32::MAX]) + &plan(3, 2048, 1), "retain[0]", "is no block");
    check(store(2048, &[7]) + &plan(5, 2048, 1), "triggers[0]", "7 is no kind");
    check(plan(7, 8192, 300), "reasons", "at most 256");
    // One slot size, no slot flags.
    check(store(2048, &[8192, 1]) + &plan(2, 2048, 1), "stages[0]", "slot-bytes and slot-flags have 1 and 0");
    check(store(2048, &[8192, 1, 512, 1]) + &plan(2, 2048, 1), "stages[0].slot-flags[0]", "unknown bits");
    // A load without a slot.
    check(store(2064, &[8192, 1]) + &plan(2, 2048, 1), "stages[0].prologue", "block and slot have 1 and 0");
    // A number that is none where a word belongs.
    check(store(2048, &[516, 3, 2, 0, 0, 0x7ff8_0000]) + &plan(0, 2048, 1), "knobs.cfg", "must not be changed");
    // A knob that the job does not have.
    check(store(2048, &[512, 4]) + &plan(0, 2048, 1), "knobs.test", "no such knob");
}

#[test]
fn absurd_numbers_are_for_the_check_to_find() {
    // A stage whose slots and activations are as large as can be written, in a cycle of four billion passes.
    let stage = store(2048, &[8192, 1, 8200, 1]) + &store(2048 + 64, &[u32::MAX, 0, u32::MAX, u32::MAX]);
    let body = store(8192, &[u32::MAX, u32::MAX]) + &stage + &plan(2, 2048, 1);
    let Decision::Plan(plan) = decide(&body).unwrap().decision else { panic!("a plan was expected") };
    assert_eq!(plan.stages[0].activations, Bytes::MAX);
    let job = job(&shapes(), Knobs::default());
    assert!(check::has_errors(&check::check(&plan, &job, &machine(), &budget(4 << 30))));
    let whole = Plan { homes: vec![Tier::Disk; job.blocks.len()], stages: vec![plan.stages[0].clone(); 3], ..*plan };
    assert!(check::has_errors(&check::check(&whole, &job, &machine(), &budget(4 << 30))));
}

#[test]
fn pointers_out_of_memory_are_a_trap() {
    for (pointer, len) in [(u32::MAX, 8), (1 << 30, 1), (0, u32::MAX)] {
        let error = decide(&plan(1, pointer, len)).unwrap_err();
        assert!(matches!(error, PolicyError::Trap { .. }), "{error:?}");
    }
    // An answer that is neither ok nor an error, and a text that is no UTF-8.
    assert!(matches!(decide(&store(1024, &[9])), Err(PolicyError::Trap { .. })));
    let broken = store(2048, &[512 + 65, 1]) + "(i32.store8 (i32.const 577) (i32.const 255))" + &plan(7, 2048, 1);
    assert!(matches!(decide(&broken), Err(PolicyError::Trap { .. })));
}

#[test]
fn too_large_an_answer_is_refused() {
    let memory = "(drop (memory.grow (i32.const 64)))".to_owned();
    let error = decide(&(memory + &plan(1, 65536, 3 << 20))).unwrap_err();
    assert_eq!(error, PolicyError::ResultTooLarge { limit: Bytes(1 << 20) });
}

#[test]
fn the_log_is_cut() {
    let line = "(call $log (i32.const 1) (i32.const 65536) (i32.const 9000))";
    let fill = "(memory.fill (i32.const 65536) (i32.const 65) (i32.const 9000))";
    let many = format!(
        "(local $i i32) {fill} (loop $again {line} (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $again (i32.lt_u (local.get $i) (i32.const 100))))"
    );
    let log = decide(&many).unwrap().log;
    assert_eq!(log[0].text.len(), 4096);
    assert_eq!(log.iter().map(|l| l.text.len()).sum::<usize>(), 64 << 10);
}

#[test]
fn the_host_is_asked_only_so_often() {
    let zeros = "(i32.const 0) ".repeat(16);
    let body = format!(
        "(local $i i32) (loop $again (call $forecast {zeros} (i32.const 4096))
        (local.set $i (i32.add (local.get $i) (i32.const 1))) (br_if $again (i32.lt_u (local.get $i) (i32.const 50))))"
    );
    let decided = decide_within(Limits { forecast_calls: 3, ..Limits::default() }, &body, "").unwrap();
    assert_eq!(decided.forecasts, 3);
    let dear = Limits { call_fuel_per_task: 1_000_000, ..Limits::default() };
    assert!(matches!(decide_within(dear, &body, ""), Err(PolicyError::OutOfFuel { .. })));
}

#[track_caller]
fn refused(bytes: &[u8], expected: &str) {
    let error = load(bytes).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn what_is_no_policy_is_refused() {
    refused(b"", "this is no policy");
    refused(b"\0asm", "this is no policy");
    refused(&[0x7f; 4096], "this is no policy");
    refused(&wat::parse_str("(module)").unwrap(), "core module");
    refused(
        &wat::parse_str("(component)").unwrap(),
        "it exports no 'loadline:policy/policy@0.1.0' (it exports nothing)",
    );
    refused(&vec![0; (32 << 20) + 1], "at most 32.0 MiB");
}

#[test]
fn other_contracts_are_told_apart() {
    let behaved = module("", "");
    let of = |version: &str| encode(&WIT.replace("@0.1.0", version), &behaved.replace("@0.1.0", version));
    let newer = of("@0.2.0");
    assert_eq!(load(&newer).unwrap_err(), PolicyError::TooNew { built_for: "0.2.0".into(), spoken: "0.1.0" });
    assert!(load(&of("@0.1.7")).is_ok(), "a patch version is the same contract");
    let field = WIT.replace("frames-host: u64,", "frames-host: u64, more: u64,");
    refused(&encode(&field, &behaved), "expected record of 7 fields, found 8");
}

#[test]
fn forbidden_imports_are_named() {
    let clock = WIT.replace("import host;", "import host; import clock;") + "\ninterface clock { now: func() -> u64; }";
    let calls = module("", "")
        .replace("(memory", r#"(import "loadline:policy/clock@0.1.0" "now" (func (result i64))) (memory"#);
    let error = load(&encode(&clock, &calls)).unwrap_err();
    assert_eq!(error, PolicyError::ForbiddenImport { name: "loadline:policy/clock@0.1.0".into() });
    let more = WIT.replace("/// What a plan would take.", "now: func() -> u64;\n/// What a plan would take.");
    let calls = calls.replace("policy/clock@", "policy/host@");
    let error = load(&encode(&more, &calls)).unwrap_err();
    assert_eq!(error, PolicyError::ForbiddenImport { name: "loadline:policy/host@0.1.0#now".into() });
}

#[test]
fn a_policy_must_say_who_it_is() {
    refused(&encode(WIT, &module("", "").replace("\"testcfg\"", "\"a b\\00\"")), "its name 'a b ' is not made of");
    // The settings are the fourth text; let them be `test`, which is no JSON.
    let settings = r"\00\02\00\00\00\00\00\00";
    let broken = module("", "").replacen(&format!("{settings}\""), "\\00\\02\\00\\00\\04\\00\\00\\00\"", 1);
    refused(&encode(WIT, &broken), "the settings of 'test': the schema is not JSON");
}

/// Truncated and mutated components are refused, or run within their limits.
#[test]
fn broken_bytes_never_panic() {
    let bytes = encode(WIT, &module(&(store(2048, &[0x0901_0203]) + &plan(1, 2048, 4)), ""));
    let engine = engine(Limits {
        decide_fuel: 1_000_000,
        decide_fuel_per_block: 0,
        describe_fuel: 1_000_000,
        ..Limits::default()
    });
    let (job, machine, settings) = (job(&shapes(), Knobs::default()), machine(), Settings::new());
    let mut survivors = 0;
    let mut attempt = |bytes: &[u8]| {
        if let Ok(policy) = engine.load(bytes) {
            survivors += 1;
            let _ = policy.decide(&situation(&job, &machine, budget(4 << 30), &settings), &mut Silent);
        }
    };
    (0..bytes.len()).step_by(61).for_each(|len| attempt(&bytes[..len]));
    let mut random = Random::new(7);
    for _ in 0..400 {
        let mut mutated = bytes.clone();
        let at = random.below(bytes.len() as u64) as usize;
        mutated[at] = random.below(256) as u8;
        attempt(&mutated);
    }
    assert!(survivors > 10, "the mutations were too rough to test anything: {survivors}");
    let shipped = builtin()[0].component;
    (0..shipped.len()).step_by(4999).for_each(|len| assert!(load(&shipped[..len]).is_err()));
}

//! The hostile policy of `plugins/hostile`, attack by attack: each ends in a fault that is named, in a plan that the
//! checks do not let pass, or in a plan that harms nobody. None ends in a panic, and none ends differently the second
//! time.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::LazyLock;

use common::*;
use loadline_core::check::{check, fixed_and_stage, has_errors};
use loadline_core::*;
use loadline_policy::{Decided, FaultClass, Limits, Policy, PolicyEngine, PolicyError, Quarantine, settings};

static COMPONENT: &[u8] = include_bytes!("../../../plugins/hostile/components/hostile.wasm");
static HOSTILE: LazyLock<Policy> =
    LazyLock::new(|| PolicyEngine::new(Limits::default()).unwrap().load(COMPONENT).unwrap());

/// How an attack ends.
enum End {
    /// In a fault of the class, whose message holds the text.
    Fault(FaultClass, &'static str),
    /// In a plan with a finding that holds the text.
    BadPlan(&'static str),
    /// In a plan that may run.
    Harmless,
    /// In a refusal.
    Refusal,
    /// In no plan.
    Keep,
}
use End::{BadPlan, Fault, Harmless, Keep};
use FaultClass::{BadAnswer, Memory, OutOfFuel, Trap};

/// Every value of the setting `attack`.
const ATTACKS: &[(&str, End)] = &[
    ("none", Harmless),
    ("over-budget", BadPlan("of device memory, the budget is")),
    ("overflowing-sizes", BadPlan("of device memory, the budget is")),
    ("keep-everything", BadPlan("of device memory, the budget is")),
    ("no-activations", BadPlan("are set aside for activations")),
    ("all-activations", BadPlan("of device memory, the budget is")),
    ("unknown-block", BadPlan("which the stage does not use")),
    ("unknown-slot", BadPlan("slot 4294967295 does not exist")),
    ("unknown-home", Fault(BadAnswer, "homes[0]: 255 is no home")),
    ("home-on-device", BadPlan("has the device as its home")),
    ("all-pinned", BadPlan("of pinned memory, the budget is")),
    ("slot-too-small", BadPlan("has 1 B")),
    ("slot-in-use", BadPlan("is in no slot when task")),
    ("never-loaded", BadPlan("is in no slot when task")),
    ("not-cyclic", BadPlan("does not hold the same block after a cycle as before it")),
    ("out-of-order", BadPlan("out of order or outside the cycle")),
    ("ragged-columns", Fault(BadAnswer, "the columns block and slot have")),
    ("endless-cycle", BadPlan("4294967295 passes in a cycle")),
    ("no-cycle", BadPlan("0 passes in a cycle")),
    ("many-slots", BadPlan("slots, at most 1024 make sense")),
    ("many-loads", BadPlan("loads in a cycle, at most")),
    ("few-stages", BadPlan("2 stages, the job 3")),
    ("many-stages", BadPlan("103 stages, the job 3")),
    ("few-homes", BadPlan("block homes, the job")),
    ("forbidden-knob", Fault(BadAnswer, "knobs.cfg: this knob must not be changed")),
    ("unknown-knob", Fault(BadAnswer, "knobs. [2Jturbo: there is no such knob")),
    ("nan-knob", Fault(BadAnswer, "knobs.tile-overlap: this knob must not be changed")),
    ("long-memo", BadPlan("the memo has 4097 bytes")),
    ("retain-unknown", Fault(BadAnswer, "retain[0]: 4294967295 is no block")),
    ("retain-flood", Fault(BadAnswer, "retain: 100000 entries")),
    ("trigger-flood", Fault(BadAnswer, "triggers: 1000 entries, at most 256")),
    ("unknown-trigger", Fault(BadAnswer, "9 is no kind of trigger")),
    ("largest-trigger", Harmless),
    ("empty-ladder", Harmless),
    ("ladder-up", Harmless),
    ("reason-flood", Fault(Memory, "handed over more than 1.00 MiB")),
    ("megabyte-reason", Harmless),
    ("giant-answer", Fault(Memory, "handed over more than 1.00 MiB")),
    ("escapes", Harmless),
    ("log-flood", Fault(OutOfFuel, "units of fuel")),
    ("log-giants", Fault(OutOfFuel, "units of fuel")),
    ("forecast-flood", Fault(Trap, "forecast was called 1024 times, which is the limit")),
    ("forecast-nonsense", Harmless),
    ("forecast-giants", Fault(OutOfFuel, "units of fuel")),
    ("probe-flood", Fault(Trap, "probe was called 32 times, which is the limit")),
    ("probe-nonsense", Harmless),
    ("endless-loop", Fault(OutOfFuel, "units of fuel")),
    ("deep-recursion", Fault(Memory, "more than its 256 KiB of stack")),
    ("memory-bomb", Fault(Memory, "more than its 64.0 MiB of memory")),
    ("panic", Fault(Trap, "cause 0")),
    ("addresses", Harmless),
    ("hash-order", Harmless),
    ("nan-bits", Harmless),
    ("keep", Keep),
    ("refusal", End::Refusal),
    ("refusal-escapes", End::Refusal),
];

/// Less may be pinned than the job has blocks.
fn limits() -> Budget {
    Budget { pinned: Bytes::gib(1), ..budget(4 << 30) }
}

fn attack_for(name: &str, cause: Cause) -> Result<Decided, PolicyError> {
    let (job, machine) = (job(&shapes(), Knobs::default()), machine());
    let settings = settings::resolve(HOSTILE.schema(), &[("attack".to_owned(), name.to_owned())]).unwrap();
    let mut oracle = Simulator::new(&job, &machine, limits());
    HOSTILE.decide(&Situation { cause, ..situation(&job, &machine, limits(), &settings) }, &mut oracle)
}

fn attack(name: &str) -> Result<Decided, PolicyError> {
    attack_for(name, Cause::Start)
}

fn plan(name: &str) -> Plan {
    match attack(name).unwrap().decision {
        Decision::Plan(plan) => *plan,
        Decision::Keep => panic!("{name}: a plan was expected"),
    }
}

fn findings(plan: &Plan) -> Vec<check::Finding> {
    check(plan, &job(&shapes(), Knobs::default()), &machine(), &limits())
}

#[track_caller]
fn ends(name: &str, end: &End) {
    let got = attack(name);
    match (end, &got) {
        (Fault(class, text), Err(error)) => {
            assert_eq!(FaultClass::of(error), Some(*class), "{name}: {error}");
            assert!(error.to_string().contains(text), "{name}: {error}");
        }
        (End::Refusal, Err(PolicyError::Refused(_))) => {}
        (Keep, Ok(decided)) => assert_eq!(decided.decision, Decision::Keep, "{name}"),
        (BadPlan(text), Ok(_)) => {
            let findings: Vec<String> = findings(&plan(name)).iter().map(ToString::to_string).collect();
            assert!(findings.iter().any(|f| f.contains(text)), "{name}: {findings:?}");
        }
        (Harmless, Ok(_)) => assert!(!has_errors(&findings(&plan(name))), "{name}: {:?}", findings(&plan(name))),
        _ => panic!("{name}: {got:?}"),
    }
}

#[test]
fn every_attack_ends_as_it_should_without_a_panic() {
    ATTACKS.iter().for_each(|(name, end)| ends(name, end));
}

#[test]
fn every_attack_that_the_guest_knows_is_tried() {
    let settings = HOSTILE.schema().settings();
    let settings::Kind::Text { choices, .. } = &settings[0].kind else { panic!("{settings:?}") };
    let mut tried: Vec<&str> = ATTACKS.iter().map(|(name, _)| *name).collect();
    let mut known: Vec<&str> = choices.iter().map(String::as_str).collect();
    tried.sort_unstable();
    known.sort_unstable();
    assert_eq!(tried, known);
}

/// Whatever passes the checks stays below the budget at every stage, by arithmetic that the plan has no part in.
#[test]
fn no_attack_gets_a_plan_above_the_budget_past_the_checks() {
    let machine = machine();
    for (name, end) in ATTACKS {
        let Ok(Decided { decision: Decision::Plan(plan), .. }) = attack(name) else { continue };
        let passes = !has_errors(&findings(&plan));
        assert_eq!(passes, matches!(end, Harmless), "{name}");
        if passes {
            let peaks = (0..plan.stages.len()).map(|stage| fixed_and_stage(&plan, stage, &machine));
            assert!(peaks.max().unwrap() <= limits().device, "{name}");
        }
    }
}

#[test]
fn an_attack_ends_the_same_way_again_with_the_same_fuel() {
    for (name, _) in ATTACKS {
        assert_eq!(attack(name), attack(name), "{name}");
    }
    // Another engine has other addresses, and a thread of its own another stack.
    let elsewhere = |name: &'static str| {
        let policy = PolicyEngine::new(Limits::default()).unwrap().load(COMPONENT).unwrap();
        let (job, machine) = (job(&shapes(), Knobs::default()), machine());
        let settings = settings::resolve(policy.schema(), &[("attack".to_owned(), name.to_owned())]).unwrap();
        let mut oracle = Simulator::new(&job, &machine, limits());
        policy.decide(&situation(&job, &machine, limits(), &settings), &mut oracle)
    };
    for name in ["addresses", "hash-order", "nan-bits", "deep-recursion", "panic"] {
        let there = std::thread::spawn(move || elsewhere(name)).join().unwrap();
        assert_eq!(there, attack(name), "{name}");
    }
}

#[test]
fn a_number_that_is_none_has_the_same_bits_everywhere() {
    let bits = plan("nan-bits").reasons;
    assert_eq!(bits, vec!["7ff8000000000000"; bits.len()]);
}

#[test]
fn a_trap_is_a_fault_whatever_the_cause() {
    use Cause::*;
    for cause in [Start, OutOfMemory, Pressure, HostLow, DiskSlow, Drift, Trigger, NextJob, Idle, Unknown] {
        let error = attack_for("panic", cause).unwrap_err();
        assert!(error.to_string().contains(&format!("cause {} ", cause as u32)), "{error}");
        assert_eq!(FaultClass::of(&error), Some(Trap));
    }
}

fn shown(text: &str) -> bool {
    let acts =
        |c: char| c.is_control() || ('\u{200b}'..='\u{200f}').contains(&c) || ('\u{2028}'..='\u{202e}').contains(&c);
    !text.chars().any(acts)
}

#[test]
fn nothing_that_a_guest_says_acts_on_a_terminal() {
    for (name, _) in ATTACKS {
        match attack(name) {
            Ok(decided) => {
                assert!(decided.log.iter().all(|line| shown(&line.text)), "{name}");
                let Decision::Plan(plan) = decided.decision else { continue };
                let rungs = plan.ladder.iter().map(|rung| &rung.reason);
                assert!(plan.reasons.iter().chain(rungs).all(|text| shown(text) && text.len() <= 4096), "{name}");
            }
            Err(error) => assert!(shown(&error.to_string()) && error.to_string().len() < 10_000, "{name}: {error}"),
        }
    }
    assert!(plan("escapes").reasons[0].contains("[2J ]0;mine"), "what can be shown is still there");
}

#[test]
fn the_log_and_the_questions_stay_within_their_limits() {
    for (name, _) in ATTACKS {
        let Ok(decided) = attack(name) else { continue };
        assert!(decided.log.iter().map(|line| line.text.len()).sum::<usize>() <= 64 << 10, "{name}");
        assert!(decided.forecasts <= 1024 && decided.probes <= 32, "{name}");
    }
    let told = attack("forecast-nonsense").unwrap().log;
    let of = |name: &str| told.iter().find(|line| line.text.starts_with(&format!("{name}: "))).unwrap().text.clone();
    assert!(of("unknown-block").contains("does not use"), "{}", of("unknown-block"));
    assert!(of("unknown-home").contains("is no home"), "{}", of("unknown-home"));
    assert!(of("empty-ladder").contains("may run"), "{}", of("empty-ladder"));
}

#[test]
fn three_faults_of_any_kind_are_enough() {
    let mut quarantine = Quarantine::default();
    for (n, name) in ["panic", "endless-loop", "refusal", "memory-bomb"].into_iter().enumerate() {
        assert!(quarantine.may_ask(), "{n}");
        quarantine.record(&attack(name).unwrap_err());
    }
    assert_eq!(quarantine.to_string(), "quarantined after 3 faults (trap, out of fuel, memory)");
}

#[test]
fn limits_are_the_runners_to_set() {
    let policy = |limits| PolicyEngine::new(limits).unwrap().load(COMPONENT);
    let (job, machine) = (job(&shapes(), Knobs::default()), machine());
    let none = settings::resolve(HOSTILE.schema(), &[]).unwrap();
    let decide = |limits: Limits| {
        let mut oracle = Simulator::new(&job, &machine, self::limits());
        policy(limits).unwrap().decide(&situation(&job, &machine, self::limits(), &none), &mut oracle)
    };
    let usual = Limits::default();
    assert!(decide(usual).is_ok());
    let fuel = Limits { decide_fuel: 1000, decide_fuel_per_block: 0, ..usual };
    assert_eq!(decide(fuel).unwrap_err(), PolicyError::OutOfFuel { limit: 1000 });
    let memory = Limits { memory_bytes: 1 << 16, ..usual };
    assert!(policy(memory).is_err(), "it starts with more than a page");
    let refused = |limits: Limits| PolicyEngine::new(limits).unwrap_err().to_string();
    assert_eq!(
        refused(Limits { memory_bytes: 3, ..usual }),
        "the limit 'memory' is 3, it must be from 65536 to 4294967296"
    );
    assert!(refused(Limits { stack_bytes: usize::MAX, ..usual }).contains("the limit 'stack'"));
    assert!(policy(Limits { component_bytes: 1000, ..usual }).unwrap_err().to_string().contains("at most 1000 B"));
}

//! Things go wrong: on the simulator for real models, and in real runs of the fixture.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::AtomicBool;

use loadline::core::Bytes;
use loadline::deviation::{Answer, Fault, Injection, Redecision, injection, rehearse};
use loadline::{ErrorClass, Planner, policies};
use loadline_policy::settings::Kind;
use support::faults::*;

/// Nothing goes wrong: the rehearsal is the forecast.
#[test]
fn a_rehearsal_without_faults_is_the_forecast() {
    let case = wan(SMALL, 8);
    for policy in POLICIES {
        let (planned, rehearsal) = case.rehearse(policy, &[]);
        assert_eq!(rehearsal.redecisions, [], "{policy}");
        assert_eq!(rehearsal.stopped, None, "{policy}");
        assert_eq!(rehearsal.time, planned.forecast.total(|s| s.cold), "{policy}");
    }
}

/// Whatever takes memory away, wherever: each policy finds a smaller plan, and what runs stays below what is left.
#[test]
fn memory_that_goes_away_is_given_up() {
    let case = wan(SMALL, 8);
    let card = case.machine.device.memory;
    for policy in POLICIES {
        for at in ["text-encode", "denoise:1", "denoise:3", "denoise:6", "vae-decode:2"] {
            let (planned, rehearsal) = case.rehearse(policy, &[&format!("out-of-memory@{at}")]);
            let context = format!("{policy} {at}: {:?}", rehearsal.redecisions);
            let stage = planned.job.stages.iter().position(|s| at.starts_with(&s.name)).unwrap();
            // A stage that has one slot for its largest block has nothing to give up.
            let at_least = planned.plan.stages[stage].slots.len() == 1;
            assert_eq!(rehearsal.stopped.is_some(), at_least, "{context}");
            assert_eq!(rehearsal.redecisions.len(), 1, "{context}");
            if at_least {
                continue;
            }
            let [before, after] = [&planned, &*rehearsal.last].map(|p| p.forecast.stages[stage].peak);
            assert!(after < before, "{context}: {after}");
        }
        let left = Bytes::gib(7);
        let taken = format!("others={}@denoise:2", card - left);
        let (_, rehearsal) = case.rehearse(policy, &[&taken]);
        assert_eq!(rehearsal.stopped, None, "{policy}: {:?}", rehearsal.redecisions);
        let peak = rehearsal.last.forecast.stages[1..].iter().map(|s| s.peak).max().unwrap();
        assert!(peak <= left, "{policy}: {peak}, {:?}", rehearsal.redecisions);
    }
}

/// A disk that turns slow is worth another plan where blocks come from it; so is host memory that runs out.
#[test]
fn a_slow_disk_and_a_full_host_are_told() {
    let mut case = wan(LARGE, 8);
    case.asked.ram = Some(Bytes::gib(8));
    // So little to compute that reading is what takes time.
    case.asked.request.frames = 5;
    let (_, slow) = case.rehearse("auto-tune", &["disk-slower=8@denoise:2"]);
    assert_eq!(causes(&slow.redecisions), ["disk-slow"], "{:?}", slow.redecisions);
    assert_eq!(slow.stopped, None);
    case.asked.ram = Some(Bytes::gib(30));
    let (planned, low) = case.rehearse("auto-tune", &["host-free=1GiB@denoise:2"]);
    assert!(planned.forecast.host_peak() > Bytes::gib(1), "{}", planned.forecast.host_peak());
    assert_eq!(causes(&low.redecisions), ["host-low"], "{:?}", low.redecisions);
    assert_eq!(low.stopped, None, "{:?}", low.redecisions);
}

/// A watermark that a policy asked for is told once, and again only after the level has gone back.
#[test]
fn a_watermark_fires_once() {
    let case = wan(LARGE, 11);
    let (planned, rehearsal) = case.rehearse("threshold", &["others=2GiB@denoise:2"]);
    assert!(!planned.plan.triggers.is_empty());
    assert_eq!(causes(&rehearsal.redecisions), ["trigger"], "{:?}", rehearsal.redecisions);
    assert!(rehearsal.last.forecast.device_peak() < planned.forecast.device_peak());
}

/// What no policy could help with ends the run, and says so.
#[test]
fn what_cannot_be_helped_stops_the_run() {
    let case = wan(SMALL, 8);
    let (_, rehearsal) = case.rehearse("auto-tune", &["read-error@denoise:2"]);
    assert!(rehearsal.stopped.unwrap().contains("a read failed on purpose"));
    let always: Vec<String> = (0..40).map(|_| "out-of-memory@denoise:2".to_owned()).collect();
    let always: Vec<&str> = always.iter().map(String::as_str).collect();
    let (_, rehearsal) = case.rehearse("auto-tune", &always);
    let last = rehearsal.redecisions.last().unwrap();
    assert!(matches!(last.answer, Answer::Stop { .. }), "{last}");
}

/// Memory that was promised is not there, at every pass of a real run and for every policy: the run plans anew, and
/// what it computes is the same to the last bit.
#[test]
fn a_real_run_outlives_a_lack_of_memory_at_any_pass() {
    let whole = run("auto-tune", ROOMY, &[]).unwrap().0;
    for (policy, budget) in POLICIES.into_iter().map(|policy| (policy, ROOMY)) {
        for when in passes() {
            let (dump, outcome) = run(policy, budget, &[Injection { when, fault: Fault::OutOfMemory }]).unwrap();
            let redecisions = &outcome.measured.redecisions;
            assert_eq!(causes(redecisions), ["out-of-memory"], "{policy} {when:?}: {redecisions:?}");
            assert!(dump == whole, "{policy} {when:?}: other numbers after {redecisions:?}");
        }
    }
}

/// Other programs take memory until less is left than the plan needs: what runs from then on needs less.
#[test]
fn a_real_run_makes_room_for_others() {
    let (whole, outcome) = run("auto-tune", ROOMY, &[]).unwrap();
    let forecast = &outcome.planned.forecast;
    let needs = forecast.device_peak() + forecast.host_peak();
    let fault = others_leave_less_than(needs);
    for when in passes().into_iter().skip(1).step_by(2) {
        let (dump, outcome) = run("auto-tune", ROOMY, &[Injection { when, fault }]).unwrap();
        let redecisions = &outcome.measured.redecisions;
        assert!(!redecisions.is_empty(), "{when:?}");
        assert!(dump == whole, "{when:?}: other numbers after {redecisions:?}");
    }
}

/// One lack of memory after the other, each while the plan of the one before runs: a large model gives way each time.
/// The fixture has little to give: when nothing is left it stops, and goes on later to the same numbers.
#[test]
fn a_run_gives_way_as_often_as_it_can() {
    let (_, rehearsal) = wan(LARGE, 8)
        .rehearse("auto-tune", &["out-of-memory@denoise:2", "out-of-memory@denoise:3", "out-of-memory@denoise:5"]);
    assert_eq!((causes(&rehearsal.redecisions), rehearsal.stopped), (vec!["out-of-memory".to_owned(); 3], None));
    let whole = run("auto-tune", ROOMY, &[]).unwrap().0;
    let folder = tempfile::tempdir().unwrap();
    let job = support::golden_job(folder.path(), None);
    let mut session = support::session("auto-tune");
    session.inject(passes().into_iter().map(|when| Injection { when, fault: Fault::OutOfMemory }).collect());
    let Err(error) = session.run(&job, &AtomicBool::new(false), &mut |_| ()) else { panic!("it never had enough") };
    assert_eq!(error.class(), ErrorClass::DeviceMemory);
    assert!(resumed("auto-tune", job, &error) == whole);
}

/// A read that fails ends the run with its checkpoint; resumed, it computes the same to the last bit.
#[test]
fn a_real_run_that_cannot_go_on_can_be_resumed() {
    let whole = run("auto-tune", ROOMY, &[]).unwrap().0;
    for fault in [Fault::ReadError, Fault::TaskError] {
        for when in passes().into_iter().skip(1) {
            let folder = tempfile::tempdir().unwrap();
            let job = support::golden_job(folder.path(), None);
            let mut session = support::session("lazy-load");
            session.inject(vec![Injection { when, fault }]);
            let Err(error) = session.run(&job, &AtomicBool::new(false), &mut |_| ()) else {
                // Nothing is read any more behind the last load.
                assert_eq!(fault, Fault::ReadError, "{when:?}");
                continue;
            };
            assert!(resumed("lazy-load", job, &error) == whole, "{fault:?} {when:?}");
        }
    }
}

/// When nothing is left to do, `lazy-load` keeps nothing; the next job is planned with what is known of the last.
#[test]
fn an_idle_session_keeps_what_its_policy_says() {
    let folder = tempfile::tempdir().unwrap();
    let mut session = support::session("lazy-load");
    let mut job = support::golden_job(folder.path(), None);
    job.more_to_come = true;
    support::run(&mut session, &job);
    assert_eq!(session.idle().unwrap(), Bytes::ZERO);
    job.more_to_come = false;
    support::run(&mut session, &job);
}

const HOSTILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/hostile/components/hostile.wasm");

/// Every attack of the hostile policy.
fn attacks() -> Vec<String> {
    let policy = policies::load(HOSTILE).unwrap();
    match &policy.schema().get("attack").unwrap().kind {
        Kind::Text { choices, .. } => choices.clone(),
        other => panic!("{other:?}"),
    }
}

/// A policy that is honest at the start and does harm when it is asked again: the run goes on with what its honest plan
/// left for such a case, and computes the same, or stops with its checkpoint. Its memory never exceeds the budget.
#[test]
fn a_policy_that_turns_hostile_harms_no_run() {
    let whole = run("auto-tune", ROOMY, &[]).unwrap().0;
    let when = passes()[3];
    for attack in attacks() {
        let folder = tempfile::tempdir().unwrap();
        let job = support::golden_job(folder.path(), None);
        let settings = [("attack", attack.as_str()), ("when", "later")];
        let mut session = support::session_of(&support::fixture("wan_t2v/model"), HOSTILE, &settings);
        session.inject(vec![Injection { when, fault: Fault::OutOfMemory }]);
        let dump = match session.run(&job, &AtomicBool::new(false), &mut |_| ()) {
            Ok(outcome) => {
                let redecisions = &outcome.measured.redecisions;
                assert_eq!(causes(redecisions)[0], "out-of-memory", "{attack}");
                assert!(
                    matches!(redecisions[0].answer, Answer::Plan | Answer::Rung { .. }),
                    "{attack}: {redecisions:?}"
                );
                std::fs::read(job.dump.unwrap()).unwrap()
            }
            Err(error) => resumed("auto-tune", job, &error),
        };
        assert!(dump == whole, "{attack}: other numbers");
    }
}

/// Three faults, and a policy is asked no more; its ladder goes on being climbed down.
#[test]
fn three_faults_quarantine_a_policy() {
    let case = wan(LARGE, 11);
    let policy = policies::load(HOSTILE).unwrap();
    let given = [("attack".to_owned(), "panic".to_owned()), ("when".to_owned(), "later".to_owned())];
    let settings = policies::settings(&policy, &given).unwrap();
    let planner = Planner::new(&case.model, &case.machine, &policy, &settings);
    let planned = planner.plan(&case.asked).unwrap();
    let fault = |pass: u32| injection(&format!("out-of-memory@denoise:{pass}"), &planned.job).unwrap();
    let rehearsal = rehearse(&planner, &case.asked, &planned, &[1, 2, 3, 4].map(fault)).unwrap();
    let reason = |r: &Redecision| match &r.answer {
        Answer::Rung { instead_of: why, .. } | Answer::Stop { why } => why.clone(),
        other => panic!("{other:?}"),
    };
    let reasons: Vec<String> = rehearsal.redecisions.iter().map(reason).collect();
    assert!(reasons[..3].iter().all(|r| r.starts_with("the policy failed (")), "{reasons:?}");
    assert!(reasons[3].starts_with("the policy is not asked any more, quarantined after 3 faults"), "{reasons:?}");
    assert!(matches!(rehearsal.redecisions[0].answer, Answer::Rung { .. }), "{:?}", rehearsal.redecisions);
}

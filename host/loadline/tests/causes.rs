//! Every cause for which a policy is asked again, at every step: on the simulator, and in real runs of the fixture.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;

use loadline::core::{Bytes, Cause, Nanos, Tier};
use loadline::deviation::{Answer, Fault, Injection, Moment, Redecision, injection, rehearse};
use loadline::{JobSpec, Model, Planner, Progress, Session, SessionOptions, policies};
use loadline_policy::Transcript;
use support::faults::*;

/// Many times what the fixture takes on any machine, and more than the patience of a run.
const LONG: Nanos = Nanos(600_000_000_000);

/// What the fixture's plan needs where there is enough of everything: device memory, host memory, and the part of it
/// that is not copies of blocks.
fn needs(policy: &str) -> [Bytes; 3] {
    let planned = run(policy, ROOMY, &[]).unwrap().1.planned;
    let copies = planned.job.blocks.iter().map(|block| block.slab).sum();
    let host = planned.forecast.host_peak();
    assert!(planned.plan.homes.iter().all(|home| *home == Tier::Host), "{policy}");
    [planned.forecast.device_peak(), host, host - copies]
}

/// A session whose policy's calls are written down.
fn overheard(policy: &str) -> (Session, Transcript) {
    let transcript = Transcript::default();
    let policy = policies::load(policy).unwrap().transcribed(&transcript).unwrap();
    let settings = policies::settings(&policy, &[]).unwrap();
    let model = Model::open(support::fixture("wan_t2v/model").to_str().unwrap()).unwrap();
    let options = SessionOptions::new(model, policy, settings, support::cpu());
    (Session::new(options).unwrap(), transcript)
}

/// The causes that a policy was told, in order; one that came again at once counts once.
fn asked(transcript: &Transcript) -> Vec<u32> {
    let text = transcript.take().unwrap();
    let cause = |line: &str| line.strip_prefix("situation {cause: ")?.split(',').next()?.parse().ok();
    let mut causes: Vec<u32> = text.lines().filter_map(cause).collect();
    causes.dedup();
    causes
}

/// What became of a run in which something went wrong.
#[derive(Default)]
struct Course {
    told: Vec<Redecision>,
    /// What its policy was told, the start left out.
    asked: Vec<u32>,
    stopped: bool,
}

/// Runs the fixture's job while something goes wrong: what it computes is the same to the last bit, or it stops with a
/// checkpoint from which another run computes the same.
fn outlives(policy: &str, budget: (Option<Bytes>, Bytes), injection: Injection, whole: &[u8]) -> Course {
    let folder = tempfile::tempdir().unwrap();
    let (mut session, transcript) = overheard(policy);
    let mut job = support::golden_job(folder.path(), budget.0);
    job.asked.ram = Some(budget.1);
    session.inject(vec![injection]);
    let mut course = Course::default();
    let mut listen = |event: Progress<'_>| {
        if let Progress::Redecided(redecision) = event {
            course.told.push(redecision.clone());
        }
    };
    let ended = session.run(&job, &AtomicBool::new(false), &mut listen);
    course.stopped = ended.is_err();
    let dump = match ended {
        Ok(_) => std::fs::read(job.dump.unwrap()).unwrap(),
        Err(error) => resumed(policy, job, &error),
    };
    course.asked = asked(&transcript).split_off(1);
    assert!(dump == whole, "{policy} {injection:?}: other numbers");
    course
}

/// What the passes of a policy's job come to if something goes wrong at each, but the last, behind which nothing is
/// left to decide.
fn at_each_pass(policy: &str, budget: (Option<Bytes>, Bytes), fault: Fault) -> Vec<(Moment, Course)> {
    let whole = run(policy, budget, &[]).unwrap().0;
    let mut passes = passes_with(policy);
    passes.pop();
    passes.into_iter().map(|when| (when, outlives(policy, budget, Injection { when, fault }, &whole))).collect()
}

/// Asserts that a cause, and no other, was told to whoever watches and to the policy; gives how many runs stopped.
fn only(cause: Cause, policy: &str, budget: (Option<Bytes>, Bytes), fault: Fault) -> usize {
    let courses = at_each_pass(policy, budget, fault);
    for (when, course) in &courses {
        let told: BTreeSet<Cause> = course.told.iter().map(|r| r.cause).collect();
        assert_eq!(told, BTreeSet::from([cause]), "{policy} {when:?}: {:?}", course.told);
        assert_eq!(course.asked, [cause as u32], "{policy} {when:?}");
    }
    courses.iter().filter(|(_, course)| course.stopped).count()
}

/// A task that takes much longer than forecast, at any pass and for every policy: it is told once, and nothing is lost.
#[test]
fn a_real_run_that_is_late_asks_its_policy() {
    for policy in POLICIES {
        assert_eq!(only(Cause::Drift, policy, ROOMY, Fault::TaskDelay(LONG)), 0, "{policy}");
    }
}

/// A disk that keeps every block waiting, at any pass of a stage that streams from it.
#[test]
fn a_real_run_with_a_slow_disk_asks_its_policy() {
    let [_, most, least] = needs("manual-swap");
    let courses = at_each_pass("manual-swap", (ROOMY.0, Bytes((most.0 + least.0) / 2)), Fault::DiskDelay(LONG));
    let denoise = courses.iter().filter(|(when, _)| matches!(when, Moment::Pass { stage: 1, .. }));
    let denoise: Vec<_> = denoise.collect();
    assert_eq!(denoise.len(), 8, "a pass with and one without guidance for each step");
    // All blocks of the last pass have been read when it begins.
    for (when, course) in &denoise[..7] {
        let first = course.told.first().unwrap_or_else(|| panic!("{when:?}: nothing was told"));
        assert_eq!(first.cause, Cause::DiskSlow, "{when:?}: {first}");
        assert!(first.what.contains("of 'denoise' ended") && first.what.contains("the disk takes"), "{first}");
        assert_eq!(course.asked[0], Cause::DiskSlow as u32, "{when:?}");
        assert!(!course.stopped, "{when:?}: {:?}", course.told);
    }
}

/// Memory that others use up, at any pass: copies of blocks in host memory are given up first.
#[test]
fn a_real_run_gives_host_memory_back() {
    for policy in ["auto-tune", "manual-swap", "lazy-load"] {
        let [device, host, _] = needs(policy);
        assert_eq!(only(Cause::HostLow, policy, ROOMY, others_leave_less_than(device + host)), 0, "{policy}");
    }
}

/// So much that more than the copies would have to go: a smaller plan, or a stop from which the video is the same.
#[test]
fn a_real_run_gives_device_memory_back() {
    for policy in POLICIES {
        let [device, _, least] = needs(policy);
        only(Cause::Pressure, policy, ROOMY, others_leave_less_than(device + least));
    }
}

/// A watermark of the plan, at any pass.
#[test]
fn a_real_run_tells_its_policy_of_a_watermark() {
    assert_eq!(only(Cause::Trigger, "threshold", ROOMY, Fault::HostFree(Bytes::mib(256))), 0);
}

/// Two jobs one after the other, then nothing to do, then another job: each policy is told of each.
#[test]
fn a_session_tells_its_policy_of_the_next_job_and_of_none() {
    let whole = run("auto-tune", ROOMY, &[]).unwrap().0;
    for policy in POLICIES {
        let folder = tempfile::tempdir().unwrap();
        let (mut session, transcript) = overheard(policy);
        let made = |session: &mut Session, more_to_come: bool| {
            let job = JobSpec { more_to_come, ..support::golden_job(folder.path(), None) };
            support::run(session, &job);
            assert!(std::fs::read(job.dump.unwrap()).unwrap() == whole, "{policy}: other numbers");
        };
        made(&mut session, true);
        made(&mut session, true);
        session.idle().unwrap();
        made(&mut session, false);
        let expected = [Cause::Start, Cause::NextJob, Cause::Idle, Cause::Start];
        assert_eq!(asked(&transcript), expected.map(|cause| cause as u32), "{policy}");
    }
}

/// Every cause that comes up while a job runs, at every step of the largest stage, on the simulator. Nothing is told
/// where what remains fits all the same, or reads too little for a slow disk to matter.
#[test]
fn each_cause_is_rehearsed_at_each_step() {
    let with = |name: &str, vram: u64, ram: u64, frames: u32| {
        let mut case = wan(name, vram);
        (case.asked.ram, case.asked.request.frames) = (Some(Bytes::gib(ram)), frames);
        case
    };
    let cases = [
        (Cause::OutOfMemory, "auto-tune", with(SMALL, 8, 30, 81), "out-of-memory", 6),
        (Cause::Pressure, "auto-tune", with(LARGE, 11, 30, 81), "others=3GiB", 5),
        (Cause::HostLow, "auto-tune", with(LARGE, 8, 30, 81), "host-free=2GiB", 6),
        // So little to compute that reading is what takes time.
        (Cause::DiskSlow, "auto-tune", with(LARGE, 8, 8, 5), "disk-slower=8", 3),
        (Cause::Drift, "auto-tune", with(SMALL, 8, 30, 81), "task-delay=36000", 6),
        (Cause::Trigger, "threshold", with(LARGE, 11, 30, 81), "others=2GiB", 6),
    ];
    for (cause, policy, case, fault, until) in cases {
        for pass in 1..=until {
            let (_, rehearsal) = case.rehearse(policy, &[&format!("{fault}@denoise:{pass}")]);
            let told: Vec<Cause> = rehearsal.redecisions.iter().map(|r| r.cause).collect();
            assert_eq!((told, rehearsal.stopped), (vec![cause], None), "{cause:?} {pass}: {:?}", rehearsal.redecisions);
        }
    }
}

/// A policy that keeps its plan is asked again about the same disk, and told the same: it is as slow as it is, however
/// often somebody looks.
#[test]
fn a_disk_gets_no_slower_by_being_told() {
    let mut case = wan(SMALL, 8);
    (case.asked.ram, case.asked.request.frames) = (Some(Bytes::gib(1)), 5);
    let transcript = Transcript::default();
    let policy = policies::load("manual-swap").unwrap().transcribed(&transcript).unwrap();
    let settings = policies::settings(&policy, &[]).unwrap();
    let planner = Planner::new(&case.model, &case.machine, &policy, &settings);
    let planned = planner.plan(&case.asked).unwrap();
    let slow = injection("disk-slower=200@denoise:1", &planned.job).unwrap();
    let rehearsal = rehearse(&planner, &case.asked, &planned, &[slow]).unwrap();
    assert!(rehearsal.redecisions.iter().all(|r| r.answer == Answer::Keep), "{:?}", rehearsal.redecisions);
    let text = transcript.take().unwrap();
    let told = text.lines().filter(|line| line.starts_with(&format!("situation {{cause: {},", Cause::DiskSlow as u32)));
    let first_read = |line: &str| line.split_once("read-ns: [")?.1.split([',', ']']).next()?.parse::<f64>().ok();
    let reads: Vec<f64> = told.filter_map(first_read).collect();
    assert!(reads.len() > 1, "{:?}", rehearsal.redecisions);
    assert!(reads.iter().all(|read| (0.5..2.0).contains(&(read / reads[0]))), "{reads:?}");
}

//! Memory gets short around a real run: others take it, a control group limits it, or the system makes the run wait.
//!
//! What the system says is read from a folder that a test arranges, in the kernel's own form; the memory that a run has
//! is counted, and the other process is a real one.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use std::alloc::System as Allocator;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};

use loadline::core::check::program;
use loadline::core::{Bytes, Cause, Nanos};
use loadline::deviation::{Answer, Redecision, injection, rehearse};
use loadline::memory::{Counting, Domain, live};
use loadline::{
    Asked, ErrorClass, JobSpec, KnobChoice, Model, Outcome, Planner, Progress, SamplerOptions, Session, SessionOptions,
    System, policies, profiles,
};
use support::{cpu, golden_job, synthetic};

#[global_allocator]
static ALLOCATOR: Counting<Allocator> = Counting(Allocator);

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A made-up system and a model whose blocks are some MiB each.
struct Scene {
    dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        synthetic::write(&dir.path().join("model"));
        Self { dir }
    }

    fn say(&self, file: &str, text: &str) {
        let path = self.dir.path().join("system").join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn available(&self, bytes: Bytes) {
        self.say("proc/meminfo", &format!("MemTotal: 99999999 kB\nMemAvailable: {} kB\n", bytes.0 >> 10));
    }

    /// Late as it may be on a busy machine, it is asked about memory alone.
    fn session(&self) -> Session {
        let policy = policies::load("auto-tune").unwrap();
        let settings = policies::settings(&policy, &[]).unwrap();
        let model = Model::open(self.dir.path().join("model").to_str().unwrap()).unwrap();
        let options = SessionOptions::new(model, policy, settings, cpu());
        let system = System::at(self.dir.path().join("system"));
        Session::new(SessionOptions { system, patience: Nanos(u64::MAX / 8), ..options }).unwrap()
    }

    fn job(&self) -> JobSpec {
        golden_job(self.dir.path(), None)
    }

    /// Runs the job; `at` is called when the first pass of the first stage has ended, and `after` when the run has
    /// decided again: what a run gives back does not come to be free by itself in a made-up system.
    fn run(&self, at: &mut dyn FnMut(Bytes), after: &mut dyn FnMut()) -> Result<Outcome, loadline::Error> {
        let (mut session, job) = (self.session(), self.job());
        let planned = session.plan(&job).unwrap();
        // The program has its own part already.
        let needs = planned.forecast.device_peak() + planned.forecast.host_peak() - program(&cpu());
        let mut is_first = true;
        let mut hear = |event: Progress<'_>| {
            if matches!(event, Progress::Task { task, of, .. } if task + 1 == of) && is_first {
                is_first = false;
                at(needs);
            } else if matches!(event, Progress::Redecided(_)) {
                after();
            }
        };
        session.run(&job, &AtomicBool::new(false), &mut hear)
    }

    /// Asserts that a run gave host memory back once, and computed what it does in peace; gives what it saw.
    fn gave_way_once(&self, outcome: &Outcome, whole: &[u8]) -> String {
        let redecisions = &outcome.measured.redecisions;
        assert_eq!(causes(redecisions), [(Cause::HostLow, true)], "{redecisions:?}");
        assert!(self.tensors() == whole, "other numbers after {redecisions:?}");
        redecisions[0].what.clone()
    }

    /// Runs the job with nothing in the way.
    fn calm(&self) -> Outcome {
        self.run(&mut |_| (), &mut || ()).unwrap()
    }

    fn tensors(&self) -> Vec<u8> {
        fs::read(self.job().dump.unwrap()).unwrap()
    }
}

/// What the run has: what is free beside it and less than it needs makes it short by the rest.
fn held() -> Bytes {
    live(Domain::Device) + live(Domain::Host)
}

fn causes(redecisions: &[Redecision]) -> Vec<(Cause, bool)> {
    redecisions.iter().map(|r| (r.cause, matches!(r.answer, Answer::Plan | Answer::Rung { .. }))).collect()
}

/// How short memory is to become: less than the blocks of the transformer take, so that it can be given back.
const SHORT: Bytes = Bytes::mib(12);

#[test]
fn another_process_takes_memory_and_the_run_makes_room() {
    let _alone = alone();
    let scene = Scene::new();
    scene.available(Bytes::gib(64));
    let calm = scene.calm();
    assert_eq!(calm.measured.redecisions, []);
    let whole = scene.tensors();
    let mut other = None;
    let mut taken = |needs: Bytes| {
        // The machine has what the run needs and a little more, until somebody else wants to have a part of it.
        let free = needs - held() + Bytes::mib(8);
        let mut child = taker(Bytes::mib(8) + SHORT);
        scene.available(free - resident(&mut child));
        other = Some(child);
    };
    let outcome = scene.run(&mut taken, &mut || scene.available(Bytes::gib(64)));
    other.unwrap().kill().unwrap();
    let outcome = outcome.unwrap();
    let what = scene.gave_way_once(&outcome, &whole);
    assert!(what.starts_with("memory runs out: "), "{what}");
}

/// What is no memory of the run at all ends it with its checkpoint before the system ends it without one.
#[test]
fn a_run_that_cannot_make_enough_room_stops_with_its_checkpoint() {
    let _alone = alone();
    let scene = Scene::new();
    scene.available(Bytes::gib(64));
    scene.calm();
    let whole = scene.tensors();
    let Err(error) = scene.run(&mut |_| scene.available(Bytes::ZERO), &mut || ()) else {
        panic!("there was no memory")
    };
    assert_eq!(error.class(), ErrorClass::DeviceMemory);
    assert!(error.to_string().contains("--resume"), "{error}");
    scene.available(Bytes::gib(64));
    let job = JobSpec { resume: true, ..scene.job() };
    scene.session().run(&job, &AtomicBool::new(false), &mut |_| ()).unwrap();
    assert!(scene.tensors() == whole);
}

#[test]
fn the_limit_of_a_control_group_is_the_runs() {
    let _alone = alone();
    let scene = Scene::new();
    scene.available(Bytes::gib(64));
    scene.say("proc/self/cgroup", "0::/job\n");
    let group = |file: &str, bytes: Bytes| scene.say(&format!("sys/fs/cgroup/job/{file}"), &bytes.0.to_string());
    group("memory.max", Bytes::gib(8));
    group("memory.current", Bytes::gib(1));
    let calm = scene.calm();
    assert_eq!(calm.measured.redecisions, []);
    let whole = scene.tensors();
    let mut filled = |needs: Bytes| {
        // Somebody else in the group has filled it, and half of what it has are cached files.
        let free = needs - held() - SHORT;
        scene.say("sys/fs/cgroup/job/memory.stat", &format!("anon 1\nactive_file {}\n", Bytes::gib(4).0));
        group("memory.current", Bytes::gib(12) - free);
    };
    let outcome = scene.run(&mut filled, &mut || group("memory.current", Bytes::gib(5)));
    let outcome = outcome.unwrap();
    let what = scene.gave_way_once(&outcome, &whole);
    assert!(what.contains("in this control group"), "{what}");
}

/// The system has memory and makes everybody wait for it: the run gives an eighth back, and is not asked again before
/// it went by.
#[test]
fn waiting_for_memory_is_answered_before_it_fails() {
    let _alone = alone();
    let scene = Scene::new();
    scene.available(Bytes::gib(64));
    scene.say("proc/pressure/memory", "some avg10=3.00 avg60=9.00 avg300=9.00 total=5\n");
    let calm = scene.calm();
    assert_eq!(calm.measured.redecisions, []);
    let whole = scene.tensors();
    let stalls = |percent: u32| format!("some avg10={percent}.00 avg60=0.00 avg300=0.00 total=9\nfull avg10=1.00\n");
    let mut session = scene.session();
    let job = scene.job();
    let mut told = 0;
    let outcome = session.run(&job, &AtomicBool::new(false), &mut |event| match event {
        Progress::Task { task, of, .. } if task + 1 == of && told == 0 => {
            scene.say("proc/pressure/memory", &stalls(60));
        }
        Progress::Redecided(_) => {
            told += 1;
            scene.say("proc/pressure/memory", &stalls(1));
        }
        _ => {}
    });
    let outcome = outcome.unwrap();
    let what = scene.gave_way_once(&outcome, &whole);
    assert!(what.contains("in 60 % of the last ten seconds something waited"), "{what}");
}

/// A process that has so much memory, really.
fn taker(bytes: Bytes) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "takes_memory", "--ignored", "--nocapture"]).env("TAKES_BYTES", bytes.0.to_string());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

/// `--inject memory-stall` does to a real run what the kernel would, and it is told once, however long it lasts.
#[test]
fn waiting_for_memory_can_be_injected() {
    let _alone = alone();
    let scene = Scene::new();
    scene.available(Bytes::gib(64));
    scene.calm();
    let whole = scene.tensors();
    let mut session = scene.session();
    let job = scene.job();
    let fault = injection("memory-stall=60@denoise:1", &session.plan(&job).unwrap().job).unwrap();
    session.inject(vec![fault]);
    let outcome = session.run(&job, &AtomicBool::new(false), &mut |_| ()).unwrap();
    let what = scene.gave_way_once(&outcome, &whole);
    assert!(what.starts_with("in 60 % of the last ten seconds"), "{what}");
}

/// A card has memory of its own: copies in host memory are what is given back, an eighth of the host's at a time, and
/// in longer and longer intervals.
#[test]
fn beside_a_card_host_memory_is_given_back() {
    let model = Model::open("wan2.1-t2v-14b").unwrap();
    let machine = profiles::find_or_open("rtx-3060-12gb", |p| fs::File::open(p)).unwrap().to_machine().unwrap();
    let policy = policies::load("auto-tune").unwrap();
    let settings = policies::settings(&policy, &[]).unwrap();
    let planner = Planner::new(&model, &machine, &policy, &settings);
    let asked = Asked {
        request: loadline::core::Request { steps: 6, ..model.default_request().unwrap() },
        knobs: KnobChoice::default(),
        sampling: SamplerOptions::default(),
        vram: Some(Bytes::gib(10)),
        ram: None,
        used_by_others: Bytes::ZERO,
    };
    let planned = planner.plan(&asked).unwrap();
    let rehearsed = |percent: u32| {
        let fault = injection(&format!("memory-stall={percent}@denoise:2"), &planned.job).unwrap();
        rehearse(&planner, &asked, &planned, &[fault]).unwrap()
    };
    assert_eq!(rehearsed(19).redecisions, []);
    let rehearsal = rehearsed(20);
    assert_eq!(rehearsal.stopped, None);
    let first = &rehearsal.redecisions[0];
    assert_eq!((first.cause, &first.answer, first.pass), (Cause::HostLow, &Answer::Plan, 2));
    // Steps of three minutes: behind each of the next, since thirty seconds, a minute and two have gone by.
    let passes: Vec<u64> = rehearsal.redecisions.iter().map(|r| r.pass).collect();
    assert_eq!(passes[..3], [2, 3, 4], "{passes:?}");
    let host = |planned: &loadline::Planned| planned.forecast.host_peak();
    assert!(host(&rehearsal.last).0 * 8 <= host(&planned).0 * 7, "{}", host(&rehearsal.last));
    assert!(rehearsal.last.forecast.device_peak() <= planned.forecast.device_peak());
}

/// What it has, once it says that it does.
fn resident(child: &mut Child) -> Bytes {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("taken")), "the other process took nothing");
    let statm = fs::read_to_string(Path::new("/proc").join(child.id().to_string()).join("statm")).unwrap();
    let pages: u64 = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
    Bytes(pages * 4096)
}

/// No test: the other process.
#[test]
#[ignore = "another process of these tests runs it"]
#[allow(clippy::print_stdout, reason = "the test that started it reads it")]
fn takes_memory() {
    let Ok(bytes) = std::env::var("TAKES_BYTES") else { return };
    let held = vec![1u8; bytes.parse().unwrap()];
    println!("taken {}", held.iter().map(|b| u64::from(*b)).sum::<u64>());
    // Until whoever started this one has seen enough.
    let _ = std::io::stdin().lines().next();
}

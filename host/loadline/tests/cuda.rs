//! Whole runs on a GPU that is not there: the program's own code above the driver, and below it a driver in host memory
//! that works its queues off late and in any order, with the kernels' own sources built for this processor.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod support;

use std::alloc::System;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

use loadline::core::{Bytes, DType, Estimate, Machine};
use loadline::memory::{Counting, Domain, live};
use loadline::{Error, ErrorClass, Gpu, JobSpec, Model, On, Outcome, Session, SessionOptions, policies, profiles};
use loadline_cuda::driver::{Driver, sys};
use loadline_cuda_mock::{Fault, Mock, Order, Report, Settings, api, emulation};
use loadline_engine::{Audited, Engine, Silent, Start};
use loadline_sim::{SimDevice, Times};
use support::{fixture, golden_job, run, worst_error};

#[global_allocator]
static ALLOCATOR: Counting<System> = Counting(System);

/// The kernels for this processor.
fn kernels() -> String {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = BUILT.get_or_init(|| emulation(folder).unwrap_or_else(|why| panic!("nothing is shown here: {why}")));
    file.display().to_string()
}

/// A GPU for one test.
struct Rig {
    gpu: Gpu,
    machine: Machine,
    mock: Mock,
}

impl Rig {
    fn start(settings: Settings) -> Self {
        let mock = Mock::start(Settings { emulation: Some(kernels()), ..settings });
        let gpu = Gpu::on(&Driver::with_api(api()).unwrap(), None).unwrap();
        let machine = gpu.machine(Some(profiles::find("rtx-4090").unwrap()), Bytes::gib(8)).unwrap();
        Self { gpu, machine, mock }
    }

    fn in_order(order: Order) -> Self {
        Self::start(Settings { order, ..Settings::default() })
    }

    fn session(&self, policy: &str) -> Session {
        let policy = policies::load(policy).unwrap();
        let settings = policies::settings(&policy, &[]).unwrap();
        let model = Model::open(fixture("wan_t2v/model").to_str().unwrap()).unwrap();
        let options = SessionOptions::new(model, policy, settings, self.machine.clone());
        Session::new(SessionOptions { record: true, on: On::Cuda(self.gpu.clone()), ..options }).unwrap()
    }

    /// Nothing was used that was not there, and nothing was ordered by luck.
    fn clean(&self) -> Report {
        let report = self.mock.report();
        assert!(report.hazards.is_empty(), "{:#?}", &report.hazards[..report.hazards.len().min(5)]);
        report
    }
}

/// A budget a little above the least that works.
fn tight(session: &Session, job: &JobSpec) -> Bytes {
    let mut tiny = job.clone();
    tiny.asked.vram = Some(Bytes::mib(1));
    match session.plan(&tiny) {
        Err(Error::NeverFits(certificate)) => certificate.min_budget_bytes.unwrap() + Bytes::mib(1),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("a MiB is enough"),
    }
}

/// What a short job on the fixture is: two steps of a few frames.
fn short(dir: &Path) -> JobSpec {
    let mut job = golden_job(dir, None);
    (job.asked.request.frames, job.asked.request.steps) = (5, 2);
    job.latents = None;
    job
}

/// What was live in a stage was declared, and the driver's pool was never asked for more than the budget.
fn within(outcome: &Outcome, report: &Report, machine: &Machine) {
    let budget = outcome.planned.budget.device;
    for (measured, forecast) in outcome.measured.stages.iter().zip(&outcome.planned.forecast.stages) {
        let seen = measured.device_peak;
        assert!(seen > machine.device.fixed_overhead, "stage {} counted nothing", measured.name);
        assert!(seen <= forecast.peak, "stage {}: {seen} over {}", measured.name, forecast.peak);
    }
    assert!(Bytes(report.pool_most) + machine.device.fixed_overhead <= budget, "{} within {budget}", report.pool_most);
}

/// Every step and every frame, in f32, against what diffusers computed.
#[test]
#[ignore = "takes minutes and a C++ compiler: cargo xtask cuda-check"]
fn a_run_follows_the_reference_step_by_step() {
    let rig = Rig::in_order(Order::NewestQueue);
    let dir = tempfile::tempdir().unwrap();
    let outcome = run(&mut rig.session("auto-tune"), &golden_job(dir.path(), None));
    let worst = worst_error(dir.path(), "unipc");
    assert!(worst <= 1e-4, "{worst:e}");
    within(&outcome, &rig.clean(), &rig.machine);
}

#[test]
#[ignore = "takes minutes and a C++ compiler: cargo xtask cuda-check"]
fn a_run_in_bf16_stays_near_the_f32_one() {
    let rig = Rig::in_order(Order::Random(7));
    let dir = tempfile::tempdir().unwrap();
    let mut job = golden_job(dir.path(), None);
    job.asked.knobs.storage = vec![(String::new(), DType::Bf16)];
    let outcome = run(&mut rig.session("auto-tune"), &job);
    let worst = worst_error(dir.path(), "unipc");
    eprintln!("bf16 against f32 after four steps: {worst:.4}");
    assert!(worst < 0.05, "{worst}");
    within(&outcome, &rig.clean(), &rig.machine);
}

/// Policies, budgets, the order in which queues get on, and memory that cannot be locked change no bit; and the
/// simulator makes the same calls in the same order.
#[test]
#[ignore = "takes minutes and a C++ compiler: cargo xtask cuda-check"]
fn results_are_the_same_bits_whatever_the_policy_the_budget_and_the_order_of_work() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = None;
    // What the system locks, and the host budget, of which half may be locked.
    let (any, usual, small) = (u64::MAX, Bytes::gib(4), Bytes::mib(16));
    let cases = [
        (Order::Eager, "lazy-load", false, any, usual),
        (Order::Random(1), "auto-tune", true, any, usual),
        (Order::OldestQueue, "threshold", true, any, usual),
        (Order::NewestQueue, "manual-swap", true, any, usual),
        (Order::Random(2), "auto-tune", true, 0, usual),
        (Order::Random(3), "auto-tune", true, any, small),
    ];
    for (order, policy, is_tight, pinned, ram) in cases {
        let rig = Rig::start(Settings { order, pinned, ..Settings::default() });
        let mut session = rig.session(policy);
        let mut job = short(dir.path());
        job.asked.ram = Some(ram);
        job.asked.vram = is_tight.then(|| tight(&session, &job));
        let outcome = run(&mut session, &job);
        let bits = std::fs::read(dir.path().join("dump.safetensors")).unwrap();
        assert!(*first.get_or_insert_with(|| bits.clone()) == bits, "{policy}, {order:?}, tight: {is_tight}");
        let report = rig.clean();
        within(&outcome, &report, &rig.machine);
        let allowed = outcome.planned.budget.pinned.0.min(pinned);
        assert!(report.pinned_most <= allowed, "{} bytes are locked, {allowed} may be", report.pinned_most);
        assert_eq!(simulated(&outcome, &rig.machine), outcome.measured.digest, "{policy}");
        drop(session);
        assert_eq!(live(Domain::Device), Bytes::ZERO, "{policy} leaves device memory behind");
    }
}

/// What a job keeps for the next one is given up where that has another budget: the limit is the driver's own.
#[test]
#[ignore = "takes minutes and a C++ compiler: cargo xtask cuda-check"]
fn a_next_job_within_another_budget_makes_room() {
    let (rig, dir) = (Rig::in_order(Order::Random(4)), tempfile::tempdir().unwrap());
    let mut session = rig.session("auto-tune");
    let roomy = JobSpec { more_to_come: true, ..short(dir.path()) };
    let mut small = roomy.clone();
    small.asked.vram = Some(tight(&session, &roomy));
    let mut first = None;
    for job in [&roomy, &small, &roomy] {
        let outcome = run(&mut session, job);
        let bits = std::fs::read(dir.path().join("dump.safetensors")).unwrap();
        assert!(*first.get_or_insert_with(|| bits.clone()) == bits, "other numbers within {:?}", job.asked.vram);
        let peak = outcome.measured.stages.iter().map(|s| s.device_peak).max().unwrap();
        assert!(peak <= outcome.planned.budget.device, "{peak}");
    }
    rig.clean();
}

/// What the simulator does for the same plan, as a digest of its calls.
fn simulated(outcome: &Outcome, machine: &Machine) -> u64 {
    let times = Times::new(&outcome.planned.job, machine, Estimate::Median).unwrap();
    let sim = SimDevice::new(&times, outcome.planned.job.blocks.len(), false, false);
    let mut engine = Engine::new(Audited::new(sim), false);
    engine.realise(&outcome.planned.job, &outcome.planned.plan, Start::default(), &mut Silent).unwrap();
    engine.device.digest()
}

fn outcome_of(session: &mut Session, job: &JobSpec) -> Result<Outcome, Error> {
    session.run(job, &AtomicBool::new(false), &mut |_| ())
}

/// A GPU that is lost in the middle of a stage, at any of several places: the checkpoint is kept, and a new session
/// goes on from it to the same bits.
#[test]
#[ignore = "takes minutes and a C++ compiler: cargo xtask cuda-check"]
fn a_lost_gpu_keeps_the_checkpoint_and_the_run_goes_on_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let dump = dir.path().join("dump.safetensors");
    let job = short(dir.path());
    run(&mut Rig::in_order(Order::OldestQueue).session("threshold"), &job);
    let expected = std::fs::read(&dump).unwrap();
    for (call, after) in [("cuLaunchKernel", 150), ("cuMemcpyDtoHAsync", 3), ("cuEventSynchronize", 6)] {
        std::fs::remove_file(&dump).unwrap();
        let rig = Rig::in_order(Order::OldestQueue);
        let mut session = rig.session("threshold");
        rig.mock.inject(Fault { call, after, code: sys::LAUNCH_FAILED, for_good: true });
        let error = outcome_of(&mut session, &job).err().unwrap_or_else(|| panic!("{call}: the run ended well"));
        assert_eq!(error.class(), ErrorClass::DeviceLost, "{call}: {error}");
        assert!(error.to_string().contains("CUDA_ERROR_LAUNCH_FAILED"), "{call}: {error}");
        drop((session, rig));
        let again = JobSpec { resume: true, ..job.clone() };
        let outcome = run(&mut Rig::in_order(Order::OldestQueue).session("threshold"), &again);
        assert!(outcome.measured.resumed || call != "cuLaunchKernel", "{call}: nothing was kept");
        assert!(std::fs::read(&dump).unwrap() == expected, "{call}: other bits after going on");
    }
}

/// Another program takes the card's memory while a run goes on: it decides again before the driver refuses, and ends
/// well.
#[test]
#[ignore = "takes minutes and a C++ compiler: cargo xtask cuda-check"]
fn a_card_that_others_fill_is_noticed_before_the_driver_refuses() {
    let rig = Rig::in_order(Order::OldestQueue);
    let dir = tempfile::tempdir().unwrap();
    let mut session = rig.session("auto-tune");
    let job = short(dir.path());
    let least = tight(&session, &job);
    let stop = AtomicBool::new(false);
    let outcome = session.run(&job, &stop, &mut |event| {
        if let loadline::Progress::StageStarts { stage, .. } = event
            && stage.starts_with("denoise")
        {
            rig.mock.others_take(0, rig.machine.device.memory.0 - least.0 - (8 << 20));
        }
    });
    let outcome = outcome.unwrap_or_else(|e| panic!("{e}"));
    assert!(!outcome.measured.redecisions.is_empty(), "nobody noticed");
    rig.clean();
}

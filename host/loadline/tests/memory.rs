//! Memory truth of whole runs: what a plan declares is what is taken, and never less.
//!
//! The allocator counts every allocation of at least 4 KiB that a stage makes on any thread. The counters belong to the
//! process, so one test runs at a time.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod support;

use std::alloc::System;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};

use loadline::core::{Bytes, Cfg, DType, Size};
use loadline::memory::{Counting, Domain, live, peak, reset_peak};
use loadline::{Error, ErrorClass, JobSpec, Outcome, ResultSink, Session};
use support::{golden_job, run, session, session_of, stored, synthetic};

#[global_allocator]
static ALLOCATOR: Counting<System> = Counting(System);

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

const POLICIES: [&str; 4] = ["auto-tune", "threshold", "manual-swap", "lazy-load"];

/// One page, the granule of the `cpu` profile.
const GRANULE: Bytes = Bytes(4096);

/// What a small model may be off by: bookkeeping that no tensor is.
const SLACK: Bytes = Bytes(64 << 10);

/// A short run of the fixture that starts from noise.
fn short_job(dir: &Path) -> JobSpec {
    let mut job = golden_job(dir, None);
    (job.asked.request.frames, job.asked.request.steps) = (5, 2);
    (job.latents, job.dump) = (None, None);
    job
}

fn with_vram(job: &JobSpec, vram: Bytes) -> JobSpec {
    let mut job = job.clone();
    job.asked.vram = Some(vram);
    job
}

/// The smallest budget that a refusal names.
fn smallest_budget(session: &Session, job: &JobSpec) -> Bytes {
    match session.plan(&with_vram(job, GRANULE)) {
        Err(Error::NeverFits(certificate)) => certificate.min_budget_bytes.unwrap(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("a page is enough"),
    }
}

/// Measured at most forecast, forecast at most 2 % above it, both within the budget.
fn check_outcome(what: &str, outcome: &Outcome, slack: Bytes) -> f64 {
    let (measured, forecast) = (outcome.measured.device_peak(), outcome.planned.forecast.device_peak());
    let budget = outcome.planned.budget.device;
    let text = format!("{what}, budget {}: measured {}, forecast {}", budget.0, measured.0, forecast.0);
    let stages = outcome.measured.stages.iter().zip(&outcome.planned.forecast.stages);
    for (m, f) in stages {
        assert!(m.device_peak <= f.peak, "{text}; stage {}: {} over {}", m.name, m.device_peak.0, f.peak.0);
    }
    assert!(measured <= forecast && forecast <= budget, "{text}");
    assert!(forecast.0 <= measured.0 + measured.0 / 50 + slack.0, "{text}");
    forecast.0 as f64 / measured.0 as f64 - 1.0
}

/// Runs a job with seven budgets from the smallest that works to one in which everything stays. Where a plan keeps
/// blocks for the next job it runs twice: the second forecast counts what the first run has left.
fn check_budgets(session: &mut Session, what: &str, job: &JobSpec, slack: Bytes) -> f64 {
    let least = smallest_budget(session, job);
    let refused = session.plan(&with_vram(job, Bytes(least.0 - GRANULE.0))).err().map(|e| e.class());
    assert_eq!(refused, Some(ErrorClass::NeverFits), "{what}: {} less a page", least.0);
    let whole = session.plan(job).unwrap();
    let slabs: Bytes = whole.job.blocks.iter().map(|b| b.slab.round_up(GRANULE.0)).sum();
    let most = (whole.forecast.device_peak() + slabs).max(least).round_up(GRANULE.0);
    let mut worst: f64 = 0.0;
    for sixth in 0..=6 {
        let vram = Bytes(least.0 + (most.0 - least.0) * sixth / 6).round_down(GRANULE.0);
        let outcome = run(session, &with_vram(job, vram));
        worst = worst.max(check_outcome(what, &outcome, slack));
        if outcome.planned.plan.stages.iter().flat_map(|s| &s.slots).any(|s| s.keep) {
            worst = worst.max(check_outcome(what, &run(session, &with_vram(job, vram)), slack));
        }
    }
    worst
}

#[test]
fn the_forecast_is_what_the_fixture_takes() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    for policy in POLICIES {
        let mut session = session(policy);
        let mut worst: f64 = 0.0;
        for (storage, cfg, tile) in [
            (DType::F32, Cfg::Sequential, None),
            (DType::F32, Cfg::Pair, Some(32)),
            (DType::F32, Cfg::Batched, None),
            (DType::Bf16, Cfg::Sequential, Some(32)),
            (DType::Bf16, Cfg::Pair, None),
            (DType::Bf16, Cfg::Batched, Some(32)),
        ] {
            let mut job = short_job(dir.path());
            job.asked.knobs.storage = vec![(String::new(), storage)];
            job.asked.knobs.cfg = Some(cfg);
            job.asked.knobs.tile = tile.map(|side| Size { width: side, height: side });
            job.asked.knobs.tile_overlap = tile.map(|_| 8);
            let what = format!("{policy}, {storage}, {cfg:?}, tile {tile:?}");
            worst = worst.max(check_budgets(&mut session, &what, &job, SLACK));
        }
        eprintln!("{policy}: forecast at most {:.2} % above measured", 100.0 * worst);
    }
}

/// A decoder whose activations are hundreds of MiB, and a transformer whose weights are.
#[test]
fn the_forecast_is_what_a_large_model_takes() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("model");
    synthetic::write(&folder);
    for policy in POLICIES {
        let mut session = session_of(&folder, policy, &[]);
        let mut job = short_job(dir.path());
        let side = synthetic::SIDE;
        job.asked.request.size = Size { width: side, height: side };
        (job.asked.request.steps, job.asked.request.guidance) = (1, 1.0);
        // One tile of the whole picture: the planner may not make the decoder smaller.
        job.asked.knobs.tile = Some(job.asked.request.size);
        let least = smallest_budget(&session, &job);
        assert!(least >= Bytes::mib(256), "the model is too small for this test: {least}");
        let worst = check_budgets(&mut session, policy, &job, Bytes::ZERO);
        eprintln!("{policy}, from {least}: forecast at most {:.2} % above measured", 100.0 * worst);
    }
}

/// Weights that are converted on their way to the device, streamed and resident; what is packed stays packed there.
#[test]
fn the_forecast_is_what_every_storage_type_takes() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("model");
    stored::wide(&folder);
    let mut job = short_job(dir.path());
    let mut weights = Vec::new();
    for storage in DType::ALL {
        let mut session = session_of(&folder, "auto-tune", &[]);
        job.asked.knobs.storage = vec![(String::new(), storage)];
        let least = smallest_budget(&session, &job);
        let tight = run(&mut session, &with_vram(&job, least));
        check_outcome(&format!("{storage} in {least}"), &tight, SLACK);
        let whole = run(&mut session, &job);
        check_outcome(&format!("{storage} in all there is"), &whole, SLACK);
        let matrices = whole.planned.job.blocks.iter().filter(|b| b.name.starts_with("transformer.blocks."));
        weights.push(matrices.map(|b| b.slab).max().unwrap().as_f64());
    }
    let packed = DType::ALL.into_iter().zip(weights).filter(|(dtype, _)| !dtype.is_plain());
    let bf16 = 2.0 * f64::from(12 * 256 * 256);
    for (dtype, slab) in packed {
        let bits = dtype.block_bytes() as f64 / dtype.block_elements() as f64;
        let share = slab / bf16;
        // Vectors stay plain: they are few.
        assert!(share > bits / 2.0 && share < bits / 2.0 + 0.07, "{dtype}: {share} of bf16");
    }
}

#[test]
fn a_plan_that_declares_too_little_is_stopped_before_it_takes_more() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let mut session = session("threshold");
    let job = short_job(dir.path());
    let good = run(&mut session, &job);
    for (stage, measured) in good.measured.stages.iter().enumerate() {
        let mut forged = good.planned.clone();
        let activations = &mut forged.plan.stages[stage].activations;
        *activations = Bytes(activations.0 - measured.device_peak.0 / 100);
        let slots = good.planned.forecast.stages[stage].peak - good.planned.plan.stages[stage].activations;
        let declared = slots + forged.plan.stages[stage].activations;
        // Earlier stages may rightly take more; the line is watched from when the forged stage begins.
        let mut begins = |progress: loadline::Progress<'_>| {
            if matches!(progress, loadline::Progress::StageStarts { stage, .. } if stage == measured.name) {
                reset_peak(Domain::Device);
            }
        };
        let result = session.run_planned(&job, forged, &AtomicBool::new(false), &mut begins);
        let class = result.err().map(|e| e.class());
        assert_eq!(class, Some(ErrorClass::BudgetExceeded), "stage {}", measured.name);
        let taken = peak(Domain::Device);
        assert!(taken <= declared, "stage {}: {taken} over {declared}", measured.name);
        check_outcome("after a forged plan", &run(&mut session, &job), SLACK);
    }
}

/// Nothing grows from the tenth job to the hundredth, and what a plan keeps is loaded once.
#[test]
fn a_hundred_jobs_leave_nothing_behind() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    for policy in ["lazy-load", "auto-tune"] {
        let mut session = session(policy);
        let mut job = short_job(dir.path());
        job.asked.request.size = Size { width: 32, height: 32 };
        (job.asked.request.frames, job.asked.request.steps) = (1, 1);
        job.output = ResultSink::Pictures(dir.path().join("out.png"));
        let mut tenth = None;
        for n in 1..=100 {
            let outcome = run(&mut session, &job);
            if n == 1 {
                continue;
            }
            for (stage, plan) in outcome.trace.stages.iter().zip(&outcome.planned.plan.stages) {
                let kept = plan.prologue.iter().filter(|l| plan.slots[l.slot as usize].keep).map(|l| l.block);
                let kept: Vec<_> = kept.collect();
                let again = stage.loads.iter().find(|l| kept.contains(&l.block));
                assert!(again.is_none(), "{policy}, job {n}: {again:?} was kept and is loaded again");
            }
            drop(outcome);
            let now = (live(Domain::Device), live(Domain::Host));
            if n == 10 {
                tenth = Some(now);
            }
            let Some((device, host)) = tenth else { continue };
            assert!(now.0 <= device, "{policy}, job {n}: {} device bytes, {} after ten", now.0.0, device.0);
            assert!(now.1 <= host + SLACK, "{policy}, job {n}: {} host bytes, {} after ten", now.1.0, host.0);
        }
    }
}

//! How right forecasts are: a corpus of runs on this machine against the forecasts of a profile.
//!
//! ```text
//! accuracy run PROFILE FOLDER          runs the corpus, writes FOLDER/runs.jsonl
//! accuracy calibrate PROFILE FOLDER    writes FOLDER/calibrated.json from the runs that are not held out
//! accuracy values PROFILE FOLDER       prints every stage of every run, for a spreadsheet
//! accuracy table PROFILE FOLDER        prints the table of errors
//! accuracy tasks PROFILE FOLDER        prints every task of every run, with the loads beside it
//! ```
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, clippy::disallowed_methods)]

#[path = "../../tests/support/mod.rs"]
mod support;

mod ballast;
mod cases;
mod models;
mod table;
mod tasks;

use std::alloc::System;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use loadline::core::{Bytes, Machine, Nanos, Plan, Request};
use loadline::memory::Counting;
use loadline::{Error, Model, Progress, Session, SessionOptions, policies, profiles};
use loadline_engine::Trace;
use serde::{Deserialize, Serialize};

use ballast::Ballast;
use cases::Case;

#[global_allocator]
static ALLOCATOR: Counting<System> = Counting(System);

/// Every third case runs so often, the others once: the spread of equal runs is the noise that no forecast can know.
const REPEATS: usize = 3;

/// What was measured in the runs of a case.
#[derive(Serialize, Deserialize)]
pub(crate) struct Ran {
    /// The case's index.
    pub case: usize,
    /// The request with its tokens counted.
    pub request: Request,
    /// The plan that ran, so that another profile can forecast the same one.
    pub plan: Plan,
    /// Every run's stages.
    pub runs: Vec<Vec<Stage>>,
    /// Every run's tasks and loads.
    pub traces: Vec<Trace>,
}

/// One stage of a run.
#[derive(Serialize, Deserialize)]
pub(crate) struct Stage {
    pub time: Nanos,
    pub stall: Nanos,
    pub peak: Bytes,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [mode, profile, folder] = args.as_slice() else {
        panic!("usage: run|calibrate|values|table|tasks PROFILE FOLDER")
    };
    let (profile, folder) = (Path::new(profile), Path::new(folder));
    match mode.as_str() {
        "run" => run(profile, folder),
        "tasks" => tasks::print(profile, folder),
        "values" => table::values(profile, folder),
        "calibrate" => table::calibrate(profile, folder),
        _ => table::print(profile, folder),
    }
}

/// The machine that the profile describes, with its files in the page cache, as a second run finds them.
pub(crate) fn machine(profile: &Path) -> Machine {
    let profile = profiles::find_or_open(profile.to_str().unwrap(), |path| std::fs::File::open(path)).unwrap();
    profile.to_machine().unwrap().with_cached_files()
}

pub(crate) fn runs(folder: &Path) -> Vec<Ran> {
    let text = std::fs::read_to_string(folder.join("runs.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) fn model_folder(folder: &Path, case: &Case) -> PathBuf {
    folder.join("models").join(case.width.name)
}

fn run(profile: &Path, folder: &Path) {
    std::fs::create_dir_all(folder.join("models")).unwrap();
    models::write(&folder.join("models"));
    let machine = machine(profile);
    let mut out = std::fs::File::create(folder.join("runs.jsonl")).unwrap();
    let cases = cases::all();
    for (index, case) in cases.iter().enumerate() {
        let mut session = session(&machine, &model_folder(folder, case), case);
        let job = budgeted(&session, &machine, case, folder);
        let planned = session.plan(&job).unwrap();
        let mut ran = Ran {
            case: index,
            request: planned.job.request.clone(),
            plan: planned.plan.clone(),
            runs: Vec::new(),
            traces: Vec::new(),
        };
        let repeats = if index % 3 == 0 { REPEATS } else { 1 };
        for _ in 0..repeats {
            read(&model_folder(folder, case));
            // A fresh session each time: nothing is kept from the run before.
            session = self::session(&machine, &model_folder(folder, case), case);
            let mut ballast = Ballast::of(&planned.forecast);
            let mut progress = |progress: Progress<'_>| {
                if let Progress::StageStarts { stage, .. } = progress {
                    ballast.stage_starts(stage);
                }
            };
            let outcome = session.run(&job, &AtomicBool::new(false), &mut progress).unwrap_or_else(|e| panic!("{e}"));
            let stages = outcome.measured.stages.iter();
            ran.runs.push(stages.map(|s| Stage { time: s.time, stall: s.stall, peak: s.device_peak }).collect());
            ran.traces.push(outcome.trace);
        }
        let total = ran.runs.last().unwrap().iter().map(|s| s.time.as_f64()).sum::<f64>() / 1e9;
        eprintln!("{index:3} of {}: {} {total:.2} s", cases.len(), case.name());
        writeln!(out, "{}", serde_json::to_string(&ran).unwrap()).unwrap();
    }
}

/// Reads every file below a folder: one that was not read for some minutes may have left the page cache.
fn read(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.path().is_dir() {
            read(&entry.path());
        } else {
            std::io::copy(&mut std::fs::File::open(entry.path()).unwrap(), &mut std::io::sink()).unwrap();
        }
    }
}

pub(crate) fn session(machine: &Machine, folder: &Path, case: &Case) -> Session {
    let policy = policies::load(case.policy).unwrap();
    let settings = policies::settings(&policy, &[]).unwrap();
    let model = Model::open(folder.to_str().unwrap()).unwrap();
    Session::new(SessionOptions { record: true, ..SessionOptions::new(model, policy, settings, machine.clone()) })
        .unwrap()
}

/// The job within its share of what lies between the smallest budget and all resident.
pub(crate) fn budgeted(session: &Session, machine: &Machine, case: &Case, folder: &Path) -> loadline::JobSpec {
    let mut job = case.job(folder);
    if case.budget >= 1.0 {
        return job;
    }
    job.asked.vram = Some(Bytes(machine.device.granularity));
    let least = match session.plan(&job) {
        Err(Error::NeverFits(certificate)) => certificate.min_budget_bytes.unwrap(),
        other => panic!("{:?}", other.err()),
    };
    job.asked.vram = None;
    let whole = session.plan(&job).unwrap();
    let slabs: Bytes = whole.job.blocks.iter().map(|b| b.slab).sum();
    let most = (whole.forecast.device_peak() + slabs).max(least);
    let between = (most.0 - least.0) as f64 * case.budget;
    job.asked.vram = Some(Bytes(least.0 + between as u64).round_up(machine.device.granularity));
    job
}

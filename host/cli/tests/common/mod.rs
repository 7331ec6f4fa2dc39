//! What the tests of bad input and of interrupted runs share.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};

use loadline::core::{Bytes, Cfg, Nanos, Size};
use loadline::{
    Asked, Error, JobSpec, KnobChoice, Model, Progress, ResultSink, Session, SessionOptions, policies, profiles,
};

pub fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/wan_t2v/model")
}

/// A command that sees no GPU, which would give other numbers, and that shows no runs to the person who tests.
pub fn apart(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("CUDA_VISIBLE_DEVICES", "-1").env("LOADLINE_RUNTIME", "off");
    command
}

pub fn loadline(dir: &Path, args: &str) -> Output {
    apart(env!("CARGO_BIN_EXE_loadline")).current_dir(dir).args(args.split_whitespace()).output().unwrap()
}

/// The same where no file may become longer than `blocks` of 512 bytes: a disk that is full, for each file.
pub fn cramped(dir: &Path, blocks: u32, args: &str) -> Output {
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec {} {args}", env!("CARGO_BIN_EXE_loadline"));
    apart("sh").current_dir(dir).args(["-c", &script]).output().unwrap()
}

/// A short run of the fixture, or of a copy of it.
pub fn run_args(model: &Path, rest: &str) -> String {
    format!("run {} --prompt cat --steps 2 --size 64x48 {rest}", model.display())
}

/// The exit code is `code`, the message holds every part of `texts`, nothing panicked.
pub fn expect(out: &Output, code: i32, texts: &[&str]) {
    let message = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(code), "{texts:?}: {message}");
    for text in texts {
        assert!(message.contains(text), "no '{text}' in: {message}");
    }
    assert!(!message.contains("panicked"), "{message}");
}

pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Every file under a folder with what it holds, by its path in it.
pub fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).into_iter().flatten().map(Result::unwrap) {
        let name = PathBuf::from(entry.file_name());
        if entry.path().is_dir() {
            found.extend(files(&entry.path()).into_iter().map(|(path, bytes)| (name.join(path), bytes)));
        } else {
            found.insert(name, fs::read(entry.path()).unwrap());
        }
    }
    found
}

/// The names in a folder.
pub fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// The job of [`run_args`] in this process, where a run can be stopped at any moment.
pub fn job(output: &Path, dump: bool, frames: u32, tile: Option<Size>) -> JobSpec {
    let model = Model::open(fixture().to_str().unwrap()).unwrap();
    let mut request = model.default_request().unwrap();
    (request.size, request.frames, request.steps) = (Size { width: 64, height: 48 }, frames, 2);
    let overlap = tile.map(|_| 16);
    JobSpec {
        prompt: "cat".into(),
        negative_prompt: String::new(),
        asked: Asked {
            // What a policy chooses depends on forecasts, and the number of passes on what it chooses.
            knobs: KnobChoice { tile, tile_overlap: overlap, cfg: Some(Cfg::Pair), ..KnobChoice::default() },
            ram: Some(Bytes::gib(4)),
            ..Asked::new(request)
        },
        seed: 0,
        latents: None,
        output: ResultSink::from_path(output).unwrap(),
        dump: dump.then(|| output.with_extension("st")),
        resume: false,
        more_to_come: false,
    }
}

/// Runs a job; `at` sees every pass that ends, from 1, and asks the run to stop at the next safe point.
pub fn run_until(job: &JobSpec, at: &mut dyn FnMut(usize) -> bool) -> Result<(), Error> {
    let mut passes = 0;
    run_watched(job, &mut |event, stop| {
        if matches!(event, Progress::Task { task, of, .. } if task + 1 == of) {
            passes += 1;
            stop.fetch_or(at(passes), Ordering::Relaxed);
        }
    })
}

/// Runs a job; `watch` sees everything that happens, and what makes the run stop at the next safe point.
pub fn run_watched(job: &JobSpec, watch: &mut dyn FnMut(Progress<'_>, &AtomicBool)) -> Result<(), Error> {
    let model = Model::open(fixture().to_str().unwrap()).unwrap();
    let policy = policies::load("auto-tune").unwrap();
    let settings = policies::settings(&policy, &[]).unwrap();
    let mut machine = profiles::find("cpu").unwrap().to_machine().unwrap();
    loadline::use_local_kernels(&mut machine);
    let options = SessionOptions::new(model, policy, settings, machine);
    // What is saved now and then is seen being saved.
    let mut session = Session::new(SessionOptions { save_after: Nanos::ZERO, ..options }).unwrap();
    let stop = AtomicBool::new(false);
    session.run(job, &stop, &mut |event| watch(event, &stop)).map(drop)
}

/// Leaves the checkpoint of the `n`-th pass's end, or the next safe point after it; false if the run came to its end.
pub fn interrupted_at(job: &JobSpec, n: usize) -> bool {
    match run_until(job, &mut |pass| pass == n) {
        Ok(()) => false,
        Err(Error::Interrupted(_)) => true,
        Err(other) => panic!("{other}"),
    }
}

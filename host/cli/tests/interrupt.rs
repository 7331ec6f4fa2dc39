//! Runs that end before their time go on to the same bytes, wherever they ended; and what two runs do to each other.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use loadline::Progress;
use loadline::core::Size;

mod common;
use common::{copy, expect, files, fixture, interrupted_at, job, loadline, names, run_args, run_watched};

const TILE: Size = Size { width: 48, height: 48 };

/// A whole video and one in tiles: flags, frames, tile, and the safe points before the last: two prompts, two steps and
/// three chunks; or two prompts, two steps and four tiles of two chunks.
const VIDEOS: [(&str, u32, Option<Size>, usize); 2] =
    [("--frames 9", 9, None, 6), ("--frames 5 --tile 48x48 --tile-overlap 16", 5, Some(TILE), 11)];

/// The result and the dump of a run that nothing stopped.
fn whole(flags: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    expect(&loadline(dir.path(), &run_args(&fixture(), &format!("{flags} -o x.mp4 --dump-tensors x.st"))), 0, &[]);
    files(dir.path())
}

/// Going on in this folder gives what an uninterrupted run gives, and leaves no checkpoint.
fn goes_on(dir: &Path, flags: &str, whole: &BTreeMap<PathBuf, Vec<u8>>, when: &str) {
    let flags = format!("{flags} -o x.mp4 --dump-tensors x.st --resume");
    expect(&loadline(dir, &run_args(&fixture(), &flags)), 0, &[]);
    assert!(files(dir) == *whole, "{when}: the results differ, or something is left: {:?}", names(dir));
}

#[test]
fn stopped_at_any_safe_point_a_run_goes_on_to_the_same_bytes() {
    for (flags, frames, tile, safe_points) in VIDEOS {
        let whole = whole(flags);
        let mut stops = 0;
        for n in 1.. {
            let dir = tempfile::tempdir().unwrap();
            if !interrupted_at(&job(&dir.path().join("x.mp4"), true, frames, tile), n) {
                assert!(files(dir.path()) == whole, "in one process the results differ");
                break;
            }
            goes_on(dir.path(), flags, &whole, &format!("{flags}, stopped at pass {n}"));
            stops += 1;
        }
        assert_eq!(stops, safe_points, "{flags}");
    }
}

/// What a run leaves if it is killed after each of its passes.
fn remains(frames: u32, tile: Option<Size>) -> Vec<BTreeMap<PathBuf, Vec<u8>>> {
    let dir = tempfile::tempdir().unwrap();
    let mut seen: Vec<BTreeMap<PathBuf, Vec<u8>>> = Vec::new();
    let folder = dir.path().join("x.mp4.checkpoint");
    let mut look = |event: Progress<'_>, _: &_| {
        if seen.is_empty() || matches!(event, Progress::Saved) {
            seen.push(files(&folder));
        }
    };
    run_watched(&job(&dir.path().join("x.mp4"), true, frames, tile), &mut look).unwrap();
    seen
}

#[test]
fn killed_at_any_moment_a_run_goes_on_to_the_same_bytes() {
    for (flags, frames, tile, safe_points) in VIDEOS {
        let whole = whole(flags);
        let moments = remains(frames, tile);
        // Nothing yet, and every safe point.
        assert_eq!(moments.len(), 1 + safe_points, "{flags}");
        let goes_on_from = |files: &BTreeMap<PathBuf, Vec<u8>>, when: &str| {
            let dir = tempfile::tempdir().unwrap();
            for (name, bytes) in files {
                let path = dir.path().join("x.mp4.checkpoint").join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, bytes).unwrap();
            }
            goes_on(dir.path(), flags, &whole, &format!("{flags}, killed {when}"));
        };
        for (n, files) in moments.iter().enumerate() {
            goes_on_from(files, &format!("after moment {n}"));
        }
        // A safe point writes its tensors and frames first and its state last: killed in between, the state is the old
        // one, and the frames may have come half.
        for (n, pair) in moments.windows(2).enumerate() {
            let state = Path::new("state.safetensors");
            let mut between = pair[1].clone();
            match pair[0].get(state) {
                Some(old) => between.insert(state.to_owned(), old.clone()),
                None => between.remove(state),
            };
            between.insert(".state.safetensors.0.partial".into(), pair[1][state][..100].to_vec());
            goes_on_from(&between, &format!("before the state of moment {}", n + 1));
            if let Some(frames) = between.get_mut(Path::new("frames.f32")) {
                let had = pair[0].get(Path::new("frames.f32")).map_or(0, Vec::len);
                frames.truncate(had + (frames.len() - had) / 2 + 1);
                goes_on_from(&between, &format!("while the frames of moment {} were written", n + 1));
            }
        }
    }
}

#[test]
fn two_runs_of_one_result_do_not_meet() {
    let dir = tempfile::tempdir().unwrap();
    let args = run_args(&fixture(), "--frames 1 -o x.mp4");
    let folder = dir.path().join("x.mp4.checkpoint");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("state.safetensors"), "of the first").unwrap();
    let lock = fs::File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    for flags in ["", " --resume", " --seed 3"] {
        expect(
            &loadline(dir.path(), &format!("{args}{flags}")),
            10,
            &["x.mp4.checkpoint", "another run", "name another"],
        );
    }
    assert_eq!(fs::read(folder.join("state.safetensors")).unwrap(), b"of the first");
    assert_eq!(names(dir.path()), ["x.mp4.checkpoint"]);
    // A process that was killed has let go of its lock, whatever file it left.
    drop(lock);
    expect(&loadline(dir.path(), &args), 0, &[]);
    assert_eq!(names(dir.path()), ["x.mp4"]);
}

#[test]
fn what_killed_writers_left_is_never_part_of_a_result() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join(".x.0.partial")).unwrap();
    fs::write(dir.path().join(".x.0.partial/frame_0009.png"), "half").unwrap();
    fs::write(dir.path().join(".x.st.0.partial"), "half").unwrap();
    fs::create_dir(dir.path().join("x")).unwrap();
    expect(&loadline(dir.path(), &run_args(&fixture(), "--frames 5 -o x --dump-tensors x.st")), 0, &[]);
    assert_eq!(names(dir.path()), ["x", "x.st"]);
    assert_eq!(names(&dir.path().join("x")).len(), 5);
    expect(&loadline(dir.path(), &run_args(&fixture(), "--frames 5 -o x")), 10, &["frame_0001.png", "a new folder"]);
    fs::create_dir(dir.path().join("y")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("y"), dir.path().join("z")).unwrap();
    expect(&loadline(dir.path(), &run_args(&fixture(), "--frames 5 -o z")), 10, &["this is a link"]);
}

fn job_lines(dir: &Path, lines: &[&str]) {
    fs::write(dir.join("jobs.jsonl"), lines.join("\n")).unwrap();
}

#[test]
fn every_job_is_checked_and_planned_before_the_first_runs() {
    let good: Vec<String> = (1..7).map(|n| format!("{{\"output\":\"{n}.mp4\"}}")).collect();
    for (seventh, code, text) in [
        ("{\"output\":\"7.mp4\",\"size\":\"63x48\"}", 2, "--size 64x48"),
        ("{\"output\":\"7.mp4\",\"frames\":0}", 2, "--frames 1"),
        ("{\"output\":\"7.mp4\",\"size\":\"640x480\"}", 3, "smallest budget that works"),
        ("{\"output\":\"7.mp4\",\"size\":\"4096x4096\"}", 2, "write a frame folder instead"),
        ("{\"output\":\"nowhere/7.mp4\"}", 10, "there is no folder nowhere"),
        ("{\"output\":\"7.mp4\",\"dump_tensors\":\"./3.mp4\"}", 2, "an earlier job writes this file too"),
        ("{\"output\":\"./1.mp4\"}", 2, "an earlier job writes this file too"),
        ("{\"output\":\"7.mp4\",\"guidance\":1e308}", 2, "0 to 100"),
        ("{\"output\":\"7.mp4\",\"seed\":-1}", 2, "'seed' is -1"),
        ("{\"output\":7}", 2, "'output' is 7"),
        ("{\"output\"", 2, "not valid JSON"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut lines: Vec<&str> = good.iter().map(String::as_str).collect();
        lines.push(seventh);
        job_lines(dir.path(), &lines);
        let out = loadline(dir.path(), &run_args(&fixture(), "--frames 5 --vram 8MiB --jobs jobs.jsonl"));
        expect(&out, code, &["jobs.jsonl", "line 7", text]);
        assert_eq!(names(dir.path()), ["jobs.jsonl"], "{seventh}");
    }
    let dir = tempfile::tempdir().unwrap();
    for flag in ["-o x.mp4", "--trace t.json", "--dump-tensors d.st"] {
        job_lines(dir.path(), &[&good[0]]);
        let out = loadline(dir.path(), &run_args(&fixture(), &format!("--jobs jobs.jsonl {flag}")));
        expect(&out, 2, &["cannot be used with", "--jobs"]);
    }
}

/// Starts jobs and ends them by a signal when the first is done.
fn cut_after_the_first(dir: &Path, args: &str, signal: &str) {
    let mut command = common::apart(env!("CARGO_BIN_EXE_loadline"));
    command.current_dir(dir).args(args.split_whitespace()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let begun = Instant::now();
    let second = dir.join("2.mp4.checkpoint/state.safetensors");
    while !second.exists() && begun.elapsed() < Duration::from_secs(60) {
        assert!(child.try_wait().unwrap().is_none(), "the jobs ended too soon");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
    assert!(!child.wait().unwrap().success());
}

#[test]
fn a_list_of_jobs_goes_on_where_it_stopped() {
    let lines = [
        "{\"output\":\"1.mp4\",\"seed\":1}",
        "{\"output\":\"2.mp4\",\"seed\":2,\"steps\":100}",
        "{\"output\":\"3\",\"seed\":3}",
    ];
    let args = run_args(&fixture(), "--frames 5 --jobs jobs.jsonl");
    let whole = tempfile::tempdir().unwrap();
    job_lines(whole.path(), &lines);
    expect(&loadline(whole.path(), &args), 0, &["job 3 of 3"]);
    assert_eq!(names(whole.path()), ["1.mp4", "2.mp4", "3", "jobs.jsonl"]);
    for signal in ["-INT", "-KILL"] {
        let dir = tempfile::tempdir().unwrap();
        job_lines(dir.path(), &lines);
        cut_after_the_first(dir.path(), &args, signal);
        let first = fs::metadata(dir.path().join("1.mp4")).unwrap().modified().unwrap();
        let other = loadline(dir.path(), &format!("{args} --resume --guidance 3"));
        expect(&other, 10, &["jobs.jsonl.done", "begun by another command"]);
        let record = fs::read(dir.path().join("jobs.jsonl.done")).unwrap();
        fs::rename(dir.path().join("jobs.jsonl"), dir.path().join("whole.jsonl")).unwrap();
        job_lines(dir.path(), &[lines[0], "{\"output\":\"4.mp4\",\"frames\":0}"]);
        expect(&loadline(dir.path(), &args), 2, &["line 2"]);
        fs::rename(dir.path().join("whole.jsonl"), dir.path().join("jobs.jsonl")).unwrap();
        assert_eq!(fs::read(dir.path().join("jobs.jsonl.done")).unwrap(), record, "a refused run changed the record");
        let out = loadline(dir.path(), &format!("{args} --resume"));
        expect(&out, 0, &["1 of 3 jobs are done already", "job 2 of 3", "job 3 of 3"]);
        assert_eq!(fs::metadata(dir.path().join("1.mp4")).unwrap().modified().unwrap(), first, "{signal}: made again");
        assert!(files(dir.path()) == files(whole.path()), "{signal}: {:?}", names(dir.path()));
    }
}

#[test]
fn what_ran_before_is_in_no_comparison() {
    let dir = tempfile::tempdir().unwrap();
    // Two prompts and one of two steps.
    assert!(interrupted_at(&job(&dir.path().join("x.mp4"), false, 9, None), 3));
    let out = loadline(dir.path(), &run_args(&fixture(), "--frames 9 -o x.mp4 --resume"));
    expect(&out, 0, &[]);
    let text = String::from_utf8(out.stdout).unwrap();
    let row = |name: &str| {
        let line = text.lines().find(|line| line.trim_start().starts_with(name));
        line.unwrap_or_else(|| panic!("no {name} in: {text}")).to_owned()
    };
    assert!(!text.contains("text-encode") && text.contains("only what ran since the checkpoint"), "{text}");
    for (name, percentages) in [("denoise", 1), ("vae-decode", 2), ("all", 1)] {
        assert_eq!(row(name).matches('%').count(), percentages, "{text}");
    }
}

#[test]
fn a_copied_checkpoint_goes_on_elsewhere() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert!(interrupted_at(&job(&dir.path().join("x.mp4"), true, 9, None), 5));
    copy(&dir.path().join("x.mp4.checkpoint"), &other.path().join("x.mp4.checkpoint"));
    let whole = whole("--frames 9");
    goes_on(other.path(), "--frames 9 --policy lazy-load --vram 8MiB", &whole, "elsewhere, under another policy");
}

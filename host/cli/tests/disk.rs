//! How weights come from the disk, as scripts see it: flags, exit codes, messages, and what stays when it goes wrong.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

mod common;
use common::{cramped, expect, fixture, loadline, names, run_args};

const ARGS: &str = "--frames 5 -o x.mp4";

fn video(dir: &Path) -> Vec<u8> {
    fs::read(dir.join("x.mp4")).unwrap()
}

/// What a run without any flag gives.
fn plain() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    expect(&loadline(dir.path(), &run_args(&fixture(), ARGS)), 0, &["weights: "]);
    video(dir.path())
}

fn says(out: &Output, text: &str) -> usize {
    String::from_utf8_lossy(&out.stderr).matches(text).count()
}

#[test]
fn every_flag_gives_the_same_video_and_a_refusal_is_said_once() {
    let plain = plain();
    let check = |flags: &str, texts: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        let out = loadline(dir.path(), &run_args(&fixture(), &format!("{ARGS} {flags}")));
        expect(&out, 0, texts);
        texts.iter().for_each(|text| assert_eq!(says(&out, text), 1, "{flags}: {text}"));
        assert!(video(dir.path()) == plain, "{flags}");
    };
    let threads = "weights: O_DIRECT and threads, 4 in flight";
    let cache = "weights: reads through the page cache, ";
    let refused = "transformer/diffusion_pytorch_model-00001-of-00003.safetensors: O_DIRECT is refused";
    check("--disk-reads direct", &[threads]);
    check("--disk-reads direct --disk-depth 1", &["weights: O_DIRECT and threads, 1 in flight"]);
    check("--disk-reads buffered", &[cache]);
    check("--disk-reads uring --disk-refuses uring", &[threads, "io_uring is refused (permission denied); "]);
    check("--disk-reads uring --disk-refuses uring,direct", &[cache, refused, "more like that"]);
}

#[test]
fn wrong_flags_say_what_there_is() {
    let dir = tempfile::tempdir().unwrap();
    for (flags, text) in [
        ("--disk-reads mmap", "use auto, uring, direct or buffered"),
        ("--disk-depth 0", "1..=8"),
        ("--disk-depth 9", "1..=8"),
    ] {
        expect(&loadline(dir.path(), &run_args(&fixture(), flags)), 2, &[text]);
    }
    expect(&loadline(dir.path(), &run_args(&fixture(), "--ram 1MiB")), 3, &["raise --ram"]);
}

#[test]
fn scripts_and_traces_hear_how_weights_were_read() {
    let dir = tempfile::tempdir().unwrap();
    let flags = format!("{ARGS} --disk-reads direct --json --trace t.json");
    let out = loadline(dir.path(), &run_args(&fixture(), &flags));
    expect(&out, 0, &[]);
    let told: Value = serde_json::from_slice(&out.stdout).unwrap();
    let disk = &told["measured"]["disk"];
    assert!(disk["reads"] == "direct" && disk["in_flight"] == 4 && disk["bytes"].as_u64().unwrap() > 1 << 20, "{disk}");
    let trace: Value = serde_json::from_slice(&fs::read(dir.path().join("t.json")).unwrap()).unwrap();
    assert_eq!(trace["otherData"]["disk"], *disk);
}

#[test]
fn a_read_error_has_its_own_exit_code_and_keeps_the_checkpoint() {
    let plain = plain();
    let dir = tempfile::tempdir().unwrap();
    let args = run_args(&fixture(), ARGS);
    let out = loadline(dir.path(), &format!("{args} --inject read-error@denoise"));
    expect(&out, 14, &["x.mp4.checkpoint", "--resume to go on"]);
    assert_eq!(names(dir.path()), ["x.mp4.checkpoint"]);
    expect(&loadline(dir.path(), &format!("{args} --resume")), 0, &[]);
    assert!(video(dir.path()) == plain);
}

#[test]
fn a_copy_of_the_weights_is_made_once_even_where_the_disk_was_full() {
    let plain = plain();
    let dir = tempfile::tempdir().unwrap();
    let args = run_args(&fixture(), &format!("{ARGS} --offload-folder copies"));
    expect(
        &cramped(dir.path(), 1000, &args),
        10,
        &["copies/", "free some space", "the same command goes on from there"],
    );
    assert!(!dir.path().join("x.mp4").exists());
    let out = loadline(dir.path(), &args);
    expect(&out, 0, &["packing ", "weights are packed in copies/"]);
    assert!(video(dir.path()) == plain);
    let kept = names(&dir.path().join("copies"));
    assert!(kept.len() == 2 && kept[0].ends_with(".json") && kept[1].ends_with(".pack"), "{kept:?}");
    fs::remove_file(dir.path().join("x.mp4")).unwrap();
    let out = loadline(dir.path(), &args);
    expect(&out, 0, &[]);
    assert!(says(&out, "packing") == 0 && video(dir.path()) == plain);
    assert_eq!(names(&dir.path().join("copies")), kept);
    // A folder that cannot be one.
    fs::write(dir.path().join("file"), "").unwrap();
    let args = run_args(&fixture(), &format!("{ARGS} --offload-folder file"));
    expect(&loadline(dir.path(), &args), 10, &["file", "something else has this name"]);
}

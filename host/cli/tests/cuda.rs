//! GPUs that cannot be used, that are lost, or that others fill: what the program says, with which exit code, and what
//! it keeps. A driver in host memory lies where the loader finds it before any real one.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use common::{expect, fixture, names};
use loadline_cuda_mock::emulation;

/// A folder in which the driver has the name that programs look for.
fn driver() -> &'static Path {
    static PLACED: OnceLock<PathBuf> = OnceLock::new();
    PLACED.get_or_init(|| {
        let built = Path::new(env!("CARGO_BIN_EXE_loadline")).with_file_name("deps/libloadline_cuda_mock.so");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("driver-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let place = folder.join("libcuda.so.1");
        let _ = std::fs::remove_file(&place);
        std::os::unix::fs::symlink(&built, place).unwrap();
        assert!(built.is_file(), "{} was not built", built.display());
        folder
    })
}

fn kernels() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| emulation(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap_or_else(|why| panic!("{why}")))
}

/// The program on a machine with a driver as `settings` say: pairs of `CUDA_MOCK_...` and a value.
fn loadline(dir: &Path, settings: &[(&str, &str)], args: &str) -> Output {
    command(dir, settings, args).output().unwrap()
}

/// The same with kernels that compute.
fn computing(dir: &Path, settings: &[(&str, &str)], args: &str) -> Output {
    command(dir, settings, args).env("CUDA_MOCK_EMULATION", kernels()).output().unwrap()
}

fn command(dir: &Path, settings: &[(&str, &str)], args: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadline"));
    command.current_dir(dir).args(args.split_whitespace());
    command.env("LD_LIBRARY_PATH", driver()).env("LOADLINE_RUNTIME", "off");
    command.envs(settings.iter().map(|(name, value)| (format!("CUDA_MOCK_{name}"), *value)));
    command
}

/// A short run of the fixture that shows frames as pictures.
fn run_args(rest: &str) -> String {
    let model = fixture();
    format!("run {} --prompt cat --steps 2 --frames 5 --size 64x48 --gpu rtx-4090 --ram 4GiB {rest}", model.display())
}

fn stderr(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// The whole machine is there, and nothing is said of the processor.
#[test]
#[ignore = "takes minutes and a C++ compiler: cargo xtask cuda-check"]
fn one_program_runs_on_a_gpu_and_without_a_driver() {
    let dir = tempfile::tempdir().unwrap();
    let on_gpu = computing(dir.path(), &[], &run_args("--device cuda --json -o gpu.mp4"));
    expect(&on_gpu, 0, &[]);
    assert!(!stderr(&on_gpu).contains("processor"), "{}", stderr(&on_gpu));
    let value: serde_json::Value = serde_json::from_slice(&on_gpu.stdout).unwrap();
    let peak = value["measured"]["stages"].as_array().unwrap().iter().map(|s| s["device_peak_bytes"].as_u64().unwrap());
    assert!(peak.max().unwrap() > 1 << 20, "{value:#}");
    // The same program where the loader finds no driver.
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadline"));
    let args = format!("run {} --prompt cat --steps 1 --frames 1 --size 32x32 -o cpu.mp4", fixture().display());
    command.current_dir(dir.path()).args(args.split_whitespace()).env("LD_LIBRARY_PATH", dir.path());
    let without = command.env("CUDA_VISIBLE_DEVICES", "-1").env("LOADLINE_RUNTIME", "off").output().unwrap();
    expect(&without, 0, &["running on the processor"]);
    let told = stderr(&without);
    let lines = told.lines().filter(|line| line.contains("driver") || line.contains("GPU")).count();
    assert_eq!(lines, 1, "{told}");
}

/// A GPU that was asked for and cannot be used is exit code 16, in one line that says what to do.
#[test]
fn a_gpu_that_cannot_be_used_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let check = |settings: &[(&str, &str)], args: &str, code: i32, texts: &[&str]| {
        let out = loadline(dir.path(), settings, &run_args(&format!("{args} -o out.mp4")));
        expect(&out, code, texts);
        assert_eq!(names(dir.path()), [""; 0], "{args} leaves something behind");
    };
    check(&[("VERSION", "11080")], "--device cuda", 16, &["CUDA 11.8", "12.2 is needed", "535"]);
    check(&[("CAPABILITY", "75")], "--device cuda", 16, &["Mock GPU 0", "7.5", "8.0"]);
    check(&[("GPUS", "0")], "--device cuda", 16, &["no GPU", "--device cpu"]);
    check(&[("GPUS", "2")], "--device cuda:2", 16, &["there is no GPU 2", "0 is Mock GPU 0, 1 is Mock GPU 1"]);
    check(&[("GPUS", "2")], "--device cuda:1 --gpu-index 0", 2, &["name two GPUs"]);
    check(&[], "--device cpu --gpu-index 0", 2, &["--device cpu none"]);
    // Something else has nearly all of the card.
    let full = [("MEMORY", "1073741824"), ("OTHERS", "1000000000")];
    check(&full, "--device cuda --vram 900MiB", 2, &["Mock GPU 0 has", "used by others"]);
}

/// Of two GPUs one is taken, and it says which, unless somebody chooses.
#[test]
#[ignore = "takes minutes and a C++ compiler: cargo xtask cuda-check"]
fn of_two_gpus_the_one_is_named_that_runs() {
    let dir = tempfile::tempdir().unwrap();
    let default = computing(dir.path(), &[("GPUS", "2")], &run_args("--device cuda -o a.mp4"));
    expect(&default, 0, &["running on GPU 0, Mock GPU 0", "--gpu-index", "1 is Mock GPU 1"]);
    let chosen = computing(dir.path(), &[("GPUS", "2")], &run_args("--gpu-index 1 -o b.mp4"));
    expect(&chosen, 0, &[]);
    assert!(!stderr(&chosen).contains("Mock GPU 0"), "{}", stderr(&chosen));
    assert!(std::fs::read(dir.path().join("a.mp4")).unwrap() == std::fs::read(dir.path().join("b.mp4")).unwrap());
}

/// A system that locks no host memory, and a budget of zero for it, are slower and no error.
#[test]
#[ignore = "takes minutes and a C++ compiler: cargo xtask cuda-check"]
fn without_locked_memory_the_result_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    expect(&computing(dir.path(), &[], &run_args("--device cuda -o a.mp4")), 0, &[]);
    expect(&computing(dir.path(), &[("PINNED", "0")], &run_args("--device cuda -o b.mp4")), 0, &[]);
    assert!(std::fs::read(dir.path().join("a.mp4")).unwrap() == std::fs::read(dir.path().join("b.mp4")).unwrap());
}

/// A GPU that is lost mid-run is exit code 15 with the checkpoint kept; going on gives the same file.
#[test]
#[ignore = "takes minutes and a C++ compiler: cargo xtask cuda-check"]
fn a_gpu_that_is_lost_leaves_a_checkpoint_to_go_on_from() {
    let dir = tempfile::tempdir().unwrap();
    expect(&computing(dir.path(), &[], &run_args("--device cuda -o whole.mp4")), 0, &[]);
    let lost = computing(dir.path(), &[("FAULT", "cuLaunchKernel:150:719")], &run_args("--device cuda -o out.mp4"));
    expect(&lost, 15, &["CUDA_ERROR_LAUNCH_FAILED", "--resume"]);
    assert!(!dir.path().join("out.mp4").exists());
    let again = computing(dir.path(), &[], &run_args("--device cuda --resume -o out.mp4"));
    expect(&again, 0, &[]);
    assert!(std::fs::read(dir.path().join("out.mp4")).unwrap() == std::fs::read(dir.path().join("whole.mp4")).unwrap());
    assert_eq!(names(dir.path()), ["out.mp4", "whole.mp4"]);
}

/// A budget that the card does not have beside what others use is refused before anything is taken.
#[test]
fn a_card_that_others_fill_is_told_with_what_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let settings = [("MEMORY", "1073741824"), ("OTHERS", "500000000")];
    let out = loadline(dir.path(), &settings, &run_args("--device cuda --vram 900MiB -o out.mp4"));
    expect(&out, 2, &["--vram 900 MiB is more than Mock GPU 0 has", "477 MiB used by others"]);
}

/// What a recording measures on a card that computes nothing cannot be true: it is refused, and kept to be looked at.
#[test]
#[ignore = "takes minutes and a C++ compiler: cargo xtask cuda-check"]
fn a_recording_that_cannot_be_true_is_kept_beside() {
    let dir = tempfile::tempdir().unwrap();
    let out = loadline(dir.path(), &[], "profile record --device cuda --quick -o card.json");
    expect(&out, 5, &["cannot be true", "card.json.refused", "record again"]);
    assert_eq!(names(dir.path()), ["card.json.refused"]);
    let text = std::fs::read_to_string(dir.path().join("card.json.refused")).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["device"]["name"], "Mock GPU 0");
    assert_eq!(value["device"]["fixed_overhead_bytes"]["p50"], 209_715_200.0);
    for part in ["h2d_pinned", "h2d_pageable", "d2h"] {
        assert!(value["link"][part]["points"].as_array().unwrap().len() >= 5, "{part}: {}", value["link"]);
    }
}

#[test]
#[ignore = "takes minutes and a C++ compiler: cargo xtask cuda-check"]
fn the_doctor_tries_a_gpu() {
    let dir = tempfile::tempdir().unwrap();
    let out = computing(dir.path(), &[], "doctor --exercise --no-measure --json");
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let tried: Vec<_> = report["findings"].as_array().unwrap().iter().filter(|f| f["check"] == "exercise").collect();
    assert_eq!(tried.len(), 4, "{report:#}");
    assert!(tried.iter().all(|finding| finding["severity"] == "ok"), "{tried:#?}");
    expect(&loadline(dir.path(), &[("GPUS", "0")], "doctor --exercise --no-measure"), 16, &["no GPU"]);
}

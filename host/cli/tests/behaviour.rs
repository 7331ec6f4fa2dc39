//! What scripts may rely on: exit codes, JSON, files, and going on after any end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/wan_t2v")
}

fn loadline(dir: &Path, args: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadline"));
    // No GPU, which would give other numbers, and no runs that the person who tests would see.
    command.env("CUDA_VISIBLE_DEVICES", "-1").env("LOADLINE_RUNTIME", "off");
    command.current_dir(dir).args(args.split_whitespace());
    command
}

fn run_args(rest: &str) -> String {
    let model = fixture().join("model");
    format!("run {} --prompt cat --frames 9 --steps 4 --size 64x48 {rest}", model.display())
}

fn output(dir: &Path, args: &str) -> Output {
    loadline(dir, args).output().unwrap()
}

/// The exit code is `code`, the message holds `text`, nothing panicked.
fn check(dir: &Path, args: &str, code: i32, text: &str) {
    let out = output(dir, args);
    let message = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(code), "{args}: {message}");
    assert!(message.contains(text), "{args}: {message}");
    assert!(!message.contains("panicked"), "{args}: {message}");
}

fn json(out: &Output) -> Value {
    serde_json::from_slice(&out.stdout).unwrap()
}

const PLAN: &str = "plan wan2.1-t2v-14b --gpu rtx-3060-12gb";

#[test]
fn errors_exit_by_class_with_a_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        ("--size 63x48", 2, "the nearest is --size 64x48"),
        ("--size 0x0", 2, "WIDTHxHEIGHT"),
        ("--size 2147483648x2147483648", 2, "16384x16384"),
        ("--size 9223372036854775808x48", 2, "is not a size"),
        ("--frames 80", 2, "--frames 77 and --frames 81"),
        ("--frames 0", 2, "--frames 1"),
        ("--frames 4294967295", 2, "4093"),
        ("--steps 0", 2, "1 to 1000"),
        ("--steps 1000000000", 2, "1 to 1000"),
        ("--guidance=NaN", 2, "0 to 100"),
        ("--guidance=-1", 2, "0 to 100"),
        ("--vram 9223372036854775808", 2, "is more than"),
        ("--used-by-others 13GiB", 2, "--used-by-others 13.0 GiB is more than"),
        ("--vram 0", 3, "smallest budget that works"),
        ("--vram 1B", 3, "smallest budget that works"),
        ("--policy auto-tun", 6, "use one of auto-tune"),
        ("--policy .", 6, "no ordinary file"),
        ("--set nonsense=1", 6, "there is no setting 'nonsense'"),
        ("--policy manual-swap --set blocks_to_swap=NaN", 6, "whole number from -1"),
        ("--trace nowhere/t.json", 10, "nowhere/t.json"),
    ];
    for (flags, code, text) in cases {
        check(dir.path(), &format!("{PLAN} {flags}"), code, text);
    }
    check(dir.path(), "plan wan2.1-t2v-14c", 4, "wan2.1-t2v-14b");
    check(dir.path(), "plan wan2.1-t2v-14b --gpu rtx-3060", 5, "did you mean 'rtx-3060-12gb'");
    check(dir.path(), "run wan2.1-t2v-14b --prompt x", 2, "without weights");
}

#[test]
fn a_place_that_cannot_take_the_result_is_known_before_the_run() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("folder.mp4")).unwrap();
    std::fs::write(dir.path().join("plain"), "").unwrap();
    let latents = fixture().join("golden.safetensors");
    let cases = [
        ("-o nowhere/x.mp4", 10, "there is no folder nowhere"),
        ("-o folder.mp4", 10, "this is a folder"),
        ("-o plain", 10, "this is a file"),
        ("-o /dev/null", 10, "PNG frames"),
        ("-o ..", 2, "names no file"),
        ("-o x.avi", 2, "'.avi' is not written"),
        ("-o x.png", 2, "a PNG holds one frame"),
        ("-o x.mp4 --dump-tensors nowhere/d", 10, "--dump-tensors: there is no folder"),
        ("-o x.mp4 --dump-tensors /dev/full", 10, "device or a pipe"),
        ("-o x.mp4 --dump-tensors x.mp4", 2, "cannot share a file"),
        ("-o x.mp4 --trace nowhere/t", 10, "--trace: there is no folder"),
    ];
    for (flags, code, text) in cases {
        check(dir.path(), &run_args(flags), code, text);
    }
    let wrong = format!("-o x.mp4 --latents {}:prompt_embeds", latents.display());
    check(dir.path(), &run_args(&wrong), 2, "this request needs [16, 3, 6, 8]");
    let mut left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["folder.mp4", "plain"]);
}

#[test]
fn plan_json_has_what_scripts_read() {
    let dir = tempfile::tempdir().unwrap();
    let value = json(&output(dir.path(), &format!("{PLAN} --json --trace t.json")));
    assert_eq!(value["fits"], true);
    let pointers = [
        "/memory/budget_bytes",
        "/memory/peak_bytes",
        "/memory/reservations/0/name",
        "/memory/reservations/0/bytes",
        "/host/budget_bytes",
        "/disk/read_bytes",
        "/time/p10_ns",
        "/time/p50_ns",
        "/time/p90_ns",
        "/time/stages/0/name",
        "/bound/time_ns",
        "/bound/gap",
        "/bound/binding",
        "/policy/name",
        "/policy/version",
        "/policy/hash",
        "/plan",
    ];
    for pointer in pointers {
        assert!(value.pointer(pointer).is_some_and(|v| !v.is_null()), "{pointer}");
    }
    let trace: Value = serde_json::from_slice(&std::fs::read(dir.path().join("t.json")).unwrap()).unwrap();
    assert!(!trace["traceEvents"].as_array().unwrap().is_empty());
    for args in [format!("{PLAN} --json --vram 1GiB"), run_args("--json --vram 1MiB")] {
        let out = output(dir.path(), &args);
        assert_eq!(out.status.code(), Some(3));
        let value = json(&out);
        assert_eq!(value["fits"], false);
        let refusal = &value["refusal"];
        assert!(refusal["reason"].is_string() && refusal["tensor"].is_string() && refusal["min_budget_bytes"].is_u64());
        assert!(refusal.get("nearest_request").is_some());
    }
}

#[test]
fn a_run_gives_json_and_a_dump_that_no_policy_changes() {
    let dir = tempfile::tempdir().unwrap();
    let golden = fixture().join("golden.safetensors");
    let run = |name: &str, flags: &str| {
        let flags =
            format!("{flags} --json --latents {}:latents -o {name}.mp4 --dump-tensors {name}.st", golden.display());
        let out = output(dir.path(), &run_args(&flags));
        let value = json(&out);
        assert!(value["measured"]["device_peak_bytes"].as_u64() <= value["memory"]["budget_bytes"].as_u64());
        std::fs::read(dir.path().join(format!("{name}.st"))).unwrap()
    };
    let first = run("a", "");
    assert!(first == run("b", "--policy manual-swap --set blocks_to_swap=2 --vram 8MiB"), "the dumps differ");
    let length = u64::from_le_bytes(first[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&first[8..8 + length]).unwrap();
    assert_eq!(header["prompt_embeds"]["shape"], serde_json::json!([1, 512, 32]));
    assert_eq!(header["frames"]["shape"], serde_json::json!([1, 9, 3, 48, 64]));
    assert!((0..4).all(|n| header.get(format!("latents.{n}")).is_some()));
    assert!(header.get("__metadata__").is_none());
}

#[test]
fn killed_at_any_moment_a_run_goes_on_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let model = fixture().join("model");
    let run = |name: &str, flags: &str| {
        let flags = format!("-o {name}.mp4 --dump-tensors {name}.st {flags}");
        format!("run {} --prompt cat --size 128x96 --frames 17 --steps 12 {flags}", model.display())
    };
    let bytes = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
    assert!(output(dir.path(), &run("whole", "")).status.success());
    for signal in ["-INT", "-KILL"] {
        for millis in [60, 120, 250, 400] {
            let mut child =
                loadline(dir.path(), &run("cut", "")).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(millis));
            let _ = Command::new("kill").args([signal, &child.id().to_string()]).status();
            child.wait().unwrap();
            check(dir.path(), &run("cut", "--resume"), 0, "");
            assert!(bytes("whole.st") == bytes("cut.st"), "{signal} after {millis} ms: the dumps differ");
            assert!(bytes("whole.mp4") == bytes("cut.mp4"), "{signal} after {millis} ms: the videos differ");
            assert!(!dir.path().join("cut.mp4.checkpoint").exists());
        }
    }
    check(dir.path(), &run("new", "--resume"), 0, "no checkpoint is there");
}

#[test]
fn jobs_are_all_read_before_the_first_runs() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        ("", "there is no job"),
        ("{\"output\":\"a.mp4\"}\n{\"output\":", "line 2"),
        ("{\"promt\":\"x\",\"output\":\"a.mp4\"}", "'promt' is no field"),
        ("{\"output\":\"a.mp4\"}\n{\"output\":\"a.mp4\"}", "line 2: a.mp4: an earlier job writes this file too"),
    ];
    for (text, message) in cases {
        std::fs::write(dir.path().join("jobs"), text).unwrap();
        check(dir.path(), &run_args("--jobs jobs"), 2, message);
    }
    assert!(!dir.path().join("a.mp4").exists());
}

#[test]
fn a_weight_that_is_no_number_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    copy(&fixture().join("model"), &model);
    let path = model.join("text_encoder/model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.rchunks_exact_mut(4).for_each(|last| last.copy_from_slice(&f32::NAN.to_le_bytes()));
    let length = u64::from_le_bytes(std::fs::read(&path).unwrap()[..8].try_into().unwrap()) as usize;
    bytes[..8 + length].copy_from_slice(&std::fs::read(&path).unwrap()[..8 + length]);
    std::fs::write(&path, bytes).unwrap();
    let args = format!("run {} --prompt cat --frames 5 --steps 1 --size 64x48 -o x.mp4", model.display());
    check(dir.path(), &args, 4, "text_encoder/model.safetensors: tensor '");
    assert!(!dir.path().join("x.mp4").exists());
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_loadline"));
    let mut child = child.args(["model", "list"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success() && out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
}

//! `loadline model synth` as a user meets it.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod common;

use std::fs;

use common::{cramped, expect, fixture, loadline, names, run_args};

#[test]
fn a_checkpoint_is_written_looked_into_and_run() {
    let dir = tempfile::tempdir().unwrap();
    let synth =
        format!("model synth {} -o m --storage bf16 --storage vae=f32 --shard-size 300KiB", fixture().display());
    let out = loadline(dir.path(), &synth);
    expect(&out, 0, &[]);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(text.contains("of random weights to m in") && text.contains("loadline run m"), "{text}");
    let seen = loadline(dir.path(), "model inspect m --json");
    let seen: serde_json::Value = serde_json::from_slice(&seen.stdout).unwrap();
    let types: Vec<_> =
        seen["components"].as_array().unwrap().iter().map(|c| c["file_dtype"].as_str().unwrap()).collect();
    assert_eq!(types, ["bf16", "bf16", "f32"]);
    expect(&loadline(dir.path(), &run_args(&dir.path().join("m"), "--frames 5 -o a.mp4")), 0, &[]);
}

#[test]
fn a_layout_without_math_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let out = loadline(dir.path(), "model synth wan2.1-vace-1.3b --components vae -o m");
    expect(&out, 0, &[]);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(text.contains("layout only"), "{text}");
}

#[test]
fn bad_requests_and_full_disks_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let check = |args: &str, code: i32, texts: &[&str]| {
        expect(&loadline(dir.path(), &format!("model synth {} {args}", fixture().display())), code, texts);
        assert_eq!(names(dir.path()), [""; 0], "{args}");
    };
    check("-o m --components unet", 2, &["no component 'unet'", "text_encoder, transformer, vae"]);
    check("-o m --storage q4", 2, &["--storage q4", "f32, f16, bf16"]);
    check("-o m --storage unet=f32", 2, &["no component 'unet'"]);
    check("-o m --shard-size 0", 2, &["--shard-size 0: give a size such as 5GiB"]);
    check("-o missing/m", 10, &["missing"]);
    // Half a MiB a file: the tokenizer fits, the weights do not.
    let full = cramped(dir.path(), 1024, &format!("model synth {} -o m", fixture().display()));
    expect(&full, 10, &["diffusion_pytorch_model.safetensors", "free some space"]);
    assert_eq!(names(dir.path()), [""; 0]);

    fs::create_dir(dir.path().join("taken")).unwrap();
    fs::write(dir.path().join("taken/notes.txt"), "mine").unwrap();
    let taken = loadline(dir.path(), &format!("model synth {} -o taken", fixture().display()));
    expect(&taken, 10, &["taken", "not empty; name a new one"]);
    assert_eq!(names(&dir.path().join("taken")), ["notes.txt"]);
}

//! `loadline quality` from the terminal.
#![allow(clippy::unwrap_used)]

use serde_json::Value;

mod common;
use common::{copy, expect, fixture, loadline, names};

const SHORT: &str = "--prompt cat --size 64x48 --frames 5 --steps 2 --vram 8MiB";
const FREE: &str = "--prompt cat --size 64x48 --frames 5 --steps 2";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_row_for_each_type_and_what_did_not_fit() {
    let dir = tempfile::tempdir().unwrap();
    let model = fixture().display().to_string();
    let out = loadline(dir.path(), &format!("quality {model} {SHORT} --storage bf16,q8_0,q4_k -o seen"));
    expect(&out, 0, &["1 of 4: bf16, to compare with", "4 of 4: q4_k"]);
    let shown = text(&out.stdout);
    let row = |name: &str| shown.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("{name}: {shown}"));
    let same = shown.lines().filter(|l| l.starts_with("bf16")).nth(1).unwrap();
    assert!(same.contains("100 %") && same.ends_with("same"), "{same}");
    assert!(row("q8_0").contains(" dB (frame ") && row("q8_0").contains('%'), "{shown}");
    for part in ["relative error against bf16", "q4_k: transformer:", "whole blocks of 256", "wrote the videos to seen"]
    {
        assert!(shown.contains(part), "no '{part}' in: {shown}");
    }
    let folder = dir.path().join("seen");
    assert_eq!(names(&folder), ["against-bf16.mp4", "bf16.mp4", "q4_k.mp4", "q8_0.mp4"]);
}

#[test]
fn flags_are_lists_and_another_checkpoint_is_the_original() {
    let dir = tempfile::tempdir().unwrap();
    let model = fixture().display().to_string();
    copy(&fixture(), &dir.path().join("copied"));
    let args = format!(
        "quality {model} {SHORT} --against f32 --against-model copied --storage bf16 --storage \
         transformer=f8e4m3,transformer=q4_0 --json --keep-tensors"
    );
    let out = loadline(dir.path(), &args);
    expect(&out, 0, &[]);
    let made: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(made["schema"], "loadline-quality/1");
    assert_eq!(made["against"]["storage"], serde_json::json!([["", "f32"]]));
    assert_eq!(made["against"]["difference"], Value::Null);
    let trials = made["trials"].as_array().unwrap();
    assert_eq!(trials.len(), 2);
    assert_eq!(trials[1]["storage"], serde_json::json!([["", "bf16"], ["transformer", "q4_0"]]));
    for trial in trials {
        let (difference, budget) = (&trial["difference"], trial["budget_bytes"].as_u64().unwrap());
        let peak = trial["device_peak_bytes"].as_u64().unwrap();
        assert!(peak > 0 && peak <= budget && budget == 8 << 20, "{trial:#}");
        assert_eq!(difference["latents_by_step"].as_array().unwrap().len(), 2);
        assert_eq!(difference["latents_by_step"][1], difference["latents"]);
        assert!(
            difference["frames"]["psnr_db"].as_f64().unwrap()
                >= difference["frames"]["psnr_db_worst"].as_f64().unwrap()
        );
        assert!(std::path::Path::new(trial["output"].as_str().unwrap()).starts_with("quality"), "{trial:#}");
    }
    assert!(names(&dir.path().join("quality")).contains(&"bf16_transformer-q4_0.safetensors".to_owned()));
}

#[test]
fn what_cannot_be_compared_is_said_before_anything_runs() {
    let dir = tempfile::tempdir().unwrap();
    let model = fixture().display().to_string();
    let check = |args: &str, code, parts: &[&str]| {
        let out = loadline(dir.path(), &format!("quality {args}"));
        expect(&out, code, parts);
    };
    check(
        &format!("{model} {SHORT} --storage q8_0,int8"),
        2,
        &["--storage int8: 'int8' is not an element type", "q8_0"],
    );
    check(&format!("{model} {SHORT} --storage unet=q8_0"), 2, &["no component 'unet'", "transformer"]);
    check(&format!("{model} {SHORT} --storage q8_0,q8_0"), 2, &["q8_0 is compared twice"]);
    check(&format!("{model} {SHORT} --against q4"), 2, &["--against q4", "did you mean q4_k"]);
    check(&format!("{model} --storage q8_0"), 2, &["--prompt"]);
    check(&format!("{model} {FREE} --storage q8_0 --vram 4KiB"), 3, &["--vram"]);
    check(&format!("wan2.1-t2v-1.3b {SHORT} --storage q8_0"), 2, &["catalog entry without weights"]);
}

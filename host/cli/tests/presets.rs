//! What a preset fills in, what wins over it, and what may shrink: in a plan and in a real run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::{copy, expect, fixture, loadline};
use serde_json::{Value, json};

/// The JSON that a command prints.
fn planned(args: &str) -> Value {
    let out = loadline(Path::new("."), &format!("{args} --json"));
    assert_eq!(out.status.code(), Some(0), "{args}: {}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

const PLAN: &str = "plan wan2.1-t2v-1.3b --gpu rtx-4090";

#[test]
fn a_preset_is_nothing_but_its_flags() {
    let check = |preset: &str, flags: &str| {
        let (with, without) = (planned(&format!("{PLAN} {preset}")), planned(&format!("{PLAN} {flags}")));
        assert_eq!(with["plan_hash"], without["plan_hash"], "{preset}");
        assert_eq!(with["request"], without["request"], "{preset}");
    };
    check("--preset lightweight", "--policy offload --set strategy=sequential");
    check("--preset hybrid --set vram_fraction=0.3", "--policy threshold --set percent=30 --set reserve_percent=0");
    check("--preset fast-preview", "--policy threshold --steps 4 --guidance 1");
    check("--preset conservative", "--tile 832x480");
    check(
        "--preset aggressive",
        "--policy offload --set strategy=sequential --tile 512x512 --tile-overlap 64 --storage f8e4m3",
    );
    check("--preset block-swap --set num_cuda_streams=4", "--policy manual-swap --set residency=leading --set slots=4");
}

#[test]
fn what_is_given_wins_and_is_told() {
    let check = |args: &str, preset: Value, steps: u64| {
        let value = planned(&format!("{PLAN} {args}"));
        assert_eq!(value["preset"], preset, "{args}");
        assert_eq!(value["request"]["steps"], steps, "{args}");
    };
    let told = |settings: Value, flags: Value, given: Value| json!({ "name": "memory-optimised", "policy": "threshold", "settings": settings, "flags": flags, "given_instead": given });
    let flags = json!({ "steps": "30", "guidance": "6" });
    check("--preset Memory_Optimized", told(json!({ "percent": "40" }), flags.clone(), json!([])), 30);
    let given = json!(["--steps", "percent = 70"]);
    check(
        "--preset memory-optimised --steps 7 --set percent=70",
        told(json!({}), json!({ "guidance": "6" }), given),
        7,
    );
    let given = json!(["--policy lazy-load"]);
    check("--preset memory-optimised --policy lazy-load", told(json!({}), flags, given), 30);
    assert_eq!(planned(PLAN)["preset"], Value::Null);
}

#[test]
fn a_preset_may_be_a_file_of_ones_own() {
    let dir = tempfile::tempdir().unwrap();
    let text = "name = 'mine'\nknown_from = 'me'\nsummary = 'x'\npolicy = 'threshold'\n[settings]\npercent = 30\n";
    fs::write(dir.path().join("mine.toml"), text).unwrap();
    let out = loadline(dir.path(), &format!("{PLAN} --frames 17 --preset mine.toml"));
    assert!(String::from_utf8_lossy(&out.stdout).starts_with("preset mine: threshold, percent = 30\n"));
    fs::write(dir.path().join("bad.toml"), text.replace("summary", "sumary")).unwrap();
    expect(&loadline(dir.path(), &format!("{PLAN} --preset bad.toml")), 6, &["preset bad.toml", "sumary"]);
    expect(&loadline(dir.path(), &format!("{PLAN} --preset none.toml")), 6, &["none.toml", "check the path"]);
}

#[test]
fn cpu_only_runs_on_the_processor() {
    let small = "--size 64x64 --frames 5 --steps 2 --preset cpu_only";
    let value = planned(&format!("plan wan2.1-t2v-1.3b {small}"));
    assert_eq!(value["machine"]["name"], "cpu");
    let out = loadline(Path::new("."), &format!("compare --model wan2.1-t2v-1.3b {small} --csv"));
    let rows = String::from_utf8(out.stdout).unwrap();
    assert_eq!((rows.lines().count(), rows.lines().nth(1).unwrap().contains("cpu")), (2, true), "{rows}");
    let gpu = loadline(Path::new("."), &format!("fit wan2.1-t2v-1.3b --gpu rtx-4090 --max frames {small}"));
    expect(&gpu, 2, &["say --gpu cpu"]);
}

/// A run of the fixture in a folder, as JSON; what it says before the run is in the second.
fn made(dir: &Path, args: &str) -> (Value, String) {
    let args = format!("run {} --prompt cat --steps 2 --json {args}", fixture().display());
    let out = loadline(dir, &args);
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(0), "{said}");
    (serde_json::from_slice(&out.stdout).unwrap(), said)
}

#[test]
fn a_run_steps_down_says_so_and_makes_what_was_planned_instead() {
    let dir = tempfile::tempdir().unwrap();
    let small = "--size 96x64 --frames 33 --vram 4740000B --tile 96x64";
    let (value, said) = made(dir.path(), &format!("{small} --step-down frames:5 -o a.mp4 --dump-tensors a.st"));
    let step = &value["step_downs"][0];
    assert_eq!((step["what"].as_str(), step["from"].as_str()), (Some("frames"), Some("33")), "{value}");
    let frames = step["to"].as_str().unwrap();
    assert!(step["reason"].as_str().unwrap().ends_with("; 13 does not fit either"), "{step}");
    assert!(said.contains(&format!("frames {frames} instead of 33: ")), "{said}");
    assert!(said.contains("NOT WHAT WAS ASKED FOR"), "{said}");
    assert_eq!(value["request"]["frames"].to_string(), frames);
    let direct = small.replace("33", frames);
    let (same, said) = made(dir.path(), &format!("{direct} --step-down frames -o b.mp4 --dump-tensors b.st"));
    assert_eq!((&same["step_downs"], said.contains("NOT WHAT")), (&json!([]), false));
    let read = |name: &str| fs::read(dir.path().join(name)).unwrap();
    assert!(read("a.st") == read("b.st") && read("a.mp4") == read("b.mp4"), "the videos differ");
}

/// Takes the tensors of one block out of a file of weights.
fn without(file: &Path, prefix: &str) {
    let bytes = fs::read(file).unwrap();
    let start = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: BTreeMap<String, Value> = serde_json::from_slice(&bytes[8..start]).unwrap();
    let (mut kept, mut data) = (BTreeMap::new(), Vec::new());
    for (name, mut tensor) in header.into_iter().filter(|(name, _)| !name.starts_with(prefix)) {
        if let Some(offsets) = tensor.get_mut("data_offsets") {
            let [from, to] = [0, 1].map(|i| start + offsets[i].as_u64().unwrap() as usize);
            *offsets = json!([data.len(), data.len() + to - from]);
            data.extend_from_slice(&bytes[from..to]);
        }
        kept.insert(name, tensor);
    }
    let header = serde_json::to_vec(&kept).unwrap();
    fs::write(file, [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()).unwrap();
}

/// The fixture without the last block of its transformer.
fn smaller_model(folder: &Path) {
    copy(&fixture(), folder);
    let edit = |name: &str, edit: &dyn Fn(&mut Value)| {
        let path = folder.join("transformer").join(name);
        let mut value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        edit(&mut value);
        fs::write(path, value.to_string()).unwrap();
    };
    edit("config.json", &|config| config["num_layers"] = json!(2));
    for shard in 1..=3 {
        without(
            &folder.join(format!("transformer/diffusion_pytorch_model-0000{shard}-of-00003.safetensors")),
            "blocks.2.",
        );
    }
    edit("diffusion_pytorch_model.safetensors.index.json", &|index| {
        index["weight_map"].as_object_mut().unwrap().retain(|name, _| !name.starts_with("blocks.2."));
        index.as_object_mut().unwrap().remove("metadata");
    });
}

#[test]
fn a_run_falls_back_to_a_smaller_model() {
    let dir = tempfile::tempdir().unwrap();
    let smaller = dir.path().join("smaller");
    smaller_model(&smaller);
    let whole = |model: &Path| {
        let args = "--gpu cpu --min vram --preset beefy --size 64x48 --frames 5 --json";
        let out = loadline(dir.path(), &format!("fit {} {args}", model.display()));
        let value: Value = serde_json::from_slice(&out.stdout).unwrap();
        value["answer"]["budget_bytes"].as_u64().unwrap()
    };
    let (large, small) = (whole(&fixture()), whole(&smaller));
    assert!(small < large);
    let down = format!("--preset beefy --vram {}B --step-down model:{}", large - 4096, smaller.display());
    let (value, said) = made(dir.path(), &format!("--size 64x48 --frames 5 {down}"));
    assert_eq!((&value["step_downs"][0]["what"], value["step_downs"].as_array().unwrap().len()), (&json!("model"), 1));
    assert!(said.contains(&format!("model {} instead of ", smaller.display())), "{said}");
    assert!(value["measured"]["device_peak_bytes"].as_u64().unwrap() < large);
}

#[test]
fn what_may_not_shrink_is_refused_before_anything_else() {
    let check = |args: &str, code: i32, text: &str| expect(&loadline(Path::new("."), args), code, &[text]);
    check(&format!("{PLAN} --step-down steps"), 2, "never make a request fit");
    check(&format!("{PLAN} --step-down frames:x"), 2, "write a whole number");
    check(&format!("{PLAN} --vram 1GiB --step-down model:nothing-like-it"), 4, "nothing-like-it");
    check(&format!("{PLAN} --preset hybrid --set vram_fraction=2"), 6, "takes a number from 0.05 to 1");
}

#[test]
fn every_job_of_a_list_says_its_preset() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("jobs"), "{\"output\": \"1.mp4\"}\n{\"output\": \"2.mp4\", \"seed\": 1}\n").unwrap();
    let small = "--size 64x48 --frames 5 --preset cpu_only --jobs jobs";
    let args = format!("run {} --prompt cat --steps 2 --json {small}", fixture().display());
    let out = loadline(dir.path(), &args);
    let said = String::from_utf8(out.stdout).unwrap();
    let presets: Vec<Value> =
        said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["preset"]["name"].clone()).collect();
    assert_eq!(presets, ["cpu-only", "cpu-only"], "{said}{}", String::from_utf8_lossy(&out.stderr));
}

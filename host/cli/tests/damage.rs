//! Files that are missing, damaged or lie: a message that names file and field and says what to do, an exit code by
//! class, and nothing left under the result's name.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::fs;
use std::path::{Path, PathBuf};

use loadline::core::Size;
use serde_json::{Value, json};

mod common;
use common::{copy, cramped, expect, files, fixture, interrupted_at, job, loadline, names, run_args};

const TEXT: &str = "text_encoder/model.safetensors";
const SHARD: &str = "transformer/diffusion_pytorch_model-00002-of-00003.safetensors";
const LAST_SHARD: &str = "vae/diffusion_pytorch_model-00003-of-00003.safetensors";
const INDEX: &str = "transformer/diffusion_pytorch_model.safetensors.index.json";

fn edit_json(file: &Path, edit: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    edit(&mut value);
    fs::write(file, value.to_string()).unwrap();
}

/// Changes a safetensors file's header and data.
fn edit_weights(file: &Path, edit: impl FnOnce(&mut Value, &mut Vec<u8>)) {
    let bytes = fs::read(file).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let mut data = bytes[8 + length..].to_vec();
    edit(&mut header, &mut data);
    let header = header.to_string().into_bytes();
    fs::write(file, [&(header.len() as u64).to_le_bytes(), header.as_slice(), &data].concat()).unwrap();
}

/// The tensor whose bytes come last.
fn last(header: &Value) -> String {
    let tensors = header.as_object().unwrap().iter().filter(|(name, _)| *name != "__metadata__");
    tensors.max_by_key(|(_, t)| t["data_offsets"][0].as_u64()).unwrap().0.clone()
}

/// A damaged copy of the fixture, run: the damage is an error of class 4 whose message holds all of `texts`.
fn check_model(damage: impl FnOnce(&Path), texts: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("m");
    copy(&fixture(), &model);
    damage(&model);
    expect(&loadline(dir.path(), &run_args(Path::new("m"), "--frames 5 -o x.mp4")), 4, texts);
    assert_eq!(names(dir.path()), ["m"], "{texts:?}");
}

fn check_config(file: &str, field: &str, value: Value, texts: &[&str]) {
    check_model(|m| edit_json(&m.join(file), |config| config[field] = value), texts);
}

#[test]
fn configs_that_contradict_each_other_or_the_weights_are_named() {
    let check = check_config;
    let (dit, text, vae) = ("transformer/config.json", "text_encoder/config.json", "vae/config.json");
    let scheduler = "scheduler/scheduler_config.json";
    check(dit, "_class_name", json!("WanVACETransformer3DModel"), &[dit, "`_class_name`", "model_index.json says Wan"]);
    check(vae, "_class_name", json!(3), &[vae, "`_class_name` is 3", "download"]);
    check(text, "architectures", json!(["T5EncoderModel"]), &[text, "`architectures`", "UMT5EncoderModel"]);
    check(dit, "num_layers", json!(2), &[SHARD, "'blocks.2.", "too low?", "download"]);
    check(dit, "num_layers", json!(4), &[dit, "'blocks.3.", "too high?", "download"]);
    check(text, "num_layers", json!(1), &[TEXT, "'encoder.block.1.", text]);
    check(dit, "num_layers", json!(0), &[dit, "`num_layers` is 0", "from 1 to 4096"]);
    check(dit, "ffn_dim", json!(1u64 << 63), &[dit, "`ffn_dim`", "9223372036854775808"]);
    check(dit, "text_dim", json!(64), &["00001-of-00003.safetensors", "text_embedder", "config.json says [64, 64]"]);
    check(vae, "z_dim", json!(32), &[vae, "`latents_mean`", "a list of 32"]);
    check("model_index.json", "transformer", json!(["diffusers", "FooModel"]), &[dit, "says FooModel"]);
    check("model_index.json", "_class_name", json!("FooPipeline"), &["model_index.json", "FooPipeline", "model list"]);
    check("model_index.json", "_class_name", Value::Null, &["model_index.json", "`_class_name`", "missing"]);
    check("model_index.json", "vae", Value::Null, &["no component 'vae'", "model_index.json"]);
    check("model_index.json", "../x", json!(["diffusers", "AutoencoderKLWan"]), &["model_index.json", "\"../x\""]);
    check(scheduler, "_class_name", json!("FlowMatchEulerDiscreteScheduler"), &[scheduler, "UniPCMultistepScheduler"]);
    check(scheduler, "flow_shift", json!("x"), &["scheduler_config.json", "\"flow_shift\"", "finite number"]);
    check(scheduler, "num_train_timesteps", json!(0), &["scheduler_config.json", "\"num_train_timesteps\""]);
    let unknown = |m: &Path| {
        edit_json(&m.join(scheduler), |c| c["_class_name"] = json!("DDIMScheduler"));
        edit_json(&m.join("model_index.json"), |c| c["scheduler"][1] = json!("DDIMScheduler"));
    };
    check_model(unknown, &["scheduler_config.json", "\"DDIMScheduler\" is not known", "UniPCMultistepScheduler"]);
    let unknown = |m: &Path| {
        edit_json(&m.join(dit), |c| c["_class_name"] = json!("FooModel"));
        edit_json(&m.join("model_index.json"), |c| c["transformer"][1] = json!("FooModel"));
    };
    check_model(unknown, &[dit, "`FooModel` is not supported", "WanTransformer3DModel"]);
}

#[test]
fn a_whole_models_checkpoint_serves_its_encoder() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("m");
    copy(&fixture(), &model);
    let config = model.join("text_encoder/config.json");
    edit_json(&config, |c| c["architectures"] = json!(["UMT5ForConditionalGeneration"]));
    edit_weights(&model.join(TEXT), |header, data| {
        header["lm_head.weight"] =
            json!({ "dtype": "F32", "shape": [2], "data_offsets": [data.len(), data.len() + 8] });
        data.extend([0; 8]);
    });
    expect(&loadline(dir.path(), &run_args(&model, "--frames 1 -o x.mp4")), 0, &[]);
}

#[test]
fn files_that_are_missing_or_no_files_are_named() {
    for (file, texts) in [
        ("model_index.json", ["model_index.json", "No such file"]),
        ("scheduler/scheduler_config.json", ["scheduler_config.json", "No such file"]),
        ("transformer/config.json", ["transformer/config.json", "No such file"]),
        ("tokenizer/tokenizer.json", ["no tokenizer in m/tokenizer", "download"]),
        (TEXT, ["no weights in m/text_encoder", "expected model.safetensors"]),
        (SHARD, [SHARD, "is missing, though"]),
    ] {
        check_model(|m| fs::remove_file(m.join(file)).unwrap(), &texts);
    }
    let instead = |file: &'static str, make: fn(&Path)| {
        move |m: &Path| {
            fs::remove_file(m.join(file)).unwrap();
            make(&m.join(file));
        }
    };
    let pipe = |path: &Path| assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    check_model(instead("vae/config.json", pipe), &["vae/config.json", "no ordinary file"]);
    check_model(instead(TEXT, pipe), &[TEXT, "no ordinary file"]);
    check_model(instead(SHARD, pipe), &[SHARD, "no ordinary file"]);
    check_model(instead(TEXT, |path| fs::create_dir(path).unwrap()), &[TEXT, "no ordinary file"]);
    for text in ["", "{", "[]", "null", &"[".repeat(100_000)] {
        check_model(|m| fs::write(m.join("transformer/config.json"), text).unwrap(), &["transformer/config.json"]);
        check_model(|m| fs::write(m.join("model_index.json"), text).unwrap(), &["model_index.json"]);
    }
}

#[test]
fn weight_files_that_lie_are_named() {
    let check = |file: &'static str, edit: &dyn Fn(&mut Value, &mut Vec<u8>), texts: &[&str]| {
        check_model(|m| edit_weights(&m.join(file), edit), texts);
    };
    check(TEXT, &|_, data| data.extend([1; 100]), &[TEXT, "100 bytes after its last tensor", "download it again"]);
    check(TEXT, &|_, data| data.truncate(1000), &[TEXT, "cut short", "download it again"]);
    let hole = |header: &mut Value, data: &mut Vec<u8>| {
        let name = last(header);
        let range = &mut header[name]["data_offsets"];
        let start = range[0].as_u64().unwrap() as usize;
        *range = json!([start + 64, range[1].as_u64().unwrap() + 64]);
        data.splice(start..start, [0; 64]);
    };
    check(TEXT, &hole, &[TEXT, "the 64 bytes before it belong to no tensor"]);
    let overlap = |header: &mut Value, _: &mut Vec<u8>| {
        let name = last(header);
        let range = &mut header[name]["data_offsets"];
        *range = json!([range[0].as_u64().unwrap() - 4, range[1].as_u64().unwrap() - 4]);
    };
    check(TEXT, &overlap, &[TEXT, "overlap"]);
    let extra = |header: &mut Value, data: &mut Vec<u8>| {
        header["foo"] = json!({ "dtype": "F32", "shape": [1], "data_offsets": [data.len(), data.len() + 4] });
        data.extend([0; 4]);
    };
    check(TEXT, &extra, &[TEXT, "'foo' is no part of the model"]);
    check(SHARD, &extra, &[INDEX, "\"foo\" is in the shard only"]);
    let turned = |header: &mut Value, _: &mut Vec<u8>| {
        header["shared.weight"]["shape"] = json!([32, 384]);
    };
    check(TEXT, &turned, &[TEXT, "'shared.weight' has shape [32, 384]", "[384, 32]"]);
    check(TEXT, &|header, _| header["shared.weight"]["dtype"] = json!("I32"), &[TEXT, "stored as I32", "bf16"]);
    let absent = |m: &Path| {
        edit_json(&m.join(INDEX), |index| {
            index["weight_map"]["foo"] = json!("diffusion_pytorch_model-00001-of-00003.safetensors");
        });
    };
    check_model(absent, &[INDEX, "\"foo\" is in the index only"]);
}

/// A weight that is no number is found when it is first read. What was done until then is kept, and goes on with a file
/// that is whole.
#[test]
fn weights_that_are_no_numbers_are_named_and_cost_no_finished_step() {
    let args = run_args(Path::new("m"), "--frames 5 -o x.mp4");
    let whole = tempfile::tempdir().unwrap();
    expect(&loadline(whole.path(), &run_args(&fixture(), "--frames 5 -o x.mp4")), 0, &[]);
    for (file, value, name, kept) in [
        (TEXT, f32::NAN, "NaN", false),
        (SHARD, f32::INFINITY, "infinity", true),
        (LAST_SHARD, f32::NEG_INFINITY, "infinity", true),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("m");
        copy(&fixture(), &model);
        edit_weights(&model.join(file), |header, data| spoil(header, data, &[value]));
        expect(&loadline(dir.path(), &args), 4, &[file, "tensor '", name, "download the file again"]);
        assert_eq!(names(dir.path()), if kept { vec!["m", "x.mp4.checkpoint"] } else { vec!["m"] }, "{file}");
        fs::copy(fixture().join(file), model.join(file)).unwrap();
        expect(&loadline(dir.path(), &format!("{args} --resume")), 0, &[]);
        assert!(fs::read(dir.path().join("x.mp4")).unwrap() == fs::read(whole.path().join("x.mp4")).unwrap(), "{file}");
    }
}

/// The last numbers of the last tensor that every run reads.
fn spoil(header: &Value, data: &mut [u8], values: &[f32]) {
    let tensors = header.as_object().unwrap().iter();
    let tensors = tensors.filter(|(name, _)| *name != "__metadata__" && *name != "shared.weight");
    let end = tensors.map(|(_, t)| t["data_offsets"][1].as_u64().unwrap()).max().unwrap() as usize;
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    data[end - bytes.len()..end].copy_from_slice(&bytes);
}

/// Of the embedding table only the rows of the prompt's tokens are read.
#[test]
fn a_row_that_is_no_number_is_named_where_it_is_used() {
    let all = |header: &mut Value, data: &mut Vec<u8>| {
        let range = &header["shared.weight"]["data_offsets"];
        let [start, end] = [0, 1].map(|n| range[n].as_u64().unwrap() as usize);
        data[start..end].chunks_exact_mut(4).for_each(|b| b.copy_from_slice(&f32::NAN.to_le_bytes()));
    };
    let texts = [TEXT, "tensor 'shared.weight' holds NaN at element", "download the file again"];
    check_model(|m| edit_weights(&m.join(TEXT), all), &texts);
}

/// A run stopped in the middle of the decoder, with its dump.
fn stopped(dir: &Path) -> PathBuf {
    assert!(interrupted_at(&job(&dir.join("x.mp4"), true, 9, None), 6));
    dir.join("x.mp4.checkpoint")
}

const GO_ON: &str = "--frames 9 -o x.mp4 --dump-tensors x.st --resume";

/// A damaged checkpoint is an error of class 10 that says how to go on, and stays as it is.
fn check_checkpoint(whole: &Path, damage: impl FnOnce(&Path), flags: &str, texts: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("x.mp4.checkpoint");
    copy(whole, &folder);
    damage(&folder);
    let before = files(&folder);
    expect(&loadline(dir.path(), &run_args(&fixture(), flags)), 10, texts);
    assert!(files(&folder) == before, "{texts:?}: the checkpoint was changed");
    assert_eq!(names(dir.path()), ["x.mp4.checkpoint"], "{texts:?}");
}

#[test]
fn damaged_checkpoints_are_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let whole = stopped(dir.path());
    let state = "state.safetensors";
    let check = |damage: &dyn Fn(&Path), text: &str| {
        check_checkpoint(&whole, damage, GO_ON, &[text, "nothing was deleted", "delete", "x.mp4.checkpoint"]);
    };
    let keep = |file: &'static str, bytes: usize| {
        move |c: &Path| {
            let old = fs::read(c.join(file)).unwrap();
            fs::write(c.join(file), &old[..bytes.min(old.len() - 1)]).unwrap();
        }
    };
    for bytes in [0, 7, 8, 100, 1 << 30] {
        check(&keep(state, bytes), state);
        check(&keep("frames.f32", bytes), "frames.f32");
        check(&keep("dump/latents.1.safetensors", bytes), "latents.1.safetensors");
    }
    check(&|c| fs::remove_file(c.join("frames.f32")).unwrap(), "frames.f32");
    check(&|c| fs::remove_file(c.join("dump/latents.0.safetensors")).unwrap(), "latents.0");
    let folder = |c: &Path| {
        fs::remove_file(c.join(state)).unwrap();
        fs::create_dir(c.join(state)).unwrap();
    };
    check(&folder, "Is a directory");
    check(&|c| fs::copy(fixture().join(TEXT), c.join(state)).map(drop).unwrap(), "no checkpoint of loadline");
    let later = |c: &Path| {
        edit_weights(&c.join(state), |header, _| {
            let text = header["__metadata__"]["loadline"].as_str().unwrap().replace("\"version\":5", "\"version\":6");
            header["__metadata__"]["loadline"] = json!(text);
        })
    };
    check(&later, "checkpoint version 6, this program reads version 5");
    let moved = |c: &Path| {
        edit_weights(&c.join(state), |header, _| {
            let text = header["__metadata__"]["loadline"].as_str().unwrap().replace("\"pass\":2", "\"pass\":1");
            header["__metadata__"]["loadline"] = json!(text);
        })
    };
    check(&moved, "not the one that was saved");
}

#[test]
fn a_flipped_bit_in_a_checkpoint_is_never_another_result() {
    let dir = tempfile::tempdir().unwrap();
    let whole = stopped(dir.path());
    for file in ["state.safetensors", "frames.f32", "dump/latents.0.safetensors"] {
        let length = fs::metadata(whole.join(file)).unwrap().len() as usize;
        for n in 0..24 {
            let flip = |c: &Path| {
                let mut bytes = fs::read(c.join(file)).unwrap();
                // Half of the places lie in the header, where there is one.
                let place = if n % 2 == 0 { n * length / 24 } else { 8 + 97 * n % 1200 };
                bytes[place % length] ^= 1 << (n % 8);
                fs::write(c.join(file), bytes).unwrap();
            };
            check_checkpoint(&whole, flip, GO_ON, &["nothing was deleted"]);
        }
    }
}

#[test]
fn a_checkpoint_of_another_run_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let whole = stopped(dir.path());
    let check = |flags: &str, what: &str| {
        check_checkpoint(&whole, |_| (), &format!("{GO_ON} {flags}"), &[what, "made with another", "delete"]);
    };
    check("--seed 1", "--seed");
    check("--negative-prompt dog", "--negative-prompt");
    check("--guidance 4", "--guidance");
    check("--schedule wan", "--schedule");
    check("--frame-chunk 2", "--frame-chunk");
    check("--storage bf16", "--storage");
    let at = |model: &Path, flags: &str, what: &str| {
        let dir = tempfile::tempdir().unwrap();
        copy(&whole, &dir.path().join("x.mp4.checkpoint"));
        expect(&loadline(dir.path(), &format!("run {} {GO_ON} {flags}", model.display())), 10, &[what, "another"]);
        assert_eq!(names(dir.path()), ["x.mp4.checkpoint"]);
    };
    at(&fixture(), "--prompt dog --steps 2 --size 64x48", "--prompt");
    at(&fixture(), "--prompt cat --steps 3 --size 64x48", "--steps");
    at(&fixture(), "--prompt cat --steps 2 --size 64x64", "--size");
    let model = dir.path().join("m");
    copy(&fixture(), &model);
    let shard = model.join(SHARD);
    let dated = |time| fs::File::options().write(true).open(&shard).unwrap().set_modified(time).unwrap();
    dated(std::time::SystemTime::UNIX_EPOCH);
    at(&model, "--prompt cat --steps 2 --size 64x48", "the weights differ");
    copy(&fixture(), &model);
    edit_json(&model.join("scheduler/scheduler_config.json"), |c| c["flow_shift"] = json!(5.0));
    at(&model, "--prompt cat --steps 2 --size 64x48", "scheduler_config.json differs");
}

/// A step has as many passes as the way of guidance says: the same pass is another place with another way.
#[test]
fn between_steps_a_checkpoint_keeps_its_way_of_guidance() {
    let dir = tempfile::tempdir().unwrap();
    let job = job(&dir.path().join("x.mp4"), false, 9, None);
    // Both prompts and the first of two steps.
    assert!(interrupted_at(&job, 3));
    let go_on =
        |flags: &str| loadline(dir.path(), &run_args(&fixture(), &format!("--frames 9 -o x.mp4 --resume {flags}")));
    expect(&go_on("--cfg sequential"), 10, &["steps of --cfg pair", "give that, or no --cfg"]);
    expect(&go_on(""), 0, &["denoise: going on with pass 2 of 2"]);
}

#[test]
fn without_a_checkpoint_resume_says_so_and_begins() {
    let dir = tempfile::tempdir().unwrap();
    let begin = || loadline(dir.path(), &run_args(&fixture(), "--frames 1 -o x.mp4 --resume"));
    expect(&begin(), 0, &["x.mp4.checkpoint: no checkpoint is there; starting at the beginning"]);
    fs::create_dir(dir.path().join("x.mp4.checkpoint")).unwrap();
    fs::write(dir.path().join("x.mp4.checkpoint/frames.f32"), "left by a run without a state").unwrap();
    expect(&begin(), 0, &["no checkpoint is there"]);
    fs::write(dir.path().join("x.mp4.checkpoint"), "").unwrap();
    expect(&begin(), 10, &["x.mp4.checkpoint", "move it away"]);
    assert_eq!(names(dir.path()), ["x.mp4", "x.mp4.checkpoint"]);
}

#[test]
fn a_disk_that_fills_up_costs_no_finished_step() {
    let whole = tempfile::tempdir().unwrap();
    let flags = "--frames 9 -o x.mp4 --dump-tensors x.st";
    expect(&loadline(whole.path(), &run_args(&fixture(), flags)), 0, &[]);
    for blocks in [40, 150, 300] {
        let dir = tempfile::tempdir().unwrap();
        expect(&cramped(dir.path(), blocks, &run_args(&fixture(), flags)), 10, &["File too large"]);
        assert!(names(dir.path()).iter().all(|n| n == "x.mp4.checkpoint"), "{:?}", names(dir.path()));
        expect(&loadline(dir.path(), &run_args(&fixture(), &format!("{flags} --resume"))), 0, &[]);
        assert!(files(dir.path()) == files(whole.path()), "{blocks} blocks: the results differ");
    }
}

#[test]
fn results_that_do_not_fit_leave_nothing_under_their_names() {
    let check = |flags: &str, failed: &str, frames: u32, size: Size| {
        let dir = tempfile::tempdir().unwrap();
        let (output, dump) = (flags.split_whitespace().nth(1).unwrap(), flags.contains("dump"));
        let mut job = job(&dir.path().join(output), dump, frames, None);
        job.asked.request.size = size;
        // Text and steps are done, and all chunks but the last: a run that goes on writes results only.
        let passes = 2 + 2 + (frames as usize - 1) / 4;
        assert!(interrupted_at(&job, passes), "{flags}");
        let model = fixture();
        let args = format!("run {} --prompt cat --steps 2", model.display());
        let args = format!("{args} --frames {frames} --size {size} {flags} --resume");
        expect(&cramped(dir.path(), 24, &args), 10, &[failed, "File too large", "--resume"]);
        assert!(!dir.path().join(failed).exists() && !dir.path().join("x").exists(), "{flags}");
        assert!(names(dir.path()).iter().all(|n| !n.ends_with(".partial")), "{:?}", names(dir.path()));
        expect(&loadline(dir.path(), &args), 0, &[]);
        let done = dir.path().join(format!("{output}.checkpoint"));
        assert!(dir.path().join(output).exists() && !done.exists(), "{flags}");
    };
    let (small, large) = (Size { width: 64, height: 48 }, Size { width: 192, height: 128 });
    check("-o x.mp4", "x.mp4", 33, small);
    check("-o x.png", "x.png", 1, large);
    check("-o x", "frame_0001.png", 1, large);
    check("-o x.mp4 --dump-tensors x.st", "x.st", 1, small);
}

#[test]
fn a_timeline_that_does_not_fit_costs_no_video() {
    let dir = tempfile::tempdir().unwrap();
    let model = fixture();
    let args =
        format!("run {} --prompt cat --frames 1 --size 64x48 --steps 200 -o x.mp4 --trace x.json", model.display());
    expect(&cramped(dir.path(), 400, &args), 10, &["x.json", "File too large"]);
    assert_eq!(names(dir.path()), ["x.mp4"]);
}

#[test]
fn a_full_standard_output_is_told_and_a_closed_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let run = |redirect: &str| {
        let args = run_args(&fixture(), "--frames 1 -o x.mp4");
        let script = format!("exec {} {args} {redirect}", env!("CARGO_BIN_EXE_loadline"));
        let out = common::apart("sh").current_dir(dir.path()).args(["-c", &script]).output().unwrap();
        assert!(fs::remove_file(dir.path().join("x.mp4")).is_ok(), "{redirect}");
        out
    };
    expect(&run(">/dev/full"), 10, &["standard output", "free some space"]);
    for redirect in ["2>/dev/full", "2>&-", ">&-", ">&- 2>&-"] {
        expect(&run(redirect), 0, &[]);
    }
    let script = format!("exec {} run nowhere --prompt x 2>/dev/full", env!("CARGO_BIN_EXE_loadline"));
    let out = common::apart("sh").current_dir(dir.path()).args(["-c", &script]).output().unwrap();
    expect(&out, 4, &[]);
}

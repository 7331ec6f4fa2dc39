//! Checkpoints of random weights: the true layout, the same bytes every time, and a run that stays finite.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use loadline::core::{Bytes, DType, ModelSpec};
use loadline::synth::{Blueprint, SynthOptions, write};
use loadline::{Error, Model};

use support::{copy_folder, fixture, golden_job, run, session_of, tensors};

fn model(name: &Path) -> Model {
    Model::open(name.to_str().unwrap()).unwrap_or_else(|e| panic!("{e}"))
}

fn source() -> Model {
    model(&fixture("wan_t2v/model"))
}

fn made(model: &Model, options: &SynthOptions) -> Blueprint {
    Blueprint::new(model, options).unwrap_or_else(|e| panic!("{e}"))
}

fn write_all(blueprint: &Blueprint, folder: &Path) -> Result<(), Error> {
    write(blueprint, folder, &AtomicBool::new(false), &mut |_| ())
}

fn stored_as(model: &Model, dtype: DType) -> SynthOptions {
    let storage = model.spec.components.iter().map(|c| (c.name.clone(), dtype)).collect();
    SynthOptions { storage, ..SynthOptions::default() }
}

/// Every file under a folder, by its path in it.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for path in fs::read_dir(&next).unwrap().map(|e| e.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(folder).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// Writes the headers, and leaves holes where the values would be: true sizes without the bytes.
fn write_layout(blueprint: &Blueprint, folder: &Path) {
    let create = |path: &Path| {
        let whole = folder.join(path);
        fs::create_dir_all(whole.parent().unwrap()).unwrap();
        File::create(whole).unwrap()
    };
    blueprint.texts.iter().for_each(|t| create(&t.path).write_all(&t.content).unwrap());
    for weights in &blueprint.weights {
        let mut file = create(&weights.path);
        file.write_all(&weights.header).unwrap();
        file.set_len(weights.bytes().0).unwrap();
    }
}

/// What must be the same in a model and in its copy: all but the name, and the types that a catalog does not know.
fn layout(spec: &ModelSpec, types: bool) -> ModelSpec {
    let mut spec = ModelSpec { name: String::new(), ..spec.clone() };
    if !types {
        spec.components.iter_mut().flat_map(|c| &mut c.tensors).for_each(|t| t.file_dtype = None);
    }
    spec
}

#[test]
fn a_folder_is_written_anew_with_the_same_layout() {
    let dir = tempfile::tempdir().unwrap();
    let source = source();
    for (name, shard) in [("whole", Bytes::gib(5)), ("shards", Bytes(200_000))] {
        let folder = dir.path().join(name);
        let blueprint = made(&source, &SynthOptions { shard, ..SynthOptions::default() });
        write_all(&blueprint, &folder).unwrap();
        let copy = model(&folder);
        assert_eq!(layout(&copy.spec, true), layout(&source.spec, true), "{name}");
        assert_eq!(files(&folder).values().map(|f| f.len() as u64).sum::<u64>(), blueprint.bytes().0);
        assert_eq!(copy.default_request(), source.default_request());
        let sharded =
            files(&folder).keys().any(|path| path.ends_with("diffusion_pytorch_model.safetensors.index.json"));
        assert_eq!(sharded, name == "shards");
        assert!(fs::read_to_string(folder.join("README.md")).unwrap().contains("random"));
    }
}

#[test]
fn every_model_of_the_catalog_has_its_true_size() {
    for name in ["wan2.1-t2v-1.3b", "wan2.2-t2v-a14b", "cogvideox-5b", "flux.1-dev", "hunyuanvideo", "ltx-video-0.9.0"]
    {
        let dir = tempfile::tempdir().unwrap();
        let source = Model::open_cataloged(name).unwrap();
        write_layout(&made(&source, &SynthOptions::default()), dir.path());
        let copy = model(dir.path());
        assert_eq!(layout(&copy.spec, false), layout(&source.spec, false), "{name}");
        for (a, b) in copy.spec.components.iter().zip(&source.spec.components) {
            assert_eq!((a.params(), a.mixed_bytes(DType::Bf16)), (b.params(), b.mixed_bytes(DType::Bf16)), "{name}");
            assert_eq!(a.file_dtype(), Some(DType::Bf16), "{name}");
        }
    }
}

#[test]
fn shards_are_at_most_as_large_as_asked() {
    let source = Model::open_cataloged("wan2.1-t2v-1.3b").unwrap();
    let blueprint = made(&source, &SynthOptions { shard: Bytes::gib(3), ..SynthOptions::default() });
    let names: Vec<_> = blueprint.weights.iter().map(|w| w.path.display().to_string()).collect();
    let text = (1..=4).map(|n| format!("text_encoder/model-{n:05}-of-00004.safetensors"));
    let rest = ["transformer", "vae"].map(|c| format!("{c}/diffusion_pytorch_model.safetensors"));
    assert_eq!(names, text.chain(rest).collect::<Vec<_>>());
    assert!(blueprint.weights.iter().all(|w| w.bytes() <= Bytes::gib(3) + Bytes::mib(1)));
}

#[test]
fn a_seed_fixes_every_byte_whatever_the_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    let source = source();
    let written = |name: &str, threads: usize, seed: u64| {
        let folder = dir.path().join(name);
        let blueprint = made(&source, &SynthOptions { seed, ..SynthOptions::default() });
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| write_all(&blueprint, &folder)).unwrap();
        files(&folder)
    };
    let one = written("one", 1, 7);
    assert_eq!(one, written("three", 3, 7));
    let other = written("other", 3, 8);
    assert!(
        one.iter()
            .filter(|(path, _)| path.extension().is_some_and(|e| e == "safetensors"))
            .all(|(path, bytes)| { other[path] != *bytes })
    );
}

#[test]
fn components_left_out_are_left_out_of_the_index_too() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("part");
    let options = |names: &[&str]| SynthOptions {
        components: Some(names.iter().map(|n| (*n).to_owned()).collect()),
        ..SynthOptions::default()
    };
    write_all(&made(&source(), &options(&["transformer", "vae"])), &folder).unwrap();
    let names: Vec<_> = model(&folder).spec.components.iter().map(|c| c.name.clone()).collect();
    assert_eq!(names, ["transformer", "vae"]);
    assert!(!folder.join("tokenizer").exists() && !folder.join("text_encoder").exists());
    let error = Blueprint::new(&source(), &options(&["unet"])).unwrap_err();
    assert!(error.to_string().contains("it has text_encoder, transformer, vae"), "{error}");
}

#[test]
fn a_run_of_random_weights_stays_finite() {
    let dir = tempfile::tempdir().unwrap();
    // Without a tokenizer of its own the copy gets the small one.
    let bare = dir.path().join("bare");
    copy_folder(&fixture("wan_t2v/model"), &bare);
    fs::remove_dir_all(bare.join("tokenizer")).unwrap();
    let source = model(&bare);
    for dtype in [DType::F32, DType::Bf16, DType::F16] {
        let folder = dir.path().join(dtype.name());
        write_all(&made(&source, &stored_as(&source, dtype)), &folder).unwrap();
        let job = golden_job(dir.path(), None);
        run(&mut session_of(&folder, "auto-tune", &[]), &job);
        let dumped = tensors(&dir.path().join("dump.safetensors"));
        assert!(dumped.len() > 2, "{:?}", dumped.keys());
        for (name, (_, values)) in dumped {
            assert!(values.iter().all(|v| v.is_finite()), "{dtype}: {name}");
            assert!(values.iter().any(|v| *v != values[0]), "{dtype}: {name} is all the same");
        }
    }
}

#[test]
fn what_is_stopped_or_refused_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let blueprint = made(&source(), &SynthOptions::default());
    let folder = dir.path().join("stopped");
    let stop = AtomicBool::new(false);
    let half = Bytes(blueprint.bytes().0 / 2);
    let stopped = write(&blueprint, &folder, &stop, &mut |done| stop.store(done > half, Ordering::Relaxed));
    assert!(matches!(stopped, Err(Error::Stopped)), "{stopped:?}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);

    fs::create_dir(&folder).unwrap();
    write_all(&blueprint, &folder).unwrap();
    let before = files(&folder);
    let refused = write_all(&blueprint, &folder).unwrap_err();
    assert!(refused.to_string().contains("not empty; name a new one"), "{refused}");
    assert_eq!(files(&folder), before);
}

#[test]
fn what_a_killed_run_left_is_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let left = dir.path().join(".model.0.partial/vae");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("junk"), "half").unwrap();
    write_all(&made(&source(), &SynthOptions::default()), &dir.path().join("model")).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    assert!(!dir.path().join("model/vae/junk").exists());
}

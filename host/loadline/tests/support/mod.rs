//! What the tests of whole runs share.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

pub mod faults;
pub mod stored;
pub mod synthetic;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use loadline::core::{Bytes, Machine, Size};
use loadline::{Asked, JobSpec, Model, Outcome, ResultSink, Session, SessionOptions, policies, profiles};

pub const PROMPT: &str = "A cat and a dog play with a red ball on the beach at sunset.";
pub const NEGATIVE: &str = "blurry, low quality, static";

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name)
}

/// This machine as the `cpu` profile describes it, with kernels that it has.
pub fn cpu() -> Machine {
    let mut machine = profiles::find("cpu").unwrap().to_machine().unwrap();
    machine.device.kernel_set = loadline_kernels::KernelSet::detect().name().to_owned();
    machine
}

pub fn session_of(folder: &Path, policy: &str, settings: &[(&str, &str)]) -> Session {
    let policy = policies::load(policy).unwrap();
    let given: Vec<(String, String)> = settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let settings = policies::settings(&policy, &given).unwrap();
    let model = Model::open(folder.to_str().unwrap()).unwrap();
    Session::new(SessionOptions { record: true, ..SessionOptions::new(model, policy, settings, cpu()) }).unwrap()
}

pub fn session(policy: &str) -> Session {
    session_of(&fixture("wan_t2v/model"), policy, &[])
}

/// The job that the golden tensors were made with.
pub fn golden_job(dir: &Path, vram: Option<Bytes>) -> JobSpec {
    let model = Model::open(fixture("wan_t2v/model").to_str().unwrap()).unwrap();
    let mut request = model.default_request().unwrap();
    request.size = Size { width: 64, height: 48 };
    (request.frames, request.steps, request.guidance) = (9, 4, 5.0);
    JobSpec {
        prompt: PROMPT.to_owned(),
        negative_prompt: NEGATIVE.to_owned(),
        asked: Asked { vram, ram: Some(Bytes::gib(4)), ..Asked::new(request) },
        seed: 0,
        latents: Some((fixture("wan_t2v/golden.safetensors"), Some("latents".to_owned()))),
        output: ResultSink::Video(dir.join("out.mp4")),
        dump: Some(dir.join("dump.safetensors")),
        resume: false,
        more_to_come: false,
    }
}

pub fn run(session: &mut Session, job: &JobSpec) -> Outcome {
    session.run(job, &AtomicBool::new(false), &mut |_| ()).unwrap_or_else(|e| panic!("{e}"))
}

pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Reads an f32 safetensors file.
pub fn tensors(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).unwrap();
    let n = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + n]).unwrap();
    let entry = |(name, info): (&String, &serde_json::Value)| {
        let number = |v: &serde_json::Value| v.as_u64().unwrap() as usize;
        let shape = info["shape"].as_array().unwrap().iter().map(number).collect();
        let range = 8 + n + number(&info["data_offsets"][0])..8 + n + number(&info["data_offsets"][1]);
        let values = bytes[range].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        (name.clone(), (shape, values))
    };
    let named =
        header.as_object().unwrap().iter().filter(|(name, info)| *name != "__metadata__" && info["dtype"] == "F32");
    named.map(entry).collect()
}

/// Relative L2 error and the largest difference relative to the largest value.
pub fn errors(got: &[f32], expected: &[f32]) -> (f64, f64) {
    assert_eq!(got.len(), expected.len());
    let pairs = || got.iter().zip(expected).map(|(a, b)| (f64::from(*a), f64::from(*b)));
    let square = |x: f64| x * x;
    let difference: f64 = pairs().map(|(a, b)| square(a - b)).sum();
    let norm: f64 = pairs().map(|(_, b)| square(b)).sum();
    let largest = pairs().map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    let scale = pairs().map(|(_, b)| b.abs()).fold(0.0, f64::max);
    ((difference / norm).sqrt(), largest / scale)
}

/// Copies a folder with everything in it.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy_folder(&path, &target) } else { std::fs::copy(&path, &target).map(|_| ()).unwrap() }
    }
}

/// The dump of a run of the fixture against what diffusers computed with a schedule: embeddings, every step, and the
/// frames where the reference has them. Gives the largest relative error of them.
pub fn worst_error(dir: &Path, schedule: &str) -> f64 {
    let (got, golden) = (tensors(&dir.join("dump.safetensors")), tensors(&fixture("wan_t2v/golden.safetensors")));
    let error = |name: &str, reference: &str| {
        let ((shape, values), (expected_shape, expected)) = (&got[name], &golden[reference]);
        assert_eq!(shape, expected_shape, "{name}");
        errors(values, expected).0
    };
    let embeds = ["prompt_embeds", "negative_prompt_embeds"].map(|name| error(name, name));
    let frames = golden.contains_key(&format!("{schedule}.frames"));
    let steps = (0..4).map(|step| format!("latents.{step}")).chain(frames.then(|| "frames".to_owned()));
    steps.map(|name| error(&name, &format!("{schedule}.{name}"))).chain(embeds).fold(0.0, f64::max)
}

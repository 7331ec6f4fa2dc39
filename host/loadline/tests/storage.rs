//! Runs from files as people publish them: GGUF and 8-bit floats with scales, under their own names.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use loadline::core::{DType, Knobs};
use loadline::{JobSpec, Model, Session};
use loadline_models::spec::{is_gathered, storage_of};
use loadline_models::weights::FileDtype;
use support::stored::{Weights, Written, clear, is_matrix, llamas_own, wans_own, wide, write_gguf, write_safetensors};
use support::{copy_folder, errors, golden_job, run, session_of, tensors};

const GGUF: [DType; 10] = [
    DType::Q8_0,
    DType::Q6K,
    DType::Q5K,
    DType::Q4K,
    DType::Q3K,
    DType::Q2K,
    DType::Q5_1,
    DType::Q5_0,
    DType::Q4_1,
    DType::Q4_0,
];

/// A folder of f32 weights, and a place for others.
struct Place {
    dir: tempfile::TempDir,
    original: PathBuf,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let original = dir.path().join("original");
        wide(&original);
        Self { dir, original }
    }

    /// A folder that has other weights in a component.
    fn with(&self, component: &str, write: impl Fn(Weights, &Path)) -> PathBuf {
        let folder = self.dir.path().join("other");
        let _ = fs::remove_dir_all(&folder);
        copy_folder(&self.original, &folder);
        self.also(&folder, component, write);
        folder
    }

    fn also(&self, folder: &Path, component: &str, write: impl Fn(Weights, &Path)) {
        clear(&folder.join(component));
        write(Weights::open(&self.original.join(component)), &folder.join(component));
    }

    /// A short run from noise.
    fn job(&self, storage: &[(&str, DType)]) -> JobSpec {
        let mut job = golden_job(self.dir.path(), None);
        (job.asked.request.frames, job.asked.request.steps) = (5, 2);
        job.latents = None;
        job.asked.knobs.storage = storage.iter().map(|(name, dtype)| ((*name).to_owned(), *dtype)).collect();
        job
    }

    /// The tensors that a run leaves, as they lie in their file.
    fn dump(&self, folder: &Path, storage: &[(&str, DType)]) -> Vec<u8> {
        self.dump_of(&mut session_of(folder, "lazy-load", &[]), storage)
    }

    fn dump_of(&self, session: &mut Session, storage: &[(&str, DType)]) -> Vec<u8> {
        run(session, &self.job(storage));
        fs::read(self.dir.path().join("dump.safetensors")).unwrap()
    }

    /// Relative error of the last latents.
    fn error(&self, run: &[u8], reference: &[u8]) -> f64 {
        let read = |bytes: &[u8]| {
            let path = self.dir.path().join("compared.safetensors");
            fs::write(&path, bytes).unwrap();
            tensors(&path)["latents.1"].1.clone()
        };
        errors(&read(run), &read(reference)).0
    }
}

/// Matrices of blocks in a type, everything else as it is.
fn packed(dtype: DType) -> impl Fn(&str, &[u64]) -> DType {
    move |name, shape| if is_matrix(name, shape) { dtype } else { DType::F32 }
}

fn renamed(mut tensors: Vec<Written>, name: impl Fn(&str) -> String) -> Vec<Written> {
    tensors.iter_mut().for_each(|t| t.name = name(&t.name));
    tensors
}

/// A file's blocks are used as they are, and a knob makes the same blocks of a plain file: the same bits come of both.
#[test]
fn a_gguf_file_is_what_the_knob_makes_of_a_plain_one() {
    let place = Place::new();
    for dtype in GGUF {
        let folder = place.with("transformer", |weights, component| {
            let tensors = renamed(weights.stored(packed(dtype)), wans_own);
            write_gguf(&component.join("wan2.1-t2v-Q.gguf"), &tensors);
        });
        let by_knob = place.dump(&place.original, &[("transformer", dtype)]);
        assert!(place.dump(&folder, &[]) == by_knob, "{dtype} as filed");
        assert!(place.dump(&folder, &[("transformer", dtype)]) == by_knob, "{dtype} as filed and as asked for");
    }
}

#[test]
fn a_text_encoder_in_gguf_is_what_the_knob_makes_of_a_plain_one() {
    let place = Place::new();
    for dtype in [DType::Q8_0, DType::Q4K] {
        let folder = place.with("text_encoder", |weights, component| {
            let tensors = renamed(weights.stored(packed(dtype)), llamas_own);
            write_gguf(&component.join("umt5-xxl-encoder-Q.gguf"), &tensors);
        });
        let by_knob = place.dump(&place.original, &[("text_encoder", dtype)]);
        assert!(place.dump(&folder, &[]) == by_knob, "{dtype}");
    }
}

/// The types of a published `Q4_K_M`: most matrices in Q4_K, some in better types, the rest in halves.
fn mixture(name: &str, shape: &[u64]) -> DType {
    match name {
        _ if name.contains("scale_shift_table") || shape.len() == 1 => DType::F32,
        _ if !is_matrix(name, shape) => DType::F16,
        _ if name.contains("to_v") => DType::Q6K,
        _ if name.contains("ffn.net.2") => DType::Q5K,
        _ if name.contains("to_out") => DType::Q8_0,
        _ => DType::Q4K,
    }
}

#[test]
fn a_file_keeps_its_mixture_until_another_type_is_asked_for() {
    let place = Place::new();
    let folder = place.with("transformer", |weights, component| {
        write_gguf(&component.join("q4_k_m.gguf"), &renamed(weights.stored(mixture), wans_own));
    });
    let model = Model::open(folder.to_str().unwrap()).unwrap();
    let transformer = model.spec.component("transformer").unwrap();
    let stored = |name: &str| {
        let tensor = transformer.tensors.iter().find(|t| t.name == name).unwrap();
        storage_of(transformer, tensor, &Knobs::default())
    };
    assert_eq!(stored("blocks.0.attn1.to_q.weight"), DType::Q4K);
    assert_eq!(stored("blocks.2.attn2.to_v.weight"), DType::Q6K);
    assert_eq!(stored("blocks.1.ffn.net.2.weight"), DType::Q5K);
    assert_eq!(stored("patch_embedding.weight"), DType::F16);
    assert_eq!(stored("blocks.1.scale_shift_table"), DType::F32);
    let reference = place.dump(&place.original, &[]);
    let check = |storage: &[(&str, DType)], least: f64, most: f64| {
        let error = place.error(&place.dump(&folder, storage), &reference);
        assert!(error > least && error < most, "{storage:?}: {error}");
    };
    check(&[], 0.0005, 0.02);
    // Converted when it is loaded, a mixture loses no more than rounding to bf16 does.
    check(&[("transformer", DType::Bf16)], 0.0005, 0.02);
    check(&[("transformer", DType::Q8_0)], 0.0005, 0.02);
}

/// A tensor of its scale beside each tensor of 8-bit floats.
fn with_scales(tensors: Vec<Written>) -> Vec<Written> {
    let apart = |mut tensor: Written| {
        if tensor.dtype != FileDtype::F8_E4M3 {
            return vec![tensor];
        }
        let scale = tensor.bytes.split_off(tensor.bytes.len() - 4);
        let name = tensor.name.replace(".weight", ".scale_weight");
        vec![tensor, Written { name, dtype: FileDtype::F32, shape: vec![], bytes: scale }]
    };
    tensors.into_iter().flat_map(apart).collect()
}

fn extra(name: &str, dtype: FileDtype, bytes: &[u8]) -> Written {
    Written { name: name.into(), dtype, shape: vec![bytes.len() as u64], bytes: bytes.to_vec() }
}

/// As ComfyUI's repackaged files are: names of the authors behind a prefix, a mark, scales beside weights, and the text
/// encoder's file holds its tokenizer too.
#[test]
fn scaled_8_bit_floats_are_what_the_knob_makes_of_a_plain_file() {
    let place = Place::new();
    let f8 = DType::F8E4M3;
    let folder = place.with("transformer", |weights, component| {
        let mut tensors = with_scales(weights.stored(packed(f8)));
        tensors.push(extra("scaled_fp8", FileDtype::F8_E4M3, &[0, 0]));
        let tensors = renamed(tensors, |name| format!("model.diffusion_model.{}", wans_own(name)));
        write_safetensors(&component.join("wan2.1_t2v_fp8_scaled.safetensors"), &tensors);
    });
    let by_knob = place.dump(&place.original, &[("transformer", f8)]);
    assert!(place.dump(&folder, &[]) == by_knob, "the transformer");
    place.also(&folder, "text_encoder", |weights, component| {
        let mut tensors = with_scales(weights.stored(packed(f8)));
        tensors.push(extra("scaled_fp8", FileDtype::F8_E4M3, &[0, 0]));
        tensors.push(extra("spiece_model", FileDtype::U8, b"a tokenizer's model"));
        write_safetensors(&component.join("umt5_xxl_fp8_e4m3fn_scaled.safetensors"), &tensors);
    });
    let by_knob = place.dump(&place.original, &[("transformer", f8), ("text_encoder", f8)]);
    assert!(place.dump(&folder, &[]) == by_knob, "transformer and text encoder");
}

/// Files of 8-bit floats without scales hold the weights themselves, those outside of blocks too.
#[test]
fn plain_8_bit_floats_count_as_they_are() {
    let place = Place::new();
    let plain = |scaled: bool| {
        place.with("transformer", |weights, component| {
            let all = |_: &str, shape: &[u64]| if shape.len() == 2 { DType::F8E4M3 } else { DType::F32 };
            let mut tensors = with_scales(weights.stored(all));
            for scale in tensors.iter_mut().filter(|t| t.name.ends_with(".scale_weight")) {
                scale.bytes = 1f32.to_le_bytes().to_vec();
            }
            tensors.retain(|t| scaled || !t.name.ends_with(".scale_weight"));
            // Scales are a thousandth and less, so that without them weights would be far from what they were.
            for tensor in tensors.iter_mut().filter(|t| t.dtype == FileDtype::F8_E4M3) {
                tensor.bytes.iter_mut().for_each(|byte| *byte = (*byte & 0x80) | ((*byte & 0x7f) % 0x20));
            }
            write_safetensors(&component.join("wan_fp8_e4m3fn.safetensors"), &tensors);
        })
    };
    let (without, with) = (place.dump(&plain(false), &[]), place.dump(&plain(true), &[]));
    assert!(without == with, "no scale is a scale of one");
}

#[test]
fn what_cannot_be_used_is_refused_by_name() {
    let place = Place::new();
    let refused = |change: &dyn Fn(&mut Vec<Written>)| {
        let folder = place.with("transformer", |weights, component| {
            let mut tensors = with_scales(weights.stored(packed(DType::F8E4M3)));
            change(&mut tensors);
            write_safetensors(&component.join("model.safetensors"), &tensors);
        });
        let model = Model::open(folder.to_str().unwrap());
        let error = model.err().map(|e| e.to_string());
        error.unwrap_or_else(|| {
            let mut session = session_of(&folder, "lazy-load", &[]);
            let stop = std::sync::atomic::AtomicBool::new(false);
            session.run(&place.job(&[]), &stop, &mut |_| ()).err().unwrap().to_string()
        })
    };
    let check = |change: &dyn Fn(&mut Vec<Written>), parts: [&str; 3]| {
        let text = refused(change);
        assert!(parts.iter().all(|part| text.contains(part)), "{parts:?} are not all in: {text}");
    };
    let tensor = |all: &mut Vec<Written>, end: &str| all.iter().position(|t| t.name.ends_with(end)).unwrap();
    check(
        &|all| {
            let at = tensor(all, "to_q.weight");
            all[at].dtype = FileDtype::F8_E5M2;
        },
        ["to_q.weight", "F8_E5M2", "use a checkpoint in f32"],
    );
    check(
        &|all| {
            let at = tensor(all, "to_q.scale_weight");
            (all[at].shape, all[at].bytes) = (vec![2], [1f32.to_le_bytes(); 2].concat());
        },
        ["to_q.scale_weight", "[2]", "use a checkpoint with a scale for each tensor"],
    );
    for scale in [0.0f32, -1.0, f32::NAN, f32::INFINITY] {
        check(
            &|all| {
                let at = tensor(all, "to_k.scale_weight");
                all[at].bytes = scale.to_le_bytes().to_vec();
            },
            ["model.safetensors", "to_k.scale_weight", "download the file again"],
        );
    }
    check(
        &|all| {
            let stray = extra("blocks.77.attn1.to_q.scale_weight", FileDtype::F32, &1f32.to_le_bytes());
            all.push(Written { shape: Vec::new(), ..stray });
        },
        ["blocks.77.attn1.to_q.scale_weight", "no part of the model", "download both again"],
    );
}

/// Tensors of one file are gathered where they lie, whatever their type: the table of a text encoder is its largest.
#[test]
fn rows_of_a_packed_table_are_decoded_one_by_one() {
    let place = Place::new();
    let table = |name: &str| is_gathered(name);
    let reference = place.dump(&place.original, &[]);
    for (dtype, most) in [(DType::Q8_0, 0.02), (DType::Q6K, 0.05), (DType::F8E4M3, 0.1), (DType::F16, 0.001)] {
        let folder = place.with("text_encoder", |weights, component| {
            let tensors = weights.stored(|name, _| if table(name) { dtype } else { DType::F32 });
            if dtype == DType::F8E4M3 {
                write_safetensors(&component.join("model.safetensors"), &with_scales(tensors));
            } else {
                write_gguf(&component.join("model.gguf"), &renamed(tensors, llamas_own));
            }
        });
        let error = place.error(&place.dump(&folder, &[]), &reference);
        assert!(error > 0.0 && error < most, "{dtype}: {error}");
    }
}

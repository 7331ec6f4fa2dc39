//! A Wan model of random weights whose peak is hundreds of MiB, made where it is needed.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::Path;

use loadline_models::params::{Param, params};
use serde_json::{Value, json};

use super::{copy_folder, fixture};

/// The side of a picture at which the decoder's activations are the largest part.
pub const SIDE: u32 = 384;

/// Writes the model's folder: the fixture with wider configs and weights that fit them.
pub fn write(folder: &Path) {
    copy_folder(&fixture("wan_t2v/model"), folder);
    widen(
        &folder.join("transformer"),
        Part::Transformer,
        &[("num_attention_heads", json!(8)), ("attention_head_dim", json!(64)), ("ffn_dim", json!(2048))],
    );
    widen(&folder.join("vae"), Part::Vae, &[("base_dim", json!(24))]);
}

/// A component that can be made wider.
#[derive(Clone, Copy)]
pub enum Part {
    TextEncoder,
    Transformer,
    Vae,
}

/// Changes the config of a component and writes random weights that fit it.
pub fn widen(folder: &Path, part: Part, changes: &[(&str, Value)]) {
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (field, value) in changes {
        config[*field] = value.clone();
    }
    for entry in fs::read_dir(folder).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    fs::write(&path, serde_json::to_vec(&config).unwrap()).unwrap();
    let (class, file) = match part {
        Part::TextEncoder => ("UMT5EncoderModel", "model.safetensors"),
        Part::Transformer => ("WanTransformer3DModel", "diffusion_pytorch_model.safetensors"),
        Part::Vae => ("AutoencoderKLWan", "diffusion_pytorch_model.safetensors"),
    };
    safetensors(&folder.join(file), &params(class, &config).unwrap());
}

/// Random values as f32, small enough that no layer blows up.
fn safetensors(path: &Path, list: &[Param]) {
    let mut header = serde_json::Map::new();
    let mut offset = 0;
    for param in list {
        let end = offset + 4 * param.elements();
        let entry = json!({ "dtype": "F32", "shape": param.shape, "data_offsets": [offset, end] });
        header.insert(param.name.clone(), entry);
        offset = end;
    }
    let mut text = serde_json::to_vec(&header).unwrap();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut out = BufWriter::new(fs::File::create(path).unwrap());
    out.write_all(&(text.len() as u64).to_le_bytes()).unwrap();
    out.write_all(&text).unwrap();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..offset / 4 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let value = ((state >> 40) as f32 / (1 << 23) as f32 - 1.0) * 0.03;
        out.write_all(&value.to_le_bytes()).unwrap();
    }
    out.flush().unwrap();
}

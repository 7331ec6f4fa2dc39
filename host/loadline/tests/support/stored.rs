//! Weight files as people publish them: GGUF with its blocks, safetensors with 8-bit floats and their scales.

use std::fs;
use std::path::Path;

use loadline::WeightIndex;
use loadline::core::DType;
use loadline_device::{BlockSource, Segment, SlabView, WeightFiles, load_block};
use loadline_models::weights::FileDtype;
use serde_json::{Value, json};

use super::synthetic::{Part, widen};
use super::{copy_folder, fixture};

/// Values of a row in every matrix of [`wide`]: one block of the largest kind, or two.
pub const WIDTH: u64 = 256;

/// The fixture with a transformer and a text encoder whose rows are whole blocks of every type.
pub fn wide(folder: &Path) {
    copy_folder(&fixture("wan_t2v/model"), folder);
    let (heads, ffn) = (("num_attention_heads", json!(4)), ("ffn_dim", json!(2 * WIDTH)));
    let transformer = [heads, ("attention_head_dim", json!(64)), ffn, ("text_dim", json!(WIDTH))];
    widen(&folder.join("transformer"), Part::Transformer, &transformer);
    let text = [("d_model", json!(WIDTH)), ("d_ff", json!(WIDTH)), ("d_kv", json!(64))];
    widen(&folder.join("text_encoder"), Part::TextEncoder, &text);
}

/// A tensor of a file.
pub struct Written {
    pub name: String,
    pub dtype: FileDtype,
    pub shape: Vec<u64>,
    pub bytes: Vec<u8>,
}

/// A component's f32 weights.
pub struct Weights {
    index: WeightIndex,
    files: WeightFiles,
}

impl Weights {
    pub fn open(component: &Path) -> Self {
        let index = WeightIndex::open_component(component).unwrap();
        let files = WeightFiles::open(&index.files).unwrap();
        Self { index, files }
    }

    /// Every tensor, in the type that `choose` gives for its name and shape; 8-bit floats with their scale behind them.
    pub fn stored(&self, choose: impl Fn(&str, &[u64]) -> DType) -> Vec<Written> {
        let one = |entry: &loadline::TensorEntry| {
            let (dtype, elements) = (choose(&entry.name, &entry.shape), entry.elements() as usize);
            let segment = Segment {
                tensor: entry.name.clone(),
                file: entry.file,
                offset: entry.offset,
                elements,
                file_dtype: entry.dtype.storage().unwrap(),
                place: 0,
                dtype,
                scale: 1.0,
            };
            let source = BlockSource { segments: vec![segment], packed: None };
            let slab = load_block(&self.files, &source).unwrap();
            let bytes = SlabView { slab, offset: 0, elements, dtype }.bytes().to_vec();
            Written { name: entry.name.clone(), dtype: filed(dtype), shape: entry.shape.clone(), bytes }
        };
        self.index.tensors.iter().map(one).collect()
    }
}

/// The files' name of a type.
fn filed(dtype: DType) -> FileDtype {
    let all = [
        FileDtype::F32,
        FileDtype::F16,
        FileDtype::BF16,
        FileDtype::F8_E4M3,
        FileDtype::Q8_0,
        FileDtype::Q6_K,
        FileDtype::Q5_K,
        FileDtype::Q4_K,
        FileDtype::Q3_K,
        FileDtype::Q2_K,
        FileDtype::Q5_1,
        FileDtype::Q5_0,
        FileDtype::Q4_1,
        FileDtype::Q4_0,
    ];
    all.into_iter().find(|f| f.storage() == Some(dtype)).unwrap()
}

/// Whether a tensor is a matrix of a repeated block, by its diffusers name.
pub fn is_matrix(name: &str, shape: &[u64]) -> bool {
    let listed = name.starts_with("blocks.") || name.starts_with("encoder.block.");
    listed && shape.len() == 2 && !name.contains("relative_attention_bias")
}

/// Takes the component's weight files away.
pub fn clear(component: &Path) {
    for path in fs::read_dir(component).unwrap().map(|e| e.unwrap().path()) {
        if path.file_name().is_some_and(|name| name != "config.json") {
            fs::remove_file(path).unwrap();
        }
    }
}

/// Writes a GGUF file of version 3. As in published files, axes of one in front are left out, and a tensor of five axes
/// is written as two and its shape noted beside it.
pub fn write_gguf(path: &Path, tensors: &[Written]) {
    let mut head = b"GGUF".to_vec();
    let folded: Vec<_> = tensors.iter().filter(|t| t.shape.len() > 4).collect();
    head.extend(3u32.to_le_bytes());
    head.extend((tensors.len() as u64).to_le_bytes());
    head.extend((1 + folded.len() as u64).to_le_bytes());
    text(&mut head, "general.architecture");
    head.extend(8u32.to_le_bytes());
    text(&mut head, "wan");
    for tensor in folded {
        text(&mut head, &format!("comfy.gguf.orig_shape.{}", tensor.name));
        // A list of i32.
        head.extend([9u32, 5].iter().flat_map(|n| n.to_le_bytes()));
        head.extend((tensor.shape.len() as u64).to_le_bytes());
        head.extend(tensor.shape.iter().flat_map(|d| (*d as i32).to_le_bytes()));
    }
    let mut data = Vec::new();
    for tensor in tensors {
        text(&mut head, &tensor.name);
        let axes = axes(&tensor.shape);
        head.extend((axes.len() as u32).to_le_bytes());
        head.extend(axes.iter().rev().flat_map(|d| d.to_le_bytes()));
        head.extend(number(tensor.dtype).to_le_bytes());
        head.extend((data.len() as u64).to_le_bytes());
        data.extend_from_slice(&tensor.bytes);
        data.resize(data.len().next_multiple_of(32), 0);
    }
    head.resize(head.len().next_multiple_of(32), 0);
    head.extend(data);
    fs::write(path, head).unwrap();
}

fn axes(shape: &[u64]) -> Vec<u64> {
    if shape.len() > 4 {
        let (last, rest) = shape.split_last().unwrap();
        return vec![rest.iter().product(), *last];
    }
    let ones = shape.iter().take_while(|d| **d == 1).count().min(shape.len().saturating_sub(1));
    shape[ones..].to_vec()
}

fn number(dtype: FileDtype) -> u32 {
    (0..64).find(|n| FileDtype::from_ggml(*n) == Some(dtype)).unwrap()
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// Writes a safetensors file.
pub fn write_safetensors(path: &Path, tensors: &[Written]) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for tensor in tensors {
        let begin = data.len();
        data.extend_from_slice(&tensor.bytes);
        let entry = json!({ "dtype": tensor.dtype.name(), "shape": tensor.shape, "data_offsets": [begin, data.len()] });
        assert!(header.insert(tensor.name.clone(), entry).is_none(), "{} occurs twice", tensor.name);
    }
    let mut text = Value::Object(header).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let length = (text.len() as u64).to_le_bytes();
    fs::write(path, [&length[..], &text, &data].concat()).unwrap();
}

/// What Wan's authors call a tensor of the transformer.
pub fn wans_own(name: &str) -> String {
    if name == "scale_shift_table" {
        return "head.modulation".to_owned();
    }
    let pairs = [
        ("condition_embedder.time_embedder.linear_1.", "time_embedding.0."),
        ("condition_embedder.time_embedder.linear_2.", "time_embedding.2."),
        ("condition_embedder.text_embedder.linear_1.", "text_embedding.0."),
        ("condition_embedder.text_embedder.linear_2.", "text_embedding.2."),
        ("condition_embedder.time_proj.", "time_projection.1."),
        ("proj_out.", "head.head."),
        (".attn1.to_out.0.", ".self_attn.o."),
        (".attn1.to_", ".self_attn."),
        (".attn1.", ".self_attn."),
        (".attn2.to_out.0.", ".cross_attn.o."),
        (".attn2.to_", ".cross_attn."),
        (".attn2.", ".cross_attn."),
        (".norm2.", ".norm3."),
        (".ffn.net.0.proj.", ".ffn.0."),
        (".ffn.net.2.", ".ffn.2."),
        (".scale_shift_table", ".modulation"),
    ];
    pairs.iter().fold(name.to_owned(), |name, (here, there)| name.replace(here, there))
}

/// What llama.cpp calls a tensor of the text encoder.
pub fn llamas_own(name: &str) -> String {
    let pairs = [
        ("shared.", "token_embd."),
        ("encoder.final_layer_norm.", "enc.output_norm."),
        ("encoder.block.", "enc.blk."),
        (".layer.0.SelfAttention.relative_attention_bias.", ".attn_rel_b."),
        (".layer.0.SelfAttention.", ".attn_"),
        (".layer.0.layer_norm.", ".attn_norm."),
        (".layer.1.layer_norm.", ".ffn_norm."),
        (".layer.1.DenseReluDense.wi_0.", ".ffn_gate."),
        (".layer.1.DenseReluDense.wi_1.", ".ffn_up."),
        (".layer.1.DenseReluDense.wo.", ".ffn_down."),
    ];
    pairs.iter().fold(name.to_owned(), |name, (here, there)| name.replace(here, there))
}

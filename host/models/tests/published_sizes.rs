//! Bytes that plans count for weights, against the sizes of files that people publish.
//!
//! Sizes are those that the files' hosts list: of Wan transformers in GB with three digits, of text encoders in bytes.
//! Which tensors of a GGUF file stay plain is a list in the converter of ComfyUI-GGUF: of Wan everything outside of the
//! blocks, in f32 or in f16.
#![allow(clippy::unwrap_used)]

use loadline_core::{Component, DType, Knobs, TensorSpec};
use loadline_models::catalog::{find, names};
use loadline_models::spec::{StorageRule, catalog_model, is_gathered, kept_plain};

fn component(model: &str, name: &str) -> Component {
    catalog_model(find(model).unwrap()).unwrap().component(name).unwrap().clone()
}

/// Bytes of all tensors as a plan has them in memory. A table is gathered where it lies in its file, in the type that
/// it has there.
fn bytes(component: &Component, knobs: &Knobs, table: DType) -> f64 {
    let rule = StorageRule::new(component, knobs);
    let one = |t: &TensorSpec| if is_gathered(&t.name) { table } else { rule.of(t) }.bytes(t.elements()).as_f64();
    component.tensors.iter().filter(|t| !t.buffer).map(one).sum()
}

fn asked(component: &str, dtype: DType) -> Knobs {
    Knobs { storage: vec![(component.to_owned(), dtype)], ..Knobs::default() }
}

/// The component as a converter would write it: matrices of the blocks in a type, other matrices in another, vectors in
/// f32.
fn filed(component: &Component, inside: DType, outside: DType) -> Component {
    let mut component = component.clone();
    for tensor in &mut component.tensors {
        let matrix = tensor.shape.len() > 1 && !tensor.keep_f32;
        let dtype = match (matrix, tensor.name.starts_with("blocks.")) {
            (true, true) => inside,
            (true, false) => outside,
            (false, _) => DType::F32,
        };
        tensor.file_dtype = Some(dtype);
    }
    component
}

/// `most` is the share that rounding of the published figure, tokenizers and headers may make.
fn check(what: &str, planned: f64, published: f64, most: f64) {
    let off = planned / published - 1.0;
    assert!(off.abs() < most, "{what}: {planned} planned, {published} published, {off:+.4}");
}

#[test]
fn a_published_file_is_as_large_as_its_plan_says() {
    let (old, new) = (component("wan2.1-t2v-14b", "transformer"), component("wan2.2-t2v-a14b", "transformer"));
    let none = Knobs::default();
    let wan = |c: &Component, outside| bytes(&filed(c, DType::Q8_0, outside), &none, DType::F32);
    check("wan2.1-t2v-14b-Q8_0.gguf", wan(&old, DType::F32), 15.9e9, 0.005);
    check("Wan2.2-T2V-A14B-HighNoise-Q8_0.gguf", wan(&new, DType::F16), 15.4e9, 0.005);
}

#[test]
fn a_storage_type_by_knob_is_as_large_as_a_published_file_of_it() {
    let transformer = component("wan2.2-t2v-a14b", "transformer");
    let text = component("wan2.1-t2v-14b", "text_encoder");
    let wan = bytes(&transformer, &asked("transformer", DType::Q8_0), DType::F16);
    check("Wan2.2-T2V-A14B-HighNoise-Q8_0.gguf", wan, 15.4e9, 0.005);
    let umt5 = |dtype, table| bytes(&text, &asked("text_encoder", dtype), table);
    check("umt5-xxl-encoder-Q8_0.gguf", umt5(DType::Q8_0, DType::Q8_0), 6_043_068_256.0, 0.0015);
    let blocks = |c: &Component| {
        let own = c.blocks.iter().filter(|b| b.name.starts_with("blocks.")).flat_map(|b| c.block_tensors(b));
        own.map(|t| StorageRule::new(c, &asked("transformer", DType::F8E4M3)).of(t).bytes(t.elements()).as_f64()).sum()
    };
    // What ComfyUI-WanVideoWrapper prints of 40 blocks in fp8: "13409 MB", which are MiB.
    check(
        "40 blocks of Wan 14B in fp8",
        blocks(&component("wan2.1-t2v-14b", "transformer")),
        13_409.0 * 1_048_576.0,
        0.002,
    );
    check("umt5_xxl_fp8_e4m3fn_scaled", umt5(DType::F8E4M3, DType::F16), 6_735_906_897.0, 0.0015);
}

/// Where a type of large blocks is asked for, it is clear beforehand which models it does not fit.
#[test]
fn rows_of_most_published_models_are_whole_blocks() {
    let told = |name: &str| {
        let model = catalog_model(find(name).unwrap()).unwrap();
        let asked = |c: &Component| asked(&c.name, DType::Q4K);
        let all = model.components.iter().filter_map(|c| kept_plain(c, &asked(c)));
        all.map(|k| (k.component, k.row)).collect::<Vec<_>>()
    };
    for name in names().filter(|n| n.starts_with("wan")) {
        assert_eq!(told(name), [], "{name}");
    }
    assert_eq!(told("cogvideox-2b"), [("transformer".to_owned(), 1920)]);
    assert_eq!(told("cogvideox-5b"), []);
}

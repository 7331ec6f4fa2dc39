//! Weight headers: what they say when honest, and that no lie is believed.
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "tests read better with builders in the call")]

use std::io::{Cursor, Write};
use std::path::Path;

use loadline_models::weights::{
    FileDtype, HEADER_BYTES_MAX, MetaValue, TensorEntry, WeightError, WeightIndex, read_gguf, read_safetensors,
};

mod build;
use build::{Gguf, kv, safetensors, tensor_json};

fn read_st(bytes: &[u8]) -> Result<Vec<TensorEntry>, WeightError> {
    read_safetensors(&mut Cursor::new(bytes), Path::new("w.safetensors"), 0)
}

fn small() -> Vec<u8> {
    let header = [
        r#""__metadata__":{"format":"pt"}"#.to_owned(),
        tensor_json("b", "BF16", "[2,3]", 0, 12),
        tensor_json("a", "F32", "[]", 12, 16),
        tensor_json("empty", "F32", "[0,4]", 16, 16),
    ];
    safetensors(&header, 16)
}

#[test]
fn an_honest_safetensors_header_is_read() {
    let bytes = small();
    let data = bytes.len() as u64 - 16;
    let entry = |name: &str, dtype, shape: &[u64], offset, bytes| TensorEntry {
        name: name.into(),
        shape: shape.to_vec(),
        dtype,
        file: 0,
        offset: data + offset,
        bytes,
    };
    let expected = [
        entry("a", FileDtype::F32, &[], 12, 4),
        entry("b", FileDtype::BF16, &[2, 3], 0, 12),
        entry("empty", FileDtype::F32, &[0, 4], 16, 0),
    ];
    assert_eq!(read_st(&bytes).unwrap(), expected);
}

#[test]
fn every_lie_of_a_safetensors_header_is_named() {
    let check = |tensors: &[String], message: &str| {
        let error = read_st(&safetensors(tensors, 16)).unwrap_err().to_string();
        assert!(error.contains("w.safetensors") && error.contains(message), "{error:?} lacks {message:?}");
    };
    let one = |dtype: &str, shape: &str, begin, end| [tensor_json("t", dtype, shape, begin, end)];
    check(&one("F31", "[4]", 0, 16), "unknown element type F31; known are BOOL");
    check(&one("F32", "[5]", 0, 16), "16 bytes where shape and element type need 20");
    check(&one("F32", "[5]", 0, 20), "end at");
    check(&one("F32", "[1]", 8, 4), "before it begins");
    check(&one("F32", "[4294967296,4294967296]", 0, 16), "overflows");
    check(&one("F64", "[4611686018427387904]", 0, 16), "overflows");
    check(&one("F32", "[-1]", 0, 16), "tensor \"t\"");
    check(&one("F32", "[1.5]", 0, 16), "tensor \"t\"");
    check(&one("F32", "[1,1,1,1,1,1,1,1,1]", 0, 4), "at most 8");
    check(&one("U8", "[0]", u64::MAX, u64::MAX), "end at");
    check(&[r#""t":{"dtype":"F32","shape":[1]}"#.to_owned()], "data_offsets");
    let twice = tensor_json("t", "F32", "[1]", 0, 4);
    check(&[twice.clone(), twice.replace("[0,4]", "[4,8]")], "used twice");
    check(&[twice, tensor_json("u", "F32", "[2]", 2, 10)], "overlap those of \"t\"");
}

#[test]
fn broken_safetensors_files_are_named() {
    let check = |bytes: &[u8], message: &str| {
        let error = read_st(bytes).unwrap_err().to_string();
        assert!(error.contains(message), "{error:?} lacks {message:?}");
    };
    let with_length = |length: u64, rest: &[u8]| [&length.to_le_bytes(), rest].concat();
    check(b"", "cut short");
    check(&with_length(3, b"{}"), "cut short");
    check(&with_length(100_000_001, b"{}"), "limit of 100000000");
    check(&with_length(u64::MAX, b"{}"), "limit of 100000000");
    check(&with_length(2, b"[]"), "damaged header");
    check(&with_length(2, b"\xff\xfe"), "damaged header");
    check(&with_length(9, b"{\"\xff\":{}}."), "damaged header");
    assert!(read_st(&with_length(2, b"{}")).unwrap().is_empty());
}

fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

fn one_tensor(name: &str) -> Vec<u8> {
    safetensors(&[tensor_json(name, "F16", "[2]", 0, 4)], 4)
}

#[test]
fn weights_are_found_in_a_component_folder() {
    let check = |files: &[&str], expected: Result<&str, &str>| {
        let bytes = one_tensor("t");
        let dir = folder(&files.iter().map(|name| (*name, bytes.as_slice())).collect::<Vec<_>>());
        match (WeightIndex::open_component(dir.path()), expected) {
            (Ok(index), Ok(file)) => assert_eq!(index.files, [dir.path().join(file)]),
            (Err(error), Err(message)) => assert!(error.to_string().contains(message), "{error}"),
            (result, expected) => panic!("{files:?}: {result:?} instead of {expected:?}"),
        }
    };
    check(&["model.safetensors", "config.json"], Ok("model.safetensors"));
    check(&["diffusion_pytorch_model.safetensors", "other.safetensors"], Ok("diffusion_pytorch_model.safetensors"));
    check(&["my-own.safetensors"], Ok("my-own.safetensors"));
    check(&["a.safetensors", "b.safetensors"], Err("a.safetensors, b.safetensors"));
    check(&["config.json", "model.bin"], Err("no weights in"));
    check(&[], Err("no weights in"));
}

#[test]
fn a_weight_file_can_be_named_itself() {
    let gguf = Gguf::new(3).tensor("t", &[2], 0, 0).bytes(8);
    let dir = folder(&[("x.safetensors", &one_tensor("t")), ("y.gguf", &gguf), ("z", &gguf), ("w.txt", b"hello")]);
    let open = |name: &str| WeightIndex::open_component(&dir.path().join(name));
    for (name, bytes) in [("x.safetensors", 4), ("y.gguf", 8), ("z", 8)] {
        let index = open(name).unwrap();
        assert_eq!((index.bytes(), index.get("t").unwrap().shape.as_slice()), (bytes, &[2][..]), "{name}");
        assert_eq!(index.get("u"), None);
    }
    assert!(matches!(open("w.txt"), Err(WeightError::UnknownFormat { .. })));
    assert!(matches!(open("nothing"), Err(WeightError::Io { .. })));
}

fn sharded(map: &str) -> Result<WeightIndex, WeightError> {
    let index = format!("{{\"metadata\":{{}},\"weight_map\":{map}}}");
    let files: [(&str, &[u8]); 3] = [
        ("model-1.safetensors", &one_tensor("a")),
        ("model-2.safetensors", &one_tensor("b")),
        ("model.safetensors.index.json", index.as_bytes()),
    ];
    WeightIndex::open_component(folder(&files).path())
}

#[test]
fn shards_are_joined() {
    let index = sharded(r#"{"b":"model-2.safetensors","a":"model-1.safetensors"}"#).unwrap();
    let places: Vec<_> = index.tensors.iter().map(|t| (t.name.as_str(), t.file)).collect();
    assert_eq!((places, index.files.len()), (vec![("a", 0), ("b", 1)], 2));
}

#[test]
fn shards_that_do_not_match_their_index_are_refused() {
    let check = |map: &str, message: &str| {
        let error = sharded(map).unwrap_err().to_string();
        assert!(error.contains(message), "{error:?} lacks {message:?}");
    };
    check(r#"{"a":"model-1.safetensors","b":"model-3.safetensors"}"#, "is missing");
    check(r#"{"a":"model-1.safetensors","c":"model-1.safetensors"}"#, "\"c\" is in the index only");
    check(r#"{"b":"model-1.safetensors"}"#, "\"b\" is in the index only");
    check(r#"{}"#, "is empty");
    check(r#"[]"#, "damaged header");
    for name in ["../x", "/etc/passwd", "sub/x", "..", ".", "", "a\\\\b", "./model-1.safetensors", "x/"] {
        check(&format!(r#"{{"a":"{name}"}}"#), "not a plain file name");
    }
}

#[test]
fn a_tensor_that_only_the_shard_has_is_refused() {
    let two = [tensor_json("a", "U8", "[1]", 0, 1), tensor_json("b", "U8", "[1]", 1, 2)];
    let index = br#"{"weight_map":{"a":"s.safetensors"}}"#;
    let dir = folder(&[("s.safetensors", &safetensors(&two, 2)), ("x.safetensors.index.json", index)]);
    let error = WeightIndex::open_component(dir.path()).unwrap_err().to_string();
    assert!(error.contains("\"b\" is in the shard only"), "{error}");
}

fn read_gg(bytes: &[u8]) -> Result<loadline_models::weights::GgufHeader, WeightError> {
    read_gguf(&mut Cursor::new(bytes), Path::new("w.gguf"), 7)
}

fn small_gguf() -> Vec<u8> {
    let words: Vec<u8> = (0..100).flat_map(|_| kv::text_bytes("w")).collect();
    Gguf::new(3)
        .pair("general.architecture", 8, &kv::text_bytes("wan"))
        .pair("general.alignment", 4, &64u32.to_le_bytes())
        .pair("flag", 7, &[1])
        .pair("pi", 6, &3.5f32.to_le_bytes())
        .pair("minus", 11, &(-2i64).to_le_bytes())
        .pair("words", 9, &kv::list(8, 100, &words))
        .pair("nested", 9, &kv::list(9, 1, &kv::list(0, 2, &[1, 2])))
        .pair("comfy.gguf.orig_shape.patch", 9, &kv::list(5, 5, &[8i32, 4, 1, 2, 2].map(i32::to_le_bytes).concat()))
        .tensor("patch", &[4, 32], 0, 0)
        .tensor("q", &[256, 3], 14, 512)
        .bytes(512 + 3 * 210)
}

#[test]
fn an_honest_gguf_header_is_read() {
    let bytes = small_gguf();
    let data = bytes.len() as u64 - 512 - 3 * 210;
    let header = read_gg(&bytes).unwrap();
    let entry = |name: &str, dtype, shape: &[u64], offset, bytes| TensorEntry {
        name: name.into(),
        shape: shape.to_vec(),
        dtype,
        file: 7,
        offset: data + offset,
        bytes,
    };
    let expected =
        [entry("patch", FileDtype::F32, &[8, 4, 1, 2, 2], 0, 512), entry("q", FileDtype::Q6_K, &[3, 256], 512, 630)];
    assert_eq!(header.tensors, expected);
    assert_eq!((header.version, header.alignment, data % 64), (3, 64, 0));
    let value = |key: &str| header.metadata[key].clone();
    assert_eq!(value("general.architecture"), MetaValue::Text("wan".into()));
    assert_eq!(value("flag"), MetaValue::Bool(true));
    assert_eq!(value("pi"), MetaValue::Float(3.5));
    assert_eq!(value("minus"), MetaValue::Signed(-2));
    assert_eq!(value("words"), MetaValue::Omitted(100));
    assert_eq!(value("nested"), MetaValue::List(vec![MetaValue::Omitted(2)]));
}

#[test]
fn every_lie_of_a_gguf_header_is_named() {
    let check = |gguf: Gguf, data: usize, message: &str| {
        let error = read_gg(&gguf.bytes(data)).unwrap_err().to_string();
        assert!(error.contains("w.gguf") && error.contains(message), "{error:?} lacks {message:?}");
    };
    let one = |shape: &[u64], kind, offset| Gguf::new(2).tensor("t", shape, kind, offset);
    check(Gguf::new(1), 0, "version 1");
    check(Gguf::new(3 << 24), 0, "big-endian");
    check(one(&[4], 99, 0), 16, "ggml type 99; known are");
    check(one(&[33], 2, 0), 64, "blocks of 32");
    check(one(&[4], 0, 0), 15, "end at");
    check(one(&[4], 0, 8), 64, "multiple of the alignment");
    check(one(&[4], 0, u64::MAX - 31), 64, "end at");
    check(one(&[1 << 32, 1 << 32], 0, 0), 64, "overflows");
    check(one(&[1; 9], 0, 0), 64, "9 dimensions");
    check(one(&[4], 0, 0).tensor("t", &[4], 0, 32), 64, "used twice");
    check(one(&[16], 0, 0).tensor("u", &[4], 0, 32), 64, "overlap");
    check(one(&[4], 0, 0).pair("general.alignment", 4, &[3, 0, 0, 0]), 64, "general.alignment");
    check(one(&[4], 0, 0).pair("k", 13, &[0]), 64, "unknown type 13");
    check(one(&[4], 0, 0).pair("k", 7, &[2]), 64, "truth value");
    check(one(&[4], 0, 0).pair("k", 0, &[2]).pair("k", 0, &[2]), 64, "occurs twice");
    check(one(&[4], 0, 0).pair("k", 8, &u64::MAX.to_le_bytes()), 64, "metadata \"k\"");
    check(one(&[4], 0, 0).pair("k", 9, &kv::list(0, u64::MAX, &[])), 64, "metadata \"k\"");
    check(one(&[4], 0, 0).pair("comfy.gguf.orig_shape.t", 9, &kv::list(5, 1, &[3, 0, 0, 0])), 64, "original shape");
    let deep = (0..6).fold(kv::list(0, 1, &[1]), |inner, _| kv::list(9, 1, &inner));
    check(one(&[4], 0, 0).pair("k", 9, &deep), 64, "nests more than");
    check(Gguf::new(3).claim(u64::MAX, 0), 0, "tensor count");
    check(Gguf::new(3).claim(0, u64::MAX), 0, "metadata count");
    assert!(matches!(read_gg(b"GGML\x03\0\0\0"), Err(WeightError::UnknownFormat { .. })));
}

/// Such a header would be walked for minutes, as a list of a thousand million empty texts was.
#[test]
fn a_gguf_header_as_long_as_the_weights_is_refused() {
    let length = HEADER_BYTES_MAX + 1;
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&Gguf::new(3).pair("k", 8, &length.to_le_bytes()).bytes(0)).unwrap();
    file.set_len(2 * length).unwrap();
    let error = read_gguf(&mut file, Path::new("w.gguf"), 0).unwrap_err().to_string();
    assert!(error.contains("w.gguf") && error.contains("a header length of"), "{error}");
}

/// Every tensor that survives a damaged header must still lie inside the file.
fn check_harmless(bytes: &[u8], result: Result<Vec<TensorEntry>, WeightError>) -> bool {
    let Ok(tensors) = result else { return false };
    for t in &tensors {
        assert!(t.offset + t.bytes <= bytes.len() as u64, "{t:?}");
        assert_eq!(t.dtype.bytes_for(t.elements()), Some(t.bytes), "{t:?}");
    }
    true
}

fn truncate_and_flip(valid: &[u8], read: impl Fn(&[u8]) -> Result<Vec<TensorEntry>, WeightError>) {
    assert!(check_harmless(valid, read(valid)));
    for len in 0..valid.len() {
        assert!(!check_harmless(&valid[..len], read(&valid[..len])), "a file cut at {len} was accepted");
    }
    for seed in 0..8000u64 {
        let mut bytes = valid.to_vec();
        let mut random = build::SplitMix(seed);
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] = random.next() as u8;
        }
        check_harmless(&bytes, read(&bytes));
    }
}

#[test]
fn damaged_safetensors_never_panic_or_point_outside() {
    truncate_and_flip(&small(), read_st);
}

#[test]
fn damaged_gguf_never_panics_or_points_outside() {
    truncate_and_flip(&small_gguf(), |bytes| read_gg(bytes).map(|header| header.tensors));
}

#[test]
fn a_file_of_the_python_gguf_package_is_read() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/gguf");
    let index = WeightIndex::open_component(&dir).unwrap();
    let check = |name: &str, dtype, shape: &[u64], offset, bytes| {
        let t = index.get(name).unwrap();
        assert_eq!((t.dtype, t.shape.as_slice(), t.offset, t.bytes), (dtype, shape, offset, bytes), "{name}");
    };
    // Offsets and sizes as that package's reader reports them.
    check("patch", FileDtype::F32, &[4, 2, 1, 2, 2], 672, 128);
    check("half", FileDtype::F16, &[3, 5], 800, 30);
    check("Q8_0", FileDtype::Q8_0, &[2, 64], 832, 136);
    check("Q4_0", FileDtype::Q4_0, &[2, 64], 992, 72);
    check("Q5_1", FileDtype::Q5_1, &[2, 64], 1088, 96);
    check("BF16", FileDtype::BF16, &[2, 64], 1184, 256);
    check("Q6_K", FileDtype::Q6_K, &[3, 256], 1440, 630);
    check("Q2_K", FileDtype::Q2_K, &[3, 256], 2080, 252);
    check("Q8_K", FileDtype::Q8_K, &[3, 256], 2336, 876);
    assert_eq!(index.tensors.len(), 9);
}

//! Token ids against those of transformers, the tokenizers library and sentencepiece.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use loadline_text::{Tokenizer, TokenizerError, clean_prompt};
use serde_json::Value;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn cases() -> Vec<Value> {
    let golden: Value = serde_json::from_slice(&std::fs::read(data("golden.json")).unwrap()).unwrap();
    golden["cases"].as_array().unwrap().clone()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

#[test]
fn recorded_prompts_give_the_recorded_ids() {
    let check = |folder: &str, column: &str| {
        let tokenizer = Tokenizer::open(&data(folder)).unwrap();
        for case in cases() {
            let text = case["text"].as_str().unwrap();
            assert_eq!(tokenizer.encode(text, 512).unwrap(), ids(&case[column]), "{folder}: {text:?}");
        }
    };
    check("umt5", "umt5_ids");
    check("umt5_legacy", "umt5_ids");
    check("t5", "t5_ids");
    check("clip", "clip_ids");
    check("clip_json", "clip_ids");
}

#[test]
fn recorded_prompts_are_cleaned() {
    for case in cases() {
        assert_eq!(clean_prompt(case["text"].as_str().unwrap()), case["wan_prompt_clean"].as_str().unwrap());
    }
}

#[test]
fn long_prompts_keep_their_end_token() {
    let check = |folder: &str, max_length: usize, expected: &[u32]| {
        let tokenizer = Tokenizer::open(&data(folder)).unwrap();
        assert_eq!(tokenizer.encode("the the the", max_length).unwrap(), expected, "{folder} {max_length}");
    };
    check("umt5", 4, &[7, 7, 7, 1]);
    check("umt5", 3, &[7, 7, 1]);
    check("t5", 2, &[6, 1]);
    check("t5", 1, &[1]);
    check("clip", 4, &[608, 513, 513, 609]);
    check("clip", 2, &[608, 609]);
}

#[test]
fn a_length_without_room_for_the_end_token_is_refused() {
    let check = |folder: &str, max_length: usize| {
        let error = Tokenizer::open(&data(folder)).unwrap().encode("x", max_length).unwrap_err();
        assert!(matches!(error, TokenizerError::TooShort { .. }), "{error}");
    };
    check("t5", 0);
    check("clip", 1);
}

#[test]
fn padding_and_vocabulary() {
    let check = |folder: &str, pad: u32, vocabulary: usize| {
        let tokenizer = Tokenizer::open(&data(folder)).unwrap();
        assert_eq!((tokenizer.pad_id(), tokenizer.vocabulary()), (pad, vocabulary), "{folder}");
    };
    check("umt5", 0, 431);
    check("t5", 0, 230);
    check("clip", 609, 610);
    assert_eq!(Tokenizer::open(&data("t5")).unwrap().token_id("<extra_id_0>"), Some(229));
}

/// A folder with one file of another one replaced.
fn damaged(folder: &str, file: &str, content: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(data(folder)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    std::fs::write(dir.path().join(file), content).unwrap();
    dir
}

#[test]
fn damaged_files_are_named() {
    let check = |folder: &str, file: &str, content: &[u8]| {
        let dir = damaged(folder, file, content);
        let error = Tokenizer::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains(file) && error.contains("is damaged"), "{error}");
    };
    let merges = std::fs::read(data("clip/merges.txt")).unwrap();
    let spiece = std::fs::read(data("t5/spiece.model")).unwrap();
    check("umt5", "tokenizer.json", b"{}");
    check("umt5", "tokenizer.json", b"not json");
    check("umt5", "tokenizer_config.json", b"{");
    check("t5", "tokenizer_config.json", br#"{"extra_ids": 4000000000}"#);
    check("t5", "spiece.model", b"");
    check("t5", "spiece.model", b"\xff\xff\xff");
    check("t5", "spiece.model", &spiece[..spiece.len() - 1]);
    check("t5", "spiece.model", &spiece[..1000]);
    check("clip", "vocab.json", b"{}");
    check("clip", "vocab.json", br#"{"a": -1}"#);
    check("clip", "merges.txt", &[&merges, &b"one\n"[..]].concat());
    check("clip", "merges.txt", &[&merges, &b"no such\n"[..]].concat());
    check("clip", "merges.txt", b"\xff");
}

#[test]
fn a_folder_without_a_tokenizer_says_what_was_expected() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(data("clip/vocab.json"), dir.path().join("vocab.json")).unwrap();
    for dir in [dir.path(), Path::new("no-such-folder")] {
        let error = Tokenizer::open(dir).unwrap_err().to_string();
        assert!(error.contains("merges.txt"), "{error}");
    }
}

#[test]
fn flipped_bytes_of_a_sentencepiece_file_never_panic() {
    let valid = std::fs::read(data("t5/spiece.model")).unwrap();
    let mut seed = 1u64;
    let mut random = |limit: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % limit
    };
    for _ in 0..300 {
        let mut bytes = valid.clone();
        // Half of the flips hit the pieces, which are a small part of the file.
        let range = if random(2) == 0 { 4000 } else { bytes.len() };
        bytes[random(range)] = random(256) as u8;
        let dir = damaged("t5", "spiece.model", &bytes);
        if let Ok(tokenizer) = Tokenizer::open(dir.path()) {
            let _ = tokenizer.encode("Ａ ﬁne ½ café 猫 <extra_id_0> x", 64);
        }
    }
}

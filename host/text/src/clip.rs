//! CLIP's byte-level BPE from `vocab.json` and `merges.txt`.
//!
//! The pipeline around the vocabulary (lower case, the pattern that splits words, start and end tokens) is fixed in
//! OpenAI's `simple_tokenizer.py` and in no file of the model.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use crate::TokenizerError;

const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";

const WORDS: &str = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

pub(crate) fn open(vocab: &Path, merges: &Path) -> Result<tokenizers::Tokenizer, TokenizerError> {
    let tokens = read_vocab(vocab)?;
    let id = |token: &str| {
        tokens.get(token).copied().ok_or_else(|| TokenizerError::damaged(vocab, &format!("it has no {token}")))
    };
    let special = |token: &str, id: u32| json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    let (start, end) = (id(START)?, id(END)?);
    let whole = json!({
        "version": "1.0",
        "added_tokens": [special(START, start), special(END, end)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Lowercase"},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Removed", "invert": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        ]},
        "post_processor": {
            "type": "RobertaProcessing",
            "sep": [END, end],
            "cls": [START, start],
            "trim_offsets": false,
            "add_prefix_space": false,
        },
        "model": {
            "type": "BPE",
            "unk_token": END,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>",
            "vocab": tokens,
            "merges": read_merges(merges)?,
        },
    });
    // Only the merges can be at fault now: each must join two tokens into a third.
    serde_json::from_value(whole).map_err(|e| TokenizerError::damaged(merges, &e))
}

fn read_vocab(file: &Path) -> Result<BTreeMap<String, u32>, TokenizerError> {
    let bytes = std::fs::read(file).map_err(TokenizerError::io(file))?;
    serde_json::from_slice(&bytes).map_err(|e| TokenizerError::damaged(file, &e))
}

fn read_merges(file: &Path) -> Result<Vec<(String, String)>, TokenizerError> {
    let bytes = std::fs::read(file).map_err(TokenizerError::io(file))?;
    let text = String::from_utf8(bytes).map_err(|e| TokenizerError::damaged(file, &e))?;
    let rules = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with("#version"));
    let rule = |(number, line): (usize, &str)| match line.split_once(' ') {
        Some((left, right)) if !right.contains(' ') => Ok((left.to_owned(), right.to_owned())),
        _ => Err(TokenizerError::damaged(file, &format!("line {} is not a pair of tokens", number + 1))),
    };
    rules.map(rule).collect()
}

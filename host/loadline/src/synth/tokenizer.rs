//! Small tokenizers that encode any prompt, letter by letter, for checkpoints whose tokenizer nobody has.
//!
//! Ids are below the vocabulary of the text encoder, and its special tokens have the ids that the published
//! tokenizers give them. The ids of words are not those of the published ones.

use serde_json::{Map, Value, json};

/// T5's special tokens, in the order of their ids; UMT5's unknown token is 3.
const T5_SPECIAL: [&str; 4] = ["<pad>", "</s>", "<s>", "<unk>"];
const CLIP_SPECIAL: [&str; 2] = ["<|startoftext|>", "<|endoftext|>"];
/// What stands for a space.
const SPACE: char = '\u{2581}';
/// CLIP's vocabulary, where a config has none.
const CLIP_VOCABULARY: u64 = 49_408;
const T5_VOCABULARY: u64 = 32_128;

/// The files of a tokenizer of `class` as name and content, for a text encoder with `vocabulary` rows.
pub(super) fn files(class: &str, vocabulary: Option<u64>) -> Vec<(&'static str, String)> {
    if class.starts_with("CLIP") {
        clip(vocabulary.unwrap_or(CLIP_VOCABULARY))
    } else {
        t5(class, vocabulary.unwrap_or(T5_VOCABULARY))
    }
}

/// Letters, digits and signs.
fn characters() -> impl Iterator<Item = char> {
    '!'..='~'
}

fn t5(class: &str, vocabulary: u64) -> Vec<(&'static str, String)> {
    // All letters are equally likely: with pieces of one character there is one way to write a text.
    let letters = std::iter::once(SPACE).chain(characters()).map(|c| json!([c, -4.0]));
    let pieces: Vec<Value> =
        T5_SPECIAL.iter().map(|s| json!([s, 0.0])).chain(letters).take(vocabulary as usize).collect();
    let words = json!({ "type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": true });
    let end = json!({ "SpecialToken": { "id": "</s>", "type_id": 0 } });
    let first = json!({ "Sequence": { "id": "A", "type_id": 0 } });
    let second = json!({ "Sequence": { "id": "B", "type_id": 0 } });
    let whole = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": T5_SPECIAL.iter().enumerate().map(|(id, text)| special(id, text)).collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": words,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [first, end],
            "pair": [first, end, second, end],
            "special_tokens": { "</s>": { "id": "</s>", "ids": [1], "tokens": ["</s>"] } },
        },
        "decoder": words,
        "model": { "type": "Unigram", "unk_id": 3, "vocab": pieces, "byte_fallback": false },
    });
    let config = json!({
        "tokenizer_class": class.trim_end_matches("Fast"), "extra_ids": 0, "model_max_length": 512,
        "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>",
    });
    vec![("tokenizer.json", format!("{whole:#}\n")), ("tokenizer_config.json", format!("{config:#}\n"))]
}

fn special(id: usize, text: &str) -> Value {
    json!({
        "id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        "special": true,
    })
}

/// A letter, and the same letter at the end of a word; no merges, so that words stay letters.
fn clip(vocabulary: u64) -> Vec<(&'static str, String)> {
    let ends = characters().map(|c| format!("{c}</w>"));
    let room = vocabulary.saturating_sub(CLIP_SPECIAL.len() as u64);
    let letters = characters().map(String::from).chain(ends).zip(0..room);
    let special = CLIP_SPECIAL.iter().map(|s| (*s).to_owned()).zip(room..);
    let vocab: Map<String, Value> = letters.chain(special).map(|(text, id)| (text, id.into())).collect();
    let config = json!({
        "tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "bos_token": CLIP_SPECIAL[0],
        "eos_token": CLIP_SPECIAL[1], "pad_token": CLIP_SPECIAL[1], "unk_token": CLIP_SPECIAL[1],
    });
    let vocab = Value::Object(vocab);
    vec![
        ("vocab.json", format!("{vocab:#}\n")),
        ("merges.txt", "#version: 0.2\n".to_owned()),
        ("tokenizer_config.json", format!("{config:#}\n")),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    use loadline_text::Tokenizer;

    fn ids(class: &str, vocabulary: u64, text: &str) -> Vec<u32> {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files(class, Some(vocabulary)) {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        Tokenizer::open(dir.path()).unwrap().encode(text, 512).unwrap()
    }

    #[test]
    fn prompts_become_ids_that_the_text_encoder_has() {
        let check = |class, vocabulary: u64, expected: &[u32]| {
            assert_eq!(ids(class, vocabulary, "a bA"), expected, "{class}");
            let all = ids(class, vocabulary, "Ein Fuß, \u{72d7}\u{1f600} {}~!\t\n");
            assert!(all.iter().all(|id| u64::from(*id) < vocabulary), "{class}: {all:?}");
        };
        // A space, a, a space, b, A, and the end; letters follow the space from 5 on.
        check("T5TokenizerFast", 256_384, &[4, 69, 4, 70, 37, 1]);
        check("T5Tokenizer", 384, &[4, 69, 4, 70, 37, 1]);
        check("LlamaTokenizerFast", 128_320, &[4, 69, 4, 70, 37, 1]);
        // CLIP's is in lower case: the start, a at a word's end, b, a at a word's end, and the end.
        check("CLIPTokenizer", 49_408, &[49_406, 64 + 94, 65, 64 + 94, 49_407]);
    }

    #[test]
    fn different_prompts_have_different_ids() {
        assert_ne!(ids("T5Tokenizer", 384, "cat"), ids("T5Tokenizer", 384, "dog"));
    }
}

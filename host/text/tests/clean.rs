//! Prompt cleaning against what the reference (ftfy 6, Python's html and re) made of the same texts.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use loadline_text::clean_prompt;

#[test]
fn awkward_prompts_are_cleaned_as_the_reference_does() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/clean.json");
    let cases: Vec<(String, String)> = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert!(cases.len() > 20);
    for (text, expected) in cases {
        assert_eq!(clean_prompt(&text), expected, "{text:?}");
    }
}

#[test]
fn mojibake_is_left_as_it_is() {
    // The reference repairs this one to "café"; the documentation says that we do not.
    assert_eq!(clean_prompt("cafÃ©"), "cafÃ©");
}

//! T5's tokenizer from a SentencePiece file alone.
//!
//! The file is a protobuf, `sentencepiece_model.proto` of github.com/google/sentencepiece. Of it we need the
//! pieces, two
//! numbers of the trainer's settings, and the normaliser's table; everything around them is the same for all T5 models.

use std::collections::BTreeSet;
use std::path::Path;

use tokenizers::AddedToken;
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::Precompiled;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::processors::template::TemplateProcessing;

use crate::TokenizerError;
use crate::charsmap;

mod proto;

use proto::{Kind, Model};

const END: &str = "</s>";

/// Opens `spiece.model` and appends T5's sentinels `<extra_id_n>`, the highest number first.
pub(crate) fn open(file: &Path, sentinels: u64) -> Result<tokenizers::Tokenizer, TokenizerError> {
    let bytes = std::fs::read(file).map_err(TokenizerError::io(file))?;
    let model = Model::parse(&bytes).map_err(|problem| TokenizerError::damaged(file, &problem))?;
    check(&model).map_err(|problem| TokenizerError::damaged(file, &problem))?;
    if !model.is_unigram {
        return Err(TokenizerError::unsupported(file, "it is not a unigram model"));
    }
    build(&model, sentinels).map_err(|e| TokenizerError::damaged(file, &e))
}

/// What the tokenizer takes for granted.
fn check(model: &Model) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for piece in &model.pieces {
        if piece.text.is_empty() || !piece.score.is_finite() {
            return Err(format!("piece {:?} has the score {}", piece.text, piece.score));
        }
        if !seen.insert(piece.text.as_str()) {
            return Err(format!("piece {:?} occurs twice", piece.text));
        }
    }
    if !seen.contains(END) {
        return Err(format!("it has no end token {END}"));
    }
    let unknown = model.unknown.and_then(|id| model.pieces.get(id));
    match unknown {
        Some(piece) if piece.kind == Kind::Unknown => charsmap::check(&model.charsmap),
        _ => Err("its unknown token is not one of its pieces".into()),
    }
}

fn build(model: &Model, sentinels: u64) -> tokenizers::Result<tokenizers::Tokenizer> {
    let sentinel_names: Vec<String> = (0..sentinels).rev().map(|i| format!("<extra_id_{i}>")).collect();
    let pieces = model.pieces.iter().map(|p| (p.text.clone(), f64::from(p.score)));
    let known: BTreeSet<&str> = model.pieces.iter().map(|p| p.text.as_str()).collect();
    let new = sentinel_names.iter().filter(|name| !known.contains(name.as_str()));
    let vocabulary = pieces.chain(new.map(|name| (name.clone(), 0.0))).collect();
    let unigram = Unigram::from(vocabulary, model.unknown, model.byte_fallback)?;

    let mut tokenizer = tokenizers::Tokenizer::new(unigram);
    if !model.charsmap.is_empty() {
        tokenizer.with_normalizer(Some(Precompiled::from(&model.charsmap)?))?;
    }
    let metaspace = Metaspace::new('\u{2581}', PrependScheme::Always, true);
    let words: [PreTokenizerWrapper; 2] = [WhitespaceSplit.into(), metaspace.into()];
    tokenizer.with_pre_tokenizer(Some(Sequence::new(words.into())));
    let special = model.pieces.iter().filter(|p| matches!(p.kind, Kind::Unknown | Kind::Control));
    let special: Vec<&str> =
        special.map(|p| p.text.as_str()).chain(sentinel_names.iter().map(String::as_str)).collect();
    tokenizer.add_special_tokens(special.into_iter().map(|text| AddedToken::from(text, true).normalized(false)))?;
    let own = model.pieces.iter().filter(|p| p.kind == Kind::UserDefined);
    tokenizer.add_tokens(own.map(|p| AddedToken::from(p.text.as_str(), false).normalized(false)))?;
    let end = tokenizer.token_to_id(END).unwrap_or_default();
    let template = TemplateProcessing::builder().try_single("$A </s>")?.special_tokens(vec![(END, end)]).build()?;
    tokenizer.with_post_processor(Some(template));
    Ok(tokenizer)
}

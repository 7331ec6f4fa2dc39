//! One interface over the three layouts of tokenizer folders.

use std::path::Path;

use serde_json::Value;
use tokenizers::PostProcessor;

use crate::{TokenizerError, clip, spm};

/// Turns prompts into token ids.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    pad: u32,
}

impl Tokenizer {
    /// Opens a model's tokenizer folder. `tokenizer.json` is preferred to `spiece.model`, and that to `vocab.json` with
    /// `merges.txt`.
    ///
    /// A `tokenizer.json` is taken at its word: transformers 5 rebuilds parts of it for T5-like tokenizers and so gives
    /// other ids for UMT5, whose unknown token is 3 and not 2.
    ///
    /// # Errors
    /// [`TokenizerError`] if no layout is complete or a file is damaged.
    pub fn open(dir: &Path) -> Result<Self, TokenizerError> {
        let at = |name: &str| Some(dir.join(name)).filter(|path| path.is_file());
        let settings = Settings::open(dir)?;
        let inner = if let Some(file) = at("tokenizer.json") {
            let bytes = std::fs::read(&file).map_err(TokenizerError::io(&file))?;
            tokenizers::Tokenizer::from_bytes(bytes).map_err(|e| TokenizerError::damaged(&file, &e))?
        } else if let Some(file) = at("spiece.model") {
            spm::open(&file, settings.sentinels)?
        } else if let (Some(vocab), Some(merges)) = (at("vocab.json"), at("merges.txt")) {
            clip::open(&vocab, &merges)?
        } else {
            return Err(TokenizerError::Missing { dir: dir.to_owned() });
        };
        Self::new(dir, inner, &settings)
    }

    fn new(dir: &Path, mut inner: tokenizers::Tokenizer, settings: &Settings) -> Result<Self, TokenizerError> {
        // Files may carry the length and padding of their last use; both are the caller's to decide.
        inner.with_truncation(None).map_err(|e| TokenizerError::damaged(dir, &e))?;
        inner.with_padding(None);
        let names = settings.pad.iter().map(String::as_str).chain(["<pad>", "<|endoftext|>"]);
        let pad = names.filter_map(|name| inner.token_to_id(name)).next();
        let pad = pad.ok_or_else(|| TokenizerError::damaged(dir, "it has no padding token"))?;
        Ok(Self { inner, pad })
    }

    /// Token ids of `text`, with the tokens that the model expects at its start and end.
    ///
    /// `max_length` counts those as well; a longer text loses its last words, never its end token.
    ///
    /// # Errors
    /// [`TokenizerError::TooShort`] if the added tokens alone are longer than `max_length`.
    pub fn encode(&self, text: &str, max_length: usize) -> Result<Vec<u32>, TokenizerError> {
        let special = self.inner.get_post_processor().map_or(0, |p| p.added_tokens(false));
        let room = max_length.checked_sub(special).ok_or(TokenizerError::TooShort { max_length, special })?;
        let failed = |e: tokenizers::Error| TokenizerError::Encode(e.to_string());
        let mut encoding = self.inner.encode_fast(text, false).map_err(failed)?;
        encoding.truncate(room, 0, tokenizers::TruncationDirection::Right);
        let whole = self.inner.post_process(encoding, None, true).map_err(failed)?;
        Ok(whole.get_ids().to_vec())
    }

    /// The id that fills a batch up to its length.
    pub fn pad_id(&self) -> u32 {
        self.pad
    }

    /// The id of one token, if the vocabulary has it.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Number of tokens, with the special ones.
    pub fn vocabulary(&self) -> usize {
        self.inner.get_vocab_size(true)
    }
}

/// Sentinels of T5's vocabulary unless the configuration says otherwise.
const SENTINELS_DEFAULT: u64 = 100;
const SENTINELS_MAX: u64 = 10_000;

/// What `tokenizer_config.json` adds to the vocabulary files. The file is optional.
struct Settings {
    pad: Option<String>,
    sentinels: u64,
}

impl Settings {
    fn open(dir: &Path) -> Result<Self, TokenizerError> {
        let file = dir.join("tokenizer_config.json");
        if !file.is_file() {
            return Ok(Self { pad: None, sentinels: SENTINELS_DEFAULT });
        }
        let bytes = std::fs::read(&file).map_err(TokenizerError::io(&file))?;
        let json: Value = serde_json::from_slice(&bytes).map_err(|e| TokenizerError::damaged(&file, &e))?;
        let pad = &json["pad_token"];
        // Older files spell a token as an object with its flags.
        let pad = pad.as_str().or_else(|| pad["content"].as_str()).map(str::to_owned);
        let sentinels = json["extra_ids"].as_u64().unwrap_or(SENTINELS_DEFAULT);
        if sentinels > SENTINELS_MAX {
            return Err(TokenizerError::damaged(
                &file,
                &format!("extra_ids is {sentinels}, more than {SENTINELS_MAX}"),
            ));
        }
        Ok(Self { pad, sentinels })
    }
}

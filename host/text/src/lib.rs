//! Prompts to token ids, as the published text encoders were trained with them.
//!
//! [`Tokenizer::open`] reads whichever of the three layouts a model folder has: `tokenizer.json` (UMT5 of Wan),
//! `spiece.model` alone (T5 of CogVideoX) or `vocab.json` with `merges.txt` (CLIP). [`clean_prompt`] is the cleaning
//! that Wan's pipelines apply first.
//!
//! Not here: text encoders, padding masks, prompt weighting.

mod charsmap;
mod clean;
mod clip;
mod entities;
mod error;
mod spm;
mod tokenizer;

pub use clean::clean_prompt;
pub use error::TokenizerError;
pub use tokenizer::Tokenizer;

//! Checkpoints of random weights: the true size and layout of a model, without its download.
//!
//! [`Blueprint`] says, from configs alone, which files a checkpoint has and every byte range in them; [`write`] streams
//! the values. A seed fixes every byte: it does not matter how many threads draw, how the shards are cut, or which
//! components are left out. The values keep a run's activations finite, and mean nothing.

mod blueprint;
mod layout;
mod tokenizer;
mod values;
mod writer;

pub use blueprint::{Blueprint, SynthOptions, TextFile};
pub use layout::WeightFile;
pub use writer::write;

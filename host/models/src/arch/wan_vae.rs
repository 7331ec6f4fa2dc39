//! The causal 3-D VAEs of Wan 2.1 and 2.2, level by level, chunk by chunk.
//!
//! Source of the formulas: diffusers `AutoencoderKLWan`. Every causal convolution remembers the last frames of its
//! input in a feature cache, so that a video is decoded in chunks and yet as if in one piece. The first chunk
//! is one latent frame and gives one frame; each later latent frame gives four.

mod decoder;
mod encoder;
mod layers;

pub use super::{Blend, FeatureCache, Picture, Tile, tiles};
pub use decoder::{DECODER_FRONT, decode_front, decode_level, decode_tail, decoder_blocks};
pub use encoder::{encode_front, encode_level, encode_tail, encoder_blocks};

use super::cache::Remembered;

//! The causal 3-D VAE of CogVideoX, level by level, batch of frames by batch of frames.
//!
//! Source of the formulas: diffusers `AutoencoderKLCogVideoX`. Every causal convolution remembers the last frames of
//! its input; before the first batch stands the first frame, repeated. The norms of the decoder are scaled and
//! shifted by convolutions of the latents, which have one tap and are therefore done before the latents are
//! stretched, not after: the same values at a fraction of the memory.

mod decoder;
mod encoder;
mod layers;

pub use super::FeatureCache;
pub use decoder::{decode_front, decode_level, decode_tail, decoder_blocks};
pub use encoder::{encode_front, encode_level, encode_tail, encoder_blocks};

/// First latent frame and number of latent frames of each batch that is decoded together: two, and what an odd number
/// leaves over goes into the first. The group norms see a batch, so its length is part of the result.
#[must_use]
pub fn decode_batches(latent_frames: usize) -> Vec<(usize, usize)> {
    batches(latent_frames, 2)
}

/// First frame and number of frames of each batch that is encoded together: eight, and what is left over goes into the
/// first.
#[must_use]
pub fn encode_batches(frames: usize) -> Vec<(usize, usize)> {
    batches(frames, 8)
}

fn batches(frames: usize, each: usize) -> Vec<(usize, usize)> {
    let rest = frames % each;
    let first = (each + rest).min(frames);
    std::iter::once((0, first)).chain((1..frames / each).map(|i| (i * each + rest, each))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_batch_takes_what_is_left_over() {
        let check = |frames, expected: &[(usize, usize)]| assert_eq!(decode_batches(frames), expected);
        check(1, &[(0, 1)]);
        check(2, &[(0, 2)]);
        check(5, &[(0, 3), (3, 2)]);
        assert_eq!(decode_batches(13).len(), 6);
        assert_eq!(encode_batches(49), [(0, 9), (9, 8), (17, 8), (25, 8), (33, 8), (41, 8)]);
    }
}

//! Which requests a model allows.

use loadline_core::{Knobs, Request, Size};

use crate::params::{CogVideoXConfig, WanDitConfig, WanVaeConfig};

/// A request that the model cannot fulfil, and the nearest one that it can.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The size does not divide into latent patches.
    #[error(
        "--size {asked}: width and height must be multiples of {step} between {step} and {most}; \
         the nearest is --size {nearest}"
    )]
    Size {
        /// What was asked for.
        asked: Size,
        /// The step.
        step: u32,
        /// The largest side.
        most: u32,
        /// The nearest size that works.
        nearest: Size,
    },
    /// The model makes one size alone.
    #[error("--size {asked}: this model makes one size, --size {only}")]
    OneSize {
        /// What was asked for.
        asked: Size,
        /// The size that works.
        only: Size,
    },
    /// The number of frames does not divide into latent frames.
    #[error(
        "--frames {asked}: this model makes {step} n + 1 frames, between {least} and {most}; \
         the nearest {}",
        nearest_frames(*below, *above)
    )]
    Frames {
        /// What was asked for.
        asked: u32,
        /// Frames per latent frame, or per batch of them.
        step: u32,
        /// The fewest.
        least: u32,
        /// The most.
        most: u32,
        /// The next lower number that works.
        below: u32,
        /// The next higher number that works.
        above: u32,
    },
    /// The model makes pictures.
    #[error("--frames {0}: this model makes pictures; use --frames 1")]
    Picture(u32),
    /// The number of steps is out of range.
    #[error("--steps {asked}: use 1 to {most} steps")]
    Steps {
        /// What was asked for.
        asked: u32,
        /// The most.
        most: u32,
    },
    /// The guidance scale is not a sensible number.
    #[error("--guidance {0}: use a number from 0 to 100; at most 1 turns guidance off")]
    Guidance(String),
    /// A tile does not divide into latent pixels or is not larger than its overlap.
    #[error(
        "--tile {tile} with --tile-overlap {overlap}: both must be multiples of {step}, \
         and the tile larger than the overlap; try --tile {nearest} --tile-overlap {nearest_overlap}"
    )]
    Tile {
        /// What was asked for.
        tile: Size,
        /// Its overlap.
        overlap: u32,
        /// The step.
        step: u32,
        /// The nearest tile that works.
        nearest: Size,
        /// The nearest overlap that works.
        nearest_overlap: u32,
    },
    /// A picture is cut into so many tiles that planning them takes longer than it is worth.
    #[error(
        "--tile {tile} with --tile-overlap {overlap}: makes {count} tiles, at most {most} are planned; \
         use a larger tile or less overlap"
    )]
    Tiles {
        /// What was asked for.
        tile: Size,
        /// Its overlap.
        overlap: u32,
        /// How many tiles there would be.
        count: u64,
        /// The most.
        most: u64,
    },
    /// A chunk of no frames.
    #[error("--frame-chunk {0}: use 1 or more latent frames")]
    FrameChunk(u32),
}

/// The most denoise steps: the schedule has a thousand training steps.
const STEPS_MOST: u32 = 1000;
/// The most tiles of a picture: a 16384x16384 picture in tiles of 256 with a quarter of overlap has 7396.
const TILES_MOST: u64 = 16384;
/// The most frames of CogVideoX 1.5, as published: ten times sixteen and one. Its configs do not say.
const COG_FRAMES_MOST: u32 = 161;
/// The longest side of a picture of FLUX.1 or HunyuanVideo. The models have no limit; beyond this a VAE alone needs
/// hundreds of GiB.
const SIDE_MOST: u32 = 8192;
/// The most frames of HunyuanVideo, which has no limit: as many as Wan's longest video has.
const HUNYUAN_FRAMES_MOST: u32 = 4093;

/// Checks a request for a Wan model, which needs at least `least` frames.
///
/// # Errors
/// The first limit that it breaks, with the nearest values that would do.
pub fn check_wan(request: &Request, dit: &WanDitConfig, vae: &WanVaeConfig, least: usize) -> Result<(), RequestError> {
    let [pt, ph, pw] = dit.patch_size;
    let step = (vae.scale_factor_spatial * ph.max(pw)) as u32;
    let most = (dit.rope_max_seq_len * vae.scale_factor_spatial * ph.min(pw)) as u32;
    check_size(request.size, step, most / step * step)?;
    let time = (vae.scale_factor_temporal * pt) as u32;
    let most = ((dit.rope_max_seq_len * pt) as u32 - 1) * time + 1;
    check_frames(request.frames, time, (least as u32 - 1).div_ceil(time) * time + 1, most)?;
    check_steps(request)
}

/// Checks a request for a CogVideoX model whose VAE makes `scale` pixels of a latent one.
///
/// The models of 1.0 make the size that they were trained on alone; those of 1.5 have a grid of positions that is
/// larger than any usual size. The VAE decodes two latent frames together and what is left over first, so that only
/// an odd number of latent frames gives the frames that were asked for.
///
/// # Errors
/// The first limit that it breaks, with the nearest values that would do.
pub fn check_cog(request: &Request, dit: &CogVideoXConfig, scale: usize) -> Result<(), RequestError> {
    let most = Size { width: (dit.sample_width * scale) as u32, height: (dit.sample_height * scale) as u32 };
    let pair = 2 * dit.temporal_compression_ratio as u32;
    match dit.patch_size_t {
        None if request.size != most => return Err(RequestError::OneSize { asked: request.size, only: most }),
        None => check_frames(request.frames, pair, 1, dit.sample_frames as u32)?,
        Some(pt) => {
            let step = (scale * dit.patch_size) as u32;
            check_size(request.size, step, most.width.min(most.height) / step * step)?;
            check_frames(request.frames, pair * pt as u32, 1, COG_FRAMES_MOST)?;
        }
    }
    check_steps(request)
}

/// Checks a request for a FLUX.1 model whose VAE makes `scale` pixels of a latent one; two latents make a token.
///
/// # Errors
/// The first limit that it breaks, with the nearest values that would do.
pub fn check_flux(request: &Request, scale: usize) -> Result<(), RequestError> {
    let step = 2 * scale as u32;
    check_size(request.size, step, SIDE_MOST.max(step) / step * step)?;
    if request.frames != 1 {
        return Err(RequestError::Picture(request.frames));
    }
    check_steps(request)
}

/// Checks a request for a HunyuanVideo model, a token of which stands for `step` pixels each way, and whose VAE makes
/// `time` frames of a latent one.
///
/// # Errors
/// The first limit that it breaks, with the nearest values that would do.
pub fn check_hunyuan(request: &Request, step: usize, time: usize) -> Result<(), RequestError> {
    let (step, time) = (step as u32, time as u32);
    check_size(request.size, step, SIDE_MOST.max(step) / step * step)?;
    check_frames(request.frames, time, 1, (HUNYUAN_FRAMES_MOST - 1) / time * time + 1)?;
    check_steps(request)
}

fn check_steps(request: &Request) -> Result<(), RequestError> {
    if request.steps == 0 || request.steps > STEPS_MOST {
        return Err(RequestError::Steps { asked: request.steps, most: STEPS_MOST });
    }
    if !(0.0..=100.0).contains(&request.guidance) {
        return Err(RequestError::Guidance(short(request.guidance)));
    }
    Ok(())
}

/// A number in few digits, whatever its size.
fn short(number: f64) -> String {
    let plain = number.to_string();
    if plain.len() <= 12 { plain } else { format!("{number:e}") }
}

fn nearest_frames(below: u32, above: u32) -> String {
    if below == above { format!("is --frames {below}") } else { format!("are --frames {below} and --frames {above}") }
}

fn check_size(asked: Size, step: u32, most: u32) -> Result<(), RequestError> {
    let near = |side: u32| (side.saturating_add(step / 2) / step * step).clamp(step, most);
    let nearest = Size { width: near(asked.width), height: near(asked.height) };
    if nearest == asked { Ok(()) } else { Err(RequestError::Size { asked, step, most, nearest }) }
}

/// `least` and `most` are one more than multiples of `step`.
fn check_frames(asked: u32, step: u32, least: u32, most: u32) -> Result<(), RequestError> {
    let below = (asked.clamp(least, most) - 1) / step * step + 1;
    if asked == below {
        return Ok(());
    }
    Err(RequestError::Frames { asked, step, least, most, below, above: (below + step).min(most) })
}

/// Checks tile settings against the latent scale.
///
/// # Errors
/// If the tile or the overlap is no multiple of the scale, the overlap not below the tile, or there are too many tiles.
pub(crate) fn check_tile(knobs: &Knobs, size: Size, step: u32) -> Result<(), RequestError> {
    if knobs.frame_chunk == 0 {
        return Err(RequestError::FrameChunk(knobs.frame_chunk));
    }
    let (Some(tile), overlap) = (knobs.tile, knobs.tile_overlap) else { return Ok(()) };
    let near = |side: u32| (side.saturating_add(step / 2) / step * step).clamp(2 * step, 1 << 20);
    let nearest = Size { width: near(tile.width), height: near(tile.height) };
    let nearest_overlap = (overlap / step * step).min(nearest.width.min(nearest.height) - step);
    if nearest != tile || nearest_overlap != overlap {
        return Err(RequestError::Tile { tile, overlap, step, nearest, nearest_overlap });
    }
    let along = |side: u32, tile: u32| u64::from(side.div_ceil(tile - overlap));
    let count = along(size.width, tile.width) * along(size.height, tile.height);
    if count > TILES_MOST {
        return Err(RequestError::Tiles { tile, overlap, count, most: TILES_MOST });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn size(width: u32, height: u32) -> Size {
        Size { width, height }
    }

    #[test]
    fn sizes_name_the_nearest() {
        assert!(check_size(size(832, 480), 16, 16384).is_ok());
        let check = |asked: Size, expected: Size| match check_size(asked, 16, 16384) {
            Err(RequestError::Size { nearest, .. }) => assert_eq!(nearest, expected),
            other => panic!("{other:?}"),
        };
        check(size(830, 480), size(832, 480));
        check(size(1, 1), size(16, 16));
        check(size(u32::MAX, 480), size(16384, 480));
    }

    #[test]
    fn frames_name_both_neighbours() {
        assert!(check_frames(81, 4, 1, 4093).is_ok());
        assert!(check_frames(1, 4, 1, 4093).is_ok());
        let check = |asked, expected| match check_frames(asked, 4, 1, 4093) {
            Err(RequestError::Frames { below, above, .. }) => assert_eq!((below, above), expected),
            other => panic!("{other:?}"),
        };
        check(80, (77, 81));
        check(0, (1, 5));
        check(u32::MAX, (4093, 4093));
        let message = |asked| check_frames(asked, 4, 1, 4093).unwrap_err().to_string();
        assert!(message(80).ends_with("the nearest are --frames 77 and --frames 81"), "{}", message(80));
        assert!(message(u32::MAX).ends_with("the nearest is --frames 4093"), "{}", message(u32::MAX));
    }

    #[test]
    fn numbers_stay_short_in_messages() {
        for (number, text) in [(101.0, "101"), (-0.5, "-0.5"), (1e308, "1e308"), (f64::INFINITY, "inf")] {
            assert_eq!(short(number), text);
        }
    }

    #[test]
    fn tiles_are_larger_than_their_overlap() {
        let check = |tile: Option<u32>, tile_overlap, frame_chunk| {
            let tile = tile.map(|side| size(side, 256));
            check_tile(&Knobs { tile, tile_overlap, frame_chunk, ..Knobs::default() }, size(8192, 8192), 8)
        };
        assert_eq!(check(Some(256), 64, 1), Ok(()));
        assert!(matches!(check(Some(64), 64, 1), Err(RequestError::Tile { .. })));
        assert!(matches!(check(Some(250), 64, 1), Err(RequestError::Tile { .. })));
        assert!(matches!(check(Some(u32::MAX), u32::MAX, 1), Err(RequestError::Tile { .. })));
        assert!(matches!(check(Some(256), 248, 1), Err(RequestError::Tiles { count: 1_048_576, .. })));
        assert_eq!(check(None, 3, 0), Err(RequestError::FrameChunk(0)));
        assert_eq!(check(None, 3, 1), Ok(()));
    }
}

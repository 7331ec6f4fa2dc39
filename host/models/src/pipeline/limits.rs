//! Which requests a model allows.

use loadline_core::{Request, Size};

use crate::params::{WanDitConfig, WanVaeConfig};

/// A request that the model cannot fulfil, and the nearest one that it can.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The size does not divide into latent patches.
    #[error("--size {asked}: width and height must be multiples of {step} between {step} and {most}; the nearest is --size {nearest}")]
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
    /// The number of frames does not divide into latent frames.
    #[error("--frames {asked}: this model makes {step} n + 1 frames, between 1 and {most}; the nearest are --frames {below} and --frames {above}")]
    Frames {
        /// What was asked for.
        asked: u32,
        /// Frames per latent frame.
        step: u32,
        /// The most.
        most: u32,
        /// The next lower number that works.
        below: u32,
        /// The next higher number that works.
        above: u32,
    },
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
    #[error("--tile {tile} with --tile-overlap {overlap}: both must be multiples of {step}, and the tile larger than the overlap; try --tile {nearest} --tile-overlap {nearest_overlap}")]
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
    /// A chunk of no frames.
    #[error("--frame-chunk {0}: use 1 or more latent frames")]
    FrameChunk(u32),
}

/// The most denoise steps: the schedule has a thousand training steps.
const STEPS_MOST: u32 = 1000;

/// Checks a request for a Wan model.
///
/// # Errors
/// The first limit that it breaks, with the nearest values that would do.
pub fn check_wan(request: &Request, dit: &WanDitConfig, vae: &WanVaeConfig) -> Result<(), RequestError> {
    let [pt, ph, pw] = dit.patch_size;
    let step = (vae.scale_factor_spatial * ph.max(pw)) as u32;
    let most = (dit.rope_max_seq_len * vae.scale_factor_spatial * ph.min(pw)) as u32;
    check_size(request.size, step, most / step * step)?;
    let time = (vae.scale_factor_temporal * pt) as u32;
    check_frames(request.frames, time, (dit.rope_max_seq_len * pt) as u32)?;
    if request.steps == 0 || request.steps > STEPS_MOST {
        return Err(RequestError::Steps { asked: request.steps, most: STEPS_MOST });
    }
    if !(0.0..=100.0).contains(&request.guidance) {
        return Err(RequestError::Guidance(request.guidance.to_string()));
    }
    Ok(())
}

fn check_size(asked: Size, step: u32, most: u32) -> Result<(), RequestError> {
    let near = |side: u32| (side.saturating_add(step / 2) / step * step).clamp(step, most);
    let nearest = Size { width: near(asked.width), height: near(asked.height) };
    if nearest == asked { Ok(()) } else { Err(RequestError::Size { asked, step, most, nearest }) }
}

fn check_frames(asked: u32, step: u32, latent_most: u32) -> Result<(), RequestError> {
    let most = (latent_most - 1) * step + 1;
    let below = (asked.clamp(1, most) - 1) / step * step + 1;
    if asked == below {
        return Ok(());
    }
    Err(RequestError::Frames { asked, step, most, below, above: (below + step).min(most) })
}

/// Checks tile settings against the latent scale.
///
/// # Errors
/// If the tile or the overlap is no multiple of the scale, or the overlap not below the tile.
pub(crate) fn check_tile(tile: Option<Size>, overlap: u32, chunk: u32, step: u32) -> Result<(), RequestError> {
    if chunk == 0 {
        return Err(RequestError::FrameChunk(chunk));
    }
    let Some(tile) = tile else { return Ok(()) };
    let near = |side: u32| (side.saturating_add(step / 2) / step * step).clamp(2 * step, 1 << 20);
    let nearest = Size { width: near(tile.width), height: near(tile.height) };
    let nearest_overlap = (overlap / step * step).min(nearest.width.min(nearest.height) - step);
    if nearest == tile && nearest_overlap == overlap {
        return Ok(());
    }
    Err(RequestError::Tile { tile, overlap, step, nearest, nearest_overlap })
}

#[cfg(test)]
mod tests {
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
        assert!(check_frames(81, 4, 1024).is_ok());
        assert!(check_frames(1, 4, 1024).is_ok());
        let check = |asked, expected| match check_frames(asked, 4, 1024) {
            Err(RequestError::Frames { below, above, .. }) => assert_eq!((below, above), expected),
            other => panic!("{other:?}"),
        };
        check(80, (77, 81));
        check(0, (1, 5));
        check(u32::MAX, (4093, 4093));
    }

    #[test]
    fn tiles_are_larger_than_their_overlap() {
        assert!(check_tile(Some(size(256, 256)), 64, 1, 8).is_ok());
        assert!(check_tile(Some(size(64, 64)), 64, 1, 8).is_err());
        assert!(check_tile(Some(size(250, 256)), 64, 1, 8).is_err());
        assert!(check_tile(None, 3, 0, 8).is_err());
    }
}

//! Finished frames to files: H.264 in MP4, and PNG.
//!
//! Every file and folder appears under its name only when it is whole: it is written beside it under a temporary name
//! and renamed at the end, so that an error, a full disk or a cancelled run leaves nothing that looks like a result.
//!
//! Frames are rows of RGB, eight bits a channel, without padding. Not here: audio, reading videos, conversion from
//! floating point.

mod error;
mod image;
mod partial;
mod video;
mod yuv;

pub use error::MediaError;
pub use image::{FrameFolder, write_png};
pub use partial::{PartialFile, PartialFolder};
pub use video::{FrameRate, VideoWriter, check_size};

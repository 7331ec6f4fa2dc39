//! Why a picture or video could not be written.

use std::io;
use std::path::{Path, PathBuf};

/// A picture or video that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// H.264 with 4:2:0 colour stores colour for blocks of 2x2 pixels, and can crop only whole blocks.
    #[error("a video of {width}x{height} needs even sides; the nearest size is {}x{}", nearest.0, nearest.1)]
    OddSize {
        /// Width asked for.
        width: u32,
        /// Height asked for.
        height: u32,
        /// Even width and height just above.
        nearest: (u32, u32),
    },
    /// The encoder's limits.
    #[error(
        "a video of {width}x{height} is outside what H.264 level 5.2 is encoded for, 16x16 to 3840x2160 or 2160x3840; write a frame folder instead"
    )]
    Size {
        /// Width asked for.
        width: u32,
        /// Height asked for.
        height: u32,
    },
    /// Frames per second out of range.
    #[error("{num}/{den} frames a second is out of range; it must be above 0 and at most 240")]
    FrameRate {
        /// Frames in `den` seconds.
        num: u32,
        /// Seconds.
        den: u32,
    },
    /// A picture of no pixels.
    #[error("a picture of {width}x{height} has no pixels")]
    Empty {
        /// Width asked for.
        width: u32,
        /// Height asked for.
        height: u32,
    },
    /// The pixels do not have the size that was announced.
    #[error("a frame has {found} bytes instead of {expected}: {width}x{height} pixels of 3 bytes")]
    FrameBytes {
        /// Bytes given.
        found: usize,
        /// Bytes needed.
        expected: usize,
        /// Width of the frame.
        width: u32,
        /// Height of the frame.
        height: u32,
    },
    /// The video was finished before it had a frame.
    #[error("no frames were written to {}, so no file was made", path.display())]
    NoFrames {
        /// Where the video would be.
        path: PathBuf,
    },
    /// The folder holds something already, which would mix with the new frames.
    #[error("{} already holds {found}; choose an empty or a new folder", dir.display())]
    FolderInUse {
        /// The folder.
        dir: PathBuf,
        /// The first name in it.
        found: String,
    },
    /// No space is left.
    #[error("the disk is full while writing {}; no part of it was left, free some space or choose another folder", path.display())]
    DiskFull {
        /// The file that was to be written.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The operating system refused for another reason.
    #[error("cannot write {}; check that its folder exists, may be written and has room", path.display())]
    Io {
        /// The file that was to be written.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The encoder failed.
    #[error("frame {frame} of {} cannot be encoded: {reason}", path.display())]
    Encode {
        /// The video.
        path: PathBuf,
        /// Number of the frame, from 0.
        frame: u64,
        /// The encoder's reason.
        reason: String,
    },
    /// The container could not be made.
    #[error("{} cannot be made an MP4 file: {reason}", path.display())]
    Container {
        /// The video.
        path: PathBuf,
        /// The muxer's reason.
        reason: String,
    },
}

impl MediaError {
    /// Attaches the file to an I/O error, and tells a full disk from other reasons.
    #[must_use]
    pub fn io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path, source },
            _ => Self::Io { path, source },
        }
    }
}

/// Checks that a frame has exactly the bytes of its size.
pub(crate) fn check_frame(width: u32, height: u32, rgb: &[u8]) -> Result<(), MediaError> {
    if width == 0 || height == 0 {
        return Err(MediaError::Empty { width, height });
    }
    let pixels = u64::from(width) * u64::from(height);
    let expected = usize::try_from(pixels).ok().and_then(|n| n.checked_mul(3)).unwrap_or(usize::MAX);
    if rgb.len() == expected {
        return Ok(());
    }
    Err(MediaError::FrameBytes { found: rgb.len(), expected, width, height })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_other_errors() {
        let check = |kind: io::ErrorKind, message: &str| {
            let error = MediaError::io(Path::new("out/a.mp4"), kind.into()).to_string();
            assert!(error.contains("out/a.mp4") && error.contains(message), "{error}");
        };
        check(io::ErrorKind::StorageFull, "disk is full");
        check(io::ErrorKind::QuotaExceeded, "disk is full");
        check(io::ErrorKind::PermissionDenied, "may be written");
    }
}

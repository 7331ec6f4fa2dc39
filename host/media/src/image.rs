//! PNG pictures, one or a numbered folder of them.

use std::path::{Path, PathBuf};

use crate::MediaError;
use crate::error::check_frame;
use crate::partial::PartialFile;

/// Writes one sRGB picture. A file of this name is replaced, but only by a whole one.
///
/// # Errors
/// [`MediaError`] if the frame has the wrong size or the file cannot be written.
pub fn write_png(path: &Path, width: u32, height: u32, rgb: &[u8]) -> Result<(), MediaError> {
    check_frame(width, height, rgb)?;
    let mut file = PartialFile::create(path)?;
    encode(&mut file, width, height, rgb).map_err(|e| from_png(path, e))?;
    file.publish()
}

fn encode(file: &mut PartialFile, width: u32, height: u32, rgb: &[u8]) -> Result<(), png::EncodingError> {
    let mut encoder = png::Encoder::new(file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_source_srgb(png::SrgbRenderingIntent::Perceptual);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(rgb)?;
    writer.finish()
}

fn from_png(path: &Path, error: png::EncodingError) -> MediaError {
    let source = match error {
        png::EncodingError::IoError(source) => source,
        other => std::io::Error::other(other),
    };
    MediaError::io(path, source)
}

/// A folder of `frame_0001.png`, `frame_0002.png` and so on.
#[derive(Debug)]
pub struct FrameFolder {
    dir: PathBuf,
    size: (u32, u32),
    frames: u64,
}

impl FrameFolder {
    /// Makes the folder, if it is not there.
    ///
    /// # Errors
    /// [`MediaError::FolderInUse`] if it holds frames already, so that two runs never mix.
    pub fn create(dir: &Path, width: u32, height: u32) -> Result<Self, MediaError> {
        if width == 0 || height == 0 {
            return Err(MediaError::Empty { width, height });
        }
        std::fs::create_dir_all(dir).map_err(|e| MediaError::io(dir, e))?;
        match old_frame(dir).map_err(|e| MediaError::io(dir, e))? {
            Some(found) => Err(MediaError::FolderInUse { dir: dir.to_owned(), found }),
            None => Ok(Self { dir: dir.to_owned(), size: (width, height), frames: 0 }),
        }
    }

    /// Writes the next frame and returns its path. Frames already written stay if a later one fails.
    ///
    /// # Errors
    /// As [`write_png`].
    pub fn push_frame(&mut self, rgb: &[u8]) -> Result<PathBuf, MediaError> {
        let path = self.dir.join(format!("frame_{:04}.png", self.frames + 1));
        write_png(&path, self.size.0, self.size.1, rgb)?;
        self.frames += 1;
        Ok(path)
    }

    /// Frames written so far.
    pub fn frames(&self) -> u64 {
        self.frames
    }
}

/// The first name in the folder that looks like one of ours.
fn old_frame(dir: &Path) -> std::io::Result<Option<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    Ok(names.into_iter().find(|name| name.starts_with("frame_") && name.ends_with(".png")))
}

//! PNG pictures, one or a numbered folder of them.

use std::path::{Path, PathBuf};

use crate::MediaError;
use crate::error::check_frame;
use crate::partial::{PartialFile, PartialFolder};

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

/// A folder of `frame_0001.png`, `frame_0002.png` and so on. It appears at [`FrameFolder::finish`]; dropping it before
/// leaves nothing.
#[derive(Debug)]
pub struct FrameFolder {
    folder: PartialFolder,
    dir: PathBuf,
    size: (u32, u32),
    frames: u64,
}

impl FrameFolder {
    /// Starts a folder that will be at `dir`, which may be there already if it is empty.
    ///
    /// # Errors
    /// [`MediaError::FolderInUse`] if it holds something, so that two runs never mix.
    pub fn create(dir: &Path, width: u32, height: u32) -> Result<Self, MediaError> {
        if width == 0 || height == 0 {
            return Err(MediaError::Empty { width, height });
        }
        if let Some(found) = first_name(dir).map_err(|e| MediaError::io(dir, e))? {
            return Err(MediaError::FolderInUse { dir: dir.to_owned(), found });
        }
        if let Some(parent) = dir.parent() {
            std::fs::create_dir_all(parent).map_err(|e| MediaError::io(dir, e))?;
        }
        Ok(Self { folder: PartialFolder::create(dir)?, dir: dir.to_owned(), size: (width, height), frames: 0 })
    }

    /// Writes the next frame.
    ///
    /// # Errors
    /// As [`write_png`].
    pub fn push_frame(&mut self, rgb: &[u8]) -> Result<(), MediaError> {
        let path = self.folder.inside().join(format!("frame_{:04}.png", self.frames + 1));
        write_png(&path, self.size.0, self.size.1, rgb)?;
        self.frames += 1;
        Ok(())
    }

    /// Frames written so far.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Gives the folder its name.
    ///
    /// # Errors
    /// [`MediaError::NoFrames`] if there are none, [`MediaError::Io`] if the name has been taken since. In both cases
    /// nothing is left of it.
    pub fn finish(self) -> Result<(), MediaError> {
        if self.frames == 0 {
            return Err(MediaError::NoFrames { path: self.dir });
        }
        self.folder.publish()
    }
}

/// The first name in a folder; nothing if it is empty or not there.
fn first_name(dir: &Path) -> std::io::Result<Option<String>> {
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    Ok(names.collect::<std::io::Result<Vec<_>>>()?.into_iter().min())
}

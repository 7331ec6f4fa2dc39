//! Results: a video, pictures, tensors for comparison.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use loadline_media::{FrameFolder, FrameRate, MediaError, PartialFile, VideoWriter, write_png};
use loadline_models::arch::wan_vae::Picture;
use loadline_models::weights::{TensorEntry, WeightIndex};

use crate::Error;
use crate::error::told;

/// A tensor on the host: shape and values.
pub(super) type Tensor = (Vec<usize>, Vec<f32>);

/// Tensors by name.
pub(super) type Tensors = BTreeMap<String, Tensor>;

/// Where the frames go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResultSink {
    /// An H.264 video in MP4.
    Video(PathBuf),
    /// A folder of PNG pictures, or one PNG for a single frame.
    Pictures(PathBuf),
}

impl ResultSink {
    /// A video for `.mp4`, one picture for `.png`, a folder of pictures otherwise.
    ///
    /// # Errors
    /// If the name has an extension of something that is not written.
    pub fn from_path(path: &Path) -> Result<Self, Error> {
        match path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase).as_deref() {
            Some("mp4") => Ok(Self::Video(path.to_owned())),
            Some("png") | None => Ok(Self::Pictures(path.to_owned())),
            Some(other) => Err(Error::Request(format!(
                "-o {}: '.{other}' is not written; use .mp4 for a video, .png for one frame, or a folder name for PNG \
                 frames",
                path.display()
            ))),
        }
    }

    /// The file or folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Video(path) | Self::Pictures(path) => path,
        }
    }

    pub(super) fn write(&self, video: &Picture, fps: u32) -> Result<(), Error> {
        let [frames, height, width, _] = video.shape;
        let (w, h) = (width as u32, height as u32);
        match self {
            Self::Video(path) => {
                let mut writer = VideoWriter::create(path, w, h, FrameRate::new(fps, 1)?)?;
                for frame in 0..frames {
                    writer.push_frame(&rgb(video, frame))?;
                }
                writer.finish()?;
            }
            Self::Pictures(path) if path.extension().is_some() => write_png(path, w, h, &rgb(video, 0))?,
            Self::Pictures(path) => {
                let mut folder = FrameFolder::create(path, w, h)?;
                for frame in 0..frames {
                    folder.push_frame(&rgb(video, frame))?;
                }
                folder.finish()?;
            }
        }
        Ok(())
    }
}

fn rgb(video: &Picture, frame: usize) -> Vec<u8> {
    let size: usize = video.shape[1..].iter().product();
    let values = &video.values[frame * size..(frame + 1) * size];
    values.iter().map(|v| (v * 255.0).round().clamp(0.0, 255.0) as u8).collect()
}

/// The frames as the reference gives them, `[1, frames, 3, height, width]` in 0..1.
pub(super) fn frames_tensor(video: &Picture) -> (Vec<usize>, Vec<f32>) {
    let [frames, height, width, channels] = video.shape;
    let mut out = Vec::with_capacity(video.values.len());
    for frame in 0..frames {
        for channel in 0..channels {
            let start = frame * height * width * channels + channel;
            out.extend(video.values[start..].iter().step_by(channels).take(height * width));
        }
    }
    (vec![1, frames, channels, height, width], out)
}

/// Writes f32 tensors as safetensors, sorted by name and without metadata of its own, so that equal tensors give
/// equal files.
pub(super) fn write_tensors(path: &Path, tensors: &Tensors, metadata: &[(&str, &str)]) -> Result<(), Error> {
    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        let texts: serde_json::Map<_, _> = metadata.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
        header.insert("__metadata__".into(), texts.into());
    }
    let mut offset = 0;
    for (name, (shape, values)) in tensors {
        let end = offset + 4 * values.len();
        let entry = serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [offset, end] });
        header.insert(name.clone(), entry);
        offset = end;
    }
    let mut text = serde_json::Value::Object(header).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    write_whole(path, |out| {
        out.write_all(&(text.len() as u64).to_le_bytes())?;
        out.write_all(&text)?;
        tensors.values().try_for_each(|(_, values)| write_floats(out, values))
    })
}

pub(super) fn write_floats(out: &mut dyn Write, values: &[f32]) -> std::io::Result<()> {
    let mut buffer = Vec::with_capacity(4 * values.len().min(1 << 16));
    for chunk in values.chunks(1 << 16) {
        buffer.clear();
        buffer.extend(chunk.iter().flat_map(|v| v.to_le_bytes()));
        out.write_all(&buffer)?;
    }
    Ok(())
}

/// Writes a file under a temporary name in the same folder and renames it: nobody ever sees half of it.
///
/// # Errors
/// If it cannot be written; then nothing is left of it, and what had the name before is as it was.
pub fn write_whole(path: &Path, body: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<(), Error> {
    let mut file = PartialFile::create(path)?;
    body(&mut file).map_err(|e| MediaError::io(path, e))?;
    Ok(file.publish()?)
}

/// Reads a tensor of a dump as f32: its shape and its values.
#[cfg(feature = "cuda")] // whoever compares two devices
pub(crate) fn read_tensor_of(path: &Path, name: &str) -> Result<Tensor, Error> {
    read_latents(path, Some(name))
}

/// Reads one tensor of the file that `--latents` names as f32.
pub(super) fn read_latents(path: &Path, name: Option<&str>) -> Result<Tensor, Error> {
    let failed = |text: String| Error::Request(format!("--latents {}: {text}", path.display()));
    let index = WeightIndex::open_component(path).map_err(|e| failed(told(&e)))?;
    let entry = match name {
        Some(name) => index.get(name),
        None if index.tensors.len() == 1 => index.tensors.first(),
        None => index.get("latents"),
    };
    let names = || index.tensors.iter().map(|t| t.name.as_str()).collect::<Vec<_>>().join(", ");
    let entry = entry.ok_or_else(|| failed(format!("name one of its tensors as FILE:TENSOR: {}", names())))?;
    read_tensor(&index, entry).map_err(failed)
}

/// Reads an f32, f16 or bf16 tensor as f32.
pub(super) fn read_tensor(index: &WeightIndex, entry: &TensorEntry) -> Result<Tensor, String> {
    let dtype = entry
        .dtype
        .storage()
        .filter(|d| d.is_plain())
        .ok_or_else(|| format!("tensor '{}' is {}, use f32, f16 or bf16", entry.name, entry.dtype.name()))?;
    let files = loadline_device::WeightFiles::open(&index.files).map_err(|e| e.to_string())?;
    let mut values = vec![0.0; entry.elements() as usize];
    let segment = super::host::table_segment(entry, dtype, entry.file);
    files.read_f32(&segment, 0, &mut values).map_err(|e| e.to_string())?;
    Ok((entry.shape.iter().map(|d| *d as usize).collect(), values))
}

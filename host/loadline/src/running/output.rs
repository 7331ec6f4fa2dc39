//! Results: a video, pictures, tensors for comparison.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use loadline_media::{FrameFolder, FrameRate, VideoWriter, write_png};
use loadline_models::arch::wan_vae::Picture;

use crate::Error;

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
                "-o {}: '.{other}' is not written; use .mp4 for a video, .png for one frame, or a folder name for PNG frames",
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
        let failed = |e: loadline_media::MediaError| Error::output(self.path(), &e);
        let [frames, height, width, _] = video.shape;
        let (w, h) = (width as u32, height as u32);
        match self {
            Self::Video(path) => {
                let rate = FrameRate::new(fps, 1).map_err(failed)?;
                let mut writer = VideoWriter::create(path, w, h, rate).map_err(failed)?;
                for frame in 0..frames {
                    writer.push_frame(&rgb(video, frame)).map_err(failed)?;
                }
                writer.finish().map_err(failed)
            }
            Self::Pictures(path) if path.extension().is_some() => {
                if frames != 1 {
                    let text = format!("-o {}: a PNG holds one frame, this video has {frames}", path.display());
                    return Err(Error::Request(text));
                }
                write_png(path, w, h, &rgb(video, 0)).map_err(failed)
            }
            Self::Pictures(path) => {
                let mut folder = FrameFolder::create(path, w, h).map_err(failed)?;
                for frame in 0..frames {
                    folder.push_frame(&rgb(video, frame)).map_err(failed)?;
                }
                Ok(())
            }
        }
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

/// Writes f32 tensors as safetensors, sorted by name and without metadata, so that equal tensors give
/// equal files.
pub(super) fn write_tensors(
    path: &Path,
    tensors: &BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    metadata: Option<&str>,
) -> Result<(), Error> {
    let mut header = serde_json::Map::new();
    if let Some(text) = metadata {
        header.insert("__metadata__".into(), serde_json::json!({ "loadline": text }));
    }
    let mut offset = 0;
    for (name, (shape, values)) in tensors {
        let end = offset + 4 * values.len();
        header
            .insert(name.clone(), serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [offset, end] }));
        offset = end;
    }
    let mut text = serde_json::to_vec(&header).map_err(|e| Error::output(path, &e))?;
    text.resize(text.len().next_multiple_of(8), b' ');
    write_atomically(path, |out| {
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

/// Writes under a temporary name in the same folder and renames: nobody ever sees half a file.
pub(super) fn write_atomically(
    path: &Path,
    body: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<(), Error> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let temporary = path.with_file_name(name);
    let write = || {
        let mut out = std::io::BufWriter::new(std::fs::File::create(&temporary)?);
        body(&mut out)?;
        out.flush()?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(|e| {
        // What cannot be finished is removed; if that fails too, the first error is the one to tell.
        let _ = std::fs::remove_file(&temporary);
        Error::output(path, &e)
    })
}

/// Reads one f32, f16 or bf16 tensor of a safetensors file as f32.
pub(super) fn read_tensor(path: &Path, name: Option<&str>) -> Result<(Vec<usize>, Vec<f32>), Error> {
    let request = |text: String| Error::Request(text);
    let index =
        loadline_models::weights::WeightIndex::open_component(path).map_err(|e| request(format!("--latents: {e}")))?;
    let names = || index.tensors.iter().map(|t| t.name.as_str()).collect::<Vec<_>>().join(", ");
    let entry = match name {
        Some(name) => index.get(name),
        None if index.tensors.len() == 1 => index.tensors.first(),
        None => index.get("latents"),
    };
    let entry = entry.ok_or_else(|| {
        request(format!("--latents {}: name one of its tensors as FILE:TENSOR: {}", path.display(), names()))
    })?;
    let dtype = super::session::element_type(entry.dtype).ok_or_else(|| {
        request(format!("--latents: tensor '{}' is {}, use f32, f16 or bf16", entry.name, entry.dtype.name()))
    })?;
    let files = loadline_device::WeightFiles::open(&index.files).map_err(|e| request(e.to_string()))?;
    let mut values = vec![0.0; entry.elements() as usize];
    let segment = super::host::table_segment(entry, dtype, entry.file);
    files.read_f32(&segment, 0, &mut values).map_err(|e| request(e.to_string()))?;
    Ok((entry.shape.iter().map(|d| *d as usize).collect(), values))
}

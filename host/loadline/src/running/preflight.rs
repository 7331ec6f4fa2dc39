//! What can be known about the places of results before a long run begins.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use loadline_media::MediaError;

use super::output::ResultSink;
use super::session::JobSpec;
use crate::Error;

/// Checks everything that a job will write, so that no hour of work ends at a mistyped path.
///
/// # Errors
/// The first place that cannot take its result, with the flag that named it.
pub(super) fn check(spec: &JobSpec) -> Result<(), Error> {
    let output = spec.output.path();
    let size = spec.asked.request.size;
    match &spec.output {
        ResultSink::Video(path) => {
            match loadline_media::check_size(size.width, size.height) {
                // The model's own rule, which names the nearest size that both take, comes with the plan.
                Ok(()) | Err(MediaError::OddSize { .. }) => {}
                Err(outside) => return Err(outside.into()),
            }
            check_writable("-o", path)?;
        }
        ResultSink::Pictures(path) if path.extension().is_none() => check_folder(path)?,
        ResultSink::Pictures(path) if spec.asked.request.frames != 1 => {
            let frames = spec.asked.request.frames;
            let text = "a PNG holds one frame; use a folder's name, .mp4, or --frames 1";
            return Err(Error::Request(format!("-o {}: this request has {frames} frames, {text}", path.display())));
        }
        ResultSink::Pictures(path) => check_writable("-o", path)?,
    }
    let Some(dump) = &spec.dump else { return Ok(()) };
    if same_place(dump, output) {
        let text = "the result and its tensors cannot share a file";
        return Err(Error::Request(format!("--dump-tensors {}: {text}; name another", dump.display())));
    }
    check_writable("--dump-tensors", dump)
}

/// Whether two names are of one file, whether it is there or not.
#[must_use]
pub fn same_place(a: &Path, b: &Path) -> bool {
    place(a) == place(b)
}

/// The folder, as the system knows it, and the name in it.
pub(super) fn place(path: &Path) -> PathBuf {
    let parent = path.parent().filter(|p| *p != Path::new("")).unwrap_or(Path::new("."));
    parent.canonicalize().unwrap_or_else(|_| parent.to_owned()).join(path.file_name().unwrap_or_default())
}

/// Checks that a file can be written under a name: its folder is there and takes files, and the name is not taken
/// by something that is no ordinary file.
///
/// # Errors
/// What is in the way, with the flag that named the file.
pub fn check_writable(flag: &str, path: &Path) -> Result<(), Error> {
    let folder = parent(flag, path)?;
    if path.is_dir() {
        return Err(blocked(flag, path, "this is a folder; name a file"));
    }
    if path.exists() && !path.is_file() {
        return Err(blocked(
            flag,
            path,
            "this is a device or a pipe; results get their name only when they are whole, name a file",
        ));
    }
    probe(flag, path, &folder)
}

/// Frames are written beside the folder and get its name together: it must be new, or empty and no place of its own.
fn check_folder(path: &Path) -> Result<(), Error> {
    let parent = parent("-o", path)?;
    let Ok(kind) = path.symlink_metadata() else { return probe("-o", path, &parent) };
    if kind.is_symlink() {
        return Err(blocked("-o", path, "this is a link; name the folder itself"));
    }
    if !kind.is_dir() {
        return Err(blocked("-o", path, "this is a file; without an extension it would be a folder of PNG frames"));
    }
    let entries = std::fs::read_dir(path).map_err(|e| blocked("-o", path, &e.to_string()))?;
    if let Some(name) = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).min() {
        let text = format!("the folder holds {name} already; name an empty or a new folder for the frames");
        return Err(blocked("-o", path, &text));
    }
    if std::fs::metadata(&parent).is_ok_and(|m| m.dev() != kind.dev()) {
        return Err(blocked("-o", path, "another file system begins here; name a new folder inside it"));
    }
    probe("-o", path, &parent)
}

fn parent(flag: &str, path: &Path) -> Result<PathBuf, Error> {
    if path.file_name().is_none() {
        return Err(Error::Request(format!(
            "{flag} '{}': this names no file; write one, such as out.mp4",
            path.display()
        )));
    }
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    if folder.is_dir() {
        return Ok(folder.to_owned());
    }
    Err(blocked(flag, path, &format!("there is no folder {}; create it or name another", folder.display())))
}

/// Creates and removes a file: permissions, read-only systems and quotas show only then.
fn probe(flag: &str, path: &Path, folder: &Path) -> Result<(), Error> {
    let name = folder.join(format!(".loadline-{}.probe", std::process::id()));
    let made = std::fs::File::create(&name).and_then(|_| std::fs::remove_file(&name));
    made.map_err(|e| blocked(flag, path, &format!("{}: {e}; choose a folder that may be written", folder.display())))
}

fn blocked(flag: &str, path: &Path, why: &str) -> Error {
    Error::Output { path: path.to_owned(), detail: format!("{flag}: {why}") }
}

//! Streaming a checkpoint to disk, whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use loadline_core::Bytes;
use loadline_media::PartialFolder;
use rayon::prelude::*;

use super::blueprint::{Blueprint, TextFile};
use super::layout::WeightFile;
use super::values::Chunk;
use crate::Error;

/// Bytes that are drawn while as many are written. Two such buffers are all the memory that weights take.
const BUFFER_BYTES: usize = 4 << 20;
/// What file systems need beside the contents of files.
const ROOM_BYTES: u64 = 16 << 20;

/// Writes a checkpoint into a folder that is new or empty. `progress` is told how many bytes are written so far.
///
/// Everything is written under a hidden name beside the folder, which gets its name when all is on the disk. On an
/// error, and when `stop` becomes true, nothing is left of it.
///
/// # Errors
/// [`Error::Output`] if the folder is taken, the disk has too little room or something cannot be written;
/// [`Error::Stopped`] after `stop`.
pub fn write(
    blueprint: &Blueprint,
    folder: &Path,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(Bytes),
) -> Result<(), Error> {
    check_free(folder)?;
    check_room(folder, blueprint.bytes())?;
    let partial = PartialFolder::create(folder)?;
    let mut writer = Writer { stop, progress, written: Bytes::ZERO };
    for file in &blueprint.texts {
        writer.text(partial.inside(), file)?;
    }
    for file in &blueprint.weights {
        writer.weights(partial.inside(), file)?;
    }
    Ok(partial.publish()?)
}

/// A folder with something in it is never mixed with a new one.
fn check_free(folder: &Path) -> Result<(), Error> {
    let taken = |detail: &str| Err(Error::Output { path: folder.to_owned(), detail: detail.to_owned() });
    match fs::read_dir(folder).map(|mut entries| entries.next().is_some()) {
        Ok(true) => taken("the folder is not empty; name a new one, or remove what is in it"),
        Ok(false) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::output(folder, &e)),
    }
}

fn check_room(folder: &Path, needed: Bytes) -> Result<(), Error> {
    let parent = folder.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let disk = rustix::fs::statvfs(parent).map_err(|e| Error::output(parent, &e.into()))?;
    let free = Bytes(disk.f_bavail.saturating_mul(disk.f_frsize));
    if free.0 >= needed.0.saturating_add(ROOM_BYTES) {
        return Ok(());
    }
    let detail = format!(
        "the checkpoint has {needed}, and {free} is free on this disk; free some space, choose another place, or write \
         less with --components or a smaller --storage"
    );
    Err(Error::Output { path: folder.to_owned(), detail })
}

struct Writer<'a> {
    stop: &'a AtomicBool,
    progress: &'a mut dyn FnMut(Bytes),
    written: Bytes,
}

impl Writer<'_> {
    fn text(&mut self, root: &Path, file: &TextFile) -> Result<(), Error> {
        let mut out = create(root, &file.path)?;
        let done = out.write_all(&file.content).and_then(|()| out.sync_all());
        done.map_err(|e| Error::output(&file.path, &e))?;
        self.count(file.content.len())
    }

    /// Draws a buffer while the one before is written.
    fn weights(&mut self, root: &Path, file: &WeightFile) -> Result<(), Error> {
        let mut out = create(root, &file.path)?;
        let mut chunks = file.chunks().peekable();
        let (mut ready, mut next) = (file.header.clone(), Vec::new());
        while !ready.is_empty() {
            let batch = batch(&mut chunks);
            let (done, ()) = rayon::join(|| out.write_all(&ready), || draw(&batch, &mut next));
            done.map_err(|e| Error::output(&file.path, &e))?;
            self.count(ready.len())?;
            std::mem::swap(&mut ready, &mut next);
        }
        // A full disk may be told only now.
        out.sync_all().map_err(|e| Error::output(&file.path, &e))
    }

    fn count(&mut self, bytes: usize) -> Result<(), Error> {
        self.written += Bytes(bytes as u64);
        (self.progress)(self.written);
        if self.stop.load(Ordering::Relaxed) { Err(Error::Stopped) } else { Ok(()) }
    }
}

fn create(root: &Path, path: &Path) -> Result<File, Error> {
    let whole = root.join(path);
    let folder = whole.parent().unwrap_or(root);
    let made = fs::create_dir_all(folder).and_then(|()| File::create_new(&whole));
    made.map_err(|e| Error::output(path, &e))
}

/// The next chunks that fit a buffer.
fn batch(chunks: &mut std::iter::Peekable<impl Iterator<Item = Chunk>>) -> Vec<Chunk> {
    let (mut taken, mut bytes) = (Vec::new(), 0);
    while let Some(chunk) = chunks.next_if(|c| bytes == 0 || bytes + c.bytes() <= BUFFER_BYTES) {
        bytes += chunk.bytes();
        taken.push(chunk);
    }
    taken
}

/// Fills `out` with the chunks, one after another.
fn draw(batch: &[Chunk], out: &mut Vec<u8>) {
    out.resize(batch.iter().map(Chunk::bytes).sum(), 0);
    let mut rest = out.as_mut_slice();
    let mut parts = Vec::with_capacity(batch.len());
    for chunk in batch {
        let (part, after) = rest.split_at_mut(chunk.bytes());
        parts.push((chunk, part));
        rest = after;
    }
    parts.into_par_iter().for_each(|(chunk, part)| chunk.draw(part));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_larger_than_the_disk_is_refused_before_anything_is_written() {
        let folder = std::env::temp_dir().join("never-made");
        let error = check_room(&folder, Bytes(u64::MAX / 2)).map_err(|e| e.to_string());
        assert!(error.is_err_and(|e| e.contains("free some space") && e.contains("--components")));
        assert!(check_room(&folder, Bytes::ZERO).is_ok());
    }
}

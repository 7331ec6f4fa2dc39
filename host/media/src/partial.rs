//! Files and folders that get their name only when they are whole.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::MediaError;

/// Temporary names that are tried, should as many runs write beside each other.
const NAMES_MAX: u32 = 1000;

/// A file under a temporary name in the folder of its final one. Dropping it before [`PartialFile::publish`]
/// removes it; what a killed run left behind is used again by the next run that writes the same file.
#[derive(Debug)]
pub struct PartialFile {
    /// `None` once the file has been published.
    file: Option<BufWriter<File>>,
    temporary: PathBuf,
    path: PathBuf,
}

impl PartialFile {
    /// Starts a file that will be at `path`, whose folder must exist.
    ///
    /// # Errors
    /// [`MediaError::DiskFull`] or [`MediaError::Io`] if nothing can be written there.
    pub fn create(path: &Path) -> Result<Self, MediaError> {
        let claimed = if path.is_dir() { Err(io::ErrorKind::IsADirectory.into()) } else { claim(path, claim_file) };
        let (file, temporary) = claimed.map_err(|e| MediaError::io(path, e))?;
        Ok(Self { file: Some(BufWriter::new(file)), temporary, path: path.to_owned() })
    }

    /// Writes over the first bytes of what was written so far.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_at_start(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::BrokenPipe.into()) };
        file.flush()?;
        file.get_ref().write_all_at(bytes, 0)
    }

    /// Gives the file its name, replacing one that is already there.
    ///
    /// # Errors
    /// [`MediaError::DiskFull`] or [`MediaError::Io`]; then nothing is left of it.
    pub fn publish(mut self) -> Result<(), MediaError> {
        let written = self.sync().and_then(|()| fs::rename(&self.temporary, &self.path));
        written.map_err(|e| MediaError::io(&self.path, e))?;
        // From here on there is no temporary file to remove.
        self.temporary = PathBuf::new();
        Ok(())
    }

    /// Some file systems report a full disk only when they are made to write.
    fn sync(&mut self) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.flush()?;
        file.get_ref().sync_all()
    }
}

impl Write for PartialFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.file {
            Some(file) => file.write(bytes),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), BufWriter::flush)
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if self.temporary != PathBuf::new() {
            // Nobody is left to hear of an error, and the temporary name says what the file is.
            let _ = fs::remove_file(&self.temporary);
        }
        if let Some(file) = self.file.take() {
            // Without its buffer, since what would be written now has been removed.
            drop(file.into_parts());
        }
    }
}

/// A folder under a temporary name beside its final one, as [`PartialFile`] is for a file.
#[derive(Debug)]
pub struct PartialFolder {
    /// Held while the folder is filled; a run that ends in any way lets go of it.
    folder: File,
    temporary: PathBuf,
    path: PathBuf,
}

impl PartialFolder {
    /// Starts a folder that will be at `path`, whose parent must exist.
    ///
    /// # Errors
    /// [`MediaError::DiskFull`] or [`MediaError::Io`] if nothing can be written there.
    pub fn create(path: &Path) -> Result<Self, MediaError> {
        let (folder, temporary) = claim(path, claim_folder).map_err(|e| MediaError::io(path, e))?;
        Ok(Self { folder, temporary, path: path.to_owned() })
    }

    /// Where its files are written.
    #[must_use]
    pub fn inside(&self) -> &Path {
        &self.temporary
    }

    /// Gives the folder its name, which must be free or that of an empty folder.
    ///
    /// # Errors
    /// [`MediaError::Io`] if something else has the name; then nothing is left of it.
    pub fn publish(mut self) -> Result<(), MediaError> {
        let named = self.folder.sync_all().and_then(|()| fs::rename(&self.temporary, &self.path));
        named.map_err(|e| MediaError::io(&self.path, e))?;
        self.temporary = PathBuf::new();
        Ok(())
    }
}

impl Drop for PartialFolder {
    fn drop(&mut self) {
        if self.temporary != PathBuf::new() {
            let _ = fs::remove_dir_all(&self.temporary);
        }
    }
}

/// The first temporary name beside `path` that `take` gets hold of.
fn claim(path: &Path, take: fn(&Path) -> io::Result<Option<File>>) -> io::Result<(File, PathBuf)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    for number in 0..NAMES_MAX {
        let temporary = path.with_file_name(hidden(name, number));
        if let Some(file) = take(&temporary)? {
            return Ok((file, temporary));
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn hidden(name: &OsStr, number: u32) -> OsString {
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{number}.partial"));
    hidden
}

/// A new file, or one that a killed run left; nothing if another run is writing it.
fn claim_file(temporary: &Path) -> io::Result<Option<File>> {
    match OpenOptions::new().write(true).create_new(true).open(temporary) {
        Ok(file) => return Ok((!is_taken(&file)).then_some(file)),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(e),
    }
    if !fs::symlink_metadata(temporary).is_ok_and(|m| m.is_file()) {
        return Ok(None);
    }
    let Ok(file) = OpenOptions::new().write(true).open(temporary) else { return Ok(None) };
    if !is_left(&file, temporary) {
        return Ok(None);
    }
    file.set_len(0)?;
    Ok(Some(file))
}

/// A new folder, or one that a killed run left, emptied; nothing if another run is filling it.
fn claim_folder(temporary: &Path) -> io::Result<Option<File>> {
    match fs::create_dir(temporary) {
        Ok(()) => {
            let folder = File::open(temporary)?;
            return Ok((!is_taken(&folder)).then_some(folder));
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(e),
    }
    if !fs::symlink_metadata(temporary).is_ok_and(|m| m.is_dir()) {
        return Ok(None);
    }
    let Ok(folder) = File::open(temporary) else { return Ok(None) };
    if !is_left(&folder, temporary) {
        return Ok(None);
    }
    for entry in fs::read_dir(temporary)? {
        let entry = entry?;
        // The kind of a link is that of the link itself, so nothing outside is removed.
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
    }
    Ok(Some(folder))
}

/// Whether another run holds it. Where a file system has no locks, new names still keep runs apart.
fn is_taken(file: &File) -> bool {
    matches!(file.try_lock(), Err(TryLockError::WouldBlock))
}

/// Whether nobody holds it, and it is still what lies under that name now that we do.
fn is_left(file: &File, path: &Path) -> bool {
    if file.try_lock().is_err() {
        return false;
    }
    let same = |a: &fs::Metadata, b: &fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(held), Ok(named)) => same(&held, &named),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_a_killed_run_left_is_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.mp4");
        fs::write(dir.path().join(".a.mp4.0.partial"), "half a video, longer than the whole one").unwrap();
        let mut first = PartialFile::create(&path).unwrap();
        let mut second = PartialFile::create(&path).unwrap();
        assert_eq!(names(dir.path()), [".a.mp4.0.partial", ".a.mp4.1.partial"]);
        first.write_all(b"one").unwrap();
        second.write_all(b"two").unwrap();
        first.publish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        second.publish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names(dir.path()), ["a.mp4"]);
    }

    #[test]
    fn a_link_under_a_temporary_name_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let precious = dir.path().join("precious");
        fs::write(&precious, "text").unwrap();
        std::os::unix::fs::symlink(&precious, dir.path().join(".a.0.partial")).unwrap();
        drop(PartialFile::create(&dir.path().join("a")).unwrap());
        assert_eq!(fs::read(&precious).unwrap(), b"text");
    }

    #[test]
    fn folders_appear_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("frames");
        fs::create_dir(dir.path().join(".frames.0.partial")).unwrap();
        fs::write(dir.path().join(".frames.0.partial/old"), "").unwrap();
        let folder = PartialFolder::create(&path).unwrap();
        fs::write(folder.inside().join("new"), "").unwrap();
        drop(PartialFolder::create(&path).unwrap());
        folder.publish().unwrap();
        assert_eq!((names(dir.path()), names(&path)), (vec!["frames".to_owned()], vec!["new".to_owned()]));
    }
}

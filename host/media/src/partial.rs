//! A file that gets its name only when it is whole.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::MediaError;

/// Temporary names that are tried, should earlier runs have been killed and left theirs behind.
const NAMES_MAX: u32 = 1000;

/// A file under a temporary name in the folder of its final one. Dropping it before [`PartialFile::publish`]
/// removes it.
pub(crate) struct PartialFile {
    /// `None` once the file has been published.
    file: Option<BufWriter<File>>,
    temporary: PathBuf,
    path: PathBuf,
}

impl PartialFile {
    pub(crate) fn create(path: &Path) -> Result<Self, MediaError> {
        let (file, temporary) = create_beside(path).map_err(|e| MediaError::io(path, e))?;
        Ok(Self { file: Some(BufWriter::new(file)), temporary, path: path.to_owned() })
    }

    /// Gives the file its name, replacing one that is already there.
    pub(crate) fn publish(mut self) -> Result<(), MediaError> {
        let written = self.sync().and_then(|()| std::fs::rename(&self.temporary, &self.path));
        written.map_err(|e| MediaError::io(&self.path, e))?;
        // From here on there is no temporary file to remove.
        self.temporary = PathBuf::new();
        Ok(())
    }

    /// Some file systems report a full disk only when they are made to write.
    fn sync(&mut self) -> io::Result<()> {
        let Some(mut file) = self.file.take() else {
            return Ok(());
        };
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
        if let Some(file) = self.file.take() {
            // Without its buffer, since what would be written now is about to be removed.
            drop(file.into_parts());
        }
        if self.temporary != PathBuf::new() {
            // Nobody is left to hear of an error, and the temporary name says what the file is.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

fn create_beside(path: &Path) -> io::Result<(File, PathBuf)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    if path.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    for number in 0..NAMES_MAX {
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{number}.partial"));
        let temporary = path.with_file_name(hidden);
        match OpenOptions::new().write(true).create_new(true).open(&temporary) {
            Ok(file) => return Ok((file, temporary)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

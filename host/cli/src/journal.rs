//! Which jobs of a list are done, so that `run --jobs LIST --resume` does not make them again.
//!
//! A text file beside the list: first the command that made it, then the lines of the jobs that are done. It is there
//! while a list is unfinished.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use loadline::Error;

/// The record of one list. It begins with the first job that is finished and goes away with the last. Until it begins,
/// what an earlier run wrote stays: a run that was refused, or stopped in its first job, costs nothing.
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    command: String,
    done: BTreeSet<String>,
    /// Where the next line goes; what lies behind it counts for nothing.
    end: u64,
}

impl Journal {
    /// Opens the record of a list; `command` is what its results depend on beside the list.
    ///
    /// # Errors
    /// If another run has it, it cannot be written, or it was made by another command.
    pub(crate) fn open(list: &Path, command: &str, resume: bool) -> Result<Self, Error> {
        let mut name = list.file_name().unwrap_or_default().to_owned();
        name.push(".done");
        let path = list.with_file_name(name);
        let failed = |detail: String| Error::Output { path: path.clone(), detail };
        let unwritten = |e: std::io::Error| failed(format!("{e}; put the list where files can be written"));
        let file = OpenOptions::new().create(true).read(true).write(true).truncate(false).open(&path);
        let mut file = file.map_err(unwritten)?;
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            return Err(failed("another run is doing these jobs; wait for it".to_owned()));
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(|e| failed(format!("{e}; delete it to begin with the first job")))?;
        // A line that a killed run did not finish counts for nothing.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut lines = text[..whole].lines();
        let made_by = lines.next();
        let mut journal = Self { path: path.clone(), file, command: command.to_owned(), done: BTreeSet::new(), end: 0 };
        if !resume || made_by.is_none() {
            return Ok(journal);
        }
        if made_by != Some(command) {
            return Err(failed(format!(
                "these jobs were begun by another command, {}; give the same one, or delete this file to begin with \
                 the first job",
                made_by.unwrap_or_default()
            )));
        }
        (journal.done, journal.end) = (lines.map(str::to_owned).collect(), whole as u64);
        Ok(journal)
    }

    /// Whether an earlier run finished this line.
    pub(crate) fn is_done(&self, line: &str) -> bool {
        self.done.contains(line)
    }

    /// Writes down that a line is done.
    ///
    /// # Errors
    /// If it cannot be written; the result of the job is there.
    pub(crate) fn finish(&mut self, line: &str) -> Result<(), Error> {
        self.done.insert(line.to_owned());
        self.write(line).map_err(|e| Error::Output {
            path: self.path.clone(),
            detail: format!("{e}; free some space, then run the same command with --resume"),
        })
    }

    fn write(&mut self, line: &str) -> std::io::Result<()> {
        let text = if self.end == 0 { format!("{}\n{line}\n", self.command) } else { format!("{line}\n") };
        self.file.set_len(self.end)?;
        self.file.seek(SeekFrom::Start(self.end))?;
        self.file.write_all(text.as_bytes())?;
        self.end += text.len() as u64;
        self.file.sync_all()
    }

    /// All jobs are done.
    pub(crate) fn close(self) {
        self.remove();
    }

    fn remove(&self) {
        // A record that stays behind does no harm: the next run of the list replaces it.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // Opening made the file, and nothing was written.
        if self.file.metadata().is_ok_and(|file| file.len() == 0) {
            self.remove();
        }
    }
}

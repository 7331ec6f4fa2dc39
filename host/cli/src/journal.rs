//! Which jobs of a list are done, so that `run --jobs LIST --resume` does not make them again.
//!
//! A text file beside the list: first the command that made it, then the lines of the jobs that are done. It is there
//! while a list is unfinished.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use loadline::Error;

/// The record of one list. It goes away with the last job, and with a run that did not finish any.
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    done: BTreeSet<String>,
    /// Whether this run goes by the record; one that was refused leaves it as it is.
    ours: bool,
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
        let mut journal = Self { path: path.clone(), file, done: BTreeSet::new(), ours: false };
        if !resume || made_by.is_none() {
            journal.ours = true;
            journal.begin(command).map_err(unwritten)?;
            return Ok(journal);
        }
        if made_by != Some(command) {
            return Err(failed(format!(
                "these jobs were begun by another command, {}; give the same one, or delete this file to begin with \
                 the first job",
                made_by.unwrap_or_default()
            )));
        }
        journal.ours = true;
        journal.done = lines.map(str::to_owned).collect();
        journal.cut(whole as u64).map_err(unwritten)?;
        Ok(journal)
    }

    fn begin(&mut self, command: &str) -> std::io::Result<()> {
        self.cut(0)?;
        self.file.write_all(format!("{command}\n").as_bytes())
    }

    fn cut(&mut self, length: u64) -> std::io::Result<()> {
        self.file.set_len(length)?;
        self.file.seek(SeekFrom::Start(length)).map(drop)
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
        let written = self.file.write_all(format!("{line}\n").as_bytes()).and_then(|()| self.file.sync_all());
        written.map_err(|e| Error::Output {
            path: self.path.clone(),
            detail: format!("{e}; free some space, then run the same command with --resume"),
        })
    }

    /// All jobs are done.
    pub(crate) fn close(mut self) {
        self.done.clear();
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if self.ours && self.done.is_empty() {
            // A record of nothing; one that stays behind does no harm either.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

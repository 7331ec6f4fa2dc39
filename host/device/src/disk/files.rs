//! One open weight file: its handles, and whether it still is what it was.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use loadline_engine::DeviceError;
use rustix::fs::{Advice, OFlags, fadvise};

use super::PAGE;
use crate::cached::share;

/// So much of a file must have been in the page cache before for its pages to stay there.
const CACHED: f64 = 0.9;

/// What a file is known by while it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    length: u64,
    modified: (i64, i64),
    links: u64,
}

impl Stamp {
    fn of(about: &Metadata) -> Self {
        Self { length: about.len(), modified: (about.mtime(), about.mtime_nsec()), links: about.nlink() }
    }
}

/// A weight file that is open.
#[derive(Debug)]
pub(crate) struct WeightFile {
    path: PathBuf,
    file: File,
    stamp: Stamp,
    /// The same file for direct reads, or why there are none.
    direct: OnceLock<Result<File, String>>,
    /// Whether a direct read was refused by a file that could be opened for them.
    no_direct: AtomicBool,
    /// Whether its pages were in the page cache before anything was read.
    was_cached: OnceLock<bool>,
}

impl WeightFile {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let stamp = Stamp::of(&file.metadata()?);
        Ok(Self {
            path: path.to_owned(),
            file,
            stamp,
            direct: OnceLock::new(),
            no_direct: AtomicBool::new(false),
            was_cached: OnceLock::new(),
        })
    }

    pub(crate) fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// The handle for reads through the page cache.
    pub(super) fn buffered(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// The handle for direct reads.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn direct(&self) -> Result<RawFd, String> {
        if self.no_direct.load(Ordering::Relaxed) {
            return Err("its file system takes no such reads".to_owned());
        }
        let open = || {
            let flag = OFlags::DIRECT.bits() as i32;
            // The name may be another file's by now; the process's own entry is this one's.
            let again = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            let named = OpenOptions::new().read(true).custom_flags(flag).open(&again);
            named.map_err(|e| e.to_string())
        };
        self.direct.get_or_init(open).as_ref().map(AsRawFd::as_raw_fd).map_err(Clone::clone)
    }

    /// Takes no direct reads from now on.
    pub(super) fn refuse_direct(&self) {
        self.no_direct.store(true, Ordering::Relaxed);
    }

    /// Fills `out` with bytes of the file.
    ///
    /// # Errors
    /// If the file has become shorter, or cannot be read.
    pub(crate) fn read(&self, from: u64, out: &mut [u8]) -> Result<(), DeviceError> {
        self.file.read_exact_at(out, from).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => self.too_short(),
            _ => self.unreadable(from, out.len(), &e),
        })
    }

    /// Gives pages that were read back to the system, unless they were in memory before anybody asked for them.
    pub(crate) fn give_back(&self, from: u64, bytes: u64) {
        let before = || share(&self.file, self.stamp.length).is_some_and(|share| share >= CACHED);
        if !*self.was_cached.get_or_init(before) {
            // The page that a read ends in is given back by the next one, which begins there.
            let page = from / PAGE as u64 * PAGE as u64;
            let length = std::num::NonZeroU64::new(from + bytes - page);
            // Advice: where it is not taken, the system reclaims the pages when it needs them.
            let _ = fadvise(&self.file, page, length, Advice::DontNeed);
        }
    }

    /// Has to be asked before the first read through the page cache, after which it would always be there.
    pub(crate) fn look_at_cache(&self) {
        self.was_cached.get_or_init(|| share(&self.file, self.stamp.length).is_some_and(|share| share >= CACHED));
    }

    /// Whether the file still is what it was when it was opened.
    ///
    /// # Errors
    /// What has become of it.
    pub(crate) fn check(&self) -> Result<(), DeviceError> {
        let now = match self.file.metadata() {
            Ok(about) => Stamp::of(&about),
            Err(e) => return Err(self.failed(format!("{e}; check the disk"))),
        };
        if now.links == 0 && self.stamp.links > 0 {
            let text = "the file was removed or replaced while the run was reading it; bring it back with its date \
                        (`cp -p`)";
            return Err(self.failed(text.to_owned()));
        }
        if now.length < self.stamp.length {
            return Err(self.too_short());
        }
        if (now.length, now.modified) != (self.stamp.length, self.stamp.modified) {
            let text = "the file has changed while the run was reading it, so that its weights do not belong together; \
                        bring the old one back with its date (`cp -p`), or start over with the new one";
            return Err(self.failed(text.to_owned()));
        }
        Ok(())
    }

    /// The file ended before what was wanted of it.
    pub(super) fn too_short(&self) -> DeviceError {
        let length = self.stamp.length;
        self.failed(format!(
            "the file has become shorter than the {length} bytes it had when the run began; bring it back, or download \
             it again"
        ))
    }

    /// The system could not read it.
    pub(super) fn unreadable(&self, from: u64, bytes: usize, error: &io::Error) -> DeviceError {
        self.failed(format!(
            "reading {bytes} bytes at {from}: {error}; check the disk (`sudo dmesg | tail`), or copy the file to \
             another one"
        ))
    }

    pub(crate) fn failed(&self, detail: String) -> DeviceError {
        DeviceError::Reading { file: self.name(), detail }
    }
}

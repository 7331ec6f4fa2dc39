//! Files that only this user can have written.
//!
//! Everything goes through the folder's handle, so a folder that is exchanged after it was looked at makes no
//! difference, and nothing follows symbolic links.

use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, open, openat, renameat, statat, unlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;

/// More than the code of any component that may be loaded.
const FILE_BYTES: u64 = 512 << 20;
/// Files that are kept, newest first: some versions of some policies for some processors.
const FILES: usize = 64;
/// Names that are tried for a file that is being written.
const NAMES: usize = 64;
/// Characters of a key: a digest of 256 bits.
const KEY: usize = 64;
/// Permissions of everyone but the owner.
const OTHERS: u32 = 0o077;

/// A folder of which nobody else can change anything.
pub(super) struct Folder(OwnedFd);

impl Folder {
    /// Opens a folder, or makes it.
    ///
    /// # Errors
    /// In words, if it cannot be made, is a symbolic link, belongs to another user or is open to others.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let failed = |detail: String| format!("{}: {detail}", path.display());
        let made = DirBuilder::new().mode(0o700).recursive(true).create(path);
        made.map_err(|error| failed(error.to_string()))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = open(path, flags, Mode::empty()).map_err(|error| failed(format!("not used: {error}")))?;
        let stat = fstat(&handle).map_err(|error| failed(error.to_string()))?;
        if !is_private(&stat) {
            return Err(failed("not used, since others may write or read there: chmod 700, as its owner".to_owned()));
        }
        Ok(Self(handle))
    }

    /// The content of a file; nothing if there is none, or if others could have made it.
    pub(super) fn read(&self, name: &str) -> Option<Vec<u8>> {
        // Opening a pipe would wait for a writer without the flag NONBLOCK.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let handle = openat(&self.0, name, flags, Mode::empty()).ok()?;
        let stat = fstat(&handle).ok()?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || !is_private(&stat) {
            return None;
        }
        let size = u64::try_from(stat.st_size).ok().filter(|size| *size <= FILE_BYTES)?;
        let mut bytes = Vec::with_capacity(usize::try_from(size).ok()?);
        File::from(handle).take(FILE_BYTES).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// Puts a file in place, whole or not at all.
    pub(super) fn write(&self, name: &str, parts: &[&[u8]]) -> io::Result<()> {
        let (temporary, mut file) = self.fresh(name)?;
        let filled = parts.iter().try_for_each(|part| file.write_all(part));
        let written = filled.and_then(|()| Ok(renameat(&self.0, &temporary, &self.0, name)?));
        if written.is_err() {
            // What is left of it counts among the files that are tidied away.
            let _ = unlinkat(&self.0, &temporary, AtFlags::empty());
        }
        self.tidy();
        written
    }

    /// A file of nobody else. Processes in two containers may have the same number and share the folder: a name that is
    /// taken is another's, who may be writing.
    fn fresh(&self, name: &str) -> io::Result<(String, File)> {
        static TURN: AtomicU64 = AtomicU64::new(0);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for _ in 0..NAMES {
            let turn = TURN.fetch_add(1, Ordering::Relaxed);
            let temporary = format!(".{}-{turn}-{name}", std::process::id());
            match openat(&self.0, &temporary, flags, Mode::RUSR | Mode::WUSR) {
                Ok(handle) => return Ok((temporary, File::from(handle))),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Removes all but the newest files.
    fn tidy(&self) {
        let Ok(entries) = Dir::read_from(&self.0) else { return };
        let mut files: Vec<_> = entries
            .flatten()
            .filter_map(|entry| {
                let stat = statat(&self.0, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW).ok()?;
                let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
                // Whatever else a caller keeps in the folder is not ours.
                let is_ours = is_key(entry.file_name().to_bytes());
                (is_file && is_ours).then(|| (stat.st_mtime, entry.file_name().to_owned()))
            })
            .collect();
        files.sort();
        for (_, name) in files.iter().rev().skip(FILES) {
            let _ = unlinkat(&self.0, name.as_c_str(), AtFlags::empty());
        }
    }
}

/// Whether a name is that of compiled code, or of a file that was to become one.
fn is_key(name: &[u8]) -> bool {
    let last = name.rsplit(|byte| *byte == b'-').next().unwrap_or(name);
    last.len() == KEY && last.iter().all(u8::is_ascii_hexdigit)
}

fn is_private(stat: &Stat) -> bool {
    stat.st_uid == geteuid().as_raw() && stat.st_mode & OTHERS == 0
}

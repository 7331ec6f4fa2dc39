//! Whose a folder is.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Access, access};
use rustix::process::geteuid;

use super::super::KeptState;

/// What is at a path; a symbolic link is not followed, as the cache does not follow one.
pub(super) fn state(path: &Path) -> KeptState {
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return KeptState::Absent,
        Err(error) => return KeptState::Other { what: error.to_string() },
    };
    if !metadata.is_dir() {
        let what = if metadata.is_symlink() { "a symbolic link" } else { "a file" };
        return KeptState::Other { what: what.to_owned() };
    }
    KeptState::Folder {
        mode: metadata.mode() & 0o777,
        own: metadata.uid() == geteuid().as_raw(),
        writable: access(path, Access::WRITE_OK).is_ok(),
    }
}

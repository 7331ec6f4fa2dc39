//! A folder's file system, and reads from it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, OFlags, access, statvfs};

use super::super::{Direct, Folder, Reading};
use super::read;
use crate::recording::seconds;

/// Direct reads go by whole blocks of the disk, at places in memory that are as round.
const PAGE: usize = 4096;
/// One request; large enough that its start does not show in a rate.
const REQUEST: usize = 8 << 20;
/// A measurement stops after so many seconds, or at the file's end.
const SECONDS: f64 = 3.0;
/// A shorter file is read in a few requests, which shows no rate.
const MEASURED_LEAST: u64 = 64 << 20;
/// A model's folder has its components' folders in it, and those may have another below.
const DEPTH: usize = 3;
/// Somebody's home may have any number of files.
const ENTRIES: usize = 20_000;

pub(super) fn folder(path: &Path, root: &Path) -> Folder {
    let absolute = match path.canonicalize() {
        Ok(absolute) if absolute.is_dir() => absolute,
        Ok(_) => return missing(path, "it is no folder".to_owned()),
        Err(error) => return missing(path, error.to_string()),
    };
    let free = statvfs(&absolute).ok().map(|found| found.f_bavail.saturating_mul(found.f_frsize));
    Folder {
        file_system: read(root, "proc/self/mountinfo").and_then(|mounts| file_system(&mounts, &absolute)),
        free_bytes: free,
        writable: access(&absolute, Access::WRITE_OK).is_ok(),
        direct: direct(&absolute),
        path: absolute.display().to_string(),
        ..Folder::default()
    }
}

fn missing(path: &Path, reason: String) -> Folder {
    Folder { path: path.display().to_string(), missing: Some(reason), ..Folder::default() }
}

/// The type of the deepest mount above a path; of several at one place the last one covers the others.
fn file_system(mounts: &str, path: &Path) -> Option<String> {
    let mount = |line: &str| {
        let (head, tail) = line.split_once(" - ")?;
        let point = head.split_whitespace().nth(4)?.replace("\\040", " ");
        let kind = tail.split_whitespace().next()?.to_owned();
        path.starts_with(&point).then_some((point.len(), kind))
    };
    mounts.lines().filter_map(mount).max_by_key(|(length, _)| *length).map(|(_, kind)| kind)
}

/// Tries to read a page of a file that is there, or else of one without a name.
fn direct(folder: &Path) -> Direct {
    let flag = OFlags::DIRECT.bits() as i32;
    let refused = |error: std::io::Error| Direct::Refused { reason: error.to_string() };
    let file = match largest(folder, PAGE as u64) {
        Some((path, _)) => OpenOptions::new().read(true).custom_flags(flag).open(path),
        None => match unnamed(folder) {
            Some(made) => made,
            None => return Direct::Untried,
        },
    };
    match file.and_then(|file| with_aligned(PAGE, |buffer| file.read_at(buffer, 0))) {
        Ok(_) => Direct::Works,
        Err(error) => refused(error),
    }
}

/// A page in a file that is gone when it is closed, opened for direct reads; nothing if none can be made.
fn unnamed(folder: &Path) -> Option<std::io::Result<File>> {
    use std::os::fd::AsRawFd;
    let flag = OFlags::TMPFILE.bits() as i32;
    let made = OpenOptions::new().read(true).write(true).custom_flags(flag).open(folder).ok()?;
    made.write_all_at(&[0; PAGE], 0).ok()?;
    let again = format!("/proc/self/fd/{}", made.as_raw_fd());
    Some(OpenOptions::new().read(true).custom_flags(OFlags::DIRECT.bits() as i32).open(again))
}

/// A buffer at a round place; a `Vec` of bytes may begin anywhere.
fn with_aligned<T>(bytes: usize, work: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut memory = vec![0u8; bytes + PAGE];
    let start = memory.as_ptr().align_offset(PAGE);
    work(&mut memory[start..start + bytes])
}

/// The largest file with at least so many bytes that this user may read, in a folder or a few levels below it. Links
/// are not followed.
fn largest(folder: &Path, least: u64) -> Option<(PathBuf, u64)> {
    let mut best: Option<(u64, PathBuf)> = None;
    let mut seen = 0;
    let mut level = vec![folder.to_owned()];
    for _ in 0..DEPTH {
        let mut below = Vec::new();
        for entry in level.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten() {
            seen += 1;
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                below.push(entry.path());
            } else if metadata.is_file() && access(entry.path(), Access::READ_OK).is_ok() {
                best = best.max(Some((metadata.len(), entry.path())));
            }
            if seen >= ENTRIES {
                break;
            }
        }
        level = below;
    }
    best.filter(|(bytes, _)| *bytes >= least).map(|(bytes, path)| (path, bytes))
}

/// Reads the largest file from its start, one request after the other.
pub(super) fn reading(folder: &Path, direct: &Direct) -> Reading {
    let Some((file, bytes)) = largest(folder, MEASURED_LEAST) else {
        return Reading::NoFile { least_bytes: MEASURED_LEAST };
    };
    let direct = *direct == Direct::Works;
    let cached = loadline_device::cached_share(std::slice::from_ref(&file)).ok().flatten();
    let name = file.display().to_string();
    match timed(&file, bytes, direct) {
        Ok((bytes, seconds)) => Reading::Done { file: name, bytes, seconds, direct, cached },
        Err(error) => Reading::Failed { file: name, reason: error.to_string() },
    }
}

/// Bytes that were read and the seconds of their reads.
fn timed(path: &Path, length: u64, direct: bool) -> std::io::Result<(u64, f64)> {
    let flags = if direct { OFlags::DIRECT.bits() as i32 } else { 0 };
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    with_aligned(REQUEST, |buffer| {
        let (mut at, mut spent) = (0, 0.0);
        while at < length && spent < SECONDS {
            let mut got = Ok(0);
            spent += seconds(|| got = file.read_at(buffer, at));
            match got? {
                0 => break,
                bytes => at += bytes as u64,
            }
        }
        Ok((at, spent))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_deepest_mount_is_the_folders() {
        let mounts = "\
            22 1 254:0 / / rw - ext4 /dev/vda rw\n\
            23 22 0:30 / /data rw shared:1 - xfs /dev/vdb rw\n\
            24 23 0:31 / /data/with\\040space rw - nfs4 host:/x rw\n\
            25 23 0:32 / /data rw - tmpfs none rw\n";
        let check = |path: &str, expected: &str| {
            assert_eq!(file_system(mounts, Path::new(path)).as_deref(), Some(expected), "{path}");
        };
        check("/home", "ext4");
        check("/database", "ext4");
        check("/data/a", "tmpfs");
        check("/data/with space/a", "nfs4");
        assert_eq!(file_system("", Path::new("/")), None);
    }

    #[test]
    fn a_folder_that_is_not_there_says_so() {
        let dir = tempfile::tempdir().unwrap();
        assert!(folder(&dir.path().join("none"), Path::new("/")).missing.is_some());
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert!(folder(&dir.path().join("file"), Path::new("/")).missing.is_some());
        let found = folder(dir.path(), Path::new("/"));
        assert!(found.missing.is_none() && found.writable && found.free_bytes.is_some(), "{found:?}");
    }

    #[test]
    fn trying_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let _ = direct(dir.path());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_was_read_is_a_whole_file_or_a_full_time() {
        let dir = tempfile::tempdir().unwrap();
        let small = reading(dir.path(), &Direct::Untried);
        assert_eq!(small, Reading::NoFile { least_bytes: MEASURED_LEAST });
        let below = dir.path().join("transformer");
        std::fs::create_dir(&below).unwrap();
        std::fs::write(below.join("a.safetensors"), vec![1u8; MEASURED_LEAST as usize]).unwrap();
        match reading(dir.path(), &Direct::Untried) {
            Reading::Done { bytes, seconds, direct: false, .. } => {
                assert!(bytes == MEASURED_LEAST || seconds >= SECONDS, "{bytes} in {seconds}");
            }
            other => panic!("{other:?}"),
        }
    }
}

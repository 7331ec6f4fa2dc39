//! A folder's file system, and reads from it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, OFlags, access, statvfs};

use super::super::{Folder, Reading, Tried};
use super::read;
use crate::recording::seconds;

/// Direct reads go by whole blocks of the disk, at places in memory that are as round.
const PAGE: usize = 4096;
/// One request; large enough that its start does not show in a rate.
const REQUEST: usize = 8 << 20;
/// A shorter file is read in a few requests, which shows no rate.
const MEASURED_LEAST: u64 = 64 << 20;
/// Where there is no such file, one of this size is made, read and gone.
const MADE: u64 = 128 << 20;
/// Unless the disk has little more than that.
const FREE_LEAST: u64 = 2 << 30;
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
fn direct(folder: &Path) -> Tried {
    let flag = OFlags::DIRECT.bits() as i32;
    let refused = |error: std::io::Error| Tried::Refused { reason: error.to_string() };
    let file = match largest(folder, PAGE as u64) {
        Some((path, _)) => OpenOptions::new().read(true).custom_flags(flag).open(path),
        None => match unnamed(folder) {
            Some(made) => made,
            None => return Tried::Untried,
        },
    };
    match file.and_then(|file| with_aligned(PAGE, |buffer| file.read_at(buffer, 0))) {
        Ok(_) => Tried::Works,
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

/// Reads the largest file from its start, one request after the other, for so many seconds at most. Where there is
/// none, a file without a name is made for it.
pub(super) fn reading(folder: &Path, direct: &Tried, most: f64) -> Reading {
    let direct = *direct == Tried::Works;
    let Some((path, length)) = largest(folder, MEASURED_LEAST) else {
        let made = if direct { made(folder, most) } else { None };
        return made.unwrap_or(Reading::NoFile { least_bytes: MEASURED_LEAST });
    };
    let cached = loadline_device::cached_share(std::slice::from_ref(&path)).ok().flatten();
    let flags = if direct { OFlags::DIRECT.bits() as i32 } else { 0 };
    let read = OpenOptions::new().read(true).custom_flags(flags).open(&path).and_then(|f| timed(&f, length, most));
    let file = path.display().to_string();
    match read {
        Ok((bytes, seconds)) => Reading::Done { file, bytes, seconds, direct, cached, made: false },
        Err(error) => Reading::Failed { file, reason: error.to_string() },
    }
}

/// Writes a file without a name and reads it past the page cache; nothing if that cannot be done here.
fn made(folder: &Path, most: f64) -> Option<Reading> {
    use std::os::fd::AsRawFd;
    let free = statvfs(folder).ok().map(|found| found.f_bavail.saturating_mul(found.f_frsize))?;
    if free < FREE_LEAST {
        return None;
    }
    let flag = OFlags::TMPFILE.bits() as i32;
    let file = OpenOptions::new().read(true).write(true).custom_flags(flag).open(folder).ok()?;
    let whole = with_aligned(REQUEST, |buffer| {
        // Bytes that nothing between here and the disk can make fewer.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for word in buffer.chunks_exact_mut(8) {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            word.copy_from_slice(&(state ^ (state >> 29)).to_le_bytes());
        }
        (0..MADE / REQUEST as u64).try_for_each(|n| file.write_all_at(buffer, n * REQUEST as u64))
    });
    whole.and_then(|()| file.sync_data()).ok()?;
    let again = format!("/proc/self/fd/{}", file.as_raw_fd());
    let past = OpenOptions::new().read(true).custom_flags(OFlags::DIRECT.bits() as i32).open(again).ok()?;
    let (bytes, seconds) = timed(&past, MADE, most).ok()?;
    let name = "a file made for this".to_owned();
    Some(Reading::Done { file: name, bytes, seconds, direct: true, cached: None, made: true })
}

/// Bytes that were read and the seconds of their reads.
fn timed(file: &File, length: u64, most: f64) -> std::io::Result<(u64, f64)> {
    with_aligned(REQUEST, |buffer| {
        let (mut at, mut spent) = (0, 0.0);
        while at < length && spent < most {
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
        let small = reading(dir.path(), &Tried::Untried, 1.0);
        assert_eq!(small, Reading::NoFile { least_bytes: MEASURED_LEAST });
        let below = dir.path().join("transformer");
        std::fs::create_dir(&below).unwrap();
        std::fs::write(below.join("a.safetensors"), vec![1u8; MEASURED_LEAST as usize]).unwrap();
        match reading(dir.path(), &Tried::Untried, 1.0) {
            Reading::Done { bytes, seconds, direct: false, made: false, .. } => {
                assert!(bytes == MEASURED_LEAST || seconds >= 1.0, "{bytes} in {seconds}");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn where_there_is_no_file_one_is_made_and_gone() {
        let dir = tempfile::tempdir().unwrap();
        // Not every file system has files without a name, and a disk may be full.
        if let Some(reading) = made(dir.path(), 1.0) {
            let Reading::Done { bytes, direct: true, made: true, .. } = reading else { panic!("{reading:?}") };
            assert!(bytes > 0);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

//! Whether weight files are in the page cache.

use std::fs::File;
use std::io::IoSliceMut;
use std::path::PathBuf;

use rustix::io::{ReadWriteFlags, preadv2};

/// So many places of each file are looked at.
const SAMPLES: u64 = 32;

/// The share of the files' bytes that can be read without waiting for the disk, as far as samples tell; `None` where
/// the system does not say.
///
/// # Errors
/// If a file cannot be opened.
pub fn cached_share(files: &[PathBuf]) -> std::io::Result<Option<f64>> {
    let (mut bytes, mut cached) = (0.0, 0.0);
    for path in files {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let Some(share) = share(&file, length) else { return Ok(None) };
        bytes += length as f64;
        cached += length as f64 * share;
    }
    Ok((bytes > 0.0).then(|| cached / bytes))
}

/// Reads single bytes that the kernel may refuse rather than wait for the disk.
fn share(file: &File, length: u64) -> Option<f64> {
    let mut present = 0;
    for i in 0..SAMPLES {
        let mut byte = [0u8];
        let read = preadv2(file, &mut [IoSliceMut::new(&mut byte)], length * i / SAMPLES, ReadWriteFlags::NOWAIT);
        match read {
            Ok(_) => present += 1,
            Err(rustix::io::Errno::AGAIN) => {}
            Err(_) => return None,
        }
    }
    Some(f64::from(present) / SAMPLES as f64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_just_written_is_cached() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.bin");
        std::fs::write(&path, vec![1u8; 1 << 20]).unwrap();
        // A file system without a page cache of its own says nothing, and never something else.
        assert!(matches!(cached_share(&[path]).unwrap(), None | Some(1.0)));
        assert_eq!(cached_share(&[]).unwrap(), None);
        assert!(cached_share(&[dir.path().join("absent")]).is_err());
    }
}

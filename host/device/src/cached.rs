//! Whether weight files are in the page cache.

use std::fs::File;
use std::io::IoSliceMut;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::io::{ReadWriteFlags, preadv2};

/// So many places of each file are looked at.
const SAMPLES: u64 = 32;
/// The golden ratio as a fraction of 2^64, which spreads places evenly whatever the first one is.
const STRIDE: u64 = 0x9e37_79b9_7f4a_7c15;

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

/// Reads single bytes that the kernel may refuse rather than wait for the disk. A refusal makes it fetch the page all
/// the same, so each look goes to other places: otherwise the second one would find what the first has brought in.
pub(crate) fn share(file: &File, length: u64) -> Option<f64> {
    let mut present = 0;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
    for i in 0..SAMPLES {
        let mut byte = [0u8];
        let place = since.wrapping_add(i).wrapping_mul(STRIDE);
        let at = ((u128::from(place) * u128::from(length)) >> 64) as u64;
        let read = preadv2(file, &mut [IoSliceMut::new(&mut byte)], at, ReadWriteFlags::NOWAIT);
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

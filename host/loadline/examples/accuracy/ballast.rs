//! Memory that a run finds as fast as on a machine of one's own.
#![allow(unsafe_code)] // What it holds is counted by no budget, so it is no slab.

use std::ptr::{self, NonNull};

use loadline::core::{Bytes, Forecast};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

const PIECE: usize = 32 << 20;
const PAGE: usize = 4096;

/// Memory that was touched, and is given back as the stages of a run begin.
///
/// A virtual machine such as this project's gives memory that is free to its host, at once where it is more than 1 GiB
/// and within two seconds otherwise. To touch it again takes twenty times as long as elsewhere, so that a run's time
/// would tell what ran before it.
pub(crate) struct Ballast<'a> {
    forecast: &'a Forecast,
    pieces: Vec<Piece>,
}

impl<'a> Ballast<'a> {
    /// Touches as much memory as a run will take.
    pub(crate) fn of(forecast: &'a Forecast) -> Self {
        let pieces = whole(forecast.device_peak() + forecast.host_peak());
        Self { forecast, pieces: (0..pieces).map(|_| Piece::touched()).collect() }
    }

    /// Keeps only what later stages take and this one does not.
    pub(crate) fn stage_starts(&mut self, name: &str) {
        let stages = self.forecast.stages.iter();
        let mut stages = stages.skip_while(|stage| stage.name != name).map(|stage| stage.peak.0).peekable();
        let now = stages.peek().copied().unwrap_or(0);
        self.pieces.truncate(whole(Bytes(stages.max().unwrap_or(0) - now)));
    }
}

fn whole(bytes: Bytes) -> usize {
    bytes.0.div_ceil(PIECE as u64) as usize
}

struct Piece(NonNull<u8>);

impl Piece {
    fn touched() -> Self {
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a new mapping where nothing is, of so many bytes, a byte of each page of which is written.
        unsafe {
            let start = mmap_anonymous(ptr::null_mut(), PIECE, access, flags).unwrap();
            madvise(start, PIECE, Advice::LinuxHugepage).unwrap();
            let start = NonNull::new(start.cast::<u8>()).unwrap();
            (0..PIECE).step_by(PAGE).for_each(|page| start.add(page).write_volatile(1));
            Self(start)
        }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        // SAFETY: mapped in `touched`, and nobody knows it any more.
        let _ = unsafe { munmap(self.0.as_ptr().cast(), PIECE) };
    }
}

//! Reading weights from disk: a few reads in flight at a time, into a ring of buffers or straight to their place.
//!
//! A [`BlockReader`] brings whole blocks into memory that its caller gives. It cuts a block's tensors into stretches of
//! some mebibytes at most, keeps some of them in flight, and copies or converts what has come into the block's place
//! while the others are under way. Blocks are begun in the order in which they are asked for, and the reads of the
//! next one start before the last of the block before it have come, so that the disk never waits for the end of a
//! block.
//!
//! There are three ways to read, see [`Way`]. Where a system refuses one, the next is taken, and the [`Report`] says
//! so. No file is ever mapped: a file that vanishes or shrinks is an error, never a signal.
//!
//! A device of its own fills its page-locked ring with the same reader: `BlockReader::begin` takes any memory whose
//! first byte is page-aligned, converts on the way, and gives blocks back in order from `BlockReader::advance`. Its
//! target has then the size that plans reserve as `disk-staging`.

mod backend;
mod buffers;
mod files;
mod pass;
mod reader;
mod stretch;
mod sum;
mod target;
mod threads;
mod uring;

use std::fmt;
use std::str::FromStr;

use loadline_core::Bytes;
use loadline_core::check::DISK_RING;

pub(crate) use crate::mapping::PAGE;
pub(crate) use files::WeightFile;
pub use pass::{Pass, pass};
pub use reader::{BlockReader, Brought};
pub use sum::Sum;
pub use target::Target;
pub use uring::try_uring;

/// The ring takes exactly what plans reserve for it.
const RING_BYTES: usize = DISK_RING.0 as usize;

/// The most buffers of the ring; also the most reads in flight.
pub const BUFFERS: usize = 8;

/// Buffers of the ring with so many reads in flight: one more where that leaves them large, so that the disk goes on
/// while what has come is taken to its place. A read fills one at most: disks are fast with several small reads at a
/// time, or with one large one; small ones are in a cache still when they are looked at.
const fn buffers(in_flight: usize) -> usize {
    let count = (in_flight + 1).next_power_of_two();
    if count < BUFFERS { count } else { BUFFERS }
}

/// How weights are to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiskReads {
    /// The first of the ways below that works here.
    #[default]
    Auto,
    /// With io_uring and `O_DIRECT`.
    Uring,
    /// With `O_DIRECT` and a few threads.
    Direct,
    /// Through the page cache, which is given back behind the reader.
    Buffered,
}

impl DiskReads {
    /// Every setting.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Uring, Self::Direct, Self::Buffered];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Uring => "uring",
            Self::Direct => "direct",
            Self::Buffered => "buffered",
        }
    }
}

impl FromStr for DiskReads {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|reads| reads.name() == text);
        known.ok_or_else(|| format!("'{text}' is no way to read: use auto, uring, direct or buffered"))
    }
}

/// What the system is taken to refuse, whether it does or not: for rehearsals of what a run does then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// io_uring, as containers do.
    pub uring: bool,
    /// `O_DIRECT`, as some file systems do.
    pub direct: bool,
}

/// How weights are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    /// The way.
    pub reads: DiskReads,
    /// Reads in flight, 1 to [`BUFFERS`]: one reads a file from its start to its end, several read it in parallel.
    pub in_flight: usize,
    /// What is refused on purpose.
    pub refused: Refused,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self { reads: DiskReads::Auto, in_flight: BUFFERS, refused: Refused::default() }
    }
}

/// How weights are read in fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// io_uring with `O_DIRECT`: one thread, several reads in flight, no page cache.
    Uring,
    /// `O_DIRECT` with a few threads, one read of each in flight, no page cache.
    Direct,
    /// Through the page cache, by one thread.
    Buffered,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uring => "io_uring and O_DIRECT",
            Self::Direct => "O_DIRECT and threads",
            Self::Buffered => "reads through the page cache",
        })
    }
}

impl Way {
    /// Its name for scripts, which is that of the setting.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Direct => "direct",
            Self::Buffered => "buffered",
        }
    }
}

/// What became of reading so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The way; nothing before the first read.
    pub way: Option<Way>,
    /// Reads in flight at most.
    pub in_flight: usize,
    /// Bytes that were read, what aligning adds included.
    pub bytes: Bytes,
    /// Bytes of these that were read straight to their place.
    pub straight: Bytes,
    /// What was refused and what is done instead, each once.
    pub notes: Vec<String>,
}

impl Report {
    /// The same with only the bytes that were read since an earlier one.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let (bytes, straight) = (self.bytes - earlier.bytes, self.straight - earlier.straight);
        Self { bytes, straight, ..self.clone() }
    }

    pub(crate) fn note(&mut self, text: String) {
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }
}

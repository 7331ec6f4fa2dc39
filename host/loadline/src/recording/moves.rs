//! Memory, disk and conversion, and what loading and computing do to each other.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use loadline_core::{Bytes, DType, Quantiles};
use loadline_device::disk::{DiskOptions, DiskReads, Pass, Report, Way, pass};
use loadline_device::{BlockSource, Segment, Slab, WeightFiles, cached_share, load_block};
use loadline_engine::DeviceError;

use super::sample::{seconds, spread};

/// The type's own alignment is not enough for direct reads: devices want whole pages.
const PAGE: usize = 4096;
/// `O_DIRECT` of Linux on x86-64 and AArch64: reads pass by the page cache.
#[cfg(target_arch = "aarch64")]
const O_DIRECT: i32 = 0o200_000;
#[cfg(not(target_arch = "aarch64"))]
const O_DIRECT: i32 = 0o40_000;

/// A file of the recording's own, gone when this is.
pub(super) struct Scratch {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Scratch {
    /// The file that a recording reads and converts.
    pub(super) fn for_recording(options: &super::RecordOptions) -> io::Result<Self> {
        let bytes = if options.quick { super::SCRATCH_QUICK } else { super::SCRATCH };
        // One name, so that what a killed recording left is used again and not left for good.
        Self::write(options.folder.join(".loadline-record"), bytes.0)
    }

    /// Values between 0.007 and 1.3, whether they are read as f32, bf16 or f16: arithmetic on denormal numbers would
    /// take times of its own.
    pub(super) fn write(path: PathBuf, bytes: u64) -> io::Result<Self> {
        let scratch = Self { path, bytes };
        let mut chunk = vec![0u8; 1 << 20];
        for (i, pair) in chunk.chunks_exact_mut(2).enumerate() {
            pair.copy_from_slice(&(0x3c00 | (i * 37 % 256) as u16).to_le_bytes());
        }
        let mut file = File::create(&scratch.path)?;
        for _ in 0..bytes >> 20 {
            file.write_all(&chunk)?;
        }
        file.sync_all()?;
        Ok(scratch)
    }

    /// Brings what the system has taken out of its page cache back into it.
    pub(super) fn bring_back(&self) -> io::Result<()> {
        let kept = cached_share(std::slice::from_ref(&self.path))?;
        if kept.is_some_and(|share| share < 1.0) {
            io::copy(&mut File::open(&self.path)?, &mut io::sink())?;
        }
        Ok(())
    }
}

/// A point of a curve: an amount and its rates.
pub(super) type Point = (u64, Quantiles);

/// The rates of `work` for each amount, over some rounds.
fn curve(amounts: &[u64], rounds: usize, mut work: impl FnMut(u64) -> io::Result<f64>) -> io::Result<Vec<Point>> {
    let mut rates = vec![Vec::new(); amounts.len()];
    for _ in 0..rounds {
        for (amount, rates) in amounts.iter().zip(&mut rates) {
            rates.push(*amount as f64 / work(*amount)?);
        }
    }
    Ok(amounts.iter().copied().zip(rates.into_iter().map(spread)).collect())
}

/// Bytes per second of copies in memory by some threads at once, each copying `bytes`; all of them together take at
/// most `room` bytes.
pub(super) fn copies(amounts: &[u64], threads: usize, rounds: usize, room: u64) -> Vec<Point> {
    let amounts: Vec<u64> = amounts.iter().copied().filter(|n| 2 * n * threads as u64 <= room).collect();
    let largest = amounts.iter().copied().max().unwrap_or(0) as usize;
    let mut pairs: Vec<_> = (0..threads).map(|_| (vec![1u8; largest], vec![0u8; largest])).collect();
    let copied = curve(&amounts, rounds, |bytes| {
        let repeats = ((1 << 22) / bytes).max(1);
        let time = seconds(|| {
            std::thread::scope(|scope| {
                for (from, to) in &mut pairs {
                    scope.spawn(move || {
                        for _ in 0..repeats {
                            to[..bytes as usize].copy_from_slice(std::hint::black_box(&from[..bytes as usize]));
                        }
                    });
                }
            });
        });
        Ok(time / repeats as f64 / threads as f64)
    });
    copied.unwrap_or_default()
}

/// What one sample moves where a single amount is small: more than caches hold, since runs do not find in them what
/// they read or allocate.
const SAMPLE: u64 = 256 << 20;

/// Tensors lie behind a header, which ends anywhere.
const HEADER: u64 = 104;

/// Bytes per second of blocks of cached files as runs load them for the first time, their numbers looked at.
pub(super) fn cached(scratch: &Scratch, amounts: &[u64], rounds: usize) -> io::Result<Vec<Point>> {
    let options = DiskOptions { reads: DiskReads::Buffered, ..DiskOptions::default() };
    let bytes = |block: u64| (1024 * block).min(SAMPLE / 4);
    let made = passes(scratch, amounts, rounds, &bytes, &|range, block| {
        scratch.bring_back().map_err(|e| DeviceError::Compute(e.to_string()))?;
        pass(&scratch.path, range, block, options, true)
    });
    made.map(|(points, _)| points)
}

/// Bytes per second of blocks of these sizes as runs read them, one after the other, and how they are read; nothing
/// where the file system takes no direct reads.
pub(super) fn blocks(scratch: &Scratch, amounts: &[u64], rounds: usize) -> io::Result<Option<(Vec<Point>, Report)>> {
    let bytes = |_| (scratch.bytes / 16).min(64 << 20);
    let made = passes(scratch, amounts, rounds, &bytes, &|range, block| {
        pass(&scratch.path, range, block, DiskOptions::default(), false)
    })?;
    let direct = made.1.way.is_some_and(|way| way != Way::Buffered);
    Ok(direct.then_some(made))
}

/// Makes a pass.
type Making<'a> = &'a dyn Fn(Range<u64>, Bytes) -> Result<Pass, DeviceError>;

/// Bytes per second of passes in blocks of these sizes, over so many bytes as `bytes` says for a block or one block,
/// and how the last one was read.
fn passes(
    scratch: &Scratch,
    amounts: &[u64],
    rounds: usize,
    bytes: &dyn Fn(u64) -> u64,
    make: Making<'_>,
) -> io::Result<(Vec<Point>, Report)> {
    let (mut at, mut report, room) = (HEADER, Report::default(), scratch.bytes - HEADER);
    let points = curve(amounts, rounds, |block| {
        let block = block.min(room);
        let bytes = bytes(block).min(room).max(block) / block * block;
        // Each pass reads what the one before has not: caches of this machine and of hosts are smaller than the file.
        at = if at + bytes > scratch.bytes { HEADER } else { at };
        let made = make(at..at + bytes, Bytes(block)).map_err(io::Error::other)?;
        at += bytes;
        report = made.report;
        Ok(made.time.as_secs_f64() * block as f64 / bytes as f64)
    })?;
    Ok((points, report))
}

/// Bytes per second of direct reads of `block` bytes by some threads at once; nothing where the file system takes none.
pub(super) fn direct(scratch: &Scratch, block: u64, threads: u64, rounds: usize) -> io::Result<Option<Quantiles>> {
    let opened = OpenOptions::new().read(true).custom_flags(O_DIRECT).open(&scratch.path);
    let Ok(file) = opened else { return Ok(None) };
    // Each round reads what none before it has read, since hosts of virtual machines cache too.
    let budget = (scratch.bytes / rounds as u64 / threads).min(64 << 20).max(block);
    let per_thread = budget / block;
    let next = AtomicU64::new(0);
    let read = |buffer: &mut [u8]| -> io::Result<()> {
        for _ in 0..per_thread {
            let at = next.fetch_add(1, Ordering::Relaxed) * block % (scratch.bytes - block + 1) / PAGE as u64;
            file.read_exact_at(buffer, at * PAGE as u64)?;
        }
        Ok(())
    };
    let mut rates = Vec::new();
    for _ in 0..rounds {
        let mut failed = Ok(());
        let time = seconds(|| failed = together(threads, block as usize, &read));
        if let Err(error) = failed {
            // Some file systems open such files and then refuse to read them.
            return if error.kind() == io::ErrorKind::InvalidInput { Ok(None) } else { Err(error) };
        }
        rates.push((per_thread * threads * block) as f64 / time);
    }
    Ok(Some(spread(rates)))
}

fn together(threads: u64, bytes: usize, read: &(impl Fn(&mut [u8]) -> io::Result<()> + Sync)) -> io::Result<()> {
    std::thread::scope(|scope| {
        let reader = move || {
            let mut memory = vec![0u8; bytes + PAGE];
            let start = memory.as_ptr().align_offset(PAGE);
            read(&mut memory[start..start + bytes])
        };
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(reader)).collect();
        all.into_iter().try_for_each(|thread| thread.join().unwrap_or(Ok(())))
    })
}

/// Bytes of file per second that loading converts, beyond what reading takes.
pub(super) fn conversion(scratch: &Scratch, from: DType, to: DType, rounds: usize) -> io::Result<Quantiles> {
    let files = WeightFiles::open(std::slice::from_ref(&scratch.path)).map_err(io::Error::other)?;
    // Quantising is slow, so that few elements are enough to be seen above reading them.
    let most = if to.is_plain() { 32 << 20 } else { 4 << 20 };
    let blocks = scratch.bytes.min(most) / from.block_bytes() / 256 * 256;
    let (elements, bytes) = ((blocks * from.block_elements()) as usize, blocks * from.block_bytes());
    let load = |dtype: DType| -> io::Result<f64> {
        let tensor = "a weight of the recording".to_owned();
        let segment = Segment { tensor, file: 0, offset: 0, elements, file_dtype: from, place: 0, dtype, scale: 1.0 };
        let source = BlockSource { segments: vec![segment], ..BlockSource::default() };
        let mut result = Ok(());
        let time = seconds(|| result = load_block(&files, &source).map(drop));
        result.map(|()| time).map_err(io::Error::other)
    };
    let mut rates = Vec::new();
    for _ in 0..rounds {
        let (plain, converting) = (load(from)?, load(to)?);
        rates.push(bytes as f64 / (converting - plain).max(plain * 0.01));
    }
    Ok(spread(rates))
}

/// Bytes per second of allocating device buffers.
pub(super) fn allocation(amounts: &[u64], rounds: usize) -> Vec<Point> {
    let largest = amounts.iter().copied().max().unwrap_or(0);
    let allocated = curve(amounts, rounds, |bytes| {
        let repeats = (SAMPLE.min(largest) / bytes).max(1);
        let mut held = Vec::with_capacity(repeats as usize);
        // All at once, as a stage's slots are.
        let time = seconds(|| held.extend((0..repeats).map(|_| Slab::allocate(Bytes(bytes)))));
        Ok(time / repeats as f64)
    });
    allocated.unwrap_or_default()
}

/// The speeds of computing and of loading from cached files while both go on, as shares of their speeds alone.
/// `compute` says how long it took for its work.
pub(super) fn contention(
    scratch: &Scratch,
    rounds: usize,
    compute: &mut dyn FnMut() -> io::Result<f64>,
) -> io::Result<(Quantiles, Quantiles)> {
    let (mut computing, mut loading) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (alone, load_alone) = (compute()?, pump(scratch, None)?);
        let stop = AtomicBool::new(false);
        let (beside, load_beside) = std::thread::scope(|scope| {
            let pump = scope.spawn(|| pump(scratch, Some(&stop)));
            let beside = compute();
            stop.store(true, Ordering::Relaxed);
            (beside, pump.join().unwrap_or(Ok(0.0)))
        });
        computing.push((alone / beside?).min(1.0));
        loading.push((load_beside? / load_alone).min(1.0));
    }
    Ok((spread(computing), spread(loading)))
}

/// Reads the whole file, a block after the other, again and again until told to stop, or once; bytes per second.
fn pump(scratch: &Scratch, stop: Option<&AtomicBool>) -> io::Result<f64> {
    // Written once before the clock starts, so that no page is missing.
    let mut slots = vec![1u8; 64 << 20];
    let block = slots.len() / 4;
    let file = File::open(&scratch.path)?;
    let (mut read, mut result) = (0, Ok(()));
    let time = seconds(|| {
        while result.is_ok() && stop.map_or(read < scratch.bytes, |stop| !stop.load(Ordering::Relaxed)) {
            let slot = (read as usize / block % 4) * block;
            result = file.read_exact_at(&mut slots[slot..slot + block], read % scratch.bytes);
            read += block as u64;
        }
    });
    result.map(|()| read as f64 / time)
}

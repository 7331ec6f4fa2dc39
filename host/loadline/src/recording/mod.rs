//! Recording a profile of the machine that this runs on.
//!
//! Operations are timed as runs call them, through the op layer; memory, disk and conversion as the copy thread uses
//! them. Everything is measured in several rounds that are spread over the whole recording, see `sample`.

mod calls;
#[cfg(feature = "cuda")]
mod cuda;
mod moves;
mod parts;
mod sample;
mod shapes;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use loadline_core::{Bytes, DType, Quantiles, SitePoint};
use loadline_device::disk::Report;
use loadline_models::ops::{KernelSet, OpError};
use loadline_nn::CpuKernels;
use loadline_profile::{Profile, SiteRow};

use crate::Error;
#[cfg(feature = "cuda")]
pub use cuda::record_gpu;

/// Records a profile of a GPU, of which a program without CUDA has none.
///
/// # Errors
/// None.
#[cfg(not(feature = "cuda"))]
pub fn record_gpu(
    gpu: &crate::Gpu,
    _: &RecordOptions,
    _: &AtomicBool,
    _: RecordProgress<'_>,
) -> Result<Profile, Error> {
    match *gpu {}
}
use calls::{Caller, Rig};
use moves::Scratch;
pub(crate) use sample::seconds;
use shapes::Kind;

/// What the recorder must be told about the machine, and how thorough it is to be.
#[derive(Clone, Debug)]
pub struct RecordOptions {
    /// The profile's name.
    pub name: String,
    /// The processor, as people call it.
    pub processor: String,
    /// RAM of the machine.
    pub memory: Bytes,
    /// A folder on the disk that models are read from; a scratch file is written there and removed.
    pub folder: PathBuf,
    /// A third of the shapes and fewer rounds: under a minute.
    pub quick: bool,
}

/// What a profile calls the CPU of this machine, given its processor's name.
#[must_use]
pub fn device_name(processor: &str) -> String {
    format!("{processor}, {} threads", CpuKernels::detect().exec.threads)
}

/// What a recording tells while it goes on: what it does, and how much of everything is done.
pub type RecordProgress<'a> = &'a mut dyn FnMut(&str, f64);

/// Larger than any weight that is measured, and large enough that a disk shows its sequential rate.
const SCRATCH: Bytes = Bytes::gib(1);
const SCRATCH_QUICK: Bytes = Bytes::mib(256);
/// The shares of a recording's time, for the progress that is shown.
const SHARE_OF_OPERATIONS: f64 = 0.85;

/// Nanoseconds of every round, by operation and shape.
type Sites = BTreeMap<Kind, BTreeMap<[u64; 4], Vec<f64>>>;

/// Everything that was measured.
struct Measured {
    /// What measured operations ran on, in words.
    on: String,
    /// The product that rounds begin with.
    anchor: (Kind, [u64; 4]),
    kernels: CpuKernels,
    rounds: usize,
    sites: Sites,
    copies: Vec<(usize, Vec<moves::Point>)>,
    allocation: Vec<moves::Point>,
    cached: Vec<moves::Point>,
    /// Block size, threads, and the rate, for every pair that was tried.
    disk: Vec<(u64, u64, Quantiles)>,
    /// Blocks as runs read them, and how; nothing where the file system takes no direct reads.
    blocks: Option<(Vec<moves::Point>, Report)>,
    conversions: Vec<(DType, DType, Quantiles)>,
    contention: (Quantiles, Quantiles),
    /// Nanoseconds of the anchor at the start of the first and of the last round: whether the clock holds.
    sustained: (f64, f64),
}

impl Measured {
    fn nothing(rounds: usize) -> Self {
        let kernels = CpuKernels::detect();
        Self {
            on: format!("kernel set {} on {} threads", kernels.name(), kernels.exec.threads),
            anchor: shapes::ANCHOR,
            kernels,
            rounds,
            sites: BTreeMap::new(),
            copies: Vec::new(),
            allocation: Vec::new(),
            cached: Vec::new(),
            disk: Vec::new(),
            blocks: None,
            conversions: Vec::new(),
            contention: (Quantiles::exactly(1.0), Quantiles::exactly(1.0)),
            sustained: (0.0, 0.0),
        }
    }
}

/// Records a profile of the CPU: its operations, its memory and the disk under `folder`. What lint says of it is the
/// caller's to ask: a machine that others use meanwhile has times that cannot be true.
///
/// # Errors
/// If the scratch file cannot be written or read, or `stop` says that recording is to end.
pub fn record(options: &RecordOptions, stop: &AtomicBool, progress: RecordProgress<'_>) -> Result<Profile, Error> {
    progress("writing a scratch file", 0.0);
    let scratch = Scratch::for_recording(options).map_err(|e| unusable(&options.folder, &e))?;
    let measured = measure(options, &scratch, stop, progress)?;
    Ok(parts::profile(options, &measured))
}

fn unusable(folder: &Path, error: &dyn std::fmt::Display) -> Error {
    let detail = format!("{error}; name a folder with 1 GiB of room on the disk that models are on, with --disk");
    Error::Output { path: folder.to_owned(), detail }
}

fn measure(
    options: &RecordOptions,
    scratch: &Scratch,
    stop: &AtomicBool,
    progress: RecordProgress<'_>,
) -> Result<Measured, Error> {
    let rounds = if options.quick { 2 } else { 5 };
    let failed = |e: std::io::Error| unusable(&options.folder, &e);
    let mut caller = Caller::new(scratch).map_err(|e| Error::Model(e.to_string()))?;
    let mut measured = Measured::nothing(rounds);
    let all = shapes::everything(options.quick, &shapes::PROCESSOR)?;
    operations(&all, &mut caller, &mut measured, stop, progress)?;
    storage(options, scratch, &mut measured, stop, progress)?;
    progress("loading while computing", 0.95);
    // Medians of calls, since a round takes fewer samples where each takes longer.
    let mut product =
        || -> std::io::Result<f64> { (0..8).map(|_| caller.anchor().map_err(std::io::Error::other)).sum() };
    // Who gets a processor when is chance, which takes more rounds than anything else to even out.
    measured.contention = moves::contention(scratch, 4 * rounds, &mut product).map_err(failed)?;
    progress("done", 1.0);
    Ok(measured)
}

/// What belongs to the host, whatever computes: memory, disk and conversion.
fn storage(
    options: &RecordOptions,
    scratch: &Scratch,
    measured: &mut Measured,
    stop: &AtomicBool,
    progress: RecordProgress<'_>,
) -> Result<(), Error> {
    let (rounds, failed) = (measured.rounds, |e: std::io::Error| unusable(&options.folder, &e));
    progress("memory, disk and conversion", SHARE_OF_OPERATIONS);
    // What is measured takes at most a quarter of RAM, twice the largest size for each thread.
    let room = options.memory.0 / 4;
    let sizes = (12..=30).step_by(2).map(|n| 1u64 << n);
    let sizes: Vec<u64> = sizes.filter(|n| *n <= scratch.bytes && 2 * n <= room).collect();
    for threads in [1, measured.kernels.exec.threads] {
        measured.copies.push((threads, moves::copies(&sizes, threads, rounds, room)));
    }
    measured.allocation = moves::allocation(&sizes, rounds);
    measured.cached = moves::cached(scratch, &sizes, rounds).map_err(failed)?;
    let sizes = [1 << 16, 1 << 20, 1 << 22, 1 << 24, 1 << 26].map(|block: u64| block.min(scratch.bytes / 4));
    measured.blocks = moves::blocks(scratch, &sizes, rounds).map_err(failed)?;
    for block in [1 << 12, 1 << 16, 1 << 20, 1 << 24] {
        for threads in [1, 2, 4, 8] {
            stopped(stop)?;
            let rate = moves::direct(scratch, block, threads, rounds).map_err(failed)?;
            measured.disk.extend(rate.map(|rate| (block, threads, rate)));
        }
    }
    stopped(stop)?;
    for (from, to) in conversions() {
        stopped(stop)?;
        let rate = moves::conversion(scratch, from, to, rounds).map_err(failed)?;
        measured.conversions.push((from, to, rate));
    }
    Ok(())
}

/// The pairs of types that are measured: plain ones, and every type with scales from and to bf16.
fn conversions() -> Vec<(DType, DType)> {
    let plain = [(DType::F32, DType::Bf16), (DType::Bf16, DType::F32), (DType::F16, DType::Bf16)];
    let packed = DType::ALL.into_iter().filter(|d| !d.is_plain());
    plain.into_iter().chain(packed.flat_map(|d| [(DType::Bf16, d), (d, DType::Bf16)])).collect()
}

/// An error if the recording is to end.
fn stopped(stop: &AtomicBool) -> Result<(), Error> {
    if stop.load(Ordering::Relaxed) { Err(Error::Stopped) } else { Ok(()) }
}

/// Times every shape of every operation, in rounds that begin with the anchor. Shapes whose times contradict each
/// other, since something else took the machine when one of them had its turn, have more turns.
fn operations(
    all: &[(Kind, [u64; 4])],
    caller: &mut Caller<impl Rig>,
    measured: &mut Measured,
    stop: &AtomicBool,
    progress: RecordProgress<'_>,
) -> Result<(), Error> {
    let rounds = measured.rounds;
    let failed = |e: OpError| Error::Model(e.to_string());
    let mut asked = BTreeMap::new();
    for round in 0..rounds {
        let held = caller.anchor().map_err(failed)?;
        if round == 0 {
            measured.sustained.0 = held;
        }
        measured.sustained.1 = held;
        for (i, (kind, dims)) in all.iter().enumerate() {
            stopped(stop)?;
            let done = (round * all.len() + i) as f64 / (rounds * all.len()) as f64;
            progress(&format!("{}, round {} of {rounds}", kind.0.name(), round + 1), done * SHARE_OF_OPERATIONS);
            let Some((counted, time)) = caller.round(*kind, *dims).map_err(failed)? else { continue };
            measured.sites.entry(*kind).or_default().entry(counted).or_default().push(time);
            asked.insert((*kind, counted), *dims);
        }
    }
    for _ in 0..2 * rounds {
        let again = contradicting(&measured.sites);
        for (kind, counted) in &again {
            stopped(stop)?;
            progress(&format!("{}, once more", kind.0.name()), SHARE_OF_OPERATIONS);
            let Some((_, time)) = caller.round(*kind, asked[&(*kind, *counted)]).map_err(failed)? else { continue };
            measured.sites.entry(*kind).or_default().entry(*counted).or_default().push(time);
        }
        if again.is_empty() {
            break;
        }
    }
    Ok(())
}

/// The shapes whose times cannot be true beside those of others.
fn contradicting(sites: &Sites) -> BTreeSet<(Kind, [u64; 4])> {
    let of = |(kind, shapes): (&Kind, &BTreeMap<[u64; 4], Vec<f64>>)| {
        let (kind, rows) = (*kind, rows(shapes));
        let pairs = rows.iter().enumerate().flat_map(|(i, row)| rows[..i].iter().map(move |before| (before, row)));
        let both =
            pairs.filter_map(|(a, b)| a.0.contradiction(&b.0)).flat_map(|(a, b)| [(kind, a.dims), (kind, b.dims)]);
        both.collect::<Vec<_>>()
    };
    sites.iter().flat_map(of).collect()
}

/// The rows of a table, sorted by shape.
fn rows(shapes: &BTreeMap<[u64; 4], Vec<f64>>) -> Vec<SiteRow> {
    let row = |(dims, times): (&[u64; 4], &Vec<f64>)| {
        let Quantiles { p10, p50, p90 } = sample::spread(times.clone());
        let whole = |ns: f64| ns.round().max(1.0);
        let time_ns = Quantiles { p10: whole(p10), p50: whole(p50), p90: whole(p90) };
        SiteRow(SitePoint { dims: *dims, time_ns })
    };
    shapes.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn scratch(folder: &Path) -> Scratch {
        Scratch::write(folder.join("scratch"), 32 << 20).unwrap()
    }

    #[test]
    fn whether_the_clock_holds_is_measured_whatever_the_shapes() {
        let folder = tempfile::tempdir().unwrap();
        let (scratch, mut measured) = (scratch(folder.path()), Measured::nothing(2));
        let mut caller = Caller::new(&scratch).unwrap();
        operations(&[], &mut caller, &mut measured, &AtomicBool::new(false), &mut |_, _| ()).unwrap();
        assert!(measured.sustained.0 > 0.0 && measured.sustained.1 > 0.0, "{:?}", measured.sustained);
        assert!(measured.sites.is_empty());
    }

    #[test]
    fn what_the_page_cache_has_lost_is_brought_back() {
        let folder = tempfile::tempdir().unwrap();
        let scratch = scratch(folder.path());
        let path = [folder.path().join("scratch")];
        let share = || loadline_device::cached_share(&path).unwrap();
        let file = std::fs::File::open(&path[0]).unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        scratch.bring_back().unwrap();
        // A file system without a page cache of its own says nothing.
        assert!(matches!(share(), None | Some(1.0)), "{:?}", share());
    }

    #[test]
    fn shapes_that_contradict_each_other_are_both_found() {
        let kind = (loadline_core::Op::Add, DType::F32, DType::F32);
        let sites = |times: [f64; 3]| {
            let shapes = [64, 128, 256].into_iter().zip(times);
            BTreeMap::from([(kind, shapes.map(|(bytes, time)| ([bytes, 0, 0, 0], vec![time, 9.0, time])).collect())])
        };
        assert!(contradicting(&sites([10.0, 8.0, 20.0])).is_empty());
        let found: Vec<_> = contradicting(&sites([10.0, 50.0, 20.0])).into_iter().collect();
        assert_eq!(found, [(kind, [128, 0, 0, 0]), (kind, [256, 0, 0, 0])]);
    }

    #[test]
    fn contention_compares_what_computing_says_it_took() {
        let folder = tempfile::tempdir().unwrap();
        let scratch = scratch(folder.path());
        // Alone and beside in turn: twice the time beside, then no more than alone.
        let mut times = [1.0, 2.0, 1.0, 0.5].into_iter();
        let (compute, load) = moves::contention(&scratch, 2, &mut || Ok(times.next().unwrap())).unwrap();
        assert_eq!((compute.p50, times.next()), (0.75, None));
        assert!(load.p90 <= 1.0);
        let mut calls = 0;
        let broken = moves::contention(&scratch, 2, &mut || {
            calls += 1;
            if calls == 2 { Err(std::io::Error::other("broken")) } else { Ok(1.0) }
        });
        assert_eq!(broken.unwrap_err().to_string(), "broken");
    }
}

//! Recording a GPU: its operations through the op layer, and what it and its driver do with memory.
//!
//! The disk, the page cache and conversion are the host's, and measured as for a processor.

mod link;
mod parts;
mod rig;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use loadline_core::{Bytes, Quantiles};
use loadline_cuda::driver::{CudaError, DevicePtr, Pool, Stream};
use loadline_models::ops::{KernelSet, Ops};
use loadline_nn::cuda::{CudaBackend, CudaKernels};
use loadline_profile::Profile;

use self::link::Links;
use self::rig::CudaRig;
use super::calls::Caller;
use super::moves::{Point, Scratch};
use super::shapes::{self, Extent};
use super::{Measured, RecordOptions, RecordProgress, operations, storage, unusable};
use crate::card::{CardFacts, CardSample, CardWatch};
use crate::{Error, Gpu};

/// What is measured on a GPU beside its operations.
struct Card<'a> {
    gpu: &'a Gpu,
    links: Links,
    /// Bytes per second of allocating memory that the pool does not hold yet.
    allocation: Vec<Point>,
    granularity: u64,
    facts: Option<CardFacts>,
    /// The card behind the last round, when it was warm.
    warm: Option<CardSample>,
}

/// Records a profile of a GPU, with this machine's memory and the disk under `folder`. What lint says of it is the
/// caller's to ask: a GPU that others use meanwhile has times that cannot be true.
///
/// # Errors
/// If the GPU is lost or others have nearly all of its memory, the scratch file cannot be written or read, or `stop`
/// says that recording is to end.
pub fn record_gpu(
    gpu: &Gpu,
    options: &RecordOptions,
    stop: &AtomicBool,
    progress: RecordProgress<'_>,
) -> Result<Profile, Error> {
    progress("writing a scratch file", 0.0);
    let scratch = Scratch::for_recording(options).map_err(|e| unusable(&options.folder, &e))?;
    let rounds = if options.quick { 2 } else { 3 };
    let watch = CardWatch::open(&gpu.facts().pci);
    let (computed, room) = compute(gpu, options, rounds, stop, progress)?;
    let warm = watch.as_ref().and_then(|watch| watch.sample(loadline_core::Nanos::ZERO));
    progress("the link and memory", 0.8);
    let refused = |e: CudaError| failed(gpu, &e);
    let card = Card {
        gpu,
        links: link::measure(gpu, room, rounds).map_err(refused)?,
        allocation: allocation(gpu, room, rounds).map_err(refused)?,
        granularity: granularity(gpu).map_err(refused)?,
        facts: watch.as_ref().and_then(CardWatch::facts),
        warm,
    };
    let mut host = Measured::nothing(rounds);
    storage(options, &scratch, &mut host, stop, progress)?;
    progress("done", 1.0);
    Ok(parts::profile(options, &computed, &host, &card))
}

fn failed(gpu: &Gpu, error: &CudaError) -> Error {
    let name = &gpu.facts().name;
    match error {
        CudaError::OutOfMemory { .. } => {
            Error::DeviceMemory(format!("{name} has too little memory left to measure it"))
        }
        other => Error::NoGpu(format!("{name} could not be measured: {other}")),
    }
}

/// What a recording takes of a GPU's memory: half of what is free, and no more than the largest shapes need.
fn room(gpu: &Gpu) -> Result<u64, CudaError> {
    Ok((gpu.context().mem_info()?.free / 2).min(6 << 30))
}

/// Times every shape of every operation. Gives the bytes that were used for it, too.
fn compute(
    gpu: &Gpu,
    options: &RecordOptions,
    rounds: usize,
    stop: &AtomicBool,
    progress: RecordProgress<'_>,
) -> Result<(Measured, u64), Error> {
    let refused = |e: CudaError| failed(gpu, &e);
    let room = room(gpu).map_err(refused)?;
    let stream = Stream::new(gpu.context()).map_err(refused)?;
    let pool = Pool::new(gpu.context(), room).map_err(refused)?;
    // What copies need beside them stays free.
    let (weights, activations) = (room / 4, room / 2);
    let take = |bytes: u64| pool.allocate(&stream, bytes).map_err(refused);
    let (slab, region) = (take(weights)?, take(activations)?);
    let mut caller = caller(gpu, &stream, (slab, weights), (region, activations))?;
    let mut measured = Measured::nothing(rounds);
    measured.on = format!("kernel set {} on {}, CUDA {}", CudaKernels.name(), gpu.facts().name, gpu.driver());
    measured.anchor = rig::ANCHOR;
    let most = Extent { bytes: (activations / 4).min(1 << 29), ..shapes::GPU };
    let all = shapes::everything(options.quick, &most)?;
    operations(&all, &mut caller, &mut measured, stop, progress)?;
    measured.contention = link::contention(gpu, &pool, &stream, rounds, &mut || caller.anchor())
        .map_err(|e| Error::NoGpu(format!("{} could not be measured: {e}", gpu.facts().name)))?;
    drop(caller);
    // A pool is destroyed when what was taken of it has been given back.
    let given = stream.synchronize().and_then(|()| pool.free(&stream, slab)).and_then(|()| pool.free(&stream, region));
    given.and_then(|()| stream.synchronize()).map_err(refused)?;
    Ok((measured, room))
}

fn caller(
    gpu: &Gpu,
    stream: &Stream,
    weights: (DevicePtr, u64),
    region: (DevicePtr, u64),
) -> Result<Caller<CudaRig>, Error> {
    // Bytes of 0x3c are small positive numbers in every type: arithmetic on denormal ones would be another thing.
    stream.fill(weights.0, 0x3c, weights.1 as usize).map_err(|e| failed(gpu, &e))?;
    let mut backend = CudaBackend::new(stream, gpu.kernels());
    backend.stage_within(Bytes::MAX);
    backend.set_aside(Some(region)).map_err(|e| Error::NoGpu(e.to_string()))?;
    Ok(Caller::of(Ops::new(backend, Arc::new(CudaKernels)), CudaRig::new(stream, weights)))
}

/// Bytes per second of taking memory that the driver has not given the pool before, as the slots of a stage are taken.
fn allocation(gpu: &Gpu, room: u64, rounds: usize) -> Result<Vec<Point>, CudaError> {
    let stream = Stream::new(gpu.context())?;
    let sizes = [1u64 << 20, 1 << 24, 1 << 28, 1 << 30].into_iter().filter(|bytes| *bytes <= room / 2);
    sizes
        .map(|bytes| {
            let mut rates = Vec::new();
            for _ in 0..rounds {
                let pool = Pool::new(gpu.context(), room)?;
                let (mut taken, wait) = (Ok(DevicePtr(0)), &stream);
                let time = super::seconds(|| {
                    taken = pool.allocate(wait, bytes).and_then(|at| wait.synchronize().map(|()| at))
                });
                pool.free(&stream, taken?)?;
                stream.synchronize()?;
                rates.push(bytes as f64 / time.max(1e-9));
            }
            Ok((bytes, super::sample::spread(rates)))
        })
        .collect()
}

/// What the smallest allocation takes of a pool, as a power of two.
fn granularity(gpu: &Gpu) -> Result<u64, CudaError> {
    let (stream, pool) = (Stream::new(gpu.context())?, Pool::new(gpu.context(), 1 << 26)?);
    let one = pool.allocate(&stream, 1)?;
    let used = pool.used()?;
    pool.free(&stream, one)?;
    stream.synchronize()?;
    Ok(used.max(512).next_power_of_two())
}

/// A figure without a spread, for what is what it is.
fn exactly(bytes: Bytes) -> Quantiles {
    Quantiles::exactly(bytes.0 as f64)
}

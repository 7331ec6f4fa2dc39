//! The way between host and GPU: copies of locked and other memory, both ways, and beside computing.

use std::sync::atomic::{AtomicBool, Ordering};

use loadline_core::{Bytes, Quantiles};
use loadline_cuda::driver::{CudaError, DevicePtr, Pinned, Pool, Stream};
use loadline_cuda::probe::{Way, both_ways, copies};
use loadline_models::ops::OpError;

use super::super::moves::Point;
use super::super::sample::spread;
use super::super::seconds;
use crate::Gpu;

/// What was measured of the link.
pub(super) struct Links {
    pub(super) up_pinned: Vec<Point>,
    pub(super) up_pageable: Vec<Point>,
    pub(super) down: Vec<Point>,
    /// Bytes per second of both directions together.
    pub(super) both: Quantiles,
    /// Whether the system locked what "pinned" copies used.
    pub(super) locked: bool,
    /// How much host memory was locked at once, and bytes per second; nothing where the system locks none.
    pub(super) pinning: Option<(Bytes, Quantiles)>,
}

/// The block that copies in both directions and beside computing are made of.
const BLOCK: usize = 32 << 20;
const SIZES: [usize; 7] = [1 << 12, 1 << 16, 1 << 20, 1 << 22, 1 << 24, 1 << 26, 1 << 28];
/// A round copies about so much, so that the smallest copies are many.
const ROUND: usize = 64 << 20;

/// A stretch of host memory and one of the GPU's, which is given back to its pool.
struct Lane<'p> {
    pool: &'p Pool,
    stream: Stream,
    device: DevicePtr,
    host: Pinned,
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        // What was measured is measured; a GPU that is lost is told of by the next call.
        let _ = self.pool.free(&self.stream, self.device).and_then(|()| self.stream.synchronize());
    }
}

impl<'p> Lane<'p> {
    fn new(gpu: &Gpu, pool: &'p Pool, bytes: usize, pinned: bool) -> Result<Self, CudaError> {
        let stream = Stream::new(gpu.context())?;
        let missing = CudaError::PinRefused { requested: bytes as u64, name: "no host memory".to_owned() };
        let mut host = Pinned::allocate(gpu.context(), bytes).ok_or(missing)?;
        if pinned {
            locked(&mut host)?;
        }
        let device = pool.allocate(&stream, bytes as u64)?;
        // Pages that were never written are one page of zeros.
        let mut lane = Self { pool, stream, device, host };
        copies(&lane.stream, Way::Down, lane.device, &mut lane.host, bytes, 1)?;
        Ok(lane)
    }

    fn rate(&mut self, way: Way, bytes: usize) -> Result<f64, CudaError> {
        let repeats = (ROUND / bytes).clamp(1, 256);
        let time = copies(&self.stream, way, self.device, &mut self.host, bytes, repeats)?;
        Ok((bytes * repeats) as f64 / time.as_secs_f64().max(1e-9))
    }

    fn curve(&mut self, way: Way, sizes: &[usize], rounds: usize) -> Result<Vec<Point>, CudaError> {
        let point = |bytes: &usize| {
            let rates = (0..rounds).map(|_| self.rate(way, *bytes)).collect::<Result<Vec<_>, _>>()?;
            Ok((*bytes as u64, spread(rates)))
        };
        sizes.iter().map(point).collect()
    }
}

/// Locks memory where the system lets us: what it refuses is measured as it is.
fn locked(memory: &mut Pinned) -> Result<(), CudaError> {
    match memory.pin(memory.bytes()) {
        Err(CudaError::PinRefused { .. }) => Ok(()),
        other => other,
    }
}

pub(super) fn measure(gpu: &Gpu, room: u64, rounds: usize) -> Result<Links, CudaError> {
    let pool = Pool::new(gpu.context(), room)?;
    let sizes: Vec<usize> = SIZES.into_iter().filter(|bytes| *bytes as u64 <= room / 4).collect();
    let most = sizes.iter().copied().max().unwrap_or(1 << 12);
    let mut pageable = Lane::new(gpu, &pool, most, false)?;
    let up_pageable = pageable.curve(Way::Up, &sizes, rounds)?;
    drop(pageable);
    let mut pinned = Lane::new(gpu, &pool, most, true)?;
    let (up_pinned, down) = (pinned.curve(Way::Up, &sizes, rounds)?, pinned.curve(Way::Down, &sizes, rounds)?);
    let mut other = Lane::new(gpu, &pool, BLOCK.min(most), true)?;
    let both = together(&mut pinned, &mut other, rounds)?;
    let locked = pinned.host.pinned() == most;
    Ok(Links { up_pinned, up_pageable, down, both, locked, pinning: pinning(gpu, most, rounds)? })
}

fn together(up: &mut Lane<'_>, down: &mut Lane<'_>, rounds: usize) -> Result<Quantiles, CudaError> {
    let bytes = up.host.bytes().min(down.host.bytes());
    let mut rates = Vec::new();
    for _ in 0..rounds {
        let (streams, devices) = ([&up.stream, &down.stream], [up.device, down.device]);
        let time = both_ways(streams, devices, [&mut up.host, &mut down.host], bytes, 4)?;
        rates.push((2 * 4 * bytes) as f64 / time.as_secs_f64().max(1e-9));
    }
    Ok(spread(rates))
}

fn pinning(gpu: &Gpu, bytes: usize, rounds: usize) -> Result<Option<(Bytes, Quantiles)>, CudaError> {
    let mut rates = Vec::new();
    for _ in 0..rounds {
        let Some(mut memory) = Pinned::allocate(gpu.context(), bytes) else { return Ok(None) };
        let mut done = Ok(());
        let time = seconds(|| done = memory.pin(bytes));
        match done {
            Err(CudaError::PinRefused { .. }) => return Ok(None),
            other => other?,
        }
        rates.push(bytes as f64 / time.max(1e-9));
    }
    Ok(Some((Bytes(bytes as u64), spread(rates))))
}

/// The speeds of computing and of copying to the GPU while both go on, as shares of their speeds alone. `compute` says
/// how long one of its calls took.
pub(super) fn contention(
    gpu: &Gpu,
    pool: &Pool,
    compute_stream: &Stream,
    rounds: usize,
    compute: &mut dyn FnMut() -> Result<f64, OpError>,
) -> Result<(Quantiles, Quantiles), OpError> {
    let told = |e: CudaError| OpError::Backend(e.to_string());
    compute_stream.synchronize().map_err(told)?;
    let mut lane = Lane::new(gpu, pool, BLOCK, true).map_err(told)?;
    let (mut computing, mut copying) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (alone, copy_alone) = (compute()?, lane.rate(Way::Up, BLOCK).map_err(told)?);
        let stop = AtomicBool::new(false);
        let (beside, copy_beside) = std::thread::scope(|scope| {
            let pump = scope.spawn(|| pump(&mut lane, &stop));
            let beside = compute();
            stop.store(true, Ordering::Relaxed);
            (beside, pump.join().unwrap_or(Ok(copy_alone)))
        });
        computing.push((alone / beside?).min(1.0));
        copying.push((copy_beside.map_err(told)? / copy_alone).min(1.0));
    }
    Ok((spread(computing), spread(copying)))
}

/// Copies until it is told to stop, once at least; gives the median rate.
fn pump(lane: &mut Lane<'_>, stop: &AtomicBool) -> Result<f64, CudaError> {
    let mut rates = Vec::new();
    while rates.is_empty() || !stop.load(Ordering::Relaxed) {
        rates.push(lane.rate(Way::Up, BLOCK)?);
    }
    Ok(spread(rates).p50)
}

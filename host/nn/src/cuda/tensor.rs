//! Tensors in the arena, and on the host while there is no arena.
//!
//! A stage has a region of device memory for its activations; between stages there is none. What outlives a stage, such
//! as latents and embeddings, is parked in host memory meanwhile and comes back to the next region: it is small, and
//! so there is never more on the device than one stage declares.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use loadline_core::{Bytes, DType};
use loadline_cuda::Staging;
use loadline_cuda::driver::{CudaError, DevicePtr, Stream};
use loadline_cuda::kernels::Misfit;
use loadline_device::memory::{Domain, within};

use super::arena::{Arena, Figures, Full, Move, Place};

/// What went wrong with the memory of tensors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CudaFailure {
    /// The driver says no.
    #[error(transparent)]
    Driver(#[from] CudaError),
    /// The region is smaller than what the op layer let through: a bug of ours.
    #[error("{requested} bytes of activations do not fit beside {live} in a region of {size}", requested = .0.requested,
        live = .0.live, size = .0.size)]
    Full(Full),
    /// The operands of an operation do not fit together.
    #[error(transparent)]
    Misfit(#[from] Misfit),
    /// The op layer has an operation that no kernel computes.
    #[error("this operation has no kernel for GPUs yet; run on the processor with --device cpu")]
    NoKernel,
    /// A tensor is used while no stage runs.
    #[error("a tensor is in host memory: nothing can be computed between stages")]
    Parked,
}

/// Dense data on the device, or a part of one; cloning shares it.
#[derive(Clone, Debug)]
pub struct CudaTensor {
    home: Arc<Home>,
    dtype: DType,
    /// The first byte.
    start: u64,
    /// How many.
    bytes: u64,
}

#[derive(Debug)]
struct Home {
    bytes: u64,
    place: Mutex<Where>,
}

#[derive(Debug)]
enum Where {
    Device(Place),
    Host(Vec<u8>),
}

impl Home {
    fn place(&self) -> MutexGuard<'_, Where> {
        // A place is replaced as a whole, so a panic elsewhere does not spoil it.
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CudaTensor {
    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Elements `start..start + len` of it.
    pub(crate) fn part(&self, start: usize, len: usize) -> Self {
        let size = self.dtype.element_bytes();
        let (start, bytes) = (self.start + start as u64 * size, len as u64 * size);
        Self { home: Arc::clone(&self.home), start, bytes, ..*self }
    }

    /// Its bytes, if it is parked.
    pub(crate) fn parked<R>(&self, body: impl FnOnce(&mut [u8]) -> R) -> Option<R> {
        let range = self.start as usize..(self.start + self.bytes) as usize;
        match &mut *self.home.place() {
            Where::Host(values) => Some(body(&mut values[range])),
            Where::Device(_) => None,
        }
    }
}

/// Allocates for the host, whatever the thread does otherwise.
pub(crate) fn on_host<R>(body: impl FnOnce() -> R) -> R {
    within(Domain::Host, body)
}

/// The region, and what lies in it.
pub(crate) struct Memory {
    pub(crate) stream: Stream,
    arena: Arena,
    /// Where the region begins, if there is one.
    base: Option<DevicePtr>,
    homes: Vec<Weak<Home>>,
    staging: Option<Staging>,
}

/// Pieces that copies from and to the host pass through: two are on their way while a third is filled.
const PIECES: usize = 3;
const PIECE_BYTES: usize = 4 << 20;
const STAGED: Bytes = Bytes((PIECES * PIECE_BYTES) as u64);

impl Memory {
    /// No region yet, and nothing locked.
    pub(crate) fn new(stream: &Stream) -> Self {
        Self { stream: stream.clone(), arena: Arena::default(), base: None, homes: Vec::new(), staging: None }
    }

    /// Locks what copies pass through if that is within `most`, or unlocks it; gives how much is locked. Without it, as
    /// where the system locks nothing, copies wait for each other.
    pub(crate) fn stage_within(&mut self, most: Bytes) -> Bytes {
        if most < STAGED {
            self.staging = None;
        } else if self.staging.is_none() {
            self.staging = on_host(|| Staging::new(self.stream.context(), PIECES, PIECE_BYTES).ok());
        }
        if self.staging.is_some() { STAGED } else { Bytes::ZERO }
    }

    pub(crate) fn figures(&self) -> Figures {
        self.arena.figures()
    }

    pub(crate) fn arena(&self) -> &Arena {
        &self.arena
    }

    /// A new tensor whose bytes are whatever was there before; parked, and zeros, between stages.
    pub(crate) fn tensor(&mut self, dtype: DType, elements: usize) -> Result<CudaTensor, CudaFailure> {
        let bytes = dtype.bytes(elements as u64).0;
        let place = match self.base {
            Some(_) => Where::Device(self.take(bytes)?),
            None => Where::Host(on_host(|| vec![0; bytes as usize])),
        };
        let home = Arc::new(Home { bytes, place: Mutex::new(place) });
        if self.homes.len() == self.homes.capacity() {
            self.homes.retain(|home| home.strong_count() > 0);
        }
        self.homes.push(Arc::downgrade(&home));
        Ok(CudaTensor { home, dtype, start: 0, bytes })
    }

    /// A place for the scratch of one operation.
    pub(crate) fn take(&mut self, bytes: u64) -> Result<Place, CudaFailure> {
        let base = self.base.ok_or(CudaFailure::Parked)?;
        let (place, moves) = self.arena.take(bytes).map_err(CudaFailure::Full)?;
        for Move { from, to, bytes } in moves {
            self.stream.copy(base.offset(to), base.offset(from), bytes as usize)?;
        }
        Ok(place)
    }

    /// Where a tensor is now: until the next call of [`tensor`](Self::tensor) or [`take`](Self::take).
    pub(crate) fn at(&self, tensor: &CudaTensor) -> Result<DevicePtr, CudaFailure> {
        match (&*tensor.home.place(), self.base) {
            (Where::Device(place), Some(base)) => Ok(base.offset(place.start() + tensor.start)),
            _ => Err(CudaFailure::Parked),
        }
    }

    /// The same of scratch.
    pub(crate) fn scratch_at(&self, place: &Place) -> Result<DevicePtr, CudaFailure> {
        Ok(self.base.ok_or(CudaFailure::Parked)?.offset(place.start()))
    }

    /// Queues a copy from the host.
    pub(crate) fn upload(&mut self, to: DevicePtr, from: &[u8]) -> Result<(), CudaFailure> {
        match &mut self.staging {
            Some(staging) => staging.upload(&self.stream, to, from)?,
            None => self.stream.upload(to, from)?,
        }
        Ok(())
    }

    /// Copies to the host; waits for what is queued.
    pub(crate) fn download(&mut self, from: DevicePtr, to: &mut [u8]) -> Result<(), CudaFailure> {
        match &mut self.staging {
            Some(staging) => staging.download(&self.stream, from, to)?,
            None => self.stream.download(from, to)?,
        }
        Ok(())
    }

    /// Brings everything that is live to the host: the region may be given back then.
    pub(crate) fn close(&mut self) -> Result<(), CudaFailure> {
        let Some(base) = self.base else { return Ok(()) };
        for home in self.live() {
            let mut values = on_host(|| vec![0u8; home.bytes as usize]);
            let start = match &*home.place() {
                Where::Device(place) => place.start(),
                Where::Host(_) => continue,
            };
            self.download(base.offset(start), &mut values)?;
            *home.place() = Where::Host(values);
        }
        // What was freed may still be read or written by kernels that are queued.
        self.stream.synchronize()?;
        self.base = None;
        self.arena.open(0);
        Ok(())
    }

    /// Forgets a region that cannot be read any more, with everything in it: the GPU is lost, and a checkpoint has what
    /// is needed.
    pub(crate) fn abandon(&mut self) {
        for home in self.live() {
            let bytes = home.bytes as usize;
            *home.place() = Where::Host(on_host(|| vec![0; bytes]));
        }
        self.base = None;
        self.arena.open(0);
    }

    /// Takes a region, and brings back what was parked.
    pub(crate) fn open(&mut self, base: DevicePtr, bytes: u64) -> Result<(), CudaFailure> {
        self.close()?;
        self.arena.open(bytes);
        self.base = Some(base);
        for home in self.live() {
            let place = self.take(home.bytes)?;
            let to = self.scratch_at(&place)?;
            let parked = std::mem::replace(&mut *home.place(), Where::Device(place));
            if let Where::Host(values) = parked {
                self.upload(to, &values)?;
            }
        }
        Ok(())
    }

    fn live(&mut self) -> Vec<Arc<Home>> {
        self.homes.retain(|home| home.strong_count() > 0);
        self.homes.iter().filter_map(Weak::upgrade).collect()
    }
}

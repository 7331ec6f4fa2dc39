//! One pass over a file as runs make it, to see how fast it is.

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

use loadline_core::{Bytes, DType};
use loadline_engine::DeviceError;

use super::{BlockReader, DiskOptions, Report, Target};
use crate::copier::AHEAD;
use crate::slab::Slab;
use crate::source::{BlockSource, Segment, Sources, WeightFiles};
use crate::turns::take_short_turns;

/// A pass that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    /// What was read.
    pub bytes: Bytes,
    /// How long it took, once the ring was there.
    pub time: Duration,
    /// What became of reading.
    pub report: Report,
}

/// Reads a range of a file in blocks of `block` bytes, as many under way as in a run, into memory that is there, by a
/// thread of its own. With `look` numbers are looked at, as when a block is loaded for the first time.
///
/// # Errors
/// If the file cannot be read, or the system has no memory for the blocks.
pub fn pass(
    path: &Path,
    range: Range<u64>,
    block: Bytes,
    options: DiskOptions,
    look: bool,
) -> Result<Pass, DeviceError> {
    let starts = range.clone().step_by(block.0.max(1) as usize);
    let length = |start: u64| block.0.min(range.end - start);
    // What the reader makes with its first block is made before the clock starts.
    let blocks = std::iter::once(bytes(range.start, length(range.start).min(2)));
    let blocks: Vec<_> = blocks.chain(starts.map(|start| bytes(start, length(start)))).collect();
    let sources = Arc::new(Sources { files: WeightFiles::open(&[path.to_owned()])?, blocks });
    let slabs: Option<Vec<_>> = (0..AHEAD).map(|_| Slab::allocate(block)).collect();
    let slabs = slabs.ok_or(DeviceError::OutOfDeviceMemory { requested: block })?;
    let read = || {
        take_short_turns();
        let mut reader = BlockReader::new(options);
        let first = run(&mut reader, &sources, 0..1, &slabs, look);
        let begun = Instant::now();
        first.and_then(|()| run(&mut reader, &sources, 1..sources.blocks.len(), &slabs, look))?;
        let time = begun.elapsed();
        let report = reader.report().lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Pass { bytes: Bytes(range.end - range.start), time, report })
    };
    std::thread::scope(|scope| {
        let thread = Builder::new().name("loadline-pass".into()).spawn_scoped(scope, read);
        let thread = thread.map_err(|e| DeviceError::Compute(format!("no thread to read: {e}")))?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn bytes(offset: u64, bytes: u64) -> BlockSource {
    let (tensor, dtype) = (String::new(), DType::Bf16);
    let elements = bytes as usize / 2;
    let segment = Segment { tensor, file: 0, offset, elements, file_dtype: dtype, place: 0, dtype, scale: 1.0 };
    BlockSource { segments: vec![segment], packed: None }
}

fn run(
    reader: &mut BlockReader,
    sources: &Arc<Sources>,
    blocks: Range<usize>,
    slabs: &[Arc<Slab>],
    look: bool,
) -> Result<(), DeviceError> {
    let (mut next, mut under_way) = (blocks.start, 0);
    while next < blocks.end || under_way > 0 {
        while next < blocks.end && under_way < slabs.len() {
            let target = Target::slab(&slabs[next % slabs.len()]);
            // SAFETY: nobody looks into the slabs, and blocks come in order, so the one before it has left this one.
            unsafe { reader.begin(sources, next, target, look) };
            (next, under_way) = (next + 1, under_way + 1);
        }
        if let Some(brought) = reader.advance() {
            under_way -= 1;
            brought.result?;
        }
    }
    Ok(())
}

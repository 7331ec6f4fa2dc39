//! How long copies take, by the GPU's own clock. Each call queues its copies, and waits for them.

use std::time::Duration;

use crate::driver::{CudaError, DevicePtr, Event, Pinned, Stream};

/// A direction between host and device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the device.
    Up,
    /// To the host.
    Down,
}

/// The time of `repeats` copies of the first `bytes` of `host`, one after the other. Whether it is locked or not
/// decides whether the driver stages them.
///
/// # Errors
/// What the driver says.
///
/// # Panics
/// If `host` has fewer bytes.
pub fn copies(
    stream: &Stream,
    way: Way,
    device: DevicePtr,
    host: &mut Pinned,
    bytes: usize,
    repeats: usize,
) -> Result<Duration, CudaError> {
    let lane = Lane::begin(stream)?;
    lane.queue(way, device, host, bytes, repeats)?;
    lane.end()
}

/// The time of as many copies each way at the same time, of different memory.
///
/// # Errors
/// What the driver says.
///
/// # Panics
/// If either memory has fewer bytes.
pub fn both_ways(
    streams: [&Stream; 2],
    devices: [DevicePtr; 2],
    hosts: [&mut Pinned; 2],
    bytes: usize,
    repeats: usize,
) -> Result<Duration, CudaError> {
    let (up, down) = (Lane::begin(streams[0])?, Lane::begin(streams[1])?);
    let [from, to] = hosts;
    // In turns, so that neither stream has nothing to do while the other is being filled.
    for _ in 0..repeats {
        up.queue(Way::Up, devices[0], from, bytes, 1)?;
        down.queue(Way::Down, devices[1], to, bytes, 1)?;
    }
    let (up, down) = (up.end(), down.end());
    Ok(up?.max(down?))
}

struct Lane<'a> {
    stream: &'a Stream,
    start: Event,
    end: Event,
}

impl<'a> Lane<'a> {
    fn begin(stream: &'a Stream) -> Result<Self, CudaError> {
        let context = stream.context();
        let lane = Self { stream, start: Event::timed(context)?, end: Event::timed(context)? };
        stream.synchronize()?;
        stream.record(&lane.start)?;
        Ok(lane)
    }

    fn queue(
        &self,
        way: Way,
        device: DevicePtr,
        host: &mut Pinned,
        bytes: usize,
        repeats: usize,
    ) -> Result<(), CudaError> {
        assert!(bytes <= host.bytes(), "a copy outside its memory");
        for _ in 0..repeats {
            let (stream, at) = (self.stream, host.address(0));
            // SAFETY: both callers wait for the copies before the borrow of `host` ends, whatever else fails, since a
            // lane that is dropped waits, too; meanwhile nobody else can reach the memory.
            let queued = unsafe {
                match way {
                    Way::Up => stream.upload_later(device, at, bytes),
                    Way::Down => stream.download_later(device, at.cast_mut(), bytes),
                }
            };
            queued?;
        }
        Ok(())
    }

    fn end(self) -> Result<Duration, CudaError> {
        self.stream.record(&self.end)?;
        self.end.synchronize()?;
        self.end.since(&self.start)
    }
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        // A stream that cannot be waited for is of a lost GPU, which copies nothing any more.
        let _ = self.stream.synchronize();
    }
}

//! Copies between ordinary host memory and the device that need not wait for each other.
//!
//! A driver copies memory that is not locked through buffers of its own, and waits for the stream first. Here it
//! passes through pieces of locked memory: the caller waits only for a piece that is still on its way.

use crate::driver::{Context, CudaError, DevicePtr, Event, Pinned, Stream};

/// A ring of locked pieces.
#[derive(Debug)]
pub struct Staging {
    pieces: Vec<Piece>,
    next: usize,
}

#[derive(Debug)]
struct Piece {
    memory: Pinned,
    /// Recorded behind the last copy from or to the piece.
    copied: Event,
    busy: bool,
}

impl Piece {
    fn free(&mut self) -> Result<(), CudaError> {
        if std::mem::take(&mut self.busy) { self.copied.synchronize() } else { Ok(()) }
    }
}

impl Staging {
    /// A ring of `pieces` of so many bytes, all locked.
    ///
    /// # Errors
    /// [`CudaError::PinRefused`] if the system does not lock so much.
    pub fn new(context: &Context, pieces: usize, bytes: usize) -> Result<Self, CudaError> {
        let piece = || {
            let refused = || CudaError::PinRefused { requested: bytes as u64, name: "no host memory".to_owned() };
            let mut memory = Pinned::allocate(context, bytes).ok_or_else(refused)?;
            memory.pin(bytes)?;
            Ok(Piece { memory, copied: Event::untimed(context)?, busy: false })
        };
        Ok(Self { pieces: (0..pieces.max(1)).map(|_| piece()).collect::<Result<_, _>>()?, next: 0 })
    }

    /// Bytes of a piece.
    fn length(&self) -> usize {
        self.pieces[0].memory.bytes().max(1)
    }

    fn take(&mut self) -> Result<&mut Piece, CudaError> {
        let at = self.next;
        self.next = (at + 1) % self.pieces.len();
        let piece = &mut self.pieces[at];
        piece.free()?;
        Ok(piece)
    }

    /// Queues a copy to the device. The caller may use its memory again at once.
    ///
    /// # Errors
    /// What the driver says.
    pub fn upload(&mut self, stream: &Stream, to: DevicePtr, from: &[u8]) -> Result<(), CudaError> {
        let (length, mut done) = (self.length(), 0u64);
        for part in from.chunks(length) {
            let piece = self.take()?;
            // SAFETY: the piece is free: the copy that used it last has been waited for.
            unsafe { piece.memory.write(0, part.len()) }.copy_from_slice(part);
            // SAFETY: nobody writes the piece again before the event that is recorded next has happened.
            unsafe { stream.upload_later(to.offset(done), piece.memory.address(0), part.len()) }?;
            piece.busy = true;
            stream.record(&piece.copied)?;
            done += part.len() as u64;
        }
        Ok(())
    }

    /// Copies to host memory, when everything queued has been done; blocks until then. While one piece is emptied the
    /// next ones are filled.
    ///
    /// # Errors
    /// What the driver says.
    pub fn download(&mut self, stream: &Stream, from: DevicePtr, to: &mut [u8]) -> Result<(), CudaError> {
        let (length, ring, total) = (self.length(), self.pieces.len(), to.len());
        let count = total.div_ceil(length);
        let size = |n: usize| length.min(total - n * length);
        self.pieces.iter_mut().try_for_each(Piece::free)?;
        for n in 0..count.min(ring) {
            self.fetch(stream, n, from.offset((n * length) as u64), size(n))?;
        }
        for n in 0..count {
            let piece = &mut self.pieces[n % ring];
            piece.free()?;
            // SAFETY: the copy into the piece has been waited for, and the next one is queued below.
            let values = unsafe { piece.memory.read(0, size(n)) };
            to[n * length..n * length + values.len()].copy_from_slice(values);
            if n + ring < count {
                self.fetch(stream, n + ring, from.offset(((n + ring) * length) as u64), size(n + ring))?;
            }
        }
        Ok(())
    }

    fn fetch(&mut self, stream: &Stream, n: usize, from: DevicePtr, bytes: usize) -> Result<(), CudaError> {
        let at = n % self.pieces.len();
        let piece = &mut self.pieces[at];
        // SAFETY: the piece is free, and nobody reads it before the event that is recorded next has happened.
        unsafe { stream.download_later(from, piece.memory.address(0).cast_mut(), bytes) }?;
        piece.busy = true;
        stream.record(&piece.copied)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Memory must not be unlocked while a copy uses it; a lost GPU copies nothing any more.
        self.pieces.iter_mut().for_each(|piece| {
            let _ = piece.free();
        });
    }
}

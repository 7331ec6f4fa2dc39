//! What carries reads out.

use std::collections::VecDeque;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::{BorrowedFd, RawFd};
use std::ptr::NonNull;

use rustix::fs::{Advice, fadvise};

/// A read that is to be done. Whoever hands it to a [`Backend`] keeps file and memory until it has come back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    /// Gives the read its name.
    pub(super) tag: usize,
    pub(super) fd: RawFd,
    /// The first byte in the file.
    pub(super) from: u64,
    pub(super) start: NonNull<u8>,
    pub(super) bytes: usize,
    /// The buffer of the ring that it goes to, unless it goes straight to its place.
    pub(super) buffer: Option<usize>,
}

// SAFETY: the memory is nobody's but the request's until the read is over.
unsafe impl Send for Request {}

impl Request {
    /// Reads, as far as one call of the system goes.
    ///
    /// # Safety
    /// The file is open, and so many bytes of memory from `start` are nobody else's.
    pub(super) unsafe fn read(&self) -> io::Result<usize> {
        // SAFETY: the caller's promise.
        let (fd, target) = unsafe {
            (BorrowedFd::borrow_raw(self.fd), std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes))
        };
        loop {
            match rustix::io::pread(fd, &mut *target, self.from) {
                Err(rustix::io::Errno::INTR) => {}
                other => return other.map_err(io::Error::from),
            }
        }
    }
}

/// A read that is over: its tag, and how many bytes have come.
pub(super) type Done = (usize, io::Result<usize>);

/// Carries out reads, some at a time.
pub(super) trait Backend: Send {
    /// Starts a read.
    ///
    /// # Safety
    /// Until [`wait`](Self::wait) has given its tag back, the file stays open, and the memory is neither read nor
    /// written by anybody else.
    unsafe fn submit(&mut self, request: Request);

    /// Waits until one of the reads is over. There is at least one.
    fn wait(&mut self) -> Done;
}

/// Reads on the calling thread when somebody waits; the system is told beforehand, so that it keeps the disk busy.
#[derive(Debug, Default)]
pub(super) struct Inline {
    waiting: VecDeque<Request>,
}

impl Backend for Inline {
    unsafe fn submit(&mut self, request: Request) {
        // SAFETY: the file is open, as the caller promises.
        let fd = unsafe { BorrowedFd::borrow_raw(request.fd) };
        // Advice: where it is not taken, the read itself brings the pages in.
        let _ = fadvise(fd, request.from, NonZeroU64::new(request.bytes as u64), Advice::WillNeed);
        self.waiting.push_back(request);
    }

    fn wait(&mut self) -> Done {
        let Some(request) = self.waiting.pop_front() else { return (usize::MAX, Ok(0)) };
        // SAFETY: `submit`'s promise holds until this returns.
        (request.tag, unsafe { request.read() })
    }
}

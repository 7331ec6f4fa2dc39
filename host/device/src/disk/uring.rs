//! Direct reads with io_uring: the kernel has several at a time, and one thread hands them over and takes them back.

use std::collections::VecDeque;
use std::io;

use io_uring::{IoUring, Probe, opcode, squeue, types};

use super::BUFFERS;
use super::backend::{Backend, Done, Request};
use super::buffers::Buffers;

/// A ring of the kernel's.
pub(super) struct Uring {
    ring: IoUring,
    /// Whether the kernel knows the buffers, so that it need not look their pages up for each read.
    fixed: bool,
    /// Reads that are over and were not asked for yet.
    over: VecDeque<Done>,
    /// Reads that the kernel did not take: they are done when somebody waits.
    refused: VecDeque<Request>,
    /// Reads that the kernel has.
    flying: usize,
}

/// Whether this process may use io_uring for reads: settings of the kernel, filters of system calls and old kernels
/// may forbid it. Nothing is left behind.
///
/// # Errors
/// What the system says.
pub fn try_uring() -> io::Result<()> {
    open().map(drop)
}

/// A ring that has proved to work: some filters let it be set up and nothing be done with it.
fn open() -> io::Result<IoUring> {
    let mut ring = IoUring::new(BUFFERS as u32)?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    if !probe.is_supported(opcode::Read::CODE) {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "this kernel's io_uring has no reads"));
    }
    let nothing = opcode::Nop::new().build();
    // SAFETY: no memory belongs to an operation that does nothing.
    let _ = unsafe { ring.submission().push(&nothing) };
    ring.submit_and_wait(1)?;
    ring.completion().for_each(drop);
    Ok(ring)
}

impl Uring {
    /// A ring that reads into `buffers`, or anywhere else.
    ///
    /// # Errors
    /// If the system has no io_uring for this process.
    pub(super) fn new(buffers: &Buffers) -> io::Result<Self> {
        let ring = open()?;
        let whole: Vec<libc::iovec> = (0..buffers.count())
            .map(|n| libc::iovec { iov_base: buffers.start(n).as_ptr().cast(), iov_len: buffers.bytes() })
            .collect();
        // It counts against the limit of locked memory. Where that is too low, reads look their pages up as ever.
        // SAFETY: the buffers live as long as the reader, which drops this first.
        let fixed = unsafe { ring.submitter().register_buffers(&whole) }.is_ok();
        Ok(Self { ring, fixed, over: VecDeque::new(), refused: VecDeque::new(), flying: 0 })
    }

    fn entry(&self, request: &Request) -> squeue::Entry {
        let (fd, bytes, start) = (types::Fd(request.fd), request.bytes as u32, request.start.as_ptr());
        let entry = match request.buffer.filter(|_| self.fixed) {
            Some(buffer) => opcode::ReadFixed::new(fd, start, bytes, buffer as u16).offset(request.from).build(),
            None => opcode::Read::new(fd, start, bytes).offset(request.from).build(),
        };
        entry.user_data(request.tag as u64)
    }

    fn take_over(&mut self) {
        for done in self.ring.completion() {
            self.flying -= 1;
            let result = done.result();
            let result = usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
            self.over.push_back((done.user_data() as usize, result));
        }
    }
}

impl Backend for Uring {
    unsafe fn submit(&mut self, request: Request) {
        let entry = self.entry(&request);
        // SAFETY: the caller keeps file and memory until the read is over.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        match pushed {
            Ok(()) => {
                self.flying += 1;
                // What cannot be handed over now is handed over by the next wait.
                let _ = self.ring.submit();
            }
            Err(_) => self.refused.push_back(request),
        }
    }

    fn wait(&mut self) -> Done {
        loop {
            self.take_over();
            if let Some(done) = self.over.pop_front() {
                return done;
            }
            if let Some(request) = self.refused.pop_front() {
                // SAFETY: `submit`'s promise holds until this returns.
                return (request.tag, unsafe { request.read() });
            }
            if self.flying == 0 {
                return (usize::MAX, Ok(0));
            }
            // It ends early if a signal comes, or if the kernel is short of memory for a moment: then again. What the
            // kernel has cannot be taken back, so there is no other end.
            if self.ring.submit_and_wait(1).is_err() {
                std::thread::yield_now();
            }
        }
    }
}

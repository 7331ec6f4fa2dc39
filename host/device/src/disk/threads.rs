//! Direct reads by a few threads, for systems without io_uring.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::backend::{Backend, Done, Request};

/// A thread only waits in system calls.
const STACK: usize = 64 << 10;

#[derive(Default)]
struct Work {
    waiting: VecDeque<Request>,
    done: VecDeque<Done>,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    work: Mutex<Work>,
    /// Something was submitted, or the end has come.
    submitted: Condvar,
    /// A read is over.
    over: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Threads that take reads from one queue.
pub(super) struct Threads {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Threads {
    /// So many threads, each with one read at a time.
    ///
    /// # Errors
    /// If the system starts no thread.
    pub(super) fn start(count: usize) -> io::Result<Self> {
        let mut started = Self { shared: Arc::default(), threads: Vec::with_capacity(count) };
        for n in 0..count {
            let shared = Arc::clone(&started.shared);
            let thread = std::thread::Builder::new().name(format!("loadline-read{n}")).stack_size(STACK);
            started.threads.push(thread.spawn(move || work(&shared))?);
        }
        Ok(started)
    }
}

fn work(shared: &Shared) {
    let mut guard = shared.lock();
    loop {
        if let Some(request) = guard.waiting.pop_front() {
            drop(guard);
            // SAFETY: who submitted it keeps file and memory until the read is given back.
            let result = unsafe { request.read() };
            guard = shared.lock();
            guard.done.push_back((request.tag, result));
            shared.over.notify_one();
        } else if guard.closed {
            return;
        } else {
            guard = shared.submitted.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Backend for Threads {
    unsafe fn submit(&mut self, request: Request) {
        self.shared.lock().waiting.push_back(request);
        self.shared.submitted.notify_one();
    }

    fn wait(&mut self) -> Done {
        let mut guard = self.shared.lock();
        loop {
            if let Some(done) = guard.done.pop_front() {
                return done;
            }
            guard = self.shared.over.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.submitted.notify_all();
        for thread in self.threads.drain(..) {
            // A panic in a thread was our bug and has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

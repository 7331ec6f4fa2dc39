//! How the threads that bring weights share processors with those that compute.

use std::mem::zeroed;

use libc::{SCHED_OTHER, SYS_sched_getattr, SYS_sched_setattr, sched_attr, syscall};

/// The shortest turn that Linux gives, in nanoseconds.
const SHORTEST: u64 = 100_000;

/// Asks for short turns on a processor: as much of it as before, in smaller parts. Who wants short turns waits a short
/// time for one. A thread that brings weights wants the processor for moments and often; behind turns of some
/// milliseconds of each thread that computes, the disk would wait for it most of the time.
///
/// It is a wish: Linux before 6.12 and other systems do as they always do.
pub(crate) fn take_short_turns() {
    // SAFETY: zeros are a value of each field.
    let mut attributes: sched_attr = unsafe { zeroed() };
    let size = size_of::<sched_attr>() as u32;
    // SAFETY: it writes so many bytes at most.
    let got = unsafe { syscall(SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
    if got != 0 || attributes.sched_policy != SCHED_OTHER as u32 {
        return;
    }
    attributes.sched_runtime = SHORTEST;
    // SAFETY: it reads what it has written before, but for one number.
    let _ = unsafe { syscall(SYS_sched_setattr, 0, &raw const attributes, 0) };
}

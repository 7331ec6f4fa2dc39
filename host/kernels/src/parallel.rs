//! Partition of work over tasks. How work is cut depends on shapes alone, and no
//! task reads what another writes; so no result depends on who does what.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Runs `body(task, part)` for each task with its part of `scratch`. One task
/// runs on the caller's thread; more go to the current rayon pool.
pub(crate) fn run_with_scratch(scratch: &mut [f32], tasks: usize, body: impl Fn(usize, &mut [f32]) + Sync) {
    let each = scratch.len() / tasks;
    if tasks == 1 {
        return body(0, scratch);
    }
    let body = &body;
    let mut rest = scratch;
    rayon::scope(|scope| {
        for task in 0..tasks {
            let (part, tail) = std::mem::take(&mut rest).split_at_mut(each);
            rest = tail;
            scope.spawn(move |_| body(task, part));
        }
    });
}

/// Units of work that are still to be done, shared by the tasks of one call.
/// Whoever is free takes the next one: a task whose processor has something else
/// to do, such as bringing the next weights, then holds nobody up.
pub(crate) struct Units<'a> {
    next: &'a AtomicUsize,
    count: usize,
}

impl Iterator for Units<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        // Only the number counts: results are published by the end of the scope.
        let unit = self.next.fetch_add(1, Ordering::Relaxed);
        (unit < self.count).then_some(unit)
    }
}

/// Runs `body(units, part)` for each task with its part of `scratch`; each of
/// `count` units comes to one of the tasks.
pub(crate) fn share_with_scratch(
    scratch: &mut [f32],
    tasks: usize,
    count: usize,
    body: impl Fn(Units<'_>, &mut [f32]) + Sync,
) {
    let next = AtomicUsize::new(0);
    run_with_scratch(scratch, tasks, |_, part| body(Units { next: &next, count }, part));
}

/// Splits `out` into one run of whole units for each task and calls
/// `body(first_unit, run)`. `out` must hold whole units.
pub(crate) fn split<T: Send>(out: &mut [T], unit: usize, tasks: usize, body: impl Fn(usize, &mut [T]) + Sync) {
    let units = out.len() / unit;
    let each = units.div_ceil(tasks).max(1);
    if units <= each {
        return body(0, out);
    }
    let body = &body;
    rayon::scope(|scope| {
        for (task, run) in out.chunks_mut(each * unit).enumerate() {
            scope.spawn(move |_| body(task * each, run));
        }
    });
}

/// An output that several tasks write disjoint runs of. A safe split does not
/// do where tasks own columns of a row-major matrix.
pub(crate) struct SharedOut<'a, T> {
    start: *mut T,
    len: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: the only access is `run`, whose callers promise disjoint runs.
unsafe impl<T: Send> Sync for SharedOut<'_, T> {}

impl<'a, T> SharedOut<'a, T> {
    pub(crate) fn new(out: &'a mut [T]) -> Self {
        Self { start: out.as_mut_ptr(), len: out.len(), borrow: PhantomData }
    }

    /// The `len` values from `at`.
    ///
    /// # Safety
    /// No two runs that overlap are alive at the same time.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn run(&self, at: usize, len: usize) -> &mut [T] {
        assert!(at <= self.len && len <= self.len - at, "run outside of the output");
        // SAFETY: within the borrowed slice by the assertion, and not aliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(at), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn every_unit_comes_to_one_task() {
        for (tasks, count) in [(1, 5), (2, 1), (3, 100), (4, 0)] {
            let done = Mutex::new(vec![0; count]);
            let mut scratch = vec![0.0; 2 * tasks];
            share_with_scratch(&mut scratch, tasks, count, |units, part| {
                assert_eq!(part.len(), 2, "{tasks} tasks share the scratch");
                for unit in units {
                    done.lock().unwrap_or_else(std::sync::PoisonError::into_inner)[unit] += 1;
                }
            });
            let done = done.into_inner().unwrap_or_default();
            assert_eq!(done, vec![1; count], "{tasks} tasks, {count} units");
        }
    }
}

//! Static partition of work over tasks. Which task does what depends on shapes
//! alone, and no task reads what another writes.

use std::marker::PhantomData;

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

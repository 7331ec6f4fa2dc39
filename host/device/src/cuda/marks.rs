//! What was queued and has not been measured yet, and when it happened.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use loadline_core::Nanos;
use loadline_cuda::driver::{Context, CudaError, Event};
use loadline_engine::Span;

/// Events that can be recorded again, so that a run creates a few dozen of them and no more.
pub(super) struct Spare {
    context: Context,
    events: Vec<Event>,
}

impl Spare {
    pub(super) fn new(context: &Context) -> Self {
        Self { context: context.clone(), events: Vec::new() }
    }

    pub(super) fn take(&mut self) -> Result<Event, CudaError> {
        self.events.pop().map_or_else(|| Event::timed(&self.context), Ok)
    }

    /// Queues that wait for the event have taken note of its place: it may be recorded elsewhere at once.
    pub(super) fn give_back(&mut self, event: Event) {
        self.events.push(event);
    }
}

/// One thing that was queued: when it starts and when it ends.
pub(super) struct Mark<T> {
    pub(super) what: T,
    pub(super) start: Event,
    pub(super) end: Event,
}

/// The marks of one queue, in order.
pub(super) struct Lane<T> {
    pending: VecDeque<Mark<T>>,
    /// How many marks there were before the first pending one.
    past: u64,
    /// What times are counted from. The GPU tells times between two events, as a float of milliseconds, so this moves
    /// on with every mark: short times are exact.
    base: Arc<Event>,
    base_at: Nanos,
    /// The end of the last span.
    end: Nanos,
}

impl<T> Lane<T> {
    /// A queue whose times count from an event that has happened, and that was queued after the host's clock had shown
    /// `base_at`: so the GPU's times are never ahead of the host's clock. Queues that share their first event can be
    /// compared.
    pub(super) fn new(base: Arc<Event>, base_at: Nanos) -> Self {
        Self { pending: VecDeque::new(), past: 0, base, base_at, end: Nanos::ZERO }
    }

    /// Adds what was queued, and gives its number; numbers begin with 1.
    pub(super) fn push(&mut self, mark: Mark<T>) -> u64 {
        self.pending.push_back(mark);
        self.past + self.pending.len() as u64
    }

    /// What is waited for where something of that number has to have ended; nothing if it has.
    pub(super) fn end_of(&self, number: u64) -> Option<&Event> {
        let nth = number.checked_sub(self.past + 1)?;
        self.pending.get(nth as usize).map(|mark| &mark.end)
    }

    pub(super) fn last(&self) -> Option<&Event> {
        self.pending.back().map(|mark| &mark.end)
    }

    fn time(&self, event: &Event) -> Result<Nanos, CudaError> {
        Ok(self.base_at + Nanos(event.since(&self.base)?.as_nanos() as u64))
    }

    /// Hands out the span of the first mark if it has happened. Spans do not overlap, and none ends after `now`.
    pub(super) fn pop(&mut self, spare: &mut Spare, now: Nanos) -> Result<Option<(T, Span)>, CudaError> {
        let Some(first) = self.pending.front() else { return Ok(None) };
        if !first.end.has_happened()? {
            return Ok(None);
        }
        let (began, ended) = (self.time(&first.start)?, self.time(&first.end)?);
        let start = began.max(self.end).min(now);
        let span = Span { start, end: ended.max(start).min(now) };
        let Some(Mark { what, start, end }) = self.pending.pop_front() else { return Ok(None) };
        spare.give_back(start);
        Arc::into_inner(std::mem::replace(&mut self.base, Arc::new(end)))
            .into_iter()
            .for_each(|old| spare.give_back(old));
        (self.past, self.base_at, self.end) = (self.past + 1, ended, span.end);
        Ok(Some((what, span)))
    }

    /// Forgets what is pending: everything has ended, and somebody else has told how.
    pub(super) fn forget(&mut self) {
        self.past += self.pending.len() as u64;
        self.pending.clear();
    }
}

/// The host's clock, from the start of a run.
#[derive(Clone, Copy)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn now(self) -> Nanos {
        Nanos(self.0.elapsed().as_nanos() as u64)
    }
}

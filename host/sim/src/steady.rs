//! Periods: a stage that is in the state of an earlier cycle, with the same passes ahead, does the same again.

use std::collections::VecDeque;

use loadline_core::Nanos;
use loadline_engine::{Ahead, Totals};

use crate::loads::{DiskState, LoadState, Sums};

/// So many cycles are remembered: longer periods are simulated in full. Plans repeat after a few cycles, and the
/// tiles of a video, which are the longest periods, after as many as there are chunks of frames.
const MARKS: usize = 64;

/// The machine at the start of a cycle.
pub(crate) struct Mark {
    /// The pass that comes next.
    pub(crate) next: usize,
    /// The compute clock.
    pub(crate) now: Nanos,
    /// What the future depends on, relative to the compute clock.
    pub(crate) loads: LoadState,
    /// The disk, which the future depends on where it is still asked.
    pub(crate) disk: DiskState,
    /// What loads came to until then.
    pub(crate) sums: Sums,
    /// The lane of results, which nothing else depends on.
    pub(crate) send: SendLane,
    pub(crate) totals: Totals,
}

/// The lane that results are sent on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SendLane {
    /// When it is free.
    pub(crate) free: Nanos,
    /// How long it was busy.
    pub(crate) busy: Nanos,
}

impl SendLane {
    pub(crate) fn push(&mut self, after: Nanos, length: Nanos) {
        self.free = self.free.max(after) + length;
        self.busy += length;
    }

    /// The lane after so many more periods of `period`, the last of which began with `earlier` at `then` and ended
    /// `now`; nothing if that cannot be told yet.
    ///
    /// A period turns the backlog `x` into `max(x + sent - period, c)` with a constant `c`. A backlog that does not
    /// shrink is at least `c` from the first period on, so it grows evenly. One that has shrunk by less than
    /// `period - sent` is `c` and stays. One that has shrunk by just that may not have come down to `c` yet.
    fn repeat(&self, earlier: &Self, then: Nanos, now: Nanos, times: u64) -> Option<Self> {
        let (period, sent) = (now - then, self.busy - earlier.busy);
        let busy = self.busy + sent * times;
        if sent == Nanos::ZERO {
            return Some(Self { free: self.free, busy });
        }
        if sent >= period {
            return Some(Self { free: self.free.max(now) + sent * times, busy });
        }
        let stays = (self.free - now) + period > (earlier.free - then) + sent;
        stays.then(|| Self { free: self.free + period * times, busy })
    }
}

/// Periods that are ahead.
pub(crate) struct Repetition<'a> {
    /// The start of the period that repeats.
    pub(crate) from: &'a Mark,
    /// Its cycles.
    pub(crate) cycles: u64,
    /// How many times it comes again.
    pub(crate) times: u64,
    /// How long all of them take.
    pub(crate) shift: Nanos,
    /// The lane of results after them.
    pub(crate) send: SendLane,
}

/// The cycles of a stage that are remembered.
#[derive(Default)]
pub(crate) struct Marks(VecDeque<Mark>);

impl Marks {
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The latest cycle from which on everything repeats at least once.
    pub(crate) fn repetition(&self, now: &Mark, ahead: &Ahead<'_>) -> Option<Repetition<'_>> {
        self.0.iter().rev().find_map(|mark| mark.repeats(now, ahead))
    }

    pub(crate) fn remember(&mut self, mark: Mark) {
        if self.0.len() == MARKS {
            self.0.pop_front();
        }
        self.0.push_back(mark);
    }
}

impl Mark {
    fn repeats(&self, now: &Self, ahead: &Ahead<'_>) -> Option<Repetition<'_>> {
        if self.loads != now.loads || !now.disk.continues(&self.disk) {
            return None;
        }
        let cycles = ((now.next - self.next) / ahead.cycle_passes) as u64;
        // With the same passes ahead the same follows.
        let same = ahead.order[self.next..].iter().zip(&ahead.order[now.next..]).take_while(|(a, b)| a == b).count();
        let times = ((same / ahead.cycle_passes) as u64).min(ahead.cycles) / cycles.max(1);
        // Times too large to write down are left to the full simulation.
        let shift = (now.now - self.now).0.checked_mul(times).filter(|s| now.now.0.checked_add(*s).is_some())?;
        let send = now.send.repeat(&self.send, self.now, now.now, times)?;
        (times > 0).then_some(Repetition { from: self, cycles, times, shift: Nanos(shift), send })
    }
}

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
    pub(crate) state: State,
    /// The disk, which the future depends on where it is still asked.
    pub(crate) disk: DiskState,
    /// What loads and results came to until then.
    pub(crate) sums: Sums,
    pub(crate) sending: Nanos,
    pub(crate) totals: Totals,
}

/// Loads and results on their way, relative to the compute clock.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) loads: LoadState,
    /// How long results will still be sent.
    pub(crate) send: Nanos,
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
        if self.state != now.state || !now.disk.continues(&self.disk) {
            return None;
        }
        let cycles = ((now.next - self.next) / ahead.cycle_passes) as u64;
        let same = ahead.order[self.next..].iter().zip(&ahead.order[now.next..]).take_while(|(a, b)| a == b).count();
        let times = ((same / ahead.cycle_passes) as u64).min(ahead.cycles) / cycles.max(1);
        // Times too large to write down are left to the full simulation.
        let shift = (now.now - self.now).0.checked_mul(times).filter(|s| now.now.0.checked_add(*s).is_some())?;
        (times > 0).then_some(Repetition { from: self, cycles, times, shift: Nanos(shift) })
    }
}

//! Queues of work, who waits for whom, and what nothing orders.
// An event of a driver has the time at which it happened.
#![allow(clippy::disallowed_methods)]

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use crate::kernels::Launch;
use crate::state::{Access, Order, State};

/// For each queue, how much of its work is ordered before something.
pub(crate) type Clock = BTreeMap<usize, u64>;

pub(crate) fn join(clock: &mut Clock, other: &Clock) {
    for (queue, number) in other {
        let mine = clock.entry(*queue).or_default();
        *mine = (*mine).max(*number);
    }
}

/// Something to do.
pub(crate) enum Work {
    /// Bytes from one address to another; both are the host's.
    Copy {
        to: u64,
        from: u64,
        bytes: u64,
    },
    Fill {
        to: u64,
        value: u8,
        bytes: u64,
    },
    Launch(Launch),
    /// What a library queues.
    Do(Box<dyn FnOnce() + Send>),
    /// A function on the host, and its argument.
    Call(unsafe extern "C" fn(*mut core::ffi::c_void), u64),
    Record(usize),
    /// Waits until a queue has done so much.
    Wait(usize, u64),
}

/// A queue.
#[derive(Default)]
pub(crate) struct Queue {
    pub(crate) waiting: VecDeque<Work>,
    pub(crate) queued: u64,
    pub(crate) done: u64,
    /// What is ordered before what is queued next.
    pub(crate) clock: Clock,
}

/// What is to be done outside of the driver's lock.
pub(crate) type Task = Box<dyn FnOnce()>;

impl State {
    /// Queues work. What the host has waited for is ordered before it.
    pub(crate) fn queue(&mut self, queue: usize, work: Work) -> u64 {
        let host = self.host.clone();
        let into = &mut self.queues[queue];
        into.waiting.push_back(work);
        into.queued += 1;
        let number = into.queued;
        into.clock.insert(queue, number);
        join(&mut into.clock, &host);
        number
    }

    /// Notes an access of the work that was queued last, and compares it with those that are not ordered before it.
    pub(crate) fn access(&mut self, queue: usize, what: &str, range: (u64, u64), writes: bool, kernel: bool) {
        let (start, end) = (range.0, range.0 + range.1);
        let clock = &self.queues[queue].clock;
        let number = self.queues[queue].queued;
        let before = |other: &Access| clock.get(&other.queue).is_some_and(|done| *done >= other.number);
        let collide = |other: &&Access| {
            other.start < end && start < other.end && (writes || other.writes) && !(kernel && other.kernel)
        };
        let found: Vec<String> = self
            .accesses
            .iter()
            .filter(collide)
            .filter(|other| !before(other))
            .map(|other| format!("{what} (queue {queue}) is not ordered behind {} (queue {})", other.what, other.queue))
            .collect();
        self.report.hazards.extend(found);
        self.accesses.push(Access { what: what.to_owned(), start, end, writes, kernel, queue, number });
    }

    /// The host itself reads or gives up a range.
    pub(crate) fn host_access(&mut self, what: &str, start: u64, bytes: u64) {
        let end = start + bytes;
        let host = &self.host;
        let late = |other: &&Access| {
            let ordered = host.get(&other.queue).is_some_and(|done| *done >= other.number);
            other.start < end && start < other.end && !ordered
        };
        let found: Vec<String> =
            self.accesses.iter().filter(late).map(|other| format!("{what} does not wait for {}", other.what)).collect();
        self.report.hazards.extend(found);
    }

    /// What the host has waited for is ordered before all that comes: whole runs would remember millions of accesses.
    pub(crate) fn forget_what_is_past(&mut self) {
        let host = &self.host;
        self.accesses.retain(|access| host.get(&access.queue).is_none_or(|done| *done < access.number));
    }

    fn can_go_on(&self, queue: usize) -> bool {
        match self.queues[queue].waiting.front() {
            Some(Work::Wait(other, number)) => self.queues[*other].done >= *number,
            Some(_) => true,
            None => false,
        }
    }

    fn choose(&mut self) -> Option<usize> {
        let ready: Vec<usize> = (0..self.queues.len()).filter(|queue| self.can_go_on(*queue)).collect();
        let last = ready.len().checked_sub(1)?;
        Some(match self.settings.order {
            Order::Eager | Order::OldestQueue => ready[0],
            Order::NewestQueue => ready[last],
            Order::Random(_) => {
                // The generator of Knuth's MMIX.
                self.chance =
                    self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                ready[(self.chance >> 33) as usize % ready.len()]
            }
        })
    }

    /// Takes the next piece of work; the caller does it, and then calls [`finish`](Self::finish).
    pub(crate) fn next(&mut self) -> Option<(usize, Task)> {
        let queue = self.choose()?;
        let work = self.queues[queue].waiting.pop_front()?;
        let task: Task = match work {
            Work::Copy { to, from, bytes } => Box::new(move || {
                // SAFETY: both ranges were checked when the copy was queued, and freed memory stays mapped.
                unsafe { std::ptr::copy(from as *const u8, to as *mut u8, bytes as usize) }
            }),
            Work::Fill { to, value, bytes } => Box::new(move || {
                // SAFETY: as above.
                unsafe { std::ptr::write_bytes(to as *mut u8, value, bytes as usize) }
            }),
            Work::Launch(launch) => self.kernels.task(launch),
            Work::Do(task) => task,
            Work::Call(function, data) => Box::new(move || {
                // SAFETY: who queued the function gave its argument with it.
                unsafe { function(data as *mut core::ffi::c_void) }
            }),
            Work::Record(event) => {
                self.events[event].time = Some(Instant::now());
                Box::new(|| ())
            }
            Work::Wait(..) => Box::new(|| ()),
        };
        Some((queue, task))
    }

    pub(crate) fn finish(&mut self, queue: usize) {
        self.queues[queue].done += 1;
    }
}

/// Works queues off until one has done so much, or nothing can go on.
pub(crate) fn work_until(queue: usize, number: u64) {
    work(|state| state.queues[queue].done >= number);
    crate::driver(|state| {
        state.report.waits += 1;
        // What was ordered before that work is ordered before whatever the host does next.
        let clock = if number == state.queues[queue].queued {
            state.queues[queue].clock.clone()
        } else {
            Clock::from([(queue, number)])
        };
        join(&mut state.host, &clock);
        state.forget_what_is_past();
    });
}

pub(crate) fn work(enough: impl Fn(&State) -> bool) {
    loop {
        let next = crate::driver(|state| if enough(state) { None } else { state.next() });
        let Some((queue, task)) = next else { return };
        task();
        crate::driver(|state| state.finish(queue));
    }
}

/// What is done at once where queues are eager.
pub(crate) fn eagerly() {
    if crate::driver(|state| state.settings.order == Order::Eager) {
        work(|_| false);
    }
}

//! The watchdog of real runs: a thread that looks from time to time whether the guest runs, and adds up how long.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use crate::PolicyError;

/// So many looks make up the limit.
const LOOKS: u32 = 32;
/// The longest between two looks: an overdue guest is stopped at a look.
const LOOK_MOST: Duration = Duration::from_millis(50);

/// Told when the guest starts to run and when it stops; does nothing where there is no limit.
pub(crate) struct Watch<'a>(Option<&'a AtomicBool>);

impl Watch<'_> {
    /// Runs a stretch of the guest under the eye of the watchdog.
    pub(crate) fn over<T>(&self, stretch: impl FnOnce() -> T) -> T {
        self.tell(true);
        let result = stretch();
        self.tell(false);
        result
    }

    fn tell(&self, runs: bool) {
        if let Some(place) = self.0 {
            place.store(runs, Ordering::Relaxed);
        }
    }
}

/// Does `work`; calls `interrupt` when its stretches have lasted `limit` together, and at each look from then on.
///
/// # Errors
/// [`PolicyError::Host`] if the watchdog's thread cannot be started.
pub(crate) fn watched<T>(
    limit: Option<Duration>,
    interrupt: impl Fn() + Send,
    work: impl FnOnce(&Watch<'_>) -> T,
) -> Result<T, PolicyError> {
    let Some(limit) = limit else { return Ok(work(&Watch(None))) };
    let runs = AtomicBool::new(false);
    // Hung up when the work has ended, or has panicked.
    let (line, ended) = channel();
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name("policy-watchdog".to_owned());
        let seen = &runs;
        let spawned = builder.spawn_scoped(scope, move || guard(&ended, seen, limit, interrupt));
        spawned.map_err(|error| PolicyError::Host { reason: error.to_string() })?;
        let result = work(&Watch(Some(&runs)));
        drop(line);
        Ok(result)
    })
}

/// A guest that rests between looks and runs at none would have to know when they are, and it has no clock.
fn guard(ended: &Receiver<()>, runs: &AtomicBool, limit: Duration, interrupt: impl Fn()) {
    let look = (limit / LOOKS).clamp(Duration::from_micros(100), LOOK_MOST);
    let mut left = limit;
    while ended.recv_timeout(look) == Err(RecvTimeoutError::Timeout) {
        if runs.load(Ordering::Relaxed) {
            left = left.saturating_sub(look);
        }
        if left.is_zero() {
            interrupt();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use super::*;

    /// A guest that answers in time whenever it is looked at alone, and not on the whole.
    #[test]
    fn stretches_add_up() {
        let stopped = AtomicBool::new(false);
        let mut stretches = 0u32;
        let limit = Duration::from_millis(20);
        watched(
            Some(limit),
            || stopped.store(true, Ordering::Relaxed),
            |watch| {
                while !stopped.load(Ordering::Relaxed) {
                    watch.over(|| std::thread::sleep(Duration::from_millis(2)));
                    stretches += 1;
                }
            },
        )
        .unwrap();
        assert!(stretches > 1, "no stretch alone is as long as the limit");
    }

    #[test]
    fn what_the_caller_does_between_stretches_does_not_count() {
        let stopped = AtomicBool::new(false);
        watched(
            Some(Duration::from_millis(5)),
            || stopped.store(true, Ordering::Relaxed),
            |watch| {
                watch.over(|| ());
                std::thread::sleep(Duration::from_millis(50));
            },
        )
        .unwrap();
        assert!(!stopped.load(Ordering::Relaxed));
    }

    #[test]
    fn a_panic_of_the_work_ends_the_watchdog() {
        let caught = std::panic::catch_unwind(|| watched(Some(Duration::from_secs(60)), || (), |_| panic!("broken")));
        assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"broken"));
    }
}

//! Taking the time of things, robustly: several rounds over everything, the median of each round, and the spread of
//! the rounds. A disturbance of a second spoils a round of some probes and not all rounds of one.

use std::time::{Duration, Instant};

use loadline_core::Quantiles;

/// A probe stops sampling in a round when it has used so much time; one sample is always taken.
const ROUND: Duration = Duration::from_millis(16);
/// More samples do not move a median.
const SAMPLES: usize = 15;

/// Seconds of one call.
pub(crate) fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

/// What was queued takes at least so long before somebody waits for it: waiting takes some ten microseconds.
const QUEUED: Duration = Duration::from_millis(2);
/// A queue takes no more calls than this without waiting, itself.
const CALLS: usize = 200;

/// The median time of calls in one round, in nanoseconds, after a call that warms up. Where calls are only queued,
/// `wait` waits for them; their time is a share of what many take then, as it is in a run.
pub(super) fn round<E>(
    wait: Option<&dyn Fn() -> Result<(), E>>,
    call: impl FnMut() -> Result<(), E>,
) -> Result<f64, E> {
    match wait {
        Some(wait) => queued(wait, call),
        None => called(call),
    }
}

fn queued<E>(wait: &dyn Fn() -> Result<(), E>, mut call: impl FnMut() -> Result<(), E>) -> Result<f64, E> {
    let mut some = |calls: usize| -> Result<Duration, E> {
        let start = Instant::now();
        (0..calls).try_for_each(|_| call())?;
        wait()?;
        Ok(start.elapsed())
    };
    some(1)?;
    let one = some(1)?.as_secs_f64();
    let calls = ((QUEUED.as_secs_f64() / one.max(1e-9)).ceil() as usize).clamp(1, CALLS);
    let begun = Instant::now();
    let mut samples = Vec::with_capacity(SAMPLES);
    while samples.is_empty() || (samples.len() < SAMPLES && begun.elapsed() < ROUND) {
        samples.push(some(calls)?.as_secs_f64() * 1e9 / calls as f64);
    }
    Ok(quantile(&mut samples, 0.5))
}

fn called<E>(mut call: impl FnMut() -> Result<(), E>) -> Result<f64, E> {
    call()?;
    let begun = Instant::now();
    let mut samples = Vec::with_capacity(SAMPLES);
    while samples.is_empty() || (samples.len() < SAMPLES && begun.elapsed() < ROUND) {
        let start = Instant::now();
        call()?;
        samples.push(start.elapsed().as_secs_f64() * 1e9);
    }
    Ok(quantile(&mut samples, 0.5))
}

/// The spread of some values.
pub(super) fn spread(mut values: Vec<f64>) -> Quantiles {
    Quantiles { p10: quantile(&mut values, 0.1), p50: quantile(&mut values, 0.5), p90: quantile(&mut values, 0.9) }
}

/// A quantile, interpolated between the two nearest values; there must be one.
fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = share * (values.len() - 1) as f64;
    let (low, high) = (values[place.floor() as usize], values[place.ceil() as usize]);
    low + (high - low) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_is_that_of_the_values() {
        let spread = spread(vec![5.0, 1.0, 3.0, 2.0, 4.0]);
        assert_eq!((spread.p10, spread.p50, spread.p90), (1.4, 3.0, 4.6));
    }

    #[test]
    fn a_round_takes_at_least_one_sample_after_the_warm_up() {
        let mut calls = 0;
        let time = round::<()>(None, || {
            calls += 1;
            Ok(())
        });
        assert!(calls >= 2 && time.is_ok_and(|t| t >= 0.0));
    }

    #[test]
    fn what_is_queued_is_waited_for_and_counted() {
        let (calls, waits) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
        let wait = || {
            waits.set(waits.get() + 1);
            Ok::<(), ()>(())
        };
        let time = round(Some(&wait), || {
            calls.set(calls.get() + 1);
            Ok(())
        });
        assert!(time.is_ok_and(|t| t >= 0.0));
        assert!(waits.get() >= 3 && calls.get() > waits.get(), "{} calls, {} waits", calls.get(), waits.get());
    }
}

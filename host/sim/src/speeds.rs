//! How fast computing and loading go beside each other, in whole numbers, so that equal inputs give equal nanoseconds.

use loadline_core::{Contention, Nanos};

/// The speed of whoever is alone: one nanosecond of work in a nanosecond.
pub(crate) const FULL: u32 = 1 << 16;

/// Speeds while the device computes and a load is in flight, in parts of 2^16 of the speed alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speeds {
    pub(crate) compute: u32,
    pub(crate) load: u32,
}

impl Speeds {
    /// Neither slows the other.
    pub const NONE: Self = Self { compute: FULL, load: FULL };

    /// The speeds of a machine: each share rounded to the nearest part of 2^16, at least one part and at most all.
    #[must_use]
    pub fn of(contention: Contention) -> Self {
        let parts = |share: f64| ((share * f64::from(FULL)).round() as u32).clamp(1, FULL);
        Self { compute: parts(contention.compute), load: parts(contention.load) }
    }
}

/// Work that is left: nanoseconds alone times 2^16, which holds every [`Nanos`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Work(u128);

impl Work {
    /// As much as takes so long alone.
    pub(crate) const fn alone(time: Nanos) -> Self {
        Self((time.0 as u128) << 16)
    }

    /// How long it takes at a speed, rounded up: a thing that ends within a nanosecond ends with it.
    pub(crate) fn time(self, speed: u32) -> Nanos {
        let time = if speed == FULL { self.0.div_ceil(1 << 16) } else { self.0.div_ceil(u128::from(speed)) };
        Nanos(u64::try_from(time).unwrap_or(u64::MAX))
    }

    /// Takes off what gets done in a time; nothing is left where more would be.
    pub(crate) fn advance(&mut self, time: Nanos, speed: u32) {
        self.0 = self.0.saturating_sub(u128::from(time.0) * u128::from(speed));
    }
}

//! A machine that exists only as numbers: the second implementation of [`Device`].
//!
//! Lanes (compute, link, disk) are clocks that move forward when something is queued on them, so a run is evaluated
//! in the order of the calls, exactly and without a queue of events: a task starts when the lane is free and its
//! weights have arrived, a load when the lane is free and its slot is. Loads wait in their queue until somebody needs
//! to know when they end, since a task may slow them down that has not been asked for yet. Where a stage repeats
//! itself, whole periods are gone over at once, with the same result to the nanosecond.
//!
//! [`Device`]: loadline_engine::Device

mod device;
mod loads;
mod speeds;
mod steady;
mod times;

pub use device::{Moment, SimDevice};
pub use speeds::Speeds;
pub use times::{Interval, Times};

//! A machine that exists only as numbers: the second implementation of [`Device`].
//!
//! Lanes (compute, link, disk) are clocks that move forward when something is queued on them, so a run is evaluated
//! in the order of the calls, exactly and without a queue of events: a task starts when the lane is free and its
//! weights have arrived, a load when the lane is free and its slot is.
//!
//! [`Device`]: loadline_engine::Device

mod device;
mod times;

pub use device::SimDevice;
pub use times::Times;

//! Points in the order of streams.

use std::time::Duration;

use super::context::Context;
use super::error::CudaError;
use super::sys::{self, CUevent};

/// A point in the order of a stream, once it is recorded there.
pub struct Event {
    pub(super) context: Context,
    pub(super) raw: CUevent,
}

// SAFETY: events may be used from any thread; see `Context`.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Event({:?})", self.raw)
    }
}

impl Event {
    /// An event that orders and also tells time.
    ///
    /// # Errors
    /// What the driver says.
    pub fn timed(context: &Context) -> Result<Self, CudaError> {
        Self::with_flags(context, sys::EVENT_DEFAULT)
    }

    /// An event that only orders, which costs the GPU less.
    ///
    /// # Errors
    /// What the driver says.
    pub fn untimed(context: &Context) -> Result<Self, CudaError> {
        Self::with_flags(context, sys::EVENT_DISABLE_TIMING)
    }

    fn with_flags(context: &Context, flags: u32) -> Result<Self, CudaError> {
        let (api, mut raw) = (context.bind()?, std::ptr::null_mut());
        // SAFETY: a pointer to a handle of ours.
        context.check("cuEventCreate", unsafe { (api.cuEventCreate)(&raw mut raw, flags) })?;
        Ok(Self { context: context.clone(), raw })
    }

    /// Whether it has happened.
    ///
    /// # Errors
    /// If work before it failed.
    pub fn has_happened(&self) -> Result<bool, CudaError> {
        let api = self.context.bind()?;
        // SAFETY: the event lives as long as `self`, here and below.
        match unsafe { (api.cuEventQuery)(self.raw) } {
            sys::NOT_READY => Ok(false),
            code => self.context.check("cuEventQuery", code).map(|()| true),
        }
    }

    /// Blocks until it has happened.
    ///
    /// # Errors
    /// If work before it failed.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        let api = self.context.bind()?;
        // SAFETY: see above.
        self.context.check("cuEventSynchronize", unsafe { (api.cuEventSynchronize)(self.raw) })
    }

    /// The time from `earlier` to this one. Both have times and have happened; half a microsecond is the resolution,
    /// and less of it is left the longer the time.
    ///
    /// # Errors
    /// If one has not happened or has no time.
    pub fn since(&self, earlier: &Self) -> Result<Duration, CudaError> {
        let (api, mut milliseconds) = (self.context.bind()?, 0f32);
        // SAFETY: both events live, and the pointer is to a number of ours.
        let code = unsafe { (api.cuEventElapsedTime)(&raw mut milliseconds, earlier.raw, self.raw) };
        self.context.check("cuEventElapsedTime", code)?;
        Ok(Duration::from_secs_f64(f64::from(milliseconds.max(0.0)) / 1e3))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if let Ok(api) = self.context.bind() {
            // SAFETY: created by `with_flags`. The driver keeps what streams still wait for.
            let _ = unsafe { (api.cuEventDestroy_v2)(self.raw) };
        }
    }
}

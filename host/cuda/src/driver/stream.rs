//! Queues of work on the GPU.

use core::ffi::c_void;

use super::args::Args;
use super::context::Context;
use super::error::CudaError;
use super::event::Event;
use super::memory::DevicePtr;
use super::module::Kernel;
use super::sys::{self, CUstream};

/// How many threads run a kernel, and the shared memory of each block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Blocks along x, y and z; at most 65 535 along y and z.
    pub grid: [u32; 3],
    /// Threads of a block along x, y and z; at most 1024 in all.
    pub block: [u32; 3],
    /// Bytes of shared memory that are given at the launch; for more than 48 KiB see [`Kernel::allow_shared`].
    pub shared: u32,
}

/// A queue of work on the GPU, done in order. Queues are ordered among each other by events alone.
#[derive(Clone)]
pub struct Stream(std::sync::Arc<Inner>);

struct Inner {
    context: Context,
    raw: CUstream,
}

// SAFETY: streams may be used from any thread; see `Context`.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stream({:?})", self.0.raw)
    }
}

impl Stream {
    /// A queue that waits for no other one unless it is told to.
    ///
    /// # Errors
    /// What the driver says, here and below. An error of work that was queued earlier may come from any later call.
    pub fn new(context: &Context) -> Result<Self, CudaError> {
        let (api, mut raw) = (context.bind()?, std::ptr::null_mut());
        // SAFETY: a pointer to a handle of ours.
        context.check("cuStreamCreate", unsafe { (api.cuStreamCreate)(&raw mut raw, sys::STREAM_NON_BLOCKING) })?;
        Ok(Self(std::sync::Arc::new(Inner { context: context.clone(), raw })))
    }

    /// Its context.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.0.context
    }

    /// The driver's handle, for libraries of NVIDIA's.
    #[must_use]
    pub fn raw(&self) -> CUstream {
        self.0.raw
    }

    /// Marks this place in the queue.
    ///
    /// # Errors
    /// See [`new`](Self::new).
    pub fn record(&self, event: &Event) -> Result<(), CudaError> {
        let api = self.0.context.bind()?;
        // SAFETY: both live.
        self.check("cuEventRecord", unsafe { (api.cuEventRecord)(event.raw, self.raw()) })
    }

    /// Makes what is queued from now on wait for the place where `event` was recorded last; the caller goes on.
    ///
    /// # Errors
    /// See [`new`](Self::new).
    pub fn wait(&self, event: &Event) -> Result<(), CudaError> {
        let api = self.0.context.bind()?;
        // SAFETY: both live.
        self.check("cuStreamWaitEvent", unsafe { (api.cuStreamWaitEvent)(self.raw(), event.raw, 0) })
    }

    /// Blocks until everything queued has been done.
    ///
    /// # Errors
    /// See [`new`](Self::new).
    pub fn synchronize(&self) -> Result<(), CudaError> {
        let api = self.0.context.bind()?;
        // SAFETY: the stream lives as long as `self`, here and below.
        self.check("cuStreamSynchronize", unsafe { (api.cuStreamSynchronize)(self.raw()) })
    }

    /// Queues a copy from host memory.
    ///
    /// # Errors
    /// See [`new`](Self::new).
    ///
    /// # Safety
    /// The bytes stay where they are, and are not written by anybody whom the stream's order does not include, until
    /// the copy has been done.
    pub unsafe fn upload_later(&self, to: DevicePtr, from: *const u8, bytes: usize) -> Result<(), CudaError> {
        let api = self.0.context.bind()?;
        // SAFETY: the caller's word for the source; the target is the driver's to check.
        let code = unsafe { (api.cuMemcpyHtoDAsync_v2)(to.0, from.cast(), bytes, self.raw()) };
        self.check("cuMemcpyHtoDAsync", code)
    }

    /// Copies from host memory of the caller's, who may use it again at once. The driver stages bytes that are not
    /// locked: up to 64 KiB without waiting, more when the stream has come so far.
    ///
    /// # Errors
    /// See [`new`](Self::new).
    pub fn upload(&self, to: DevicePtr, from: &[u8]) -> Result<(), CudaError> {
        // SAFETY: a driver that reads memory which it has not locked has done so when the call comes back. Memory that
        // is locked is a `Pinned`'s, which hands out no slices.
        unsafe { self.upload_later(to, from.as_ptr(), from.len()) }
    }

    /// Copies to host memory, when everything queued has been done; blocks until then.
    ///
    /// # Errors
    /// See [`new`](Self::new).
    pub fn download(&self, from: DevicePtr, to: &mut [u8]) -> Result<(), CudaError> {
        let api = self.0.context.bind()?;
        // SAFETY: the slice is borrowed until the copy has been done, for the next line waits for it.
        let code = unsafe { (api.cuMemcpyDtoHAsync_v2)(to.as_mut_ptr().cast(), from.0, to.len(), self.raw()) };
        self.check("cuMemcpyDtoHAsync", code).and(self.synchronize())
    }

    /// Queues a copy to host memory.
    ///
    /// # Errors
    /// See [`new`](Self::new).
    ///
    /// # Safety
    /// The bytes stay where they are, and nobody reads or writes them, until the copy has been done.
    pub unsafe fn download_later(&self, from: DevicePtr, to: *mut u8, bytes: usize) -> Result<(), CudaError> {
        let api = self.0.context.bind()?;
        // SAFETY: the caller's word for the target; the source is the driver's to check.
        let code = unsafe { (api.cuMemcpyDtoHAsync_v2)(to.cast(), from.0, bytes, self.raw()) };
        self.check("cuMemcpyDtoHAsync", code)
    }

    /// Queues a copy within the device; the ranges do not overlap.
    ///
    /// # Errors
    /// See [`new`](Self::new).
    pub fn copy(&self, to: DevicePtr, from: DevicePtr, bytes: usize) -> Result<(), CudaError> {
        let api = self.0.context.bind()?;
        // SAFETY: both are device addresses, which the driver checks.
        let code = unsafe { (api.cuMemcpyDtoDAsync_v2)(to.0, from.0, bytes, self.raw()) };
        self.check("cuMemcpyDtoDAsync", code)
    }

    /// Queues filling bytes with a value.
    ///
    /// # Errors
    /// See [`new`](Self::new).
    pub fn fill(&self, to: DevicePtr, value: u8, bytes: usize) -> Result<(), CudaError> {
        let api = self.0.context.bind()?;
        // SAFETY: a device address, which the driver checks.
        self.check("cuMemsetD8Async", unsafe { (api.cuMemsetD8Async)(to.0, value, bytes, self.raw()) })
    }

    /// Queues a kernel.
    ///
    /// # Errors
    /// See [`new`](Self::new).
    ///
    /// # Safety
    /// The arguments are those that the kernel declares, in number, order and size; what they point to is there, on the
    /// device, and large enough.
    pub unsafe fn launch(&self, kernel: &Kernel, shape: Shape, args: &Args) -> Result<(), CudaError> {
        let api = self.0.context.bind()?;
        let mut pointers = args.pointers();
        let ([gx, gy, gz], [bx, by, bz]) = (shape.grid, shape.block);
        let (function, shared, none) = (kernel.raw(), shape.shared, std::ptr::null_mut());
        // SAFETY: the driver copies the arguments before it comes back; the rest is the caller's word.
        let code = unsafe {
            let parameters = pointers.as_mut_ptr();
            (api.cuLaunchKernel)(function, gx, gy, gz, bx, by, bz, shared, self.raw(), parameters, none)
        };
        self.check("cuLaunchKernel", code)
    }

    /// Queues a call of a function on the host, by a thread of the driver's. What is queued after it waits for it. It
    /// must not call the driver. If the GPU is lost it may never be called.
    ///
    /// # Errors
    /// See [`new`](Self::new).
    pub fn call(&self, function: impl FnOnce() + Send + 'static) -> Result<(), CudaError> {
        type Boxed = Box<dyn FnOnce() + Send>;
        unsafe extern "C" fn run(data: *mut c_void) {
            // SAFETY: made below, and the driver calls this once.
            let function = unsafe { Box::from_raw(data.cast::<Boxed>()) };
            // A panic has been reported by its hook, and must not cross the driver.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(function));
        }
        let api = self.0.context.bind()?;
        let data = Box::into_raw(Box::new(Box::new(function) as Boxed));
        // SAFETY: the box belongs to the driver from here on.
        let code = unsafe { (api.cuLaunchHostFunc)(self.raw(), Some(run), data.cast()) };
        if code != sys::SUCCESS {
            // SAFETY: the driver has not taken it.
            drop(unsafe { Box::from_raw(data) });
        }
        self.check("cuLaunchHostFunc", code)
    }

    fn check(&self, call: &'static str, code: sys::CUresult) -> Result<(), CudaError> {
        self.0.context.check(call, code)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Ok(api) = self.context.bind() {
            // SAFETY: created by `new`; the driver finishes what is queued first.
            let _ = unsafe { (api.cuStreamDestroy_v2)(self.raw) };
        }
    }
}

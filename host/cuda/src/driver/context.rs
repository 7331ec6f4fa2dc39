//! One GPU in use.

use std::sync::Arc;

use super::error::{CudaError, way_out_of_loss};
use super::gpu::Gpu;
use super::library::Driver;
use super::memory::DevicePtr;
use super::sys::{self, Api, CUcontext, CUresult};

/// What a GPU has and what of it is free, for all processes together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemInfo {
    /// Free bytes.
    pub free: u64,
    /// All bytes that programs can have.
    pub total: u64,
}

/// One GPU in use: its primary context, which libraries of NVIDIA's use too.
#[derive(Clone)]
pub struct Context(Arc<Inner>);

struct Inner {
    driver: Driver,
    gpu: Gpu,
    raw: CUcontext,
}

// SAFETY: the driver's contexts may be used from any thread that makes them current, which every call does.
unsafe impl Send for Inner {}
// SAFETY: as above; the driver locks what it must.
unsafe impl Sync for Inner {}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Context({})", self.0.gpu.name)
    }
}

impl Context {
    /// Takes a GPU into use.
    ///
    /// # Errors
    /// [`CudaError::GpuTooOld`], [`CudaError::OutOfMemory`] if not even a context fits, or what the driver says.
    pub fn new(driver: &Driver, gpu: &Gpu) -> Result<Self, CudaError> {
        gpu.require()?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: a pointer to a handle of ours.
        let code = unsafe { (driver.api().cuDevicePrimaryCtxRetain)(&raw mut raw, gpu.device) };
        if code == sys::OUT_OF_MEMORY {
            return Err(CudaError::OutOfMemory { requested: 0 });
        }
        driver.check("cuDevicePrimaryCtxRetain", code)?;
        Ok(Self(Arc::new(Inner { driver: driver.clone(), gpu: gpu.clone(), raw })))
    }

    /// Its GPU.
    #[must_use]
    pub fn gpu(&self) -> &Gpu {
        &self.0.gpu
    }

    /// Its driver.
    #[must_use]
    pub fn driver(&self) -> &Driver {
        &self.0.driver
    }

    /// What is free on the GPU now.
    ///
    /// # Errors
    /// If the GPU is lost.
    pub fn mem_info(&self) -> Result<MemInfo, CudaError> {
        let api = self.bind()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: pointers to numbers of ours.
        self.check("cuMemGetInfo", unsafe { (api.cuMemGetInfo_v2)(&raw mut free, &raw mut total) })?;
        Ok(MemInfo { free: free as u64, total: total as u64 })
    }

    /// Bytes that a context takes on this GPU: those that a second one takes while it is there. Nobody else may
    /// allocate meanwhile.
    ///
    /// # Errors
    /// If there is no room for a second one.
    pub fn measure(&self) -> Result<u64, CudaError> {
        let before = self.mem_info()?.free;
        let (api, mut second) = (self.0.driver.api(), std::ptr::null_mut());
        // SAFETY: a pointer to a handle of ours.
        let code = unsafe { (api.cuCtxCreate_v2)(&raw mut second, 0, self.0.gpu.device) };
        self.check_memory("cuCtxCreate", 0, code)?;
        let after = self.mem_info();
        // SAFETY: created above, and nobody else knows it.
        self.check("cuCtxDestroy", unsafe { (api.cuCtxDestroy_v2)(second) })?;
        self.bind()?;
        Ok(before.saturating_sub(after?.free))
    }

    /// Bytes of the GPU that `work` has left taken, with what it gives. Nobody else may allocate meanwhile.
    ///
    /// # Errors
    /// Those of `work`, and a lost GPU.
    pub fn taken_by<T>(&self, work: impl FnOnce() -> Result<T, CudaError>) -> Result<(T, u64), CudaError> {
        let before = self.mem_info()?.free;
        let made = work()?;
        Ok((made, before.saturating_sub(self.mem_info()?.free)))
    }

    /// Memory outside of any pool, for what lasts as long as the context.
    pub(crate) fn allocate(&self, bytes: u64) -> Result<DevicePtr, CudaError> {
        let (api, mut address) = (self.bind()?, 0);
        // SAFETY: a pointer to a number of ours.
        self.check_memory("cuMemAlloc", bytes, unsafe { (api.cuMemAlloc_v2)(&raw mut address, bytes as usize) })?;
        Ok(DevicePtr(address))
    }

    /// Gives it back, when everything queued has been done.
    pub(crate) fn release(&self, memory: DevicePtr) -> Result<(), CudaError> {
        let api = self.bind()?;
        // SAFETY: the address is the driver's to check.
        self.check("cuMemFree", unsafe { (api.cuMemFree_v2)(memory.0) })
    }

    /// Makes it the calling thread's, for a library that uses the thread's.
    pub(crate) fn enter(&self) -> Result<(), CudaError> {
        self.bind().map(|_| ())
    }

    /// Makes it the calling thread's, and gives the functions to call then.
    pub(super) fn bind(&self) -> Result<&Api, CudaError> {
        let api = self.0.driver.api();
        // SAFETY: the context lives as long as `self`.
        self.check("cuCtxSetCurrent", unsafe { (api.cuCtxSetCurrent)(self.0.raw) })?;
        Ok(api)
    }

    pub(super) fn check(&self, call: &'static str, code: CUresult) -> Result<(), CudaError> {
        let Err(error) = self.0.driver.check(call, code) else { return Ok(()) };
        let CudaError::Failed { call, name, text } = error else { return Err(error) };
        Err(match way_out_of_loss(code) {
            Some(way_out) => CudaError::Lost { gpu: self.0.gpu.name.clone(), call, name, text, way_out },
            None => CudaError::Failed { call, name, text },
        })
    }

    /// The same for a call that takes device memory.
    pub(super) fn check_memory(&self, call: &'static str, requested: u64, code: CUresult) -> Result<(), CudaError> {
        if code == sys::OUT_OF_MEMORY {
            return Err(CudaError::OutOfMemory { requested });
        }
        self.check(call, code)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: retained once, in `new`. A lost GPU cannot be given back any better.
        let _ = unsafe { (self.driver.api().cuDevicePrimaryCtxRelease_v2)(self.gpu.device) };
    }
}

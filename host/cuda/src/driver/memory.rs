//! Device memory: addresses, and a pool with a limit.

use core::ffi::c_void;

use super::context::Context;
use super::error::CudaError;
use super::stream::Stream;
use super::sys::{self, CUmemLocation, CUmemPool_attribute, CUmemPoolProps, CUmemoryPool};

/// An address in device memory. It owns nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DevicePtr(pub u64);

impl DevicePtr {
    /// So many bytes further on.
    #[must_use]
    pub fn offset(self, bytes: u64) -> Self {
        Self(self.0 + bytes)
    }
}

/// The device memory of a run: whoever asks it for more than its limit gets an error from the driver, and what is given
/// back stays with it until it is trimmed.
pub struct Pool {
    context: Context,
    raw: CUmemoryPool,
    limit: u64,
}

// SAFETY: pools may be used from any thread; see `Context`.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} bytes)", self.limit)
    }
}

impl Pool {
    /// A pool of at most so many bytes, which becomes the GPU's current one: libraries that allocate in the order of a
    /// stream are under its limit too.
    ///
    /// # Errors
    /// What the driver says.
    pub fn new(context: &Context, limit: u64) -> Result<Self, CudaError> {
        let (api, mut raw) = (context.bind()?, std::ptr::null_mut());
        let device = context.gpu().device;
        let properties = CUmemPoolProps {
            allocType: sys::MEM_ALLOCATION_TYPE_PINNED,
            handleTypes: sys::MEM_HANDLE_TYPE_NONE,
            location: CUmemLocation { type_: sys::MEM_LOCATION_TYPE_DEVICE, id: device },
            win32SecurityAttributes: std::ptr::null_mut(),
            maxSize: limit as usize,
            reserved: [0; 56],
        };
        // SAFETY: pointers to values of ours that outlive the call.
        let code = unsafe { (api.cuMemPoolCreate)(&raw mut raw, &raw const properties) };
        context.check_memory("cuMemPoolCreate", 0, code)?;
        let pool = Self { context: context.clone(), raw, limit };
        pool.keep_everything()?;
        // SAFETY: the pool lives as long as `pool`, and a pool that is destroyed is not the current one any more.
        context.check("cuDeviceSetMemPool", unsafe { (api.cuDeviceSetMemPool)(device, raw) })?;
        Ok(pool)
    }

    /// Without this the driver gives memory back at every synchronisation, and takes time to get it again.
    fn keep_everything(&self) -> Result<(), CudaError> {
        let (api, mut all) = (self.context.bind()?, u64::MAX);
        let value = (&raw mut all).cast::<c_void>();
        // SAFETY: the attribute is a 64-bit number, and the pointer is to one.
        let code = unsafe { (api.cuMemPoolSetAttribute)(self.raw, sys::MEMPOOL_ATTR_RELEASE_THRESHOLD, value) };
        self.context.check("cuMemPoolSetAttribute", code)
    }

    /// Its limit in bytes.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Memory of so many bytes, from the stream's place in its order on; other streams wait for that place.
    ///
    /// # Errors
    /// [`CudaError::OutOfMemory`] if the limit would be exceeded or the GPU has no more.
    pub fn allocate(&self, stream: &Stream, bytes: u64) -> Result<DevicePtr, CudaError> {
        let (api, mut address) = (self.context.bind()?, 0);
        let (size, stream) = (bytes.max(1) as usize, stream.raw());
        // SAFETY: a pointer to a number of ours; pool and stream live.
        let code = unsafe { (api.cuMemAllocFromPoolAsync)(&raw mut address, size, self.raw, stream) };
        self.context.check_memory("cuMemAllocFromPoolAsync", bytes, code)?;
        Ok(DevicePtr(address))
    }

    /// Gives memory back, at the stream's place in its order: nothing after it may use the memory, and other streams
    /// have been waited for.
    ///
    /// # Errors
    /// What the driver says.
    pub fn free(&self, stream: &Stream, memory: DevicePtr) -> Result<(), CudaError> {
        let api = self.context.bind()?;
        // SAFETY: the address is the driver's to check.
        self.context.check("cuMemFreeAsync", unsafe { (api.cuMemFreeAsync)(memory.0, stream.raw()) })
    }

    /// Gives what nobody uses back to the system, but for so many bytes.
    ///
    /// # Errors
    /// What the driver says.
    pub fn trim(&self, keep: u64) -> Result<(), CudaError> {
        let api = self.context.bind()?;
        // SAFETY: the pool lives as long as `self`.
        self.context.check("cuMemPoolTrimTo", unsafe { (api.cuMemPoolTrimTo)(self.raw, keep as usize) })
    }

    /// Bytes that it holds of the GPU, used or not.
    ///
    /// # Errors
    /// What the driver says, here and below.
    pub fn reserved(&self) -> Result<u64, CudaError> {
        self.number(sys::MEMPOOL_ATTR_RESERVED_MEM_CURRENT)
    }

    /// The most bytes that it has held.
    ///
    /// # Errors
    /// See above.
    pub fn reserved_most(&self) -> Result<u64, CudaError> {
        self.number(sys::MEMPOOL_ATTR_RESERVED_MEM_HIGH)
    }

    /// Bytes that are allocated.
    ///
    /// # Errors
    /// See above.
    pub fn used(&self) -> Result<u64, CudaError> {
        self.number(sys::MEMPOOL_ATTR_USED_MEM_CURRENT)
    }

    fn number(&self, attribute: CUmemPool_attribute) -> Result<u64, CudaError> {
        let (api, mut value) = (self.context.bind()?, 0u64);
        // SAFETY: the attributes asked for are 64-bit numbers, and the pointer is to one.
        let code = unsafe { (api.cuMemPoolGetAttribute)(self.raw, attribute, (&raw mut value).cast()) };
        self.context.check("cuMemPoolGetAttribute", code)?;
        Ok(value)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Ok(api) = self.context.bind() {
            // SAFETY: created by `new`; the driver frees it when the last allocation has been given back.
            let _ = unsafe { (api.cuMemPoolDestroy)(self.raw) };
        }
    }
}

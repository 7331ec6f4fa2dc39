//! The part of NVIDIA's driver interface that is used: types and constants from `cudarc`, which are generated from
//! NVIDIA's headers, and a table of functions.
//!
//! Results are plain numbers. `cudarc` has an enum for them, and a driver newer than the enum answers with codes that
//! it does not have; those are just the errors of lost GPUs. Everything else in a signature is `cudarc`'s: a function
//! that is declared otherwise than there does not compile.
#![allow(missing_docs)] // The names are NVIDIA's, and so is their documentation.

use core::ffi::{c_char, c_int, c_uint, c_void};

pub use cudarc::driver::sys::{
    CUcontext, CUdevice, CUdevice_attribute, CUdeviceptr, CUevent, CUfunction, CUfunction_attribute, CUhostFn,
    CUjit_option, CUmemAllocationHandleType, CUmemAllocationType, CUmemLocation, CUmemLocationType,
    CUmemPool_attribute, CUmemPoolProps, CUmemoryPool, CUmodule, CUstream,
};

use crate::table::table;

/// What every function answers.
pub type CUresult = c_int;

macro_rules! results {
    ($($name:ident = $theirs:ident,)*) => {
        $(pub const $name: CUresult = cudarc::driver::sys::cudaError_enum::$theirs as CUresult;)*
    };
}

results! {
    SUCCESS = CUDA_SUCCESS,
    INVALID_VALUE = CUDA_ERROR_INVALID_VALUE,
    OUT_OF_MEMORY = CUDA_ERROR_OUT_OF_MEMORY,
    NOT_INITIALIZED = CUDA_ERROR_NOT_INITIALIZED,
    DEINITIALIZED = CUDA_ERROR_DEINITIALIZED,
    STUB_LIBRARY = CUDA_ERROR_STUB_LIBRARY,
    DEVICE_UNAVAILABLE = CUDA_ERROR_DEVICE_UNAVAILABLE,
    NO_DEVICE = CUDA_ERROR_NO_DEVICE,
    INVALID_DEVICE = CUDA_ERROR_INVALID_DEVICE,
    INVALID_CONTEXT = CUDA_ERROR_INVALID_CONTEXT,
    NO_BINARY_FOR_GPU = CUDA_ERROR_NO_BINARY_FOR_GPU,
    ECC_UNCORRECTABLE = CUDA_ERROR_ECC_UNCORRECTABLE,
    INVALID_PTX = CUDA_ERROR_INVALID_PTX,
    NVLINK_UNCORRECTABLE = CUDA_ERROR_NVLINK_UNCORRECTABLE,
    UNSUPPORTED_PTX_VERSION = CUDA_ERROR_UNSUPPORTED_PTX_VERSION,
    INVALID_HANDLE = CUDA_ERROR_INVALID_HANDLE,
    NOT_FOUND = CUDA_ERROR_NOT_FOUND,
    NOT_READY = CUDA_ERROR_NOT_READY,
    ILLEGAL_ADDRESS = CUDA_ERROR_ILLEGAL_ADDRESS,
    LAUNCH_OUT_OF_RESOURCES = CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES,
    LAUNCH_TIMEOUT = CUDA_ERROR_LAUNCH_TIMEOUT,
    CONTEXT_IS_DESTROYED = CUDA_ERROR_CONTEXT_IS_DESTROYED,
    ASSERT = CUDA_ERROR_ASSERT,
    HOST_MEMORY_ALREADY_REGISTERED = CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED,
    HOST_MEMORY_NOT_REGISTERED = CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED,
    HARDWARE_STACK_ERROR = CUDA_ERROR_HARDWARE_STACK_ERROR,
    LAUNCH_FAILED = CUDA_ERROR_LAUNCH_FAILED,
    NOT_PERMITTED = CUDA_ERROR_NOT_PERMITTED,
    NOT_SUPPORTED = CUDA_ERROR_NOT_SUPPORTED,
    SYSTEM_NOT_READY = CUDA_ERROR_SYSTEM_NOT_READY,
    SYSTEM_DRIVER_MISMATCH = CUDA_ERROR_SYSTEM_DRIVER_MISMATCH,
    UNKNOWN = CUDA_ERROR_UNKNOWN,
}

/// Newer than the oldest driver that serves, and so than `cudarc`'s list for it.
pub const CONTAINED: CUresult = 226;

pub const DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: CUdevice_attribute =
    CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
pub const DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: CUdevice_attribute =
    CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR;
pub const DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: CUdevice_attribute =
    CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR;
pub const DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: CUdevice_attribute =
    CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
pub const DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED: CUdevice_attribute =
    CUdevice_attribute::CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED;
pub const DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED: CUdevice_attribute =
    CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED;

pub const FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES: CUfunction_attribute =
    CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;

pub const MEMPOOL_ATTR_RELEASE_THRESHOLD: CUmemPool_attribute = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
pub const MEMPOOL_ATTR_RESERVED_MEM_CURRENT: CUmemPool_attribute =
    CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT;
pub const MEMPOOL_ATTR_RESERVED_MEM_HIGH: CUmemPool_attribute = CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH;
pub const MEMPOOL_ATTR_USED_MEM_CURRENT: CUmemPool_attribute = CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT;
pub const MEMPOOL_ATTR_USED_MEM_HIGH: CUmemPool_attribute = CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH;

pub const STREAM_NON_BLOCKING: c_uint = cudarc::driver::sys::CUstream_flags::CU_STREAM_NON_BLOCKING as c_uint;
pub const EVENT_DEFAULT: c_uint = cudarc::driver::sys::CUevent_flags::CU_EVENT_DEFAULT as c_uint;
pub const EVENT_DISABLE_TIMING: c_uint = cudarc::driver::sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as c_uint;
pub const MEMHOSTREGISTER_PORTABLE: c_uint = cudarc::driver::sys::CU_MEMHOSTREGISTER_PORTABLE;

pub const JIT_ERROR_LOG_BUFFER: CUjit_option = CUjit_option::CU_JIT_ERROR_LOG_BUFFER;
pub const JIT_ERROR_LOG_BUFFER_SIZE_BYTES: CUjit_option = CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES;

pub const MEM_ALLOCATION_TYPE_PINNED: CUmemAllocationType = CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
pub const MEM_HANDLE_TYPE_NONE: CUmemAllocationHandleType = CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_NONE;
pub const MEM_LOCATION_TYPE_DEVICE: CUmemLocationType = CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE;

table! {
    /// The driver's functions. A value of this type is a driver, wherever it comes from.
    Api -> CUresult, as in cudarc::driver::sys:
    cuInit(c_uint);
    cuDriverGetVersion(*mut c_int);
    cuGetErrorName(CUresult, *mut *const c_char);
    cuGetErrorString(CUresult, *mut *const c_char);
    cuDeviceGetCount(*mut c_int);
    cuDeviceGet(*mut CUdevice, c_int);
    cuDeviceGetName(*mut c_char, c_int, CUdevice);
    cuDeviceTotalMem_v2(*mut usize, CUdevice);
    cuDeviceGetAttribute(*mut c_int, CUdevice_attribute, CUdevice);
    cuDeviceGetPCIBusId(*mut c_char, c_int, CUdevice);
    cuDevicePrimaryCtxRetain(*mut CUcontext, CUdevice);
    cuDevicePrimaryCtxRelease_v2(CUdevice);
    cuCtxCreate_v2(*mut CUcontext, c_uint, CUdevice);
    cuCtxDestroy_v2(CUcontext);
    cuCtxSetCurrent(CUcontext);
    cuMemGetInfo_v2(*mut usize, *mut usize);
    cuMemAlloc_v2(*mut CUdeviceptr, usize);
    cuMemFree_v2(CUdeviceptr);
    cuStreamCreate(*mut CUstream, c_uint);
    cuStreamDestroy_v2(CUstream);
    cuStreamSynchronize(CUstream);
    cuStreamWaitEvent(CUstream, CUevent, c_uint);
    cuEventCreate(*mut CUevent, c_uint);
    cuEventDestroy_v2(CUevent);
    cuEventRecord(CUevent, CUstream);
    cuEventQuery(CUevent);
    cuEventSynchronize(CUevent);
    cuEventElapsedTime(*mut f32, CUevent, CUevent);
    cuMemcpyHtoDAsync_v2(CUdeviceptr, *const c_void, usize, CUstream);
    cuMemcpyDtoHAsync_v2(*mut c_void, CUdeviceptr, usize, CUstream);
    cuMemcpyDtoDAsync_v2(CUdeviceptr, CUdeviceptr, usize, CUstream);
    cuMemsetD8Async(CUdeviceptr, u8, usize, CUstream);
    cuMemHostRegister_v2(*mut c_void, usize, c_uint);
    cuMemHostUnregister(*mut c_void);
    cuMemPoolCreate(*mut CUmemoryPool, *const CUmemPoolProps);
    cuMemPoolDestroy(CUmemoryPool);
    cuMemPoolSetAttribute(CUmemoryPool, CUmemPool_attribute, *mut c_void);
    cuMemPoolGetAttribute(CUmemoryPool, CUmemPool_attribute, *mut c_void);
    cuMemPoolTrimTo(CUmemoryPool, usize);
    cuDeviceSetMemPool(CUdevice, CUmemoryPool);
    cuMemAllocFromPoolAsync(*mut CUdeviceptr, usize, CUmemoryPool, CUstream);
    cuMemFreeAsync(CUdeviceptr, CUstream);
    cuModuleLoadDataEx(*mut CUmodule, *const c_void, c_uint, *mut CUjit_option, *mut *mut c_void);
    cuModuleUnload(CUmodule);
    cuModuleGetFunction(*mut CUfunction, CUmodule, *const c_char);
    cuFuncSetAttribute(CUfunction, CUfunction_attribute, c_int);
    cuLaunchKernel(
        CUfunction, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, CUstream, *mut *mut c_void, *mut *mut c_void
    );
    cuLaunchHostFunc(CUstream, CUhostFn, *mut c_void);
}

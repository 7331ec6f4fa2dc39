//! What the driver answers in words.

use core::ffi::{CStr, c_char, c_int};

use loadline_cuda::driver::sys::{self, CUresult};

/// # Safety
/// `to` has room for `length` bytes.
pub(crate) unsafe fn write_text(to: *mut c_char, length: c_int, text: &str) -> Result<(), CUresult> {
    if text.len() + 1 > length as usize {
        return Err(sys::INVALID_VALUE);
    }
    for (n, byte) in text.bytes().chain([0]).enumerate() {
        // SAFETY: it fits, see above.
        unsafe { to.add(n).write(byte as c_char) };
    }
    Ok(())
}

/// The driver's name and words for a result.
pub(crate) fn words(result: CUresult) -> (&'static CStr, &'static CStr) {
    match result {
        sys::SUCCESS => (c"CUDA_SUCCESS", c"no error"),
        sys::INVALID_VALUE => (c"CUDA_ERROR_INVALID_VALUE", c"invalid argument"),
        sys::OUT_OF_MEMORY => (c"CUDA_ERROR_OUT_OF_MEMORY", c"out of memory"),
        sys::NO_DEVICE => (c"CUDA_ERROR_NO_DEVICE", c"no CUDA-capable device is detected"),
        sys::INVALID_PTX => (c"CUDA_ERROR_INVALID_PTX", c"a PTX JIT compilation failed"),
        sys::NOT_FOUND => (c"CUDA_ERROR_NOT_FOUND", c"named symbol not found"),
        sys::ECC_UNCORRECTABLE => (c"CUDA_ERROR_ECC_UNCORRECTABLE", c"uncorrectable ECC error encountered"),
        sys::LAUNCH_FAILED => (c"CUDA_ERROR_LAUNCH_FAILED", c"unspecified launch failure"),
        sys::UNKNOWN => (c"CUDA_ERROR_UNKNOWN", c"unknown error"),
        _ => (c"CUDA_ERROR", c"see the driver's list"),
    }
}

//! Compiled kernels.

use core::ffi::{c_int, c_void};
use std::ffi::CString;
use std::sync::Arc;

use super::context::Context;
use super::error::CudaError;
use super::sys::{self, CUfunction, CUmodule};

/// Kernels that the driver has compiled for its GPU.
#[derive(Clone)]
pub struct Module(Arc<Inner>);

struct Inner {
    context: Context,
    raw: CUmodule,
}

// SAFETY: modules may be used from any thread; see `Context`.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl std::fmt::Debug for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Module({:?})", self.0.raw)
    }
}

/// What a compiler's complaint may be long.
const LOG_BYTES: usize = 4096;

impl Module {
    /// Compiles PTX for the context's GPU. The driver keeps what it has compiled in a cache of its own.
    ///
    /// # Errors
    /// What the driver's compiler says, or [`CudaError::OutOfMemory`].
    pub fn load(context: &Context, ptx: &str) -> Result<Self, CudaError> {
        let (api, mut raw) = (context.bind()?, std::ptr::null_mut());
        let text = CString::new(ptx).map_err(|_| CudaError::Failed {
            call: "cuModuleLoadDataEx",
            name: "CUDA_ERROR_INVALID_PTX".to_owned(),
            text: "the text holds a zero byte".to_owned(),
        })?;
        let mut log = vec![0u8; LOG_BYTES];
        let mut options = [sys::JIT_ERROR_LOG_BUFFER, sys::JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
        let mut values: [*mut c_void; 2] = [log.as_mut_ptr().cast(), std::ptr::without_provenance_mut(LOG_BYTES)];
        let (options, values) = (options.as_mut_ptr(), values.as_mut_ptr());
        // SAFETY: the text ends in a zero; both lists have two entries, the first a buffer of the second's length.
        let code = unsafe { (api.cuModuleLoadDataEx)(&raw mut raw, text.as_ptr().cast(), 2, options, values) };
        context.check_memory("cuModuleLoadDataEx", 0, code).map_err(|e| with_log(e, &log))?;
        Ok(Self(Arc::new(Inner { context: context.clone(), raw })))
    }

    /// The kernel of a name.
    ///
    /// # Errors
    /// If there is none.
    pub fn kernel(&self, name: &str) -> Result<Kernel, CudaError> {
        let (api, mut raw) = (self.0.context.bind()?, std::ptr::null_mut());
        let symbol = CString::new(name).unwrap_or_default();
        // SAFETY: a pointer to a handle of ours, a module that lives, and a text that ends in a zero.
        let code = unsafe { (api.cuModuleGetFunction)(&raw mut raw, self.0.raw, symbol.as_ptr()) };
        self.0.context.check("cuModuleGetFunction", code).map_err(|e| named(e, name))?;
        Ok(Kernel { module: Arc::clone(&self.0), raw, name: name.into() })
    }
}

fn with_log(error: CudaError, log: &[u8]) -> CudaError {
    let said = String::from_utf8_lossy(log.split(|byte| *byte == 0).next().unwrap_or_default());
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    if said.is_empty() { error } else { named(error, &said) }
}

fn named(error: CudaError, what: &str) -> CudaError {
    match error {
        CudaError::Failed { call, name, text } => CudaError::Failed { call, name, text: format!("{text}: {what}") },
        other => other,
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Ok(api) = self.context.bind() {
            // SAFETY: loaded by `load`; kernels keep it alive.
            let _ = unsafe { (api.cuModuleUnload)(self.raw) };
        }
    }
}

/// One kernel of a module, which it keeps loaded.
#[derive(Clone)]
pub struct Kernel {
    module: Arc<Inner>,
    raw: CUfunction,
    name: Arc<str>,
}

// SAFETY: functions may be used from any thread; see `Context`.
unsafe impl Send for Kernel {}
// SAFETY: as above.
unsafe impl Sync for Kernel {}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kernel({})", self.name)
    }
}

impl Kernel {
    /// Its name in its module.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Lets its launches have up to so many bytes of shared memory; needed above 48 KiB, once.
    ///
    /// # Errors
    /// If the GPU has less; see [`Gpu::shared_per_block`](super::Gpu::shared_per_block).
    pub fn allow_shared(&self, bytes: u32) -> Result<(), CudaError> {
        let (context, attribute) = (&self.module.context, sys::FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);
        let api = context.bind()?;
        // SAFETY: the function lives as long as its module.
        let code = unsafe { (api.cuFuncSetAttribute)(self.raw, attribute, bytes as c_int) };
        context.check("cuFuncSetAttribute", code).map_err(|e| named(e, &self.name))
    }

    pub(super) fn raw(&self) -> CUfunction {
        self.raw
    }
}

//! Opening the driver.

use core::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::sync::Arc;

use super::error::{CudaError, CudaVersion};
use super::gpu::Gpu;
use super::sys::{self, Api, CUresult};
use crate::blas;

/// The oldest driver interface that serves: CUDA 12.2 has the limit of a memory pool.
pub const OLDEST_DRIVER: CudaVersion = CudaVersion(12_020);

/// The name that every NVIDIA driver for Linux installs.
const NAME: &str = "libcuda.so.1";

/// NVIDIA's driver, initialised.
#[derive(Clone)]
pub struct Driver(Arc<Inner>);

struct Inner {
    api: Api,
    version: CudaVersion,
    blas: Option<blas::sys::Api>,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Driver(CUDA {})", self.0.version)
    }
}

impl Driver {
    /// Opens the machine's driver.
    ///
    /// # Errors
    /// [`CudaError::NoDriver`], [`CudaError::DriverTooOld`] or [`CudaError::NoGpu`].
    pub fn open() -> Result<Self, CudaError> {
        Self::open_at(Path::new(NAME))
    }

    /// Opens the driver that is this file, or that the loader finds under this name.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_at(file: &Path) -> Result<Self, CudaError> {
        let missing = |e: libloading::Error| CudaError::NoDriver { detail: first_line(&e.to_string()) };
        // SAFETY: the driver's initialisers run; whoever installs a library of this name vouches for them.
        let library = unsafe { libloading::Library::new(file) }.map_err(missing)?;
        let found = bind(&library);
        // The driver has threads of its own, so it is never unloaded.
        std::mem::forget(library);
        let mut driver = Self::with_api(found?)?;
        // A driver that was given as a table is no machine's, and a machine's library does not work with it.
        let blas = blas::find(driver.version());
        if let Some(inner) = Arc::get_mut(&mut driver.0) {
            inner.blas = blas;
        }
        Ok(driver)
    }

    /// Takes a table of functions for the driver, and initialises it.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn with_api(api: Api) -> Result<Self, CudaError> {
        let version = version(api.cuDriverGetVersion)?;
        if version < OLDEST_DRIVER {
            return Err(CudaError::DriverTooOld { found: version, needed: OLDEST_DRIVER });
        }
        let driver = Self(Arc::new(Inner { api, version, blas: None }));
        // SAFETY: the only flags that there are.
        match unsafe { (api.cuInit)(0) } {
            sys::SUCCESS => Ok(driver),
            sys::STUB_LIBRARY => {
                Err(CudaError::NoDriver { detail: "the libcuda that was found is a stub for linking".to_owned() })
            }
            code => Err(CudaError::NoGpu { name: driver.name(code) }),
        }
    }

    /// The same driver with this library of products.
    #[must_use]
    pub fn with_blas(&self, api: blas::sys::Api) -> Self {
        Self(Arc::new(Inner { api: self.0.api, version: self.0.version, blas: Some(api) }))
    }

    /// The library of products, if the machine has one that works with it.
    pub(crate) fn blas(&self) -> Option<&blas::sys::Api> {
        self.0.blas.as_ref()
    }

    /// What it serves.
    #[must_use]
    pub fn version(&self) -> CudaVersion {
        self.0.version
    }

    /// The GPUs, by their index.
    ///
    /// # Errors
    /// [`CudaError::NoGpu`] if there is none.
    pub fn gpus(&self) -> Result<Vec<Gpu>, CudaError> {
        let mut count = 0;
        // SAFETY: the pointer is to a number of ours.
        self.check("cuDeviceGetCount", unsafe { (self.api().cuDeviceGetCount)(&raw mut count) })?;
        if count == 0 {
            return Err(CudaError::NoGpu { name: self.name(sys::NO_DEVICE) });
        }
        (0..count as u32).map(|index| Gpu::read(self, index)).collect()
    }

    /// The GPU of an index.
    ///
    /// # Errors
    /// [`CudaError::NoSuchGpu`] if there is none; the message lists those that there are.
    pub fn gpu(&self, index: u32) -> Result<Gpu, CudaError> {
        let mut gpus = self.gpus()?;
        if (index as usize) < gpus.len() {
            return Ok(gpus.swap_remove(index as usize));
        }
        let named: Vec<String> = gpus.iter().map(|gpu| format!("{} is {}", gpu.index, gpu.name)).collect();
        Err(CudaError::NoSuchGpu { index, found: named.join(", ") })
    }

    /// The GPU that is used unless somebody chooses: the one with the most memory of those that are new enough, and
    /// among equals the first.
    ///
    /// # Errors
    /// If there is none, or if all are too old.
    pub fn default_gpu(&self) -> Result<Gpu, CudaError> {
        let gpus = self.gpus()?;
        let served = gpus.iter().filter(|gpu| gpu.require().is_ok());
        let best = served.max_by_key(|gpu| (gpu.memory, std::cmp::Reverse(gpu.index))).cloned();
        best.map_or_else(|| gpus[0].require().map(|()| gpus[0].clone()), Ok)
    }

    pub(super) fn api(&self) -> &Api {
        &self.0.api
    }

    /// The driver's name for a result.
    pub(super) fn name(&self, code: CUresult) -> String {
        text_of(self.api().cuGetErrorName, code).unwrap_or_else(|| format!("error {code}"))
    }

    pub(super) fn check(&self, call: &'static str, code: CUresult) -> Result<(), CudaError> {
        if code == sys::SUCCESS {
            return Ok(());
        }
        let text = text_of(self.api().cuGetErrorString, code).unwrap_or_else(|| "no words for it".to_owned());
        Err(CudaError::Failed { call, name: self.name(code), text })
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// The functions of a library.
fn bind(library: &libloading::Library) -> Result<Api, CudaError> {
    let mut symbol = |name: &str| {
        // SAFETY: only the address is taken here.
        let found = unsafe { library.get::<*const c_void>(name.as_bytes()) };
        found.map_or(std::ptr::null(), |symbol| *symbol)
    };
    let asked = symbol("cuDriverGetVersion");
    if !asked.is_null() {
        // SAFETY: the driver's function of this name has this type.
        let ask = unsafe { std::mem::transmute::<*const c_void, unsafe extern "C" fn(*mut c_int) -> CUresult>(asked) };
        // An old driver is told by its version, rather than by the first function that it lacks.
        let found = version(ask)?;
        if found < OLDEST_DRIVER {
            return Err(CudaError::DriverTooOld { found, needed: OLDEST_DRIVER });
        }
    }
    let lacks = |name| CudaError::NoDriver { detail: format!("the {NAME} that was found has no {name}") };
    // SAFETY: a library of this name has the driver's functions under their names.
    unsafe { Api::bind(&mut symbol) }.map_err(lacks)
}

fn version(ask: unsafe extern "C" fn(*mut c_int) -> CUresult) -> Result<CudaVersion, CudaError> {
    let mut version = 0;
    // SAFETY: the pointer is to a number of ours; this is allowed before the driver is initialised.
    match unsafe { ask(&raw mut version) } {
        sys::SUCCESS => Ok(CudaVersion(version as c_uint)),
        code => Err(CudaError::NoDriver { detail: format!("{NAME} does not tell its version (error {code})") }),
    }
}

fn text_of(ask: unsafe extern "C" fn(CUresult, *mut *const c_char) -> CUresult, code: CUresult) -> Option<String> {
    let mut text = std::ptr::null();
    // SAFETY: the driver writes a pointer to a text of its own that lasts as long as the driver.
    let answer = unsafe { ask(code, &raw mut text) };
    if answer != sys::SUCCESS || text.is_null() {
        return None;
    }
    // SAFETY: not null, and ends in a zero.
    Some(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

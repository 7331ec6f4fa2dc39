//! NVIDIA's library of products (cuBLASLt), opened at run time where a machine has it.
//!
//! It takes dense linear layers, which it has tuned for every GPU; whatever it does not take, and every product where
//! it is absent, is a kernel of our own. It takes its workspace when it is opened, and so does the room for the kernels
//! that it loads when it first needs them: who measures what opening takes has measured all of it.

mod product;
pub mod sys;

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use product::Product;

use crate::driver::{Context, CudaError, CudaVersion, DevicePtr, Stream};
use product::{Key, Plan};
use sys::{Api, cublasLtHandle_t, libraryPropertyType};

/// What NVIDIA recommends for Hopper and newer, and for the generations before.
const WORKSPACE: [u64; 2] = [32 << 20, 4 << 20];
/// Room for kernels that are loaded later. Not measured yet: the library loads a kernel of some megabytes for each
/// shape that needs another one.
const LATER: u64 = 64 << 20;

/// The library, for one GPU.
pub struct Blas {
    api: Api,
    context: Context,
    handle: cublasLtHandle_t,
    workspace: (DevicePtr, u64),
    later: Mutex<Option<DevicePtr>>,
    plans: Mutex<BTreeMap<Key, Option<Plan>>>,
    version: [i32; 3],
}

// SAFETY: the library's handle may be used from any thread; plans are behind a lock.
unsafe impl Send for Blas {}
// SAFETY: as above.
unsafe impl Sync for Blas {}

impl std::fmt::Debug for Blas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Blas({})", self.version())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half done behind the locks, so a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The names of the library that work with a driver: its major version is at most the driver's.
fn names(driver: CudaVersion) -> &'static [&'static str] {
    const NEWEST_FIRST: [&str; 2] = ["libcublasLt.so.13", "libcublasLt.so.12"];
    if driver >= CudaVersion(13_000) { &NEWEST_FIRST } else { &NEWEST_FIRST[1..] }
}

/// The functions of the machine's library, if it has one that works with a driver of this version.
pub(crate) fn find(driver: CudaVersion) -> Option<Api> {
    let folders = ["", "/usr/local/cuda/lib64/"];
    let files = names(driver).iter().flat_map(|name| folders.map(|folder| format!("{folder}{name}")));
    files.into_iter().find_map(|file| functions(Path::new(&file)))
}

fn functions(file: &Path) -> Option<Api> {
    // SAFETY: the library's initialisers run; whoever installs a library of this name vouches for them.
    let library = unsafe { libloading::Library::new(file) }.ok()?;
    let mut symbol = |name: &str| {
        // SAFETY: only the address is taken here.
        let found = unsafe { library.get::<*const c_void>(name.as_bytes()) };
        found.map_or(std::ptr::null(), |symbol| *symbol)
    };
    // SAFETY: a library of this name has the functions under their names.
    let api = unsafe { Api::bind(&mut symbol) }.ok();
    // It keeps state of its own on the GPU, so it is never unloaded.
    std::mem::forget(library);
    api
}

impl Blas {
    /// Takes the library into use; nothing if it does not start here, or if the GPU has no room for what it needs.
    #[must_use]
    pub fn new(context: &Context, api: &Api) -> Option<Self> {
        let workspace = WORKSPACE[usize::from(context.gpu().capability.major < 9)];
        let at = context.allocate(workspace).ok()?;
        let later = context.allocate(LATER).ok();
        let mut blas = Self {
            api: *api,
            context: context.clone(),
            handle: std::ptr::null_mut(),
            workspace: (at, workspace),
            later: Mutex::new(later),
            plans: Mutex::default(),
            version: [0; 3],
        };
        // SAFETY: a pointer to a handle of ours; the context is current, since memory was just taken in it.
        let made = unsafe { (api.cublasLtCreate)(&raw mut blas.handle) } == sys::SUCCESS;
        blas.version =
            [libraryPropertyType::MAJOR_VERSION, libraryPropertyType::MINOR_VERSION, libraryPropertyType::PATCH_LEVEL]
                .map(|property| number(api, property));
        (made && later.is_some()).then_some(blas)
    }

    /// Its version, such as `13.1.0`.
    #[must_use]
    pub fn version(&self) -> String {
        self.version.map(|number| number.to_string()).join(".")
    }

    /// Queues a product, if the library takes it; nobody else uses the workspace on another stream meanwhile.
    ///
    /// # Errors
    /// [`CudaError::Lost`].
    pub(crate) fn run(&self, stream: &Stream, product: &Product) -> Result<bool, CudaError> {
        let Some(key) = Key::of(product) else { return Ok(false) };
        self.make_room()?;
        let (at, bytes) = self.workspace;
        let mut plans = locked(&self.plans);
        let plan = plans.entry(key).or_insert_with(|| Plan::new(&self.api, self.handle, &key, bytes as usize));
        let Some(found) = plan else { return Ok(false) };
        // SAFETY: as for launches of our own: addresses are the device's, which reports those that are not there.
        let queued = unsafe { found.run(&self.api, self.handle, product, at, stream.raw().cast()) };
        if queued.is_none() {
            // What is refused once is not asked for again.
            *plan = None;
        }
        Ok(queued.is_some())
    }

    /// Gives back the room for kernels that are loaded later, which is now. It makes the thread the context's, too.
    fn make_room(&self) -> Result<(), CudaError> {
        match locked(&self.later).take() {
            Some(room) => self.context.release(room),
            None => self.context.enter(),
        }
    }
}

fn number(api: &Api, property: libraryPropertyType) -> i32 {
    let mut value = 0;
    // SAFETY: a pointer to a number of ours.
    let _ = unsafe { (api.cublasLtGetProperty)(property, &raw mut value) };
    value
}

impl Drop for Blas {
    fn drop(&mut self) {
        if self.context.enter().is_err() {
            return;
        }
        locked(&self.plans).clear();
        if !self.handle.is_null() {
            // SAFETY: made by `new`; nothing is queued with it any more, or the GPU is lost.
            let _ = unsafe { (self.api.cublasLtDestroy)(self.handle) };
        }
        let later = locked(&self.later).take();
        for memory in [Some(self.workspace.0), later].into_iter().flatten() {
            let _ = self.context.release(memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_not_newer_than_the_driver() {
        assert_eq!(names(CudaVersion(12_020)), ["libcublasLt.so.12"]);
        assert_eq!(names(CudaVersion(13_000)), ["libcublasLt.so.13", "libcublasLt.so.12"]);
    }
}

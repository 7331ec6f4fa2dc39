//! A driver to test with: host memory for device memory, and an order of work that finds what was not ordered.
//!
//! Nothing that is queued is done before somebody waits for it. Then the queues are worked off in an order that the
//! test chooses ([`Order`]), so that work which only luck had ordered computes something else. Besides, every access is
//! compared with those that are not ordered before it ([`Report::hazards`]), in whatever order they were done.
//!
//! There is one driver in a process, as there is of the real one: a test begins with [`Mock::start`], which holds it.

mod blas;
mod calls;
mod emulation;
mod kernels;
mod state;
mod uses;
mod words;
mod work;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use blas::blas_api;
pub use calls::api;
pub use emulation::emulation;
pub use kernels::{Launch, MockKernel};
pub use state::{Fault, Order, Report, Settings};

use state::State;

static DRIVER: Mutex<Option<State>> = Mutex::new(None);
static TESTS: Mutex<()> = Mutex::new(());

pub(crate) fn driver<R>(body: impl FnOnce(&mut State) -> R) -> R {
    let mut guard = DRIVER.lock().unwrap_or_else(PoisonError::into_inner);
    body(guard.get_or_insert_with(|| State::new(Settings::from_environment())))
}

/// The driver, for one test.
pub struct Mock(#[allow(dead_code)] MutexGuard<'static, ()>);

impl Mock {
    /// Begins anew with a machine like this.
    #[must_use]
    pub fn start(settings: Settings) -> Self {
        let guard = TESTS.lock().unwrap_or_else(PoisonError::into_inner);
        *DRIVER.lock().unwrap_or_else(PoisonError::into_inner) = Some(State::new(settings));
        Self(guard)
    }

    /// Adds a kernel that modules may name.
    pub fn kernel(&self, name: &str, body: MockKernel) {
        driver(|state| state.kernels.add(name, body));
    }

    /// Lets a call fail.
    pub fn inject(&self, fault: Fault) {
        driver(|state| state.faults.push(fault));
    }

    /// Lets other programs have so many bytes of a GPU.
    pub fn others_take(&self, gpu: usize, bytes: u64) {
        driver(|state| state.gpus[gpu].others = bytes);
    }

    /// Handles of the library of products that nobody has given back.
    #[must_use]
    pub fn blas_handles(&self) -> usize {
        blas::live()
    }

    /// What has happened so far.
    #[must_use]
    pub fn report(&self) -> Report {
        driver(|state| state.report.clone())
    }
}

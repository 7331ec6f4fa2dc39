//! A GPU in use.

use std::sync::Arc;

use loadline_core::{Bytes, Machine};
use loadline_cuda::driver::{Context, CudaError, Driver};
use loadline_models::ops::KernelSet;
use loadline_nn::cuda::{CudaKernels, Kernels};
use loadline_profile::Profile;

use super::GpuFacts;
use crate::Error;

/// A GPU of this machine with its context and its modules: what it takes of the GPU's memory stays the same from here
/// on, so that what is left can be planned. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Gpu(Arc<Opened>);

#[derive(Debug)]
struct Opened {
    context: Context,
    kernels: Kernels,
    facts: GpuFacts,
    others: Vec<String>,
}

impl Gpu {
    /// Takes a GPU into use: that of an index, or the one with most memory of those that are new enough.
    ///
    /// # Errors
    /// [`Error::NoGpu`] if there is no driver, no such GPU, or it is too old; [`Error::DeviceMemory`] if not even its
    /// modules fit beside what others have.
    pub fn open(index: Option<u32>) -> Result<Self, Error> {
        Self::on(&Driver::open().map_err(refused)?, index)
    }

    /// The same with a driver that is given.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn on(driver: &Driver, index: Option<u32>) -> Result<Self, Error> {
        let gpu = index.map_or_else(|| driver.default_gpu(), |index| driver.gpu(index)).map_err(refused)?;
        let others = driver.gpus().map_err(refused)?.into_iter().filter(|other| other.index != gpu.index);
        let others = others.map(|other| format!("{} is {}", other.index, other.name)).collect();
        let context = Context::new(driver, &gpu).map_err(refused)?;
        let own = context.measure().unwrap_or(0);
        let (kernels, loaded) = context.taken_by(|| Kernels::load(&context)).map_err(refused)?;
        let info = context.mem_info().map_err(refused)?;
        let facts = GpuFacts {
            index: gpu.index,
            name: gpu.name.clone(),
            pci: gpu.pci.clone(),
            memory: Bytes(info.total),
            overhead: Bytes(own + loaded),
            others: Bytes((info.total - info.free).saturating_sub(own + loaded)),
        };
        Ok(Self(Arc::new(Opened { context, kernels, facts, others })))
    }

    /// What is known of it.
    #[must_use]
    pub fn facts(&self) -> &GpuFacts {
        &self.0.facts
    }

    /// Other GPUs that could have been chosen, in words.
    #[must_use]
    pub fn others(&self) -> &[String] {
        &self.0.others
    }

    /// The machine that plans for it are made for; see [`super::machine_of`]. `given` is the profile that somebody
    /// named, `ram` the machine's.
    ///
    /// # Errors
    /// [`Error::Profile`] if there is no profile for it.
    pub fn machine(&self, given: Option<Profile>, ram: Bytes) -> Result<Machine, Error> {
        super::machine_of(self.facts(), CudaKernels.name(), given, ram)
    }

    /// The CUDA version that the driver serves.
    pub(crate) fn driver(&self) -> loadline_cuda::driver::CudaVersion {
        self.0.context.driver().version()
    }

    pub(crate) fn context(&self) -> &Context {
        &self.0.context
    }

    pub(crate) fn kernels(&self) -> &Kernels {
        &self.0.kernels
    }
}

/// A GPU that cannot be taken into use.
fn refused(error: CudaError) -> Error {
    match error {
        CudaError::OutOfMemory { .. } => {
            Error::DeviceMemory("the GPU has no memory left for a context and its modules".to_owned())
        }
        other => Error::NoGpu(other.to_string()),
    }
}

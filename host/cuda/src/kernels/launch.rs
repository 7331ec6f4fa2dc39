//! Launches as data, and the kernels that they are launched on.

use std::sync::Arc;

use crate::blas::{Blas, Product};
use crate::driver::{Args, Context, CudaError, Kernel, Module, Shape, Stream};

use super::name::{MODULES, Name};
use super::operand::Packed;

/// One launch: which kernel, with how many threads and on what.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The kernel.
    pub kernel: Name,
    /// Blocks, threads and shared memory.
    pub shape: Shape,
    /// Its arguments.
    pub args: Args,
    /// The same as a product that NVIDIA's library may take instead.
    pub product: Option<Product>,
}

/// Blocks of kernels that walk over elements in steps of the whole grid: enough for the largest GPUs, several times
/// over.
const BLOCKS_MOST: u64 = 8192;

impl Launch {
    pub(super) fn new(kernel: Name, grid: [u32; 3], threads: u32, shared: u32, args: Args) -> Self {
        Self { kernel, shape: Shape { grid, block: [threads, 1, 1], shared }, args, product: None }
    }

    /// A kernel whose blocks of 256 threads walk over so many `items`, one a thread at a time.
    pub(super) fn over(kernel: Name, items: u64, args: Args) -> Self {
        let blocks = items.div_ceil(256).clamp(1, BLOCKS_MOST);
        Self::new(kernel, [blocks as u32, 1, 1], 256, 0, args)
    }
}

/// Adds a structure to arguments.
pub(super) fn with(args: Args, packed: Packed) -> Args {
    args.words(&packed.words())
}

/// Every kernel, compiled for one GPU.
#[derive(Clone, Debug)]
pub struct Kernels {
    /// In the order of [`Name::ALL`].
    handles: Vec<Kernel>,
    blas: Option<Arc<Blas>>,
}

impl Kernels {
    /// Compiles all of them; the driver keeps what it has compiled for the next time. The device memory that they take
    /// from then on is the driver's. Where the machine has NVIDIA's library of products, that is opened, too.
    ///
    /// # Errors
    /// What the driver says.
    pub fn load(context: &Context) -> Result<Self, CudaError> {
        let modules = MODULES.iter().map(|(name, ptx)| Ok((*name, Module::load(context, ptx)?)));
        let modules = modules.collect::<Result<Vec<_>, CudaError>>()?;
        let mut handles = Vec::with_capacity(Name::ALL.len());
        for name in Name::ALL {
            for (_, module) in modules.iter().filter(|(module, _)| *module == name.module()) {
                handles.push(module.kernel(name.symbol())?);
            }
        }
        let blas = context.driver().blas().and_then(|api| Blas::new(context, api)).map(Arc::new);
        let kernels = Self { handles, blas };
        kernels.handles[Name::Attention128 as usize].allow_shared(super::attention::SHARED_MOST)?;
        Ok(kernels)
    }

    /// The same without NVIDIA's library, to compare it with.
    #[must_use]
    pub fn of_our_own(&self) -> Self {
        Self { handles: self.handles.clone(), blas: None }
    }

    /// NVIDIA's library of products, where the machine has it.
    #[must_use]
    pub fn blas(&self) -> Option<&Blas> {
        self.blas.as_deref()
    }

    /// Queues launches, one after the other. What their addresses point to must be there when they run: the driver
    /// reports an address that is not the device's as a lost context, later.
    ///
    /// # Errors
    /// What the driver says.
    pub fn run(&self, stream: &Stream, launches: &[Launch]) -> Result<(), CudaError> {
        for launch in launches {
            if let (Some(blas), Some(product)) = (&self.blas, &launch.product)
                && blas.run(stream, product)?
            {
                continue;
            }
            let kernel = &self.handles[launch.kernel as usize];
            // SAFETY: launches are made by this module alone, each with the arguments that its kernel declares; the
            // kernel's tests run them all. Addresses are the device's, not this process's.
            unsafe { stream.launch(kernel, launch.shape, &launch.args)? };
        }
        Ok(())
    }
}

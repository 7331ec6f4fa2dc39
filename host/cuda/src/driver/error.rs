//! What can go wrong, split by what the caller does next.

use super::gpu::Capability;
use super::sys::{self, CUresult};

/// A version of CUDA, as the driver counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CudaVersion(pub u32);

impl std::fmt::Display for CudaVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0 / 1000, self.0 % 1000 / 10)
    }
}

/// Why the GPU could not do something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CudaError {
    /// There is no driver here.
    #[error(
        "no NVIDIA driver on this machine: {detail}; install driver 535 or newer, or run on the processor with \
         --device cpu"
    )]
    NoDriver {
        /// What the system says.
        detail: String,
    },
    /// The driver lacks what is needed.
    #[error(
        "the NVIDIA driver is for CUDA {found} and CUDA {needed} is needed; update the driver to version 535 or newer, \
         or run on the processor with --device cpu"
    )]
    DriverTooOld {
        /// What the driver serves.
        found: CudaVersion,
        /// What is needed.
        needed: CudaVersion,
    },
    /// The driver answers, but has no GPU to offer.
    #[error(
        "the NVIDIA driver finds no GPU ({name}); look at what `nvidia-smi` says and at CUDA_VISIBLE_DEVICES, or run \
         on the processor with --device cpu"
    )]
    NoGpu {
        /// The driver's name for the error.
        name: String,
    },
    /// There are GPUs, but none of this number.
    #[error("there is no GPU {index}: {found}; choose one of them with --gpu-index")]
    NoSuchGpu {
        /// What was asked for.
        index: u32,
        /// The GPUs that there are, in words.
        found: String,
    },
    /// The GPU is of a generation that is not served.
    #[error(
        "{gpu} has compute capability {found} and {needed} is needed (the Ampere generation of 2020, or newer); choose \
         another GPU with --gpu-index, or run on the processor with --device cpu"
    )]
    GpuTooOld {
        /// The GPU's name.
        gpu: String,
        /// What it is.
        found: Capability,
        /// What is needed.
        needed: Capability,
    },
    /// The device has no room: what asked may give something back and ask again.
    #[error("the GPU has no memory for {requested} bytes more")]
    OutOfMemory {
        /// Bytes that were asked for; zero where the driver asked for itself.
        requested: u64,
    },
    /// The system does not lock so much host memory; copies from memory that is not locked are slower.
    #[error(
        "the system does not lock {requested} bytes of host memory for the GPU ({name}); raise `ulimit -l`, or lower \
         --pin"
    )]
    PinRefused {
        /// Bytes that were asked for.
        requested: u64,
        /// The driver's name for the error.
        name: String,
    },
    /// The GPU, or everything on it, is gone: only a new process can use it again.
    #[error("{gpu} was lost: {call} answered {name} ({text}); {way_out}")]
    Lost {
        /// The GPU's name.
        gpu: String,
        /// The driver's function.
        call: &'static str,
        /// The driver's name for the error.
        name: String,
        /// The driver's words for it.
        text: String,
        /// What to do.
        way_out: &'static str,
    },
    /// Anything else.
    #[error("{call} answered {name} ({text})")]
    Failed {
        /// The driver's function.
        call: &'static str,
        /// The driver's name for the error.
        name: String,
        /// The driver's words for it, and what a compiler had to say.
        text: String,
    },
}

/// What kind of loss a result means, if it means one.
pub(super) fn way_out_of_loss(code: CUresult) -> Option<&'static str> {
    match code {
        sys::DEVICE_UNAVAILABLE
        | sys::ECC_UNCORRECTABLE
        | sys::NVLINK_UNCORRECTABLE
        | sys::CONTAINED
        | sys::SYSTEM_NOT_READY
        | sys::UNKNOWN => Some("look at `nvidia-smi` and at `dmesg` for Xid messages; the GPU may need a reset"),
        sys::INVALID_CONTEXT | sys::CONTEXT_IS_DESTROYED | sys::DEINITIALIZED => {
            Some("the driver was shut down or restarted")
        }
        // After these the driver answers every later call with the same code.
        sys::ILLEGAL_ADDRESS | sys::LAUNCH_TIMEOUT | sys::ASSERT | sys::HARDWARE_STACK_ERROR..=sys::LAUNCH_FAILED => {
            Some("a kernel failed, by a fault of the program or of the GPU; if it comes again, please report it")
        }
        _ => None,
    }
}

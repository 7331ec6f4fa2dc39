//! Looking at the machine. The only part of the doctor that touches anything: it reads what the kernel shows, asks
//! NVIDIA's driver, and, to try `O_DIRECT` and to read at all where there is no file, makes one without a name.

mod disk;
mod group;
mod kernel;
mod nvml;
mod owner;

use std::path::{Path, PathBuf};

use loadline_kernels::KernelSet;

pub(crate) use nvml::held_back;

use super::{CpuProfile, Facts, IoUring, Kept, KeptFor, Processor, Tried};
use crate::planning::policies::Places;

/// What the doctor looks at.
#[derive(Clone, Debug)]
pub struct Options {
    /// The processor, as people call it.
    pub processor: String,
    /// A folder that models or results lie in.
    pub folder: PathBuf,
    /// For how many seconds at most to read a large file of the folder; zero for not at all.
    pub measure_seconds: f64,
    /// Where the program keeps files.
    pub places: Places,
}

/// Looks at this machine. What cannot be looked at stays unknown.
#[must_use]
pub fn gather(options: &Options) -> Facts {
    let root = Path::new("/");
    let mut folder = disk::folder(&options.folder, root);
    if options.measure_seconds > 0.0 && folder.missing.is_none() {
        folder.reading = disk::reading(&options.folder, &folder.direct, options.measure_seconds);
    }
    Facts {
        processor: processor(&options.processor, root),
        memory: kernel::memory(root),
        limits: kernel::limits(),
        group: group::group(root),
        pressure: kernel::pressure(root),
        io_uring: with_ring(&kernel::io_uring(root)),
        folder,
        kept: vec![
            kept(KeptFor::Cache, options.places.compiled.as_deref()),
            kept(KeptFor::Policies, options.places.installed.as_deref()),
        ],
        gpus: nvml::gpus(root),
        profile: profile(&options.processor),
    }
}

/// Settings and filters can be read only in part; trying is what counts.
fn with_ring(said: &IoUring) -> IoUring {
    match loadline_device::disk::try_uring() {
        Ok(()) => IoUring { tried: Tried::Works, ..said.clone() },
        Err(error) => IoUring {
            is_short_of_locked: error.kind() == std::io::ErrorKind::OutOfMemory,
            tried: Tried::Refused { reason: error.to_string() },
            ..said.clone()
        },
    }
}

fn processor(name: &str, root: &Path) -> Processor {
    let sets = KernelSet::ALL.into_iter().filter(|set| set.available());
    Processor {
        name: name.to_owned(),
        architecture: std::env::consts::ARCH.to_owned(),
        threads: std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64),
        kernels: KernelSet::detect().name().to_owned(),
        kernels_available: sets.map(|set| set.name().to_owned()).collect(),
        ..kernel::processor(root)
    }
}

fn kept(what: KeptFor, path: Option<&Path>) -> Kept {
    Kept {
        what,
        path: path.map(|path| path.display().to_string()),
        state: path.map_or(super::KeptState::Absent, owner::state),
    }
}

fn profile(processor: &str) -> CpuProfile {
    // The profile is part of the program, and a test reads it.
    let known = loadline_profile::catalog::find("cpu").ok().and_then(|profile| profile.to_machine().ok());
    let device = known.map(|machine| (machine.device.name, machine.device.kernel_set));
    let (recorded_on, kernels) = device.unwrap_or_default();
    CpuProfile { recorded_on, kernels, this_machine: crate::device_name(processor) }
}

/// A file of the kernel's as text; nothing if it is not there or may not be read.
fn read(root: &Path, path: &str) -> Option<String> {
    std::fs::read_to_string(root.join(path)).ok()
}

//! NVIDIA GPUs of this machine: which one runs go to, and what plans for it are made with.
//!
//! A program that was built without the feature `cuda` has the same interface, and says so where a GPU is asked for.

#[cfg(feature = "cuda")]
mod opened;
#[cfg(not(feature = "cuda"))]
mod without;

use loadline_core::{Bytes, Machine, Provenance};
use loadline_profile::{Profile, catalog};

#[cfg(feature = "cuda")]
pub use opened::Gpu;
#[cfg(not(feature = "cuda"))]
pub use without::Gpu;

use crate::Error;

/// What a session runs on.
#[derive(Clone, Debug, Default)]
pub enum On {
    /// The processor.
    #[default]
    Cpu,
    /// A GPU.
    Cuda(Gpu),
}

/// What is known of a GPU before anything runs on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuFacts {
    /// Its index among those that this process may use.
    pub index: u32,
    /// Its name, as the driver has it.
    pub name: String,
    /// Its address on the bus, such as `0000:01:00.0`.
    pub pci: String,
    /// Its memory.
    pub memory: Bytes,
    /// Context and modules: taken before the first tensor.
    pub overhead: Bytes,
    /// What others had of its memory when it was taken into use: other programs, a desktop, the driver itself.
    pub others: Bytes,
}

/// A card's name without what only some call it by.
#[cfg_attr(not(feature = "cuda"), allow(dead_code))] // as below
fn alike(name: &str) -> String {
    name.to_lowercase().replace("nvidia", "").split_whitespace().collect()
}

/// The profile that ships for a GPU of this name: a recording, or else a data sheet. Of cards of one name, the one
/// whose memory is nearest.
#[must_use]
#[cfg_attr(not(feature = "cuda"), allow(dead_code))] // tests look at it in either build
fn shipped(name: &str, memory: Bytes) -> Option<Profile> {
    let profiles = catalog::names().filter_map(|profile| catalog::find(profile).ok());
    let same = profiles.filter(|p| !p.device.unified && alike(&p.device.name) == alike(name));
    same.min_by_key(|p| p.device.memory_bytes.value.abs_diff(memory.0))
}

/// The machine that plans for a GPU are made for: a profile's rates, with the memory, the kernels and the overhead that
/// are really there.
///
/// # Errors
/// [`Error::Profile`] if there is no profile for the GPU, or the one given is a processor's.
#[cfg_attr(not(feature = "cuda"), allow(dead_code))] // as above
fn machine_of(facts: &GpuFacts, kernels: &str, given: Option<Profile>, ram: Bytes) -> Result<Machine, Error> {
    let GpuFacts { name, memory, overhead, .. } = facts;
    let missing = || {
        Error::Profile(format!(
            "there is no profile of '{name}': record one with `loadline profile record --device cuda -o gpu.json`, then \
             run with --gpu gpu.json; or run on the processor with --device cpu"
        ))
    };
    let profile = given.or_else(|| shipped(name, *memory)).ok_or_else(missing)?;
    if profile.device.unified {
        return Err(Error::Profile(format!(
            "profile '{}' is a processor's: name one of {name} with --gpu, or run on the processor with --device cpu",
            profile.name
        )));
    }
    let mut machine = profile.to_machine().map_err(|e| Error::Profile(e.to_string()))?;
    if alike(&machine.device.name) != alike(name) {
        // Times of another card are at best like this one's, whatever they are on the other.
        machine.provenance = machine.provenance.max(Provenance::Derived);
    }
    name.clone_into(&mut machine.device.name);
    machine.device.memory = *memory;
    machine.device.fixed_overhead = *overhead;
    kernels.clone_into(&mut machine.device.kernel_set);
    machine.host.memory = ram;
    Ok(machine)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn facts(name: &str, memory: Bytes) -> GpuFacts {
        GpuFacts {
            index: 0,
            name: name.to_owned(),
            pci: String::new(),
            memory,
            overhead: Bytes::mib(300),
            others: Bytes::ZERO,
        }
    }

    #[test]
    fn a_card_that_ships_is_found_by_the_drivers_name() {
        let check = |name: &str, memory, expected: Option<&str>| {
            assert_eq!(shipped(name, memory).map(|p| p.name).as_deref(), expected, "{name}");
        };
        check("NVIDIA GeForce RTX 4090", Bytes::gib(24), Some("rtx-4090"));
        check("NVIDIA H200", Bytes::gib(140), Some("h200"));
        check("NVIDIA GeForce RTX 4060 Ti", Bytes::gib(16), Some("rtx-4060-ti-16gb"));
        check("NVIDIA GeForce RTX 4060 Ti", Bytes::gib(8), Some("rtx-4060-ti-8gb"));
        check("NVIDIA Voodoo", Bytes::gib(8), None);
    }

    #[test]
    fn a_plan_is_made_with_what_is_really_there() {
        let machine = machine_of(&facts("NVIDIA H200", Bytes::gib(139)), "cuda-sm80", None, Bytes::gib(100)).unwrap();
        assert_eq!((machine.device.memory, machine.host.memory), (Bytes::gib(139), Bytes::gib(100)));
        assert_eq!(machine.device.kernel_set, "cuda-sm80");
        assert_eq!(machine.device.fixed_overhead, Bytes::mib(300));
    }

    #[test]
    fn a_card_without_a_profile_says_how_to_get_one() {
        let told = |given| {
            machine_of(&facts("NVIDIA Voodoo", Bytes::gib(8)), "cuda-sm80", given, Bytes::gib(8))
                .unwrap_err()
                .to_string()
        };
        assert!(told(None).contains("loadline profile record --device cuda"), "{}", told(None));
        assert!(told(Some(catalog::find("cpu").unwrap())).contains("is a processor's"));
    }
}

//! One card while something runs on it, as NVIDIA's management library sees it.
//!
//! What is sampled here is for people and for traces. A run itself goes by what the driver of its own context says: the
//! library may be missing in a container, and in some it does not see other processes.

use loadline_core::{Bytes, Nanos};
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::{Device, Nvml};
use serde::{Deserialize, Serialize};

use crate::doctor::HeldBack;
use crate::doctor::held_back;

/// A card at one moment. What the card does not say is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardSample {
    /// When, from the start of the run.
    #[serde(rename = "at_ns")]
    pub at: Nanos,
    /// Bytes that anybody has of the card's memory.
    #[serde(rename = "used_bytes")]
    pub used: Option<Bytes>,
    /// Bytes that nobody has.
    #[serde(rename = "free_bytes")]
    pub free: Option<Bytes>,
    /// Bytes that this process has; absent where the library does not tell processes apart.
    #[serde(rename = "own_bytes")]
    pub own: Option<Bytes>,
    /// The clock of the multiprocessors in MHz.
    pub clock_mhz: Option<u32>,
    /// The clock of the memory in MHz.
    pub memory_clock_mhz: Option<u32>,
    /// Share of the last fraction of a second in which a kernel ran, in percent.
    pub busy_percent: Option<u32>,
    /// Power in milliwatts.
    pub power_mw: Option<u32>,
    /// Temperature in degrees Celsius.
    pub celsius: Option<u32>,
    /// Why the clocks are below their highest, the gravest reason first.
    pub held_back: Vec<HeldBack>,
}

impl CardSample {
    /// Whether something but idleness or a setting slows the card down, so that its times are not those of a recording.
    #[must_use]
    pub fn is_throttled(&self) -> bool {
        self.held_back.iter().any(|held| !matches!(held, HeldBack::Idle | HeldBack::Setting))
    }
}

/// What a card is, for the origin of what is measured on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CardFacts {
    /// The product, as the driver calls it.
    pub name: String,
    /// Memory of the whole card.
    pub memory: Bytes,
    /// The driver.
    pub driver: String,
    /// PCI Express generation: the card's and the slot's best.
    pub link_generation: Option<u32>,
    /// Lanes.
    pub link_width: Option<u32>,
    /// The highest clock of the multiprocessors in MHz.
    pub clock_mhz: Option<u32>,
    /// The highest clock of the memory in MHz.
    pub memory_clock_mhz: Option<u32>,
    /// The limit of power in milliwatts.
    pub power_limit_mw: Option<u32>,
    /// Other processes that have memory of the card.
    pub others: usize,
}

/// A card under observation.
pub struct CardWatch {
    nvml: Nvml,
    bus: String,
}

impl CardWatch {
    /// The card of that PCI address, such as `0000:01:00.0`, as CUDA's driver gives it: the two libraries may count
    /// cards in another order. Nothing where the library or the card is not there.
    #[must_use]
    pub fn open(bus: &str) -> Option<Self> {
        let nvml = Nvml::init().ok()?;
        nvml.device_by_pci_bus_id(bus).ok()?;
        Some(Self { nvml, bus: bus.to_owned() })
    }

    fn device(&self) -> Option<Device<'_>> {
        self.nvml.device_by_pci_bus_id(self.bus.as_str()).ok()
    }

    /// The card now; takes below a millisecond. Nothing where the card is lost.
    #[must_use]
    pub fn sample(&self, at: Nanos) -> Option<CardSample> {
        let device = self.device()?;
        let memory = device.memory_info().ok();
        Some(CardSample {
            at,
            used: memory.as_ref().map(|memory| Bytes(memory.used)),
            free: memory.as_ref().map(|memory| Bytes(memory.free)),
            own: own(&device),
            clock_mhz: device.clock_info(Clock::SM).ok(),
            memory_clock_mhz: device.clock_info(Clock::Memory).ok(),
            busy_percent: device.utilization_rates().ok().map(|rates| rates.gpu),
            power_mw: device.power_usage().ok(),
            celsius: device.temperature(TemperatureSensor::Gpu).ok(),
            held_back: device.current_throttle_reasons().map(held_back).unwrap_or_default(),
        })
    }

    /// What the card is; nothing where it is lost.
    #[must_use]
    pub fn facts(&self) -> Option<CardFacts> {
        let device = self.device()?;
        let own = std::process::id();
        let others = device.running_compute_processes().map_or(0, |all| all.iter().filter(|p| p.pid != own).count());
        Some(CardFacts {
            name: device.name().ok()?,
            memory: Bytes(device.memory_info().ok()?.total),
            driver: self.nvml.sys_driver_version().unwrap_or_default(),
            link_generation: device.max_pcie_link_gen().ok(),
            link_width: device.current_pcie_link_width().ok(),
            clock_mhz: device.max_clock_info(Clock::SM).ok(),
            memory_clock_mhz: device.max_clock_info(Clock::Memory).ok(),
            power_limit_mw: device.enforced_power_limit().ok(),
            others,
        })
    }
}

fn own(device: &Device<'_>) -> Option<Bytes> {
    let pid = std::process::id();
    let processes = device.running_compute_processes().ok()?;
    match processes.into_iter().find(|process| process.pid == pid)?.used_gpu_memory {
        UsedGpuMemory::Used(bytes) => Some(Bytes(bytes)),
        UsedGpuMemory::Unavailable => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idleness_and_settings_are_no_throttling() {
        let sample = |held_back| CardSample { held_back, ..CardSample::default() };
        assert!(!sample(vec![HeldBack::Idle, HeldBack::Setting]).is_throttled());
        assert!(sample(vec![HeldBack::Heat, HeldBack::Idle]).is_throttled());
    }
}

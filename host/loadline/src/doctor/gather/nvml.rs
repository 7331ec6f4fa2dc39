//! What NVIDIA's management library says. It is loaded when it is asked, so that the program starts without it.

use std::path::Path;

use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock, ComputeMode, TemperatureSensor};
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use nvml_wrapper::{Device, Nvml};

use super::super::{Card, Compute, Gpus, HeldBack, Process, Reach};
use super::read;

pub(super) fn gpus(root: &Path) -> Gpus {
    match Nvml::init() {
        Ok(nvml) => asked(&nvml).unwrap_or_else(|error| broken(&error)),
        Err(NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound) => Gpus::NoDriver { cards: on_the_bus(root) },
        // The library without a card is an empty package, nothing that is broken.
        Err(NvmlError::DriverNotLoaded) if on_the_bus(root) == 0 => Gpus::NoDriver { cards: 0 },
        Err(error) => broken(&error),
    }
}

fn broken(error: &NvmlError) -> Gpus {
    Gpus::Broken { reason: error.to_string(), mismatch: matches!(error, NvmlError::LibRmVersionMismatch) }
}

/// NVIDIA's number as a maker of PCI devices.
const NVIDIA: &str = "0x10de";
/// Controllers of displays, which cards without an outlet are too.
const DISPLAY: &str = "0x03";

fn on_the_bus(root: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(root.join("sys/bus/pci/devices")) else { return 0 };
    let is_card = |device: &Path| {
        let is = |file, begin| read(device, file).is_some_and(|text| text.starts_with(begin));
        is("vendor", NVIDIA) && is("class", DISPLAY)
    };
    entries.flatten().filter(|entry| is_card(&entry.path())).count() as u64
}

fn asked(nvml: &Nvml) -> Result<Gpus, NvmlError> {
    let cuda = nvml.sys_cuda_driver_version().ok();
    Ok(Gpus::Driver {
        version: nvml.sys_driver_version()?,
        cuda: cuda.map(|version| format!("{}.{}", version / 1000, version % 1000 / 10)),
        cards: (0..nvml.device_count()?).map(|index| card(nvml, index)).collect(),
    })
}

fn card(nvml: &Nvml, index: u32) -> Card {
    let device = match nvml.device_by_index(index) {
        Ok(device) => device,
        Err(error) => return Card { index, lost: Some(error.to_string()), ..Card::default() },
    };
    let memory = device.memory_info().ok();
    let capability = device.cuda_compute_capability().ok();
    Card {
        index,
        name: device.name().unwrap_or_else(|error| format!("unnamed ({error})")),
        bus: device.pci_info().ok().map(|pci| pci.bus_id),
        lost: None,
        capability: capability.map(|version| format!("{}.{}", version.major, version.minor)),
        total_bytes: memory.as_ref().map(|memory| memory.total),
        free_bytes: memory.as_ref().map(|memory| memory.free),
        used_bytes: memory.as_ref().map(|memory| memory.used),
        processes: processes(nvml, &device),
        link_generation: reach(device.current_pcie_link_gen(), device.max_pcie_link_gen()),
        link_width: reach(device.current_pcie_link_width(), device.max_pcie_link_width()),
        clock_mhz: reach(device.clock_info(Clock::SM), device.max_clock_info(Clock::SM)),
        memory_clock_mhz: reach(device.clock_info(Clock::Memory), device.max_clock_info(Clock::Memory)),
        held_back: device.current_throttle_reasons().map(held_back).unwrap_or_default(),
        celsius: device.temperature(TemperatureSensor::Gpu).ok(),
        compute: device.compute_mode().map_or(Compute::Shared, |mode| compute(&mode)),
    }
}

fn reach(now: Result<u32, NvmlError>, max: Result<u32, NvmlError>) -> Reach {
    Reach { now: now.ok(), max: max.ok() }
}

fn compute(mode: &ComputeMode) -> Compute {
    match mode {
        ComputeMode::Default => Compute::Shared,
        ComputeMode::Prohibited => Compute::Prohibited,
        ComputeMode::ExclusiveThread | ComputeMode::ExclusiveProcess => Compute::Exclusive,
    }
}

/// Longer names of programs are cut.
const NAME: usize = 128;

/// Those that compute and those that draw, each once.
fn processes(nvml: &Nvml, device: &Device<'_>) -> Vec<Process> {
    let lists = [device.running_compute_processes(), device.running_graphics_processes()];
    let mut found: Vec<ProcessInfo> = lists.into_iter().flatten().flatten().collect();
    found.sort_by_key(|process| process.pid);
    found.dedup_by_key(|process| process.pid);
    let own = std::process::id();
    let others = found.into_iter().filter(|process| process.pid != own);
    others
        .map(|process| Process {
            pid: process.pid,
            name: nvml.sys_process_name(process.pid, NAME).ok(),
            used_bytes: match process.used_gpu_memory {
                UsedGpuMemory::Used(bytes) => Some(bytes),
                UsedGpuMemory::Unavailable => None,
            },
        })
        .collect()
}

/// The gravest first.
fn held_back(reasons: ThrottleReasons) -> Vec<HeldBack> {
    let known = [
        (ThrottleReasons::HW_THERMAL_SLOWDOWN, HeldBack::Heat),
        (ThrottleReasons::SW_THERMAL_SLOWDOWN, HeldBack::Heat),
        (ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN, HeldBack::PowerBrake),
        (ThrottleReasons::HW_SLOWDOWN, HeldBack::Hardware),
        (ThrottleReasons::SW_POWER_CAP, HeldBack::Power),
        (ThrottleReasons::APPLICATIONS_CLOCKS_SETTING, HeldBack::Setting),
        (ThrottleReasons::SYNC_BOOST, HeldBack::Group),
        (ThrottleReasons::GPU_IDLE, HeldBack::Idle),
    ];
    let mut held: Vec<_> = known.iter().filter(|(flag, _)| reasons.contains(*flag)).map(|(_, why)| *why).collect();
    held.dedup();
    held
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn cards_on_the_bus_are_counted_without_their_sound() {
        let root = tempfile::tempdir().unwrap();
        let devices =
            [("a", "0x10de\n", "0x030000\n"), ("b", "0x10de\n", "0x040300\n"), ("c", "0x1002\n", "0x030000\n")];
        for (name, vendor, class) in devices {
            let folder = root.path().join("sys/bus/pci/devices").join(name);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("vendor"), vendor).unwrap();
            std::fs::write(folder.join("class"), class).unwrap();
        }
        assert_eq!(on_the_bus(root.path()), 1);
        assert_eq!(on_the_bus(&root.path().join("none")), 0);
    }

    #[test]
    fn the_gravest_reason_comes_first_and_once() {
        let heat = ThrottleReasons::HW_THERMAL_SLOWDOWN | ThrottleReasons::SW_THERMAL_SLOWDOWN;
        assert_eq!(held_back(heat | ThrottleReasons::HW_SLOWDOWN), [HeldBack::Heat, HeldBack::Hardware]);
        assert_eq!(held_back(ThrottleReasons::GPU_IDLE), [HeldBack::Idle]);
        assert!(held_back(ThrottleReasons::empty()).is_empty());
    }
}

//! What NVIDIA's management library says. It is loaded when it is asked, so that the program starts without it.

use std::path::Path;

use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock, ComputeMode, TemperatureSensor};
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use nvml_wrapper::{Device, Nvml};

use super::super::{Card, Compute, Gpus, HeldBack, Process, Reach, Unanswered};
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
    match nvml.device_by_index(index) {
        Ok(device) => described(index, answers(nvml, &device)),
        Err(error) => Card { index, lost: Some(error.to_string()), ..Card::default() },
    }
}

/// A question's answer, or why there is none.
type Answer<T> = Result<T, String>;

/// What a card was asked. Cards in laptops, in virtual machines and of older kinds leave some of it open.
struct Answers {
    name: Answer<String>,
    bus: Answer<String>,
    capability: Answer<String>,
    /// All of it, what is free, and what is used.
    memory: Answer<(u64, u64, u64)>,
    processes: Answer<Vec<Process>>,
    link_generation: [Answer<u32>; 2],
    link_width: [Answer<u32>; 2],
    clock_mhz: [Answer<u32>; 2],
    memory_clock_mhz: [Answer<u32>; 2],
    held_back: Answer<Vec<HeldBack>>,
    celsius: Answer<u32>,
    compute: Answer<Compute>,
}

fn answers(nvml: &Nvml, device: &Device<'_>) -> Answers {
    let memory = device.memory_info().map(|memory| (memory.total, memory.free, memory.used));
    let capability = device.cuda_compute_capability().map(|version| format!("{}.{}", version.major, version.minor));
    Answers {
        name: said(device.name()),
        bus: said(device.pci_info().map(|pci| pci.bus_id)),
        capability: said(capability),
        memory: said(memory),
        processes: said(processes(nvml, device)),
        link_generation: [said(device.current_pcie_link_gen()), said(device.max_pcie_link_gen())],
        link_width: [said(device.current_pcie_link_width()), said(device.max_pcie_link_width())],
        clock_mhz: [said(device.clock_info(Clock::SM)), said(device.max_clock_info(Clock::SM))],
        memory_clock_mhz: [said(device.clock_info(Clock::Memory)), said(device.max_clock_info(Clock::Memory))],
        held_back: said(device.current_throttle_reasons().map(held_back)),
        celsius: said(device.temperature(TemperatureSensor::Gpu)),
        compute: said(device.compute_mode().map(|mode| compute(&mode))),
    }
}

fn said<T>(answer: Result<T, NvmlError>) -> Answer<T> {
    answer.map_err(|error| error.to_string())
}

/// Collects what a card does not say.
#[derive(Default)]
struct Open(Vec<Unanswered>);

impl Open {
    fn known<T>(&mut self, what: &str, answer: Answer<T>) -> Option<T> {
        answer.map_err(|reason| self.0.push(Unanswered { what: what.to_owned(), reason })).ok()
    }

    fn reach(&mut self, what: &str, [now, max]: [Answer<u32>; 2]) -> Reach {
        Reach { now: self.known(&format!("{what} now"), now), max: self.known(&format!("{what} at most"), max) }
    }
}

fn described(index: u32, answers: Answers) -> Card {
    let mut open = Open::default();
    let memory = open.known("memory", answers.memory);
    let card = Card {
        index,
        name: open.known("name", answers.name).unwrap_or_else(|| "unnamed".to_owned()),
        bus: open.known("place on the bus", answers.bus),
        lost: None,
        capability: open.known("compute capability", answers.capability),
        total_bytes: memory.map(|(total, _, _)| total),
        free_bytes: memory.map(|(_, free, _)| free),
        used_bytes: memory.map(|(_, _, used)| used),
        processes: open.known("processes that use it", answers.processes).unwrap_or_default(),
        link_generation: open.reach("PCIe generation", answers.link_generation),
        link_width: open.reach("PCIe lanes", answers.link_width),
        clock_mhz: open.reach("clock", answers.clock_mhz),
        memory_clock_mhz: open.reach("clock of its memory", answers.memory_clock_mhz),
        held_back: open.known("why its clocks are not higher", answers.held_back).unwrap_or_default(),
        celsius: open.known("temperature", answers.celsius),
        compute: open.known("compute mode", answers.compute).unwrap_or_default(),
        unanswered: Vec::new(),
    };
    Card { unanswered: open.0, ..card }
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
fn processes(nvml: &Nvml, device: &Device<'_>) -> Result<Vec<Process>, NvmlError> {
    let mut found: Vec<ProcessInfo> = device.running_compute_processes()?;
    // A card without an outlet draws nothing, and may say so by an error.
    found.extend(device.running_graphics_processes().unwrap_or_default());
    found.sort_by_key(|process| process.pid);
    found.dedup_by_key(|process| process.pid);
    let own = std::process::id();
    let others = found.into_iter().filter(|process| process.pid != own);
    let told = others
        .map(|process| Process {
            pid: process.pid,
            name: nvml.sys_process_name(process.pid, NAME).ok(),
            used_bytes: match process.used_gpu_memory {
                UsedGpuMemory::Used(bytes) => Some(bytes),
                UsedGpuMemory::Unavailable => None,
            },
        })
        .collect();
    Ok(told)
}

/// The gravest first.
pub(crate) fn held_back(reasons: ThrottleReasons) -> Vec<HeldBack> {
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

    /// A card that says everything.
    fn all() -> Answers {
        Answers {
            name: Ok("Made-up Card".to_owned()),
            bus: Ok("00000000:01:00.0".to_owned()),
            capability: Ok("8.9".to_owned()),
            memory: Ok((24, 20, 4)),
            processes: Ok(Vec::new()),
            link_generation: [Ok(4), Ok(4)],
            link_width: [Ok(16), Ok(16)],
            clock_mhz: [Ok(1), Ok(2)],
            memory_clock_mhz: [Ok(1), Ok(2)],
            held_back: Ok(vec![HeldBack::Idle]),
            celsius: Ok(40),
            compute: Ok(Compute::Shared),
        }
    }

    #[test]
    fn what_a_card_does_not_say_is_kept_with_its_reason() {
        let card = described(3, all());
        assert_eq!((card.index, card.unanswered.len(), card.used_bytes), (3, 0, Some(4)));
        let no = || "Not Supported".to_owned();
        let answers =
            Answers { link_width: [Err(no()), Ok(16)], memory: Err(no()), compute: Err("lost".to_owned()), ..all() };
        let card = described(0, answers);
        let open: Vec<_> = card.unanswered.iter().map(|open| (open.what.as_str(), open.reason.as_str())).collect();
        let refused = "Not Supported";
        assert_eq!(open, [("memory", refused), ("PCIe lanes now", refused), ("compute mode", "lost")]);
        assert_eq!((card.link_width, card.total_bytes), (Reach { now: None, max: Some(16) }, None));
    }
}

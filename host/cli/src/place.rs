//! `--device` and `--gpu-index`: where on this machine something runs.

use loadline::core::{Bytes, Machine};
use loadline::{Error, Gpu, On, profiles};

use crate::args::{DeviceChoice, PlaceArgs};
use crate::setup;

/// Where something runs, and what plans for it are made with.
pub(crate) struct Place {
    /// The device.
    pub on: On,
    /// The machine.
    pub machine: Machine,
    /// What others have of the device's memory now.
    pub used_by_others: Bytes,
}

impl Place {
    /// The place that flags choose. `gpu` is the profile that was named; `processor` says that something else, such as
    /// a preset, asks for the processor.
    pub(crate) fn choose(args: &PlaceArgs, gpu: Option<&str>, processor: bool) -> Result<Self, Error> {
        match opened(args, gpu, processor)? {
            Some(opened) => Self::cuda(opened, gpu),
            None => {
                let machine = setup::this_machine(gpu.unwrap_or("cpu"))?;
                Ok(Self { on: On::Cpu, machine, used_by_others: Bytes::ZERO })
            }
        }
    }

    fn cuda(gpu: Gpu, profile: Option<&str>) -> Result<Self, Error> {
        let given = profile.map(|name| profiles::find_or_open(name, |path| std::fs::File::open(path)));
        let given = given.transpose().map_err(|e| Error::Profile(e.to_string()))?;
        let machine = gpu.machine(given, ram()?)?;
        let used_by_others = gpu.facts().others;
        Ok(Self { on: On::Cuda(gpu), machine, used_by_others })
    }
}

/// RAM of this machine, as far as the control groups of this process let it have it.
pub(crate) fn ram() -> Result<Bytes, Error> {
    let mut system = sysinfo::System::new().map_err(|e| Error::Profile(format!("the size of RAM is unknown: {e}")))?;
    system.refresh_memory();
    let total = Bytes(system.total_memory());
    Ok(loadline::System::default().limit().map_or(total, |limit| limit.min(total)))
}

/// The GPU that flags choose; nothing for the processor.
pub(crate) fn opened(args: &PlaceArgs, profile: Option<&str>, processor: bool) -> Result<Option<Gpu>, Error> {
    let index = asked(args)?;
    match args.device {
        DeviceChoice::Cpu => Ok(None),
        DeviceChoice::Cuda(_) => open(index).map(Some),
        DeviceChoice::Auto if index.is_some() => open(index).map(Some),
        DeviceChoice::Auto if processor || profile.is_some_and(is_processors) => Ok(None),
        DeviceChoice::Auto => match open(None) {
            Ok(gpu) => Ok(Some(gpu)),
            Err(Error::NoGpu(why)) => {
                // What to do about it is for those who want a GPU.
                note!("{}: running on the processor", why.split(';').next().unwrap_or_default());
                Ok(None)
            }
            Err(other) => Err(other),
        },
    }
}

fn open(index: Option<u32>) -> Result<Gpu, Error> {
    let gpu = Gpu::open(index)?;
    let facts = gpu.facts();
    if index.is_none() && !gpu.others().is_empty() {
        let others = gpu.others().join(", ");
        note!("running on GPU {}, {}; choose another with --gpu-index: {others}", facts.index, facts.name);
    }
    Ok(gpu)
}

/// The index that was given in one way or the other.
fn asked(args: &PlaceArgs) -> Result<Option<u32>, Error> {
    let named = match args.device {
        DeviceChoice::Cuda(index) => index,
        DeviceChoice::Auto | DeviceChoice::Cpu => None,
    };
    match (named, args.gpu_index) {
        (Some(a), Some(b)) if a != b => {
            Err(Error::Request(format!("--device cuda:{a} and --gpu-index {b} name two GPUs: leave one of them out")))
        }
        (None, Some(index)) if args.device == DeviceChoice::Cpu => Err(Error::Request(format!(
            "--gpu-index {index} chooses a GPU and --device cpu none: leave one of them out"
        ))),
        (named, given) => Ok(named.or(given)),
    }
}

/// Whether a profile is a processor's, so that who names it wants to run there.
fn is_processors(profile: &str) -> bool {
    profiles::find_or_open(profile, |path| std::fs::File::open(path)).is_ok_and(|found| found.device.unified)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_that_contradict_each_other_are_refused() {
        let check = |device: DeviceChoice, gpu_index, expected: Result<Option<u32>, &str>| {
            let answer = asked(&PlaceArgs { device, gpu_index }).map_err(|e| e.to_string());
            match (answer, expected) {
                (Ok(a), Ok(b)) => assert_eq!(a, b),
                (Err(text), Err(part)) => assert!(text.contains(part), "{text}"),
                (answer, expected) => panic!("{answer:?} and not {expected:?}"),
            }
        };
        check(DeviceChoice::Auto, None, Ok(None));
        check(DeviceChoice::Auto, Some(1), Ok(Some(1)));
        check(DeviceChoice::Cuda(Some(2)), None, Ok(Some(2)));
        check(DeviceChoice::Cuda(Some(2)), Some(2), Ok(Some(2)));
        check(DeviceChoice::Cuda(Some(2)), Some(1), Err("name two GPUs"));
        check(DeviceChoice::Cpu, Some(1), Err("--device cpu"));
    }

    #[test]
    fn devices_are_read_as_they_are_written() {
        let check = |text: &str, expected: Option<DeviceChoice>| assert_eq!(text.parse().ok(), expected, "{text}");
        check("auto", Some(DeviceChoice::Auto));
        check("CPU", Some(DeviceChoice::Cpu));
        check("cuda", Some(DeviceChoice::Cuda(None)));
        check("cuda:1", Some(DeviceChoice::Cuda(Some(1))));
        check("cuda:", None);
        check("cuda:-1", None);
        check("cpu:0", None);
        check("gpu", None);
    }
}

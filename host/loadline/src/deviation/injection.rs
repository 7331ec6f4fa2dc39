//! Faults in words: `out-of-memory@denoise:3`.

use loadline_core::{Bytes, Job, Nanos};
use loadline_engine::{Fault, Injection, Moment};

/// Why a text is no fault of a job.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{text}': {reason}; write FAULT@STAGE or FAULT@STAGE:PASS, such as out-of-memory@denoise:3; faults are \
         out-of-memory, others=SIZE, host-free=SIZE, memory-stall=PERCENT, disk-slower=TIMES, \
         disk-delay=SECONDS, task-delay=SECONDS, read-error, task-error"
)]
pub struct ParseInjectionError {
    text: String,
    reason: String,
}

/// Reads one fault: what goes wrong, and the stage and pass (counted from 1) at whose start it does.
///
/// # Errors
/// If the fault is unknown, its amount is no amount, or the job has no such stage or pass.
pub fn injection(text: &str, job: &Job) -> Result<Injection, ParseInjectionError> {
    let failed = |reason: String| ParseInjectionError { text: text.to_owned(), reason };
    let (what, at) = text.split_once('@').ok_or_else(|| failed("there is no '@'".to_owned()))?;
    let fault = fault(what).map_err(failed)?;
    let when = moment(at, job).map_err(failed)?;
    Ok(Injection { when, fault })
}

fn fault(text: &str) -> Result<Fault, String> {
    let (name, amount) = text.split_once('=').map_or((text, None), |(name, amount)| (name, Some(amount)));
    let size = || -> Result<Bytes, String> {
        let amount = amount.ok_or_else(|| format!("'{name}' needs a size, such as {name}=2GiB"))?;
        amount.parse().map_err(|e| format!("{e}"))
    };
    let delay = || -> Result<Nanos, String> {
        let seconds = amount.and_then(|a| a.parse::<u32>().ok()).filter(|seconds| *seconds > 0);
        let seconds = seconds.ok_or_else(|| format!("'{name}' needs whole seconds, such as {name}=60"))?;
        Ok(Nanos(u64::from(seconds) * 1_000_000_000))
    };
    match name {
        "others" => Ok(Fault::OthersTake(size()?)),
        "host-free" => Ok(Fault::HostFree(size()?)),
        "disk-slower" => {
            let times = amount.and_then(|a| a.parse().ok()).filter(|times| (1..=1_000_000).contains(times));
            let times = times.ok_or_else(|| "'disk-slower' needs a whole number, such as disk-slower=4".to_owned());
            Ok(Fault::DiskSlower(times?))
        }
        "memory-stall" => {
            let percent = amount.and_then(|a| a.parse().ok()).filter(|percent| (0..=100).contains(percent));
            let percent =
                percent.ok_or_else(|| "'memory-stall' needs a percentage, such as memory-stall=40".to_owned());
            Ok(Fault::MemoryStall(percent?))
        }
        "disk-delay" => Ok(Fault::DiskDelay(delay()?)),
        "task-delay" => Ok(Fault::TaskDelay(delay()?)),
        _ if amount.is_some() => Err(format!("'{name}' takes no amount, or is unknown")),
        "out-of-memory" => Ok(Fault::OutOfMemory),
        "read-error" => Ok(Fault::ReadError),
        "task-error" => Ok(Fault::TaskError),
        _ => Err(format!("'{name}' is unknown")),
    }
}

fn moment(text: &str, job: &Job) -> Result<Moment, String> {
    let (name, pass) = text.split_once(':').unwrap_or((text, "1"));
    let stage = job.stages.iter().position(|s| s.name == name).ok_or_else(|| {
        let names: Vec<&str> = job.stages.iter().map(|s| s.name.as_str()).collect();
        format!("there is no stage '{name}', the stages are {}", names.join(", "))
    })?;
    let passes = job.stages[stage].pass_count();
    match pass.parse::<u64>() {
        Ok(pass) if (1..=passes).contains(&pass) => Ok(Moment::Pass { stage, pass: pass - 1 }),
        _ => Err(format!("stage '{name}' has the passes 1 to {passes}")),
    }
}

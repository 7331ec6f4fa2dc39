//! What to say when nothing fits: what breaks the budget, and what would fit.

use std::sync::Arc;

use loadline_core::check::{DISK_RING, program};
use loadline_core::{
    ActClass, Budget, Bytes, Job, Machine, Nanos, Request, Reservation, Stage, StageKind, stage_bound,
};

use super::certificate::exact;
use super::shelf::Bench;
use super::{Asked, Certificate, Planner};
use crate::Error;

/// A policy's no, and the job that it was about.
#[derive(Clone)]
pub(crate) struct Refused {
    /// The job, tiled as small as it was tried.
    pub(crate) job: Arc<Job>,
    /// The stage that the policy names.
    pub(crate) stage: Option<u32>,
    /// The device bytes that are enough for that stage, as far as the policy knows.
    pub(crate) needs: Option<Bytes>,
    /// The reason in words.
    pub(crate) message: String,
}

impl Refused {
    /// The stage that does not fit: the one that the policy names, or the one that needs most.
    pub(crate) fn breaks(&self, machine: &Machine) -> Option<&Stage> {
        let named = self.stage.and_then(|s| self.job.stages.get(s as usize));
        named.or_else(|| self.job.stages.iter().rev().max_by_key(|s| least(&self.job, s, machine)))
    }

    /// What the stage that does not fit needs, by reservation; they sum up to more than the budget unless the policy
    /// keeps to less than it was given.
    pub(crate) fn needs(&self, machine: &Machine) -> Vec<Reservation> {
        let Some(stage) = self.breaks(machine) else { return Vec::new() };
        let mut needs = least_needs(&self.job, stage, machine);
        // Settings may keep blocks on the device, or a share of it free: what that comes to is the policy's own.
        let more = self.needs.unwrap_or_default() - least(&self.job, stage, machine);
        if more > Bytes::ZERO {
            needs.insert(1, Reservation { name: "policy".to_owned(), bytes: more });
        }
        needs
    }

    /// What breaks the budget, for people.
    pub(crate) fn tensor(&self, machine: &Machine) -> (String, String) {
        self.breaks(machine).map_or_else(Default::default, |s| (s.name.clone(), culprit(&self.job, s)))
    }
}

/// The smallest budget with which a command makes a plan, and what the policy says one granule below it.
#[derive(Clone)]
pub(crate) struct Smallest {
    /// The budget.
    pub(crate) budget: Bytes,
    /// The refusal of one granule less; nothing if there it was not the policy that refused.
    pub(crate) below: Option<Refused>,
}

impl Smallest {
    /// A refusal in terms of the stage that the smallest budget depends on. A policy refuses with the first stage that
    /// it cannot place, and another one may need more: naming the first would be no way out.
    pub(crate) fn settle(smallest: Option<&Self>, refused: &Refused, machine: &Machine, budget: Bytes) -> Refused {
        let name = |r: &Refused| r.breaks(machine).map(|s| s.name.clone());
        let Some((least, below)) = smallest.and_then(|s| Some((s.budget, s.below.as_ref()?))) else {
            return refused.clone();
        };
        match name(below) {
            Some(stage) if budget < least && name(refused).as_ref() != Some(&stage) => {
                let least = exact(least);
                let message = format!("stage '{stage}' needs a budget of {least} at least, {budget} may be used");
                Refused { message, ..below.clone() }
            }
            _ => refused.clone(),
        }
    }
}

/// Says no to what the model or the machine does not allow, whatever the policy.
pub(crate) fn check_request(planner: &Planner<'_>, bench: &Bench<'_>, asked: &Asked) -> Result<(), Error> {
    planner.budget(asked)?;
    let knobs = planner.knobs(asked, None);
    bench.shelf().job(&asked.request, &knobs, &asked.sampling, &planner.kernels()?).map(|_| ())
}

/// Whether a smaller tile could help: the decoder is over the budget, or the largest of all.
pub(super) fn decoder_breaks(job: &Job, machine: &Machine, budget: Budget) -> bool {
    let vae = |s: &Stage| matches!(s.kind, StageKind::VaeDecode | StageKind::VaeEncode);
    let needs = |s: &Stage| least(job, s, machine);
    let over = |s: &&Stage| needs(s) > budget.device;
    // A policy may keep to less than the budget; then the decoder is worth shrinking while it is the largest.
    let largest = job.stages.iter().max_by_key(|s| needs(s));
    job.stages.iter().filter(over).any(vae) || largest.is_some_and(vae)
}

pub(super) fn certificate(
    planner: &Planner<'_>,
    bench: &Bench<'_>,
    asked: &Asked,
    budget: Budget,
    refused: &Refused,
) -> Result<Certificate, Error> {
    let machine = planner.machine;
    let smallest = smallest_budget(planner, bench, asked, budget, refused)?;
    let refused = Smallest::settle(smallest.as_ref(), refused, machine, budget.device);
    let (stage, tensor) = refused.tensor(machine);
    Ok(Certificate {
        reason: refused.message,
        budget_bytes: budget.device,
        device_bytes: machine.device.memory,
        min_budget_bytes: smallest.map(|s| s.budget),
        stage,
        tensor,
        nearest_request: nearest(planner, bench, asked, budget)?,
    })
}

/// What came of one budget.
enum Tried {
    Works,
    /// A no, in the policy's words unless it is the host that is too small.
    Not(Option<Refused>),
}

/// Whether a plan can be made within so many device bytes. A host that is too small is a no as well.
fn tried(planner: &Planner<'_>, bench: &Bench<'_>, asked: &Asked, budget: Budget) -> Result<Tried, Error> {
    match planner.within(bench, asked, budget) {
        Ok(Ok(_)) => Ok(Tried::Works),
        Ok(Err(refused)) => Ok(Tried::Not(Some(refused))),
        Err(Error::NeverFits(_)) => Ok(Tried::Not(None)),
        Err(other) => Err(other),
    }
}

/// The smallest budget with which the same command makes a plan. What cannot be avoided and what the policy says that
/// it needs are tried first; a policy that wants something else is searched by bisection. In every case a plan was
/// made with the answer, and was refused with one granule less.
pub(crate) fn smallest_budget(
    planner: &Planner<'_>,
    bench: &Bench<'_>,
    asked: &Asked,
    budget: Budget,
    refused: &Refused,
) -> Result<Option<Smallest>, Error> {
    let device = &planner.machine.device;
    let granule = device.granularity.max(1);
    let at = |granules: u64| Budget { device: Bytes(granules.saturating_mul(granule)), ..budget };
    let tried = |granules: u64| tried(planner, bench, asked, at(granules));
    let found = |granules: u64, below| Some(Smallest { budget: at(granules).device, below });
    let job = &refused.job;
    let least = job.stages.iter().map(|s| least(job, s, planner.machine)).max().unwrap_or(Bytes::ZERO);
    let most = device.memory.0.max(least.0.saturating_mul(64)) / granule;
    let (mut low, mut below, mut high) = (0, None, None);
    for hint in [Some(least), refused.needs].into_iter().flatten().map(|b| b.0.div_ceil(granule)) {
        if hint <= low || hint >= high.unwrap_or(most) {
            continue;
        }
        if let Tried::Not(why) = tried(hint)? {
            (low, below) = (hint, why);
            continue;
        }
        if let Tried::Not(why) = tried(hint - 1)? {
            return Ok(found(hint, why));
        }
        high = Some(hint - 1);
    }
    let mut high = match high {
        Some(high) => high,
        None if matches!(tried(most)?, Tried::Works) => most,
        None => return Ok(None),
    };
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        match tried(middle)? {
            Tried::Works => high = middle,
            Tried::Not(why) => (low, below) = (middle, why),
        }
    }
    Ok(found(high, below))
}

/// The most frames of the same size that could fit.
fn nearest(planner: &Planner<'_>, bench: &Bench<'_>, asked: &Asked, budget: Budget) -> Result<Option<Request>, Error> {
    let Some(frames) = planner.model.frames() else { return Ok(None) };
    let kernels = planner.kernels()?;
    let tile = asked.knobs.tile.is_none().then(|| planner.model.tile_sizes().pop()).flatten();
    let knobs = planner.knobs(asked, tile);
    let request = |nth: u32| Request { frames: frames.least + nth * frames.step, ..asked.request.clone() };
    let fits = |nth: u32| -> bool {
        let job = bench.shelf().job(&request(nth), &knobs, &asked.sampling, &kernels);
        job.is_ok_and(|job| job.stages.iter().all(|s| least(&job, s, planner.machine) <= budget.device))
    };
    let (mut low, mut high) = (0, asked.request.frames.saturating_sub(frames.least).div_ceil(frames.step));
    if high == 0 || !fits(low) {
        return Ok(None);
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if fits(middle) { low = middle } else { high = middle }
    }
    // Fewer frames help only if the policy, with its settings, plans them too.
    let nearer = Asked { request: request(low), ..asked.clone() };
    let works = matches!(tried(planner, bench, &nearer, budget)?, Tried::Works);
    Ok(works.then_some(nearer.request))
}

/// What a stage needs at least: its activations and one slot for its largest block.
pub(crate) fn least(job: &Job, stage: &Stage, machine: &Machine) -> Bytes {
    let granule = machine.device.granularity;
    machine.device.fixed_overhead
        + stage.activation_peak().round_up(granule)
        + job.largest_block(stage).round_up(granule)
}

/// The same by reservation.
fn least_needs(job: &Job, stage: &Stage, machine: &Machine) -> Vec<Reservation> {
    let named = |name: &str, bytes: Bytes| Reservation { name: name.to_owned(), bytes };
    let slot = job.largest_block(stage).round_up(machine.device.granularity);
    let mut needs = vec![named("fixed", machine.device.fixed_overhead), named("slots", slot)];
    if let Some(task) = stage.peak_task() {
        needs.extend(ActClass::ALL.into_iter().map(|c| named(c.name(), task.memory.at_peak[c as usize])));
    }
    needs.retain(|r| r.bytes > Bytes::ZERO);
    needs
}

/// Device bytes with which a plan may be possible, by arithmetic alone: what the largest stage needs with the tile that
/// needs least. Less than that is too little for every policy.
pub(crate) fn floor(planner: &Planner<'_>, bench: &Bench<'_>, asked: &Asked) -> Result<Bytes, Error> {
    let jobs = tiled(planner, bench, asked)?;
    let needs = |job: &Arc<Job>| job.stages.iter().map(|s| least(job, s, planner.machine)).max().unwrap_or_default();
    Ok(jobs.iter().map(needs).min().unwrap_or_default())
}

/// Whether arithmetic leaves a chance for a plan within a budget and a time: with some tile the largest stage fits,
/// and computing alone is not too slow.
pub(crate) fn could_fit(
    planner: &Planner<'_>,
    bench: &Bench<'_>,
    asked: &Asked,
    budget: Budget,
    most: Nanos,
) -> Result<bool, Error> {
    let jobs = match tiled(planner, bench, asked) {
        Ok(jobs) => jobs,
        // The request is beyond the model's limits: the probe will say which.
        Err(Error::Request(_)) => return Ok(false),
        Err(other) => return Err(other),
    };
    for job in jobs {
        let fits = job.stages.iter().all(|s| least(&job, s, planner.machine) <= budget.device);
        if fits && (most == Nanos::MAX || computing(&job, planner.machine)? <= most) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The time that no plan of a job beats, whatever its memory.
fn computing(job: &Job, machine: &Machine) -> Result<Nanos, Error> {
    let mut total = Nanos::ZERO;
    for stage in &job.stages {
        total += stage_bound(job, stage, machine, Bytes::MAX)?.time;
    }
    Ok(total)
}

/// A request's jobs: without tiles, and with each of the model's tiles if nobody chose one.
fn tiled(planner: &Planner<'_>, bench: &Bench<'_>, asked: &Asked) -> Result<Vec<Arc<Job>>, Error> {
    let kernels = planner.kernels()?;
    let lowered = |tile| {
        let knobs = planner.knobs(asked, tile);
        bench.shelf().job(&asked.request, &knobs, &asked.sampling, &kernels)
    };
    let mut jobs = vec![lowered(None)?];
    if asked.knobs.tile.is_none() {
        // A tile that the request does not allow is no way out, and no error either.
        jobs.extend(planner.model.tile_sizes().into_iter().filter_map(|tile| lowered(Some(tile)).ok()));
    }
    Ok(jobs)
}

fn culprit(job: &Job, stage: &Stage) -> String {
    let block = job.largest_block(stage);
    let Some(task) = stage.peak_task() else { return format!("the largest block ({block})") };
    format!("the activations of task '{}' ({}) beside the largest block ({block})", task.name, task.memory.peak)
}

/// No device budget helps where the host is too small: frames and what disk reads pass through stay there.
pub(super) fn host_certificate(least: Bytes, job: &Job, machine: &Machine, budget: Budget) -> Certificate {
    let host = budget.host;
    let through = if machine.device.unified {
        format!("the program ({}) and the ring that weights are read through ({DISK_RING})", program(machine))
    } else {
        "the largest block".to_owned()
    };
    Certificate {
        reason: format!(
            "every plan needs {least} of host memory at least, the budget is {host}; raise --ram, or ask for fewer \
             frames or a smaller size"
        ),
        budget_bytes: budget.device,
        device_bytes: machine.device.memory,
        min_budget_bytes: None,
        stage: "host".to_owned(),
        tensor: format!("the output frames ({}) beside {through}", job.frames_host),
        nearest_request: None,
    }
}

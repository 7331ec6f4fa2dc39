//! The sums: every reservation against every budget.

use super::Finding;
use crate::forecast::Reservation;
use crate::job::{Job, Stage};
use crate::machine::Machine;
use crate::plan::{Plan, StagePlan, Tier};
use crate::situation::Budget;
use crate::units::Bytes;

pub(super) fn activations(stage: &Stage, plan: &StagePlan) -> Option<Finding> {
    let task = stage.peak_task()?;
    (plan.activations < task.memory.peak).then(|| Finding::Activations {
        stage: stage.name.clone(),
        task: task.name.clone(),
        needs: task.memory.peak,
        has: plan.activations,
    })
}

/// Device bytes of one stage at its peak: fixed overhead, slots, what other stages keep and
/// activations, each rounded up to what the device hands out.
#[must_use]
pub fn fixed_and_stage(plan: &Plan, stage: usize, machine: &Machine) -> Bytes {
    let granule = machine.device.granularity;
    let kept = |index: usize, keep_only: bool| -> Bytes {
        let slots = plan.stages[index].slots.iter().filter(|s| s.keep || !keep_only);
        slots.map(|s| s.bytes.round_up(granule)).sum()
    };
    let slots: Bytes = (0..plan.stages.len()).map(|i| kept(i, i != stage)).sum();
    machine.device.fixed_overhead + slots + plan.stages[stage].activations.round_up(granule)
}

pub(super) fn device<'a>(
    plan: &'a Plan,
    job: &'a Job,
    machine: &'a Machine,
    budget: &'a Budget,
) -> impl Iterator<Item = Finding> + 'a {
    job.stages.iter().enumerate().filter_map(move |(i, stage)| {
        let needs = fixed_and_stage(plan, i, machine);
        let finding = || Finding::DeviceBudget { stage: stage.name.clone(), needs, budget: budget.device };
        (needs > budget.device).then(finding)
    })
}

/// The ring of buffers that reads of weight files pass through where device and host share their memory: what lies in a
/// file as in its slot goes straight there, what is converted or lies otherwise goes through these. Eight reads of 1
/// MiB in flight bring today's disks to their rate; more buffers would only take memory.
pub const DISK_RING: Bytes = Bytes(8 << 20);

/// The [`DISK_RING`] as far as a job on a machine has one.
fn ring(job: &Job, machine: &Machine) -> Bytes {
    if machine.device.unified && !job.blocks.is_empty() { DISK_RING } else { Bytes::ZERO }
}

/// What the program takes where device and host share their memory, before the first tensor and beside all of them: its
/// code and tables, stacks, the policy's instance, and what the allocator holds back of memory that was given back. It
/// is reserved so that both budgets together bound the process.
const PROGRAM: Bytes = Bytes(64 << 20);

/// The same for a machine; nothing where the device has a memory of its own, since what its driver's libraries take of
/// the host's is known to nobody before they are loaded.
#[must_use]
pub fn program(machine: &Machine) -> Bytes {
    if machine.device.unified { PROGRAM } else { Bytes::ZERO }
}

/// The host budget as far as it is a policy's to give: without what the engine itself takes on any plan.
#[must_use]
pub fn offered(budget: Budget, machine: &Machine) -> Budget {
    let ring = if machine.device.unified { DISK_RING } else { Bytes::ZERO };
    let host = budget.host - ring - program(machine);
    Budget { host, pinned: budget.pinned.min(host), ..budget }
}

/// Host bytes by reservation: masters of blocks, output frames, the [`program`], and what disk reads pass through. On a
/// device of its own that is a buffer for the largest streamed block, from which the link takes it; a unified device
/// has the [`DISK_RING`].
#[must_use]
pub fn host_reservations(plan: &Plan, job: &Job, machine: &Machine) -> Vec<Reservation> {
    let masters = |tier: Tier| -> Bytes {
        let homes = job.blocks.iter().zip(&plan.homes);
        homes.filter(|(_, t)| **t == tier).map(|(b, _)| b.slab).sum()
    };
    let from_disk = job.blocks.iter().zip(&plan.homes).filter(|(_, home)| **home == Tier::Disk);
    let largest = from_disk.map(|(b, _)| b.slab.max(b.file)).max().unwrap_or(Bytes::ZERO);
    let staging = if machine.device.unified { ring(job, machine) } else { largest };
    [
        ("pinned", masters(Tier::Pinned)),
        ("pageable", masters(Tier::Host)),
        ("disk-staging", staging),
        ("frames", job.frames_host),
        ("program", program(machine)),
    ]
    .into_iter()
    .map(|(name, bytes)| Reservation { name: name.to_owned(), bytes })
    .collect()
}

/// The least host bytes of any plan for a job: its frames, the program, and what reads from disk pass through. Where a
/// few blocks make that buffer large, to keep these in host memory may take less.
#[must_use]
pub fn least_host(job: &Job, machine: &Machine) -> Bytes {
    if machine.device.unified {
        return job.frames_host + program(machine) + ring(job, machine);
    }
    let mut blocks: Vec<(Bytes, Bytes)> = job.blocks.iter().map(|b| (b.slab.max(b.file), b.slab)).collect();
    blocks.sort_unstable_by(|a, b| b.cmp(a));
    let mut kept = Bytes::ZERO;
    let mut least = Bytes::MAX;
    for (staging, slab) in blocks {
        least = least.min(kept + staging);
        kept += slab;
    }
    job.frames_host + least.min(kept)
}

pub(super) fn host(plan: &Plan, job: &Job, machine: &Machine, budget: &Budget) -> Vec<Finding> {
    let reservations = host_reservations(plan, job, machine);
    let pinned = reservations[0].bytes;
    let total: Bytes = reservations.iter().map(|r| r.bytes).sum();
    let over = |tier: &str, needs: Bytes, budget: Bytes| {
        (needs > budget).then(|| Finding::HostBudget { tier: tier.to_owned(), needs, budget })
    };
    over("host", total, budget.host).into_iter().chain(over("pinned", pinned, budget.pinned)).collect()
}

//! Where blocks live while they are not on the device.

use crate::split::{BlockSet, by_key, spread};
use crate::{Budget, Job, Machine, StagePlan, tier};

/// Homes for every block of the job. Blocks that are copied most often come nearest: into pinned
/// memory as far as it goes, then into pageable memory, and what is left stays in its file. Where
/// only a part of alike blocks fits, it is spread evenly, so that slow copies alternate with fast
/// ones.
#[must_use]
pub fn homes(machine: &Machine, job: &Job, budget: &Budget, stages: &[StagePlan]) -> Vec<u8> {
    let classes = by_traffic(job, stages);
    let host = within_host(machine, job, budget, &classes);
    let mut homes = vec![tier::DISK; job.blocks.slab.len()];
    host.iter().flatten().for_each(|b| homes[*b as usize] = tier::HOST);
    if pinning_helps(job) {
        let pinned = fill(job, &host, budget.pinned);
        pinned.iter().flatten().for_each(|b| homes[*b as usize] = tier::PINNED);
    }
    homes
}

/// A device that shares the host's memory copies no faster from pinned pages.
fn pinning_helps(job: &Job) -> bool {
    let sum = |column: &[u64]| column.iter().fold(0, |sum: u64, ns| sum.saturating_add(*ns));
    sum(&job.blocks.copy_pinned_ns) < sum(&job.blocks.copy_pageable_ns)
}

/// The blocks in classes: those that pass through slots, stage by stage, most passes first; then the
/// rest, which is copied once.
fn by_traffic(job: &Job, plans: &[StagePlan]) -> Vec<Vec<u32>> {
    let stages: Vec<u32> = (0..plans.len() as u32).collect();
    let busiest_first = by_key(&stages, |i| u64::MAX - job.stages[i as usize].passes);
    let mut seen = vec![false; job.blocks.slab.len()];
    let mut class = |blocks: Vec<u32>| -> Vec<u32> {
        let new = |b: &u32| !std::mem::replace(&mut seen[*b as usize], true);
        blocks.into_iter().filter(new).collect()
    };
    let mut classes: Vec<Vec<u32>> = busiest_first.into_iter().map(|i| class(plans[i as usize].streamed())).collect();
    classes.push(class((0..job.blocks.slab.len() as u32).collect()));
    classes
}

fn within_host(machine: &Machine, job: &Job, budget: &Budget, classes: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let room = budget.host.saturating_sub(job.frames_host);
    if weight(job, classes.iter().flatten()) <= room {
        return classes.to_vec();
    }
    // Whatever stays on disk is read through a buffer as large as the largest such block, or straight into a slot.
    let blocks = if machine.unified() { 0 } else { job.blocks.slab.len() as u32 };
    let staging = (0..blocks).map(|b| staged(job, b)).max().unwrap_or(0);
    match room.checked_sub(staging) {
        Some(room) => fill(job, classes, room),
        None => vec![largest_out_of_the_way(job, room)],
    }
}

/// The buffer for reads is too large for the room: hold the blocks that need the largest buffer in
/// memory, if there is a number of them with which everything fits. That can be where files are
/// wider than the storage type.
fn largest_out_of_the_way(job: &Job, room: u64) -> Vec<u32> {
    let blocks: Vec<u32> = (0..job.blocks.slab.len() as u32).collect();
    let mut blocks = by_key(&blocks, |b| u64::MAX - staged(job, b));
    let needs =
        |held: usize| weight(job, &blocks[..held]).saturating_add(blocks.get(held).map_or(0, |b| staged(job, *b)));
    let held = (0..=blocks.len()).find(|n| needs(*n) <= room).unwrap_or(0);
    blocks.truncate(held);
    blocks
}

fn staged(job: &Job, block: u32) -> u64 {
    job.blocks.slab[block as usize].max(job.blocks.file[block as usize])
}

fn weight<'a>(job: &Job, blocks: impl IntoIterator<Item = &'a u32>) -> u64 {
    blocks.into_iter().fold(0, |sum: u64, b| sum.saturating_add(job.blocks.slab[*b as usize]))
}

/// As much of each class as fits, class by class.
fn fill(job: &Job, classes: &[Vec<u32>], mut room: u64) -> Vec<Vec<u32>> {
    let mut filled = Vec::new();
    for class in classes {
        let pick = pick(job, class, room);
        room = room.saturating_sub(weight(job, &pick));
        filled.push(pick);
    }
    filled
}

fn pick(job: &Job, class: &[u32], room: u64) -> Vec<u32> {
    let (mut fits, mut fails) = (0, class.len() + 1);
    while fails - fits > 1 {
        let middle = (fits + fails) / 2;
        if weight(job, &spread(class, middle)) <= room { fits = middle } else { fails = middle }
    }
    spread(class, fits)
}

/// Nanoseconds that the copy of each block takes from its home: for a block on disk the longer of
/// reading and copying, which overlap.
#[must_use]
pub fn copy_times(job: &Job, homes: &[u8]) -> Vec<u64> {
    let blocks = &job.blocks;
    let time = |(b, home): (usize, &u8)| match *home {
        tier::PINNED => blocks.copy_pinned_ns[b],
        tier::DISK => blocks.copy_pageable_ns[b].max(blocks.read_ns[b]),
        _ => blocks.copy_pageable_ns[b],
    };
    homes.iter().enumerate().map(time).collect()
}

/// Blocks of the job that some of the given plans keep on the device when the job has ended, in order
/// of their numbers.
#[must_use]
pub fn kept(stages: &[StagePlan]) -> Vec<u32> {
    let of = |plan: &StagePlan| -> Vec<u32> {
        let kept = |slot: u32| plan.slot_flags.get(slot as usize).is_some_and(|f| f & 1 != 0);
        plan.prologue.rows().filter(|(_, slot, _)| kept(*slot)).map(|(block, ..)| block).collect()
    };
    let blocks: Vec<u32> = stages.iter().flat_map(of).collect();
    BlockSet::of(&blocks).sorted()
}

/// The blocks of `candidates` that are in `of`.
#[must_use]
pub fn common(candidates: &[u32], of: &[u32]) -> Vec<u32> {
    let set = BlockSet::of(of);
    candidates.iter().copied().filter(|b| set.contains(*b)).collect()
}

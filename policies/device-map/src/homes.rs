//! Where blocks live that are not on the device.

use loadline_policy_sdk::{Plan, Refusal, Situation, StagePlan, size, tier};

use crate::limits::Limits;
use crate::{Map, family};

/// A home for every block.
pub(crate) fn homes(s: &Situation, map: Map, limits: &Limits, stages: &[StagePlan]) -> Vec<u8> {
    match map {
        Map::Auto => loadline_policy_sdk::homes(&s.machine, &s.job, &limits.budget(s), stages),
        _ => in_order(s, limits, &waiting(s, map, stages)),
    }
}

/// Blocks that wait in host memory, in the order of their use. What stays on the device is read once,
/// straight from its file.
fn waiting(s: &Situation, map: Map, stages: &[StagePlan]) -> Vec<u32> {
    let in_host = |index: &usize| map != Map::Custom || s.text(family(s.stage(*index).component())) == "host";
    let streamed = |index: usize| {
        let there = stages[index].streamed();
        s.stage(index).distinct().into_iter().filter(move |block| there.contains(block)).collect::<Vec<u32>>()
    };
    (0..stages.len()).filter(in_host).flat_map(streamed).collect()
}

/// Host memory is filled block by block, page-locked as far as that goes. The first block that finds no
/// room stays on disk, and so do all after it.
fn in_order(s: &Situation, limits: &Limits, waiting: &[u32]) -> Vec<u8> {
    let blocks = &s.job.blocks;
    let mut homes = vec![tier::DISK; blocks.slab.len()];
    let room = limits.host.saturating_sub(s.job.frames_host);
    let mut room = room.saturating_sub(if s.machine.unified() { 0 } else { staging(s) });
    let mut pinned = if pinning_helps(s) { limits.pinned } else { 0 };
    for block in waiting {
        let slab = blocks.slab[*block as usize];
        let Some(left) = room.checked_sub(slab) else { break };
        room = left;
        homes[*block as usize] = match pinned.checked_sub(slab) {
            Some(left) => {
                pinned = left;
                tier::PINNED
            }
            None => tier::HOST,
        };
    }
    homes
}

/// The buffer that blocks are read through.
fn staging(s: &Situation) -> u64 {
    let blocks = &s.job.blocks;
    blocks.slab.iter().zip(&blocks.file).map(|(slab, file)| *slab.max(file)).max().unwrap_or(0)
}

/// A device that shares the host's memory copies no faster from pinned pages.
fn pinning_helps(s: &Situation) -> bool {
    let sum = |column: &[u64]| column.iter().fold(0, |sum: u64, ns| sum.saturating_add(*ns));
    sum(&s.job.blocks.copy_pinned_ns) < sum(&s.job.blocks.copy_pageable_ns)
}

/// Blocks and bytes on each tier: on the device those that stay, elsewhere those that are copied from there.
pub(crate) fn placed(s: &Situation, plan: &Plan) -> [(&'static str, usize, u64); 3] {
    let mut placed = [("device", 0, 0), ("host", 0, 0), ("disk", 0, 0)];
    let mut add = |tier: usize, block: u32| {
        placed[tier].1 += 1;
        placed[tier].2 += s.job.blocks.slab[block as usize];
    };
    for stage in &plan.stages {
        stage.residents().into_iter().for_each(|block| add(0, block));
        for block in stage.streamed() {
            add(if plan.homes[block as usize] == tier::DISK { 2 } else { 1 }, block);
        }
    }
    placed
}

/// Host memory that the plan takes: blocks that wait there, the buffer for reads, output frames.
fn host_bytes(s: &Situation, plan: &Plan) -> u64 {
    let blocks = s.job.blocks.slab.iter().zip(&s.job.blocks.file).zip(&plan.homes);
    let (mut held, mut buffer) = (s.job.frames_host, 0);
    for ((slab, file), home) in blocks {
        match *home {
            tier::DISK if !s.machine.unified() => buffer = buffer.max(*slab.max(file)),
            tier::DISK => {}
            _ => held = held.saturating_add(*slab),
        }
    }
    held.saturating_add(buffer)
}

/// Refuses what a limit or the map itself forbids.
pub(crate) fn check(s: &Situation, map: Map, limits: &Limits, plan: &Plan) -> Result<(), Refusal> {
    if map == Map::Custom {
        s.job.stages.iter().enumerate().try_for_each(|(index, _)| in_host(s, limits, plan, index))?;
    }
    let held = host_bytes(s, plan);
    if held > limits.host && limits.host < s.budget.host {
        return Err(refuse(format!(
            "{} of host memory are needed for output frames and the buffer that blocks are read through, \
             max_memory_host allows {}: raise max_memory_host",
            size(held),
            size(limits.host)
        )));
    }
    let [_, _, (_, _, disk)] = placed(s, plan);
    match limits.disk {
        Some(most) if disk > most => Err(refuse(format!(
            "{} of blocks find no place in memory and would be read from disk each time, max_memory_disk allows {}: \
             raise max_memory_host or max_memory_device, or set max_memory_disk to -1",
            size(disk),
            size(most)
        ))),
        _ => Ok(()),
    }
}

/// A component that is to live in host memory has to be there as a whole.
fn in_host(s: &Situation, limits: &Limits, plan: &Plan, index: usize) -> Result<(), Refusal> {
    let component = family(s.stage(index).component());
    let on_disk = |block: &u32| plan.homes[*block as usize] == tier::DISK;
    if s.text(component) != "host" || !plan.stages[index].streamed().iter().any(on_disk) {
        return Ok(());
    }
    let weight = s.stage(index).distinct().iter().fold(0, |sum: u64, b| sum.saturating_add(s.stage(index).slab(*b)));
    Err(refuse(format!(
        "{component} = host needs {} of host memory beside what is there already, {} may be used in all: \
         set {component} to disk",
        size(weight),
        size(limits.host)
    )))
}

const fn refuse(message: String) -> Refusal {
    Refusal { stage: None, needs_bytes: None, message }
}

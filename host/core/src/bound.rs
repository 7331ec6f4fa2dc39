//! Lower bounds on the time of a stage: what no schedule can beat.

use serde::{Deserialize, Serialize};

use crate::Estimate;
use crate::job::{BlockId, Job, Pass, Stage};
use crate::machine::{Machine, MissingRate};
use crate::units::{Bytes, Nanos};

/// What keeps a stage from being faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Binding {
    /// The device computes all the time.
    Compute,
    /// The link to the device carries weights all the time.
    H2d,
    /// Weights are read from disk most of the time.
    Disk,
}

impl Binding {
    /// The name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Compute => "compute",
            Self::H2d => "h2d",
            Self::Disk => "disk",
        }
    }
}

/// A proven lower bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// No schedule with the same memory is faster.
    pub time: Nanos,
    /// The resource that the bound comes from.
    pub binding: Binding,
}

/// The steady-state bound of one pass over `blocks` (slab bytes and compute time of each, in the
/// order of a cyclic walk) with `memory` bytes for weights, streaming slots included, and one copy
/// engine of `bytes_per_second`.
///
/// When the compute of block j has just ended, j still occupies its bytes, so at most M - b_j bytes
/// of other blocks are on the device; everything else must cross the link before the last block of
/// the window computes. Averaged over all windows of N - 1 blocks this gives
/// `T >= 1/(N-1) * sum_j max(C - c_j, (W - M)/B + c_(j-1))`; besides `T >= max(C, (W - M)/B)`.
#[must_use]
pub fn cyclic_bound(blocks: &[(Bytes, Nanos)], memory: Bytes, bytes_per_second: f64) -> f64 {
    let compute: f64 = blocks.iter().map(|(_, c)| c.as_f64()).sum();
    let missing = missing_ns(blocks, memory, bytes_per_second);
    let simple = compute.max(missing);
    let n = blocks.len();
    if n < 2 || missing == 0.0 {
        return simple;
    }
    let windows: f64 = (0..n)
        .map(|j| {
            let before = blocks[(j + n - 1) % n].1.as_f64();
            (compute - blocks[j].1.as_f64()).max(missing + before)
        })
        .sum();
    simple.max(windows / (n - 1) as f64)
}

fn missing_ns(blocks: &[(Bytes, Nanos)], memory: Bytes, bytes_per_second: f64) -> f64 {
    let weight: Bytes = blocks.iter().map(|(b, _)| *b).sum();
    weight.saturating_sub(memory).as_f64() / bytes_per_second * 1e9
}

/// The bound of a whole stage in a run that starts with nothing loaded, wherever the blocks' homes are. It is the
/// largest of three:
///
/// - all passes compute in turn after the first block has arrived;
/// - the link carries every block once and, for every window of N - 1 blocks after the first pass, whatever does not
///   fit, before the last task runs;
/// - no task of the first pass starts before the files of its block and of all blocks in front of it have been read,
///   one after the other, and all tasks from there on take their time.
///
/// Blocks that an earlier stage of the job uses may already be where they are needed: they count in windows only.
///
/// # Errors
/// If the machine's profile has no rate for an operation of the stage.
pub fn stage_bound(job: &Job, stage: &Stage, machine: &Machine, memory: Bytes) -> Result<Bound, MissingRate> {
    let times = |pass: &Pass| -> Result<Vec<Nanos>, MissingRate> {
        pass.tasks.iter().map(|t| machine.task_time(stage.kind, t, Estimate::Median)).collect()
    };
    let passes = stage.passes.iter().map(times).collect::<Result<Vec<_>, _>>()?;
    Ok(stage_bound_timed(job, stage, machine, memory, &|pass, task| passes[pass][task]))
}

/// The same where the median time of each task of each different pass is known already: `time(pass, task)`.
#[must_use]
pub fn stage_bound_timed(
    job: &Job,
    stage: &Stage,
    machine: &Machine,
    memory: Bytes,
    time: &dyn Fn(usize, usize) -> Nanos,
) -> Bound {
    let walk = Walk::new(job, stage, time);
    let (reading, computing) = walk.reading(job, machine);
    let disk = if reading > computing { Binding::Disk } else { Binding::Compute };
    let bounds = [
        (walk.compute + walk.first_copy(job, machine), Binding::Compute),
        (walk.link(job, machine, memory), Binding::H2d),
        (reading + computing, disk),
    ];
    let (time, binding) = bounds.into_iter().fold((0.0, Binding::Compute), |a, b| if b.0 > a.0 { b } else { a });
    Bound { time: Nanos(time.floor() as u64), binding }
}

/// What the bounds of one stage are made of.
struct Walk<'a> {
    stage: &'a Stage,
    /// The different blocks, in order of first use.
    blocks: Vec<BlockId>,
    /// Those of them that no earlier stage uses.
    fresh: Vec<BlockId>,
    /// Computing of all passes, in nanoseconds.
    compute: f64,
    /// Computing of each task of the first pass that runs.
    first_pass: Vec<f64>,
    /// Computing of the very last task.
    last: f64,
}

impl<'a> Walk<'a> {
    fn new(job: &Job, stage: &'a Stage, time: &dyn Fn(usize, usize) -> Nanos) -> Self {
        let run = |pass: u32| -> Vec<f64> {
            let tasks = stage.passes.get(pass as usize).map_or(0, |p| p.tasks.len());
            (0..tasks).map(|task| time(pass as usize, task).as_f64()).collect()
        };
        let sums: Vec<f64> = (0..stage.passes.len() as u32).map(|pass| run(pass).iter().sum()).collect();
        let sum = |pass: u32| sums.get(pass as usize).copied().unwrap_or(0.0);
        let compute = stage.sequence.iter().map(|(pass, n)| sum(*pass) * f64::from(*n)).sum();
        let blocks = stage.distinct_blocks();
        let before = job.stages.iter().take_while(|s| s.name != stage.name);
        let used: Vec<BlockId> = before.flat_map(Stage::distinct_blocks).collect();
        let fresh = blocks.iter().copied().filter(|b| !used.contains(b)).collect();
        let first_pass = stage.sequence.first().map_or_else(Vec::new, |(pass, _)| run(*pass));
        let last = stage.sequence.last().and_then(|(pass, _)| run(*pass).last().copied()).unwrap_or(0.0);
        Self { stage, blocks, fresh, compute, first_pass, last }
    }

    /// The copy of the block that the first task needs.
    fn first_copy(&self, job: &Job, machine: &Machine) -> f64 {
        let first = self.stage.blocks().next().flatten().filter(|b| self.fresh.contains(b));
        first.map_or(0.0, |b| job.block(b).slab.as_f64() / best_rate(machine) * 1e9)
    }

    fn link(&self, job: &Job, machine: &Machine, memory: Bytes) -> f64 {
        let bytes = |blocks: &[BlockId]| -> Bytes { blocks.iter().map(|b| job.block(*b).slab).sum() };
        let missing = bytes(&self.blocks).saturating_sub(memory);
        let traffic = bytes(&self.fresh).as_f64() + self.windows() as f64 * missing.as_f64();
        if traffic > 0.0 { traffic / best_rate(machine) * 1e9 + self.last } else { 0.0 }
    }

    /// Windows of N - 1 blocks after the first pass. A block that a pass comes back to makes windows longer; one of
    /// them still ends in every pass.
    fn windows(&self) -> u64 {
        let (n, passes) = (self.blocks.len() as u64, self.stage.pass_count().saturating_sub(1));
        let mut visits: Vec<BlockId> = self.stage.blocks().flatten().collect();
        visits.dedup();
        match n {
            0 | 1 => 0,
            _ if visits.len() as u64 > n => passes,
            _ => n * passes / (n - 1),
        }
    }

    /// Reading up to some block and computing from there on: the pair with the largest sum.
    fn reading(&self, job: &Job, machine: &Machine) -> (f64, f64) {
        let (mut read, mut computing, mut largest) = (0.0, self.compute, (0.0, 0.0));
        let mut unread = self.fresh.clone();
        for (block, time) in self.stage.blocks().zip(&self.first_pass) {
            if let Some(block) = block.filter(|b| unread.contains(b)) {
                unread.retain(|b| *b != block);
                let block = job.block(block);
                read += machine.read_time(block.file, block.conversion, Estimate::Median).as_f64();
                if read + computing > largest.0 + largest.1 {
                    largest = (read, computing);
                }
            }
            computing -= time;
        }
        largest
    }
}

/// The fastest that a block can arrive on the device, whatever its home and size.
fn best_rate(machine: &Machine) -> f64 {
    let curves = [&machine.link.h2d_pinned, &machine.link.h2d_pageable];
    // Where device memory is host memory a block is read straight into its slot.
    let straight = machine.device.unified.then_some(&machine.disk.read);
    let points = curves.into_iter().chain(straight).flat_map(|c| &c.points);
    points.map(|(_, q)| q.rate(Estimate::Median)).fold(1.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Uniform blocks: the bound has the closed form N/(N-1) * ((N-K) t + c).
    #[test]
    fn uniform_blocks_have_the_closed_form() {
        let blocks = vec![(Bytes(1_000_000), Nanos(1_000_000)); 40];
        let per_second = 1e9 / 1.5; // one block takes 1.5 ms
        let got = cyclic_bound(&blocks, Bytes(12_000_000), per_second);
        let expected = 40.0 / 39.0 * (28.0 * 1.5e6 + 1e6);
        assert!((got - expected).abs() < 1.0, "{got} {expected}");
    }

    #[test]
    fn enough_memory_leaves_compute_alone() {
        let blocks = vec![(Bytes(10), Nanos(7)); 5];
        assert_eq!(cyclic_bound(&blocks, Bytes(50), 1.0), 35.0);
    }
}

//! Lower bounds on the time of a stage: what no schedule can beat.

use serde::{Deserialize, Serialize};

use crate::Estimate;
use crate::job::{Job, Stage};
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
}

impl Binding {
    /// The name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Compute => "compute",
            Self::H2d => "h2d",
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

/// The bound of a whole stage that starts with nothing loaded: all passes compute in turn after the
/// first block has arrived, and the link carries every block once and, for every window of N - 1
/// blocks after the first pass, whatever does not fit.
///
/// # Errors
/// If the machine's profile has no rate for an operation of the stage.
pub fn stage_bound(job: &Job, stage: &Stage, machine: &Machine, memory: Bytes) -> Result<Bound, MissingRate> {
    let mut compute = 0.0;
    let mut last = 0.0;
    for (pass, count) in &stage.sequence {
        let Some(pass) = stage.passes.get(*pass as usize) else { continue };
        let mut time = 0.0;
        for task in &pass.tasks {
            time += machine.task_time(task, Estimate::Median)?.as_f64();
        }
        last = match pass.tasks.last() {
            Some(task) => machine.task_time(task, Estimate::Median)?.as_f64(),
            None => 0.0,
        };
        compute += time * f64::from(*count);
    }
    let blocks = stage.distinct_blocks();
    let rate = best_rate(machine);
    let weight: Bytes = blocks.iter().map(|b| job.block(*b).slab).sum();
    let first = blocks.first().map_or(0.0, |b| job.block(*b).slab.as_f64() / rate * 1e9);
    let n = blocks.len() as u64;
    let windows = if n > 1 { n * stage.pass_count().saturating_sub(1) / (n - 1) } else { 0 };
    let traffic = weight.as_f64() + windows as f64 * weight.saturating_sub(memory).as_f64();
    let link = traffic / rate * 1e9 + if blocks.is_empty() { 0.0 } else { last };
    let busy = compute + if stage.blocks().next().flatten().is_some() { first } else { 0.0 };
    let binding = if link > busy { Binding::H2d } else { Binding::Compute };
    Ok(Bound { time: Nanos(busy.max(link).floor() as u64), binding })
}

/// The fastest that any copy to the device can be, whatever its source and size.
fn best_rate(machine: &Machine) -> f64 {
    let curves = [&machine.link.h2d_pinned, &machine.link.h2d_pageable];
    let points = curves.into_iter().flat_map(|c| &c.points);
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

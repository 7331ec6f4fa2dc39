//! Jobs and machines that are made up, for the tests of this crate.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod cases;
pub mod eager;

use loadline_core::*;

/// A block's bytes and the nanoseconds that its task computes.
pub type Row = (u64, u64);

/// A job of one stage that walks the rows in turn, pass after pass.
pub fn job(rows: &[Row], passes: u32) -> Job {
    let blocks = rows.iter().zip(0..).map(|((bytes, _), index)| block(index, *bytes)).collect();
    let tasks = rows.iter().zip(0..).map(|((_, ns), id)| task(id, *ns)).collect();
    let stage = Stage {
        kind: StageKind::Denoise,
        name: "denoise".into(),
        component: 0,
        passes: vec![Pass { tasks, safe_point: true }],
        sequence: vec![(0, passes)],
    };
    Job {
        model: "made-up".into(),
        model_hash: ContentHash::of_bytes(b"made-up"),
        request: Request {
            size: Size { width: 64, height: 64 },
            frames: 1,
            steps: passes,
            guidance: 1.0,
            prompt_tokens: 1,
            negative_tokens: 0,
        },
        knobs: Knobs::default(),
        kernel_set: "made-up".into(),
        components: vec!["transformer".into()],
        blocks,
        stages: vec![stage],
        frames_host: Bytes::ZERO,
    }
}

fn block(index: u32, bytes: u64) -> JobBlock {
    let (slab, file) = (Bytes(bytes), Bytes(bytes));
    JobBlock { component: 0, index, name: format!("blocks.{index}"), slab, file, conversion: None }
}

/// The machine below does one operation a nanosecond, so that a task's operations are its time.
fn task(id: u32, ns: u64) -> Task {
    Task {
        name: format!("blocks.{id}"),
        block: Some(BlockId(id)),
        ops: vec![OpCost {
            kind: OpKind::Linear,
            site: Site { op: Op::Linear, weight: DType::F32, dims: [1; 4] },
            dtype: DType::F32,
            count: 1,
            flops: ns,
            bytes: 0,
        }],
        memory: ActMemory::default(),
        gathered: Bytes::ZERO,
        to_host: Bytes::ZERO,
    }
}

/// A byte takes one nanosecond over the link, and `disk_ns` from disk.
pub fn machine(disk_ns: u64, unified: bool) -> Machine {
    let flat = |per_second| Curve::flat(0.0, Quantiles::exactly(per_second));
    Machine {
        name: "made-up".into(),
        hash: ContentHash::of_bytes(b"made-up"),
        provenance: Provenance::Datasheet,
        device: Device {
            name: "made-up".into(),
            memory: Bytes::MAX,
            granularity: 1,
            fixed_overhead: Bytes::ZERO,
            kernel_set: "made-up".into(),
            allocation: None,
            unified,
        },
        host: HostSpec { memory: Bytes::MAX, convert: flat(1e9), conversions: Vec::new() },
        link: LinkSpec { h2d_pinned: flat(1e9), h2d_pageable: flat(1e9), d2h: flat(1e9) },
        disk: DiskSpec { read: flat(1e9 / disk_ns as f64), cached: None },
        sites: Vec::new(),
        contention: Contention::NONE,
        calibration: Vec::new(),
        ops: vec![OpRate { kind: OpKind::Linear, dtype: DType::F32, flops: flat(1e9), bytes: flat(1e9) }],
    }
}

/// Residents in slots of their own and the other blocks through `depth` shared slots in turn: when one has been used,
/// the block that is `depth` turns ahead moves into its slot.
pub fn rolling(job: &Job, resident: &[bool], depth: usize, homes: Tier) -> Plan {
    let ids =
        |want: bool| -> Vec<u32> { resident.iter().zip(0..).filter(|(r, _)| **r == want).map(|(_, id)| id).collect() };
    let streamed = ids(false);
    let depth = if streamed.len() <= depth { streamed.len() } else { depth };
    let still = depth == streamed.len();
    let cycle_passes = if still { 1 } else { depth / gcd(streamed.len(), depth) };
    let largest = job.blocks.iter().map(|b| b.slab).max().unwrap();
    let mut firsts: Vec<(u32, u32)> = streamed.iter().copied().zip(0..depth as u32).collect();
    firsts.extend(ids(true).into_iter().zip(depth as u32..));
    firsts.sort_unstable();
    let load = |(block, slot), after| Load { block: BlockId(block), slot, after };
    let turns = if still { 0 } else { streamed.len() * cycle_passes };
    let turn = |turn: usize| {
        let (pass, here) = (turn / streamed.len(), turn % streamed.len());
        let after = (pass * resident.len()) as u32 + streamed[here];
        load((streamed[(turn + depth) % streamed.len()], (turn % depth) as u32), after)
    };
    let stage = StagePlan {
        slots: vec![Slot { bytes: largest, keep: false }; firsts.len()],
        prologue: firsts.iter().map(|first| load(*first, AT_ONCE)).collect(),
        cycle: (0..turns).map(turn).collect(),
        cycle_passes: cycle_passes as u32,
        activations: Bytes::ZERO,
    };
    Plan {
        policy: PolicyId { name: "made-up".into(), version: "1".into(), hash: ContentHash::of_bytes(b"") },
        knobs: job.knobs.clone(),
        homes: vec![homes; job.blocks.len()],
        stages: vec![stage],
        retain: Vec::new(),
        ladder: Vec::new(),
        triggers: Vec::new(),
        memo: Vec::new(),
        reasons: Vec::new(),
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// A small generator of random numbers (splitmix64), so that a failing case can be repeated by its seed.
pub struct Random(pub u64);

impl Random {
    /// A number from `range.start` to `range.end - 1`.
    pub fn within(&mut self, range: std::ops::Range<u64>) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        range.start + (z ^ (z >> 31)) % (range.end - range.start)
    }
}

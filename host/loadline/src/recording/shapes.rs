//! Which shapes of which operations are measured.

use std::collections::BTreeSet;
use std::sync::Arc;

use loadline_core::{DType, Knobs, Op, Request, Size, TileSize};
use loadline_nn::CpuKernels;

use crate::{Error, Model, SamplerOptions};

/// An operation in its types, as pipelines use it.
pub(super) type Kind = (Op, DType, DType);

/// The product that is timed by itself in every round, whatever shapes are measured: whether the clock holds over a
/// recording, and what loading does to computing. Neither small nor larger than caches, and in f32, which every
/// processor multiplies natively.
pub(super) const ANCHOR: (Kind, [u64; 4]) = ((Op::Linear, DType::F32, DType::F32), [512, 1536, 1536, 0]);

/// How large the shapes are that are measured. Larger calls take too long to be repeated, and rates no longer change
/// there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    /// The most arithmetic of a call.
    pub(super) flops: f64,
    /// The most bytes that a call moves.
    pub(super) bytes: u64,
    /// Whether shapes of models with billions of parameters are measured, too.
    pub(super) large: bool,
}

/// What a processor is asked.
pub(super) const PROCESSOR: Extent = Extent { flops: 2e10, bytes: 128 << 20, large: false };
/// What a GPU is asked: calls of up to some hundredths of a second.
#[cfg(feature = "cuda")]
pub(super) const GPU: Extent = Extent { flops: 4e12, bytes: 512 << 20, large: true };

/// Outputs and inputs of linear layers: squares and both halves of a feed-forward layer, at the widths of the
/// fixtures, of Wan 1.3B and of UMT5-XXL, and sizes between.
const LINEAR: [[u64; 2]; 13] = [
    [64, 64],
    [256, 64],
    [64, 256],
    [192, 192],
    [512, 512],
    [2048, 512],
    [512, 2048],
    [1536, 256],
    [1536, 1536],
    [8960, 1536],
    [1536, 8960],
    [4096, 4096],
    [10_240, 4096],
];
const LINEAR_ROWS: [u64; 7] = [1, 8, 32, 128, 512, 2048, 8192];
/// Wan 14B's, and the rows of a video of 81 frames at 832x480.
const LINEAR_LARGE: [[u64; 2]; 3] = [[5120, 5120], [13_824, 5120], [5120, 13_824]];
const LINEAR_ROWS_LARGE: [u64; 1] = [32_768];

/// Input and output channels of convolutions, at the widths of Wan's VAE, narrower ones, and its first and last layer.
const CONV: [[u64; 2]; 15] = [
    [16, 16],
    [32, 32],
    [48, 48],
    [64, 64],
    [64, 128],
    [16, 384],
    [16, 64],
    [96, 3],
    [32, 3],
    [96, 96],
    [192, 96],
    [192, 192],
    [384, 192],
    [384, 384],
    [192, 384],
];
/// Causal in all axes, in space, in time.
const CONV_TAPS: [u64; 3] = [27, 9, 3];
const CONV_POSITIONS: [u64; 5] = [36, 256, 2304, 16_384, 147_456];

/// Heads and channels of a head.
const ATTENTION: [[u64; 2]; 5] = [[2, 32], [8, 64], [12, 128], [1, 384], [64, 64]];
/// Queries and keys: self-attention, and over a padded prompt.
const ATTENTION_ROWS: [[u64; 2]; 9] =
    [[16, 16], [64, 64], [256, 256], [1024, 1024], [4096, 4096], [64, 512], [512, 512], [2048, 512], [8192, 512]];

/// Wan 14B's.
const ATTENTION_LARGE: [[u64; 2]; 1] = [[40, 128]];
const ATTENTION_ROWS_LARGE: [[u64; 2]; 3] = [[8192, 8192], [16_384, 16_384], [32_768, 512]];

const NORM_ROWS: [u64; 6] = [8, 64, 512, 4096, 32_768, 262_144];
const NORM_CHANNELS: [u64; 5] = [32, 96, 384, 1536, 4096];

/// 2 KiB to 256 MiB.
const BYTES: [u64; 10] = [1 << 11, 1 << 13, 1 << 15, 1 << 17, 1 << 19, 1 << 21, 1 << 23, 1 << 25, 1 << 26, 1 << 28];

/// Everything that the pipelines that run here do, by lowering small requests in every type that can be stored.
pub(super) fn kinds() -> Result<Vec<Kind>, Error> {
    let model = Model::open("wan2.1-t2v-1.3b")?;
    let unknown = || Error::Model("wan2.1-t2v-1.3b has no usual request".to_owned());
    let usual = model.default_request().ok_or_else(unknown)?;
    let request = Request { size: Size { width: 256, height: 256 }, frames: 9, steps: 2, ..usual };
    let mut kinds = BTreeSet::new();
    for dtype in [DType::F32, DType::Bf16] {
        let storage = model.spec.components.iter().filter(|c| !c.absent).map(|c| (c.name.clone(), dtype));
        let tile = TileSize { width: 192, height: 192 };
        let plain = Knobs { storage: storage.collect(), frame_chunk: 1, ..Knobs::default() };
        let tiled = Knobs { tile: Some(tile), tile_overlap: model.tile_overlap(tile), ..plain.clone() };
        for knobs in [plain, tiled] {
            let job = model.lower(&request, &knobs, &SamplerOptions::default(), Arc::new(CpuKernels::detect()))?;
            let tasks = job.stages.iter().flat_map(|s| &s.passes).flat_map(|p| &p.tasks);
            kinds.extend(tasks.flat_map(|t| &t.ops).map(|o| (o.site.op, o.dtype, o.site.weight)));
        }
    }
    Ok(kinds.into_iter().collect())
}

/// Every operation in every shape that is measured.
pub(super) fn everything(quick: bool, extent: &Extent) -> Result<Vec<(Kind, [u64; 4])>, Error> {
    let of = |kind: Kind| shapes(kind.0, quick, extent).into_iter().map(move |dims| (kind, dims));
    Ok(kinds()?.into_iter().flat_map(of).collect())
}

/// A list, and what is added to it for large shapes.
fn with<T: Copy>(usual: &[T], large: &[T], extent: &Extent) -> Vec<T> {
    usual.iter().chain(if extent.large { large } else { &[] }).copied().collect()
}

/// The shapes that are measured for an operation. `quick` takes every third one.
pub(super) fn shapes(op: Op, quick: bool, extent: &Extent) -> Vec<[u64; 4]> {
    let all = match op {
        Op::Linear | Op::LinearActivated => {
            let (widths, rows) = (with(&LINEAR, &LINEAR_LARGE, extent), with(&LINEAR_ROWS, &LINEAR_ROWS_LARGE, extent));
            grid(&widths, &rows, |[n, k], m| [m, n, k, 0])
        }
        Op::Conv => conv(),
        Op::Attention | Op::AttentionBiased => {
            let heads = with(&ATTENTION, &ATTENTION_LARGE, extent);
            let rows = with(&ATTENTION_ROWS, &ATTENTION_ROWS_LARGE, extent);
            grid(&heads, &rows, |[heads, dim], [q, k]| [q, k, heads, dim])
        }
        Op::LayerNorm | Op::RmsNorm | Op::RmsNormAssign | Op::ChannelNorm | Op::ChannelNormAssign => {
            grid(&NORM_CHANNELS, &NORM_ROWS, |channels, rows| [rows, channels, 0, 0])
        }
        Op::GroupNorm => grid(&NORM_CHANNELS, &NORM_ROWS, |channels, rows| [rows, channels, 32, 0]),
        _ => BYTES.map(|bytes| [bytes, 0, 0, 0]).to_vec(),
    };
    let small = all.into_iter().filter(|dims| affordable(op, dims, extent));
    // Three is no divisor of the grids' sides, so that a quick recording keeps some of every row and column.
    small.step_by(if quick { 3 } else { 1 }).collect()
}

fn grid<A: Copy, B: Copy>(a: &[A], b: &[B], site: impl Fn(A, B) -> [u64; 4]) -> Vec<[u64; 4]> {
    a.iter().flat_map(|a| b.iter().map(|b| site(*a, *b))).collect()
}

fn conv() -> Vec<[u64; 4]> {
    let with = |taps| move |[cin, cout]: [u64; 2], positions| [positions, cin, cout, taps];
    CONV_TAPS.iter().flat_map(|taps| grid(&CONV, &CONV_POSITIONS, with(*taps))).collect()
}

fn affordable(op: Op, dims: &[u64; 4], extent: &Extent) -> bool {
    let [a, b, c, d] = dims.map(|n| n as f64);
    let (flops, bytes) = match op {
        Op::Linear | Op::LinearActivated => (2.0 * a * b * c, 4 * (dims[0] * (dims[1] + dims[2]) + dims[1] * dims[2])),
        Op::Conv => (2.0 * a * b * c * d, 4 * dims[0] * (dims[1] + dims[2])),
        Op::Attention | Op::AttentionBiased => (4.0 * a * b * c * d, 8 * (dims[0] + dims[1]) * dims[2] * dims[3]),
        Op::LayerNorm | Op::RmsNorm | Op::RmsNormAssign | Op::ChannelNorm | Op::ChannelNormAssign | Op::GroupNorm => {
            (0.0, 8 * dims[0] * dims[1])
        }
        _ => (0.0, dims[0]),
    };
    flops <= extent.flops && bytes <= extent.bytes
}

//! What an operation costs, from its shape alone.

use loadline_core::{DType, Op, OpCost, OpKind, Site};

use super::ConvSpec;

/// How an elementwise operation moves data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Moves {
    /// Bytes read.
    pub read: u64,
    /// Bytes written.
    pub written: u64,
    /// Floating-point operations.
    pub flops: u64,
}

/// The shape of one operation: enough to know its cost and, with a kernel set, its scratch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OpShape {
    /// `y[m,n] = x[m,k] w[n,k]^T`.
    Linear {
        /// Rows of the input.
        m: usize,
        /// Rows of the weight.
        n: usize,
        /// Columns of both.
        k: usize,
        /// Type of input and output.
        act: DType,
        /// Type of the weight.
        weight: DType,
    },
    /// Convolution over `[frames, height, width, channels]`.
    Conv {
        /// Input frames, height and width.
        input: [usize; 3],
        /// Frames remembered from before the input.
        history: usize,
        /// How it walks.
        spec: ConvSpec,
        /// Output frames, height and width.
        output: [usize; 3],
        /// Taps in time, height and width.
        kernel: [usize; 3],
        /// Input channels.
        cin: usize,
        /// Output channels.
        cout: usize,
        /// Type of input and output.
        act: DType,
        /// Type of the weight.
        weight: DType,
    },
    /// Attention over `heads` heads of `dim` channels.
    Attention {
        /// Queries.
        queries: usize,
        /// Keys.
        keys: usize,
        /// Heads.
        heads: usize,
        /// Channels of a head.
        dim: usize,
        /// Type of input and output.
        act: DType,
    },
    /// A norm over rows of channels.
    RowNorm {
        /// Rows.
        rows: usize,
        /// Channels.
        channels: usize,
        /// The type.
        act: DType,
    },
    /// A norm over groups of channels of all positions.
    GroupNorm {
        /// Positions: frames times height times width.
        positions: usize,
        /// Channels.
        channels: usize,
        /// Groups.
        groups: usize,
        /// The type.
        act: DType,
    },
    /// Anything else that is bound by memory.
    Elementwise {
        /// What is moved.
        moves: Moves,
        /// The type.
        act: DType,
    },
}

impl OpShape {
    /// What the operation costs on any machine; `op` is the one that has this shape.
    #[must_use]
    pub fn cost(&self, op: Op) -> OpCost {
        let (kind, dtype, flops, bytes) = match *self {
            Self::Linear { m, n, k, act, weight } => {
                let bytes = size(m * k + m * n, act) + size(n * k, weight);
                (OpKind::Linear, arithmetic(act), product([2, m, n, k]), bytes)
            }
            Self::Conv { input, history, spec, output, kernel, cin, cout, act, weight } => {
                let input = [input[0] + history + spec.pad_front, input[1], input[2]];
                let taps = volume(kernel) * cin * cout;
                let bytes = size(volume(input) * cin + volume(output) * cout, act) + size(taps, weight);
                (OpKind::Conv, arithmetic(act), product([2, volume(output), taps, 1]), bytes)
            }
            Self::Attention { queries, keys, heads, dim, act } => {
                let width = heads * dim;
                (OpKind::Attention, act, product([4, queries, keys, width]), size(2 * (queries + keys) * width, act))
            }
            Self::RowNorm { rows, channels, act } => {
                (OpKind::Elementwise, act, 8 * wide(rows * channels), 2 * size(rows * channels, act))
            }
            Self::GroupNorm { positions, channels, act, .. } => {
                (OpKind::Elementwise, act, 8 * wide(positions * channels), 3 * size(positions * channels, act))
            }
            Self::Elementwise { moves, act } => (OpKind::Elementwise, act, moves.flops, moves.read + moves.written),
        };
        OpCost { kind, site: self.site(op), dtype, count: 1, flops, bytes }
    }

    /// The dimensions by which a recorded machine finds the time.
    fn site(&self, op: Op) -> Site {
        let (weight, dims) = match *self {
            Self::Linear { m, n, k, weight, .. } => (weight, [m, n, k, 0]),
            Self::Conv { output, kernel, cin, cout, weight, .. } => {
                (weight, [volume(output), cin, cout, volume(kernel)])
            }
            Self::Attention { queries, keys, heads, dim, act } => (act, [queries, keys, heads, dim]),
            Self::RowNorm { rows, channels, act } => (act, [rows, channels, 0, 0]),
            Self::GroupNorm { positions, channels, groups, act } => (act, [positions, channels, groups, 0]),
            Self::Elementwise { moves, act } => {
                return Site { op, weight: act, dims: [moves.read + moves.written, 0, 0, 0] };
            }
        };
        Site { op, weight, dims: dims.map(wide) }
    }
}

/// Matrix units run in the activations' type; narrower weights are widened on their way.
fn arithmetic(act: DType) -> DType {
    if act == DType::F32 { DType::F32 } else { DType::Bf16 }
}

/// A product that saturates: the attention of an absurd request has more operations than 64 bits count, and too many to
/// count is a safe way to be wrong.
fn product(factors: [usize; 4]) -> u64 {
    factors.into_iter().fold(1, |product: u64, factor| product.saturating_mul(wide(factor)))
}

fn volume(extent: [usize; 3]) -> usize {
    extent.iter().product()
}

fn size(elements: usize, dtype: DType) -> u64 {
    dtype.bytes(wide(elements)).0
}

fn wide(n: usize) -> u64 {
    n as u64
}

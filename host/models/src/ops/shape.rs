//! What an operation costs, from its shape alone.

use loadline_core::{DType, OpCost, OpKind};

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
        /// Input frames, history and padding in front included, height and width.
        input: [usize; 3],
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
    /// Anything bound by memory.
    Elementwise {
        /// What is moved.
        moves: Moves,
        /// The type.
        act: DType,
    },
}

impl OpShape {
    /// What the operation costs on any machine.
    #[must_use]
    pub fn cost(&self) -> OpCost {
        let (kind, dtype, flops, bytes) = match *self {
            Self::Linear {
                m,
                n,
                k,
                act,
                weight,
            } => {
                let bytes = size(m * k + m * n, act) + size(n * k, weight);
                (
                    OpKind::Linear,
                    arithmetic(act),
                    2 * wide(m) * wide(n) * wide(k),
                    bytes,
                )
            }
            Self::Conv {
                input,
                output,
                kernel,
                cin,
                cout,
                act,
                weight,
            } => {
                let taps = volume(kernel) * cin * cout;
                let bytes =
                    size(volume(input) * cin + volume(output) * cout, act) + size(taps, weight);
                (
                    OpKind::Conv,
                    arithmetic(act),
                    2 * wide(volume(output)) * wide(taps),
                    bytes,
                )
            }
            Self::Attention {
                queries,
                keys,
                heads,
                dim,
                act,
            } => {
                let width = heads * dim;
                let flops = 4 * wide(queries) * wide(keys) * wide(width);
                (
                    OpKind::Attention,
                    act,
                    flops,
                    size(2 * (queries + keys) * width, act),
                )
            }
            Self::Elementwise { moves, act } => (
                OpKind::Elementwise,
                act,
                moves.flops,
                moves.read + moves.written,
            ),
        };
        OpCost {
            kind,
            dtype,
            count: 1,
            flops,
            bytes,
        }
    }
}

/// Matrix units run in the activations' type; narrower weights are widened on their way.
fn arithmetic(act: DType) -> DType {
    if act == DType::F32 {
        DType::F32
    } else {
        DType::Bf16
    }
}

fn volume(extent: [usize; 3]) -> usize {
    extent.iter().product()
}

fn size(elements: usize, dtype: DType) -> u64 {
    wide(elements) * dtype.element_bytes()
}

fn wide(n: usize) -> u64 {
    n as u64
}

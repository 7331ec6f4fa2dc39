//! Attention without the scores: each task walks blocks of queries, and for
//! each of them all keys a block at a time, keeping the running maximum and sum
//! of each query's softmax (the streaming softmax of Milakov and Gimelshein,
//! arXiv:1805.02867). The two products use the register tile of [`crate::gemm`].

use crate::element::Element;
use crate::gemm::Panels;
use crate::gemm::pack::{pack_cols, pack_depth_rows, pack_rows};
use crate::math::exp;
use crate::parallel::{SharedOut, run_with_scratch};
use crate::reduce;
use crate::scratch::{Scratch, bytes, cut, padded};
use crate::set::{Exec, KernelSet};
use crate::simd::{CHUNK, Simd, per_set};

/// The largest head.
const DIM_MAX: usize = 2048;
/// Queries of a block: enough that packing a key for them is cheap.
const QUERIES: usize = 192;
/// Keys of a block, and keys times dimension: with these a task takes at most 0.9 MiB.
const KEYS: usize = 256;
const KEY_VALUES: usize = 1 << 15;
/// Multiply-adds that are worth a task of their own.
const GRAIN: usize = 1 << 19;

/// The shape of an attention call; a batch is one call for each of its items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionShape {
    /// Query positions (Lq).
    pub queries: usize,
    /// Key and value positions (Lk).
    pub keys: usize,
    /// Heads (H).
    pub heads: usize,
    /// Values of a head (D), at most 2048.
    pub dim: usize,
}

/// What is done to the scores before the softmax.
#[derive(Debug, Clone, Copy)]
pub struct AttentionOptions<'a> {
    /// Multiplies the dot products, usually `1 / sqrt(D)`.
    pub scale: f32,
    /// Whether query `i` sees only the keys up to `i + Lk - Lq`; needs `Lk >= Lq`.
    pub causal: bool,
    /// How many of the keys are seen at all, all of them when `None`; at least 1.
    pub key_len: Option<usize>,
    /// Added to the scaled scores: `[H, Lq + Lk - 1]`, for a query and a key at
    /// `key - query + Lq - 1`, as the relative positions of T5 need.
    pub bias_table: Option<&'a [f32]>,
}

impl AttentionOptions<'_> {
    /// Only the scale.
    #[must_use]
    pub const fn scaled(scale: f32) -> Self {
        Self { scale, causal: false, key_len: None, bias_table: None }
    }
}

impl AttentionShape {
    fn is_empty(&self) -> bool {
        self.queries == 0 || self.heads == 0
    }

    /// Values of one position of all heads.
    fn stride(&self) -> usize {
        self.heads * self.dim
    }

    fn assert_valid(&self) {
        assert!((1..=DIM_MAX).contains(&self.dim), "attention: heads have 1 to {DIM_MAX} values");
        assert!(self.keys > 0, "attention: there must be a key");
    }
}

/// Bytes of scratch of [`attention`]. The options do not matter.
#[must_use]
pub fn attention_scratch(shape: &AttentionShape, exec: Exec) -> usize {
    shape.assert_valid();
    if shape.is_empty() { 0 } else { Blocking::new(shape, exec).bytes() }
}

/// `o = softmax(scale * q . k^T + bias) . v` for each head, with `q` and `o`
/// `[Lq, H, D]`, `k` and `v` `[Lk, H, D]`.
///
/// # Panics
/// When a length does not fit the shape, or the machine lacks the kernel set.
pub fn attention<A: Element>(
    exec: Exec,
    shape: &AttentionShape,
    options: &AttentionOptions<'_>,
    q: &[A],
    k: &[A],
    v: &[A],
    o: &mut [A],
) {
    exec.assert_available();
    shape.assert_valid();
    assert_eq!(q.len(), shape.queries * shape.stride(), "attention: q must be [Lq, H, D]");
    assert_eq!(k.len(), shape.keys * shape.stride(), "attention: k must be [Lk, H, D]");
    assert_eq!(v.len(), shape.keys * shape.stride(), "attention: v must be [Lk, H, D]");
    assert_eq!(o.len(), shape.queries * shape.stride(), "attention: o must be [Lq, H, D]");
    assert_options(shape, options);
    if shape.is_empty() {
        return;
    }
    let blocking = Blocking::new(shape, exec);
    let mut scratch = Scratch::new(blocking.floats());
    let call = Call { shape, options, q, k, v, o: SharedOut::new(o) };
    run_with_scratch(scratch.values(), blocking.tasks, |task, part| {
        let mut buffers = Buffers::new(&blocking, part);
        for unit in blocking.units(task) {
            let query = unit % blocking.query_blocks * blocking.queries;
            let queries = blocking.queries.min(shape.queries - query);
            let head = unit / blocking.query_blocks;
            QueryBlock { call: &call, blocking: &blocking, head, query, queries }.run(&mut buffers);
        }
    });
}

fn assert_options(shape: &AttentionShape, options: &AttentionOptions<'_>) {
    assert!(!options.causal || shape.keys >= shape.queries, "attention: causal needs as many keys as queries");
    if let Some(len) = options.key_len {
        assert!((1..=shape.keys).contains(&len), "attention: key_len must be within the keys");
    }
    if let (Some(table), false) = (options.bias_table, shape.is_empty()) {
        let len = shape.heads * (shape.queries + shape.keys - 1);
        assert_eq!(table.len(), len, "attention: bias_table must be [H, Lq + Lk - 1]");
    }
}

/// How a call is cut into blocks and tasks.
#[derive(Debug, Clone, Copy)]
struct Blocking {
    set: KernelSet,
    dim: usize,
    /// Queries and keys of a block.
    queries: usize,
    keys: usize,
    query_blocks: usize,
    heads: usize,
    tasks: usize,
}

impl Blocking {
    fn new(shape: &AttentionShape, exec: Exec) -> Self {
        let unit = exec.set.tile_rows();
        let query_blocks = shape.queries.div_ceil(QUERIES);
        let queries = shape.queries.div_ceil(query_blocks).next_multiple_of(unit);
        let query_blocks = shape.queries.div_ceil(queries);
        let most = KEYS.min(KEY_VALUES / shape.dim.next_multiple_of(32));
        let work = shape.queries.saturating_mul(shape.keys).saturating_mul(shape.stride());
        Self {
            set: exec.set,
            dim: shape.dim,
            queries,
            keys: most.min(shape.keys),
            query_blocks,
            heads: shape.heads,
            tasks: exec.tasks(work, GRAIN).min(query_blocks * shape.heads),
        }
    }

    /// The (head, block of queries) pairs of one task.
    fn units(&self, task: usize) -> std::ops::Range<usize> {
        let units = self.heads * self.query_blocks;
        units * task / self.tasks..units * (task + 1) / self.tasks
    }

    /// The product of some queries and keys.
    fn scores(&self, queries: usize, keys: usize) -> Panels {
        Panels { set: self.set, rows: queries, cols: keys, depth: self.dim.next_multiple_of(CHUNK) }
    }

    /// The product of the softmax and the values of some keys.
    fn outputs(&self, queries: usize, keys: usize) -> Panels {
        Panels { set: self.set, rows: queries, cols: self.dim, depth: keys.next_multiple_of(CHUNK) }
    }

    /// Lengths of [`Buffers`], in the order of its fields.
    fn parts(&self) -> [usize; 8] {
        let (scores, outputs) = (self.scores(self.queries, self.keys), self.outputs(self.queries, self.keys));
        [
            scores.left_len(),
            scores.right_len(),
            self.queries * scores.stride(),
            outputs.left_len(),
            outputs.right_len(),
            self.queries * outputs.stride(),
            self.queries,
            self.queries,
        ]
    }

    fn floats(&self) -> usize {
        self.tasks * self.parts().into_iter().map(padded).sum::<usize>()
    }

    fn bytes(&self) -> usize {
        bytes(self.floats())
    }
}

/// One task's tiles.
struct Buffers<'a> {
    /// Packed queries and keys, and their scores.
    q: &'a mut [f32],
    k: &'a mut [f32],
    scores: &'a mut [f32],
    /// The packed softmax and values, and the output before its division.
    p: &'a mut [f32],
    v: &'a mut [f32],
    out: &'a mut [f32],
    /// The running maximum and sum of each query.
    max: &'a mut [f32],
    sum: &'a mut [f32],
}

impl<'a> Buffers<'a> {
    fn new(blocking: &Blocking, mut part: &'a mut [f32]) -> Self {
        let [q, k, scores, p, v, out, max, sum] = blocking.parts().map(|len| cut(&mut part, len));
        Self { q, k, scores, p, v, out, max, sum }
    }
}

struct Call<'a, A> {
    shape: &'a AttentionShape,
    options: &'a AttentionOptions<'a>,
    q: &'a [A],
    k: &'a [A],
    v: &'a [A],
    o: SharedOut<'a, A>,
}

/// The queries that one walk over the keys serves.
struct QueryBlock<'a, A> {
    call: &'a Call<'a, A>,
    blocking: &'a Blocking,
    head: usize,
    query: usize,
    queries: usize,
}

impl<A: Element> QueryBlock<'_, A> {
    fn run(&self, buffers: &mut Buffers<'_>) {
        let (shape, set) = (self.call.shape, self.blocking.set);
        let start = self.query * shape.stride() + self.head * shape.dim;
        pack_rows(set, &self.call.q[start..], shape.stride(), self.queries, shape.dim, buffers.q);
        buffers.out.fill(0.0);
        // Finite, so that a score of minus infinity never meets its equal.
        buffers.max.fill(f32::MIN);
        buffers.sum.fill(0.0);
        let seen = self.seen(self.queries - 1);
        for key in (0..seen).step_by(self.blocking.keys) {
            self.step(buffers, key, self.blocking.keys.min(seen - key));
        }
        self.finish(buffers);
    }

    /// Keys that the block's query of this index sees.
    fn seen(&self, index: usize) -> usize {
        let (shape, options) = (self.call.shape, self.call.options);
        let len = options.key_len.unwrap_or(shape.keys);
        if options.causal { len.min(self.query + index + shape.keys - shape.queries + 1) } else { len }
    }

    /// Adds a block of keys.
    fn step(&self, buffers: &mut Buffers<'_>, key: usize, keys: usize) {
        let (shape, set) = (self.call.shape, self.blocking.set);
        let start = key * shape.stride() + self.head * shape.dim;
        let scores = self.blocking.scores(self.queries, keys);
        let right = &mut buffers.k[..scores.right_len()];
        pack_cols(set, &self.call.k[start..], shape.stride(), keys, shape.dim, 1, right);
        scores.multiply(&buffers.q[..scores.left_len()], right, buffers.scores, false);

        let outputs = self.blocking.outputs(self.queries, keys);
        let left = &mut buffers.p[..outputs.left_len()];
        for index in 0..self.queries {
            let row = &mut buffers.scores[index * scores.stride()..][..keys];
            let out = &mut buffers.out[index * outputs.stride()..][..outputs.stride()];
            let mut softmax = Softmax {
                scale: self.call.options.scale,
                bias: self.bias(index, key, keys),
                seen: self.seen(index).saturating_sub(key),
                max: &mut buffers.max[index],
                sum: &mut buffers.sum[index],
            };
            soften(set, &mut softmax, row, out);
        }
        pack_rows(set, buffers.scores, scores.stride(), self.queries, keys, left);
        let right = &mut buffers.v[..outputs.right_len()];
        pack_depth_rows(set, &self.call.v[start..], shape.stride(), keys, shape.dim, right);
        outputs.multiply(left, right, buffers.out, true);
    }

    /// The bias of a query and some keys, if there is any.
    fn bias(&self, index: usize, key: usize, keys: usize) -> Option<&[f32]> {
        let shape = self.call.shape;
        let width = shape.queries + shape.keys - 1;
        let start = self.head * width + key + shape.queries - 1 - (self.query + index);
        self.call.options.bias_table.map(|table| &table[start..start + keys])
    }

    fn finish(&self, buffers: &Buffers<'_>) {
        let shape = self.call.shape;
        let stride = self.blocking.outputs(self.queries, 1).stride();
        for (index, out) in buffers.out.chunks_exact(stride).enumerate().take(self.queries) {
            let at = (self.query + index) * shape.stride() + self.head * shape.dim;
            // SAFETY: each (head, block of queries) pair belongs to one task.
            let run = unsafe { self.call.o.run(at, shape.dim) };
            divide(self.blocking.set, out, buffers.sum[index], run);
        }
    }
}

/// One query's running softmax and what applies to its next scores.
struct Softmax<'a> {
    scale: f32,
    bias: Option<&'a [f32]>,
    /// How many of the scores are not masked.
    seen: usize,
    max: &'a mut f32,
    sum: &'a mut f32,
}

per_set! {
    /// Turns a row of scores into exponentials relative to the running maximum
    /// and rescales what the row's output has so far.
    fn soften(softmax: &mut Softmax<'_>, scores: &mut [f32], out: &mut [f32]) = soften_for
}

#[inline(always)]
fn soften_for<S: Simd>(softmax: &mut Softmax<'_>, scores: &mut [f32], out: &mut [f32]) {
    scores.iter_mut().for_each(|score| *score *= softmax.scale);
    if let Some(bias) = softmax.bias {
        scores.iter_mut().zip(bias).for_each(|(score, bias)| *score += bias);
    }
    if softmax.seen < scores.len() {
        scores[softmax.seen..].fill(f32::NEG_INFINITY);
    }
    let max = reduce::max(scores, *softmax.max);
    scores.iter_mut().for_each(|score| *score = exp::<S>(*score - max));
    let keep = exp::<S>(*softmax.max - max);
    *softmax.sum = *softmax.sum * keep + reduce::sum(scores, |p| p);
    *softmax.max = max;
    if keep != 1.0 {
        out.iter_mut().for_each(|out| *out *= keep);
    }
}

per_set! {
    fn divide<A: Element>(values: &[f32], divisor: f32, out: &mut [A]) = divide_for
}

#[inline(always)]
fn divide_for<S: Simd, A: Element>(values: &[f32], divisor: f32, out: &mut [A]) {
    for (out, value) in out.iter_mut().zip(values) {
        *out = A::narrow(*value / divisor);
    }
}

//! Attention without the scores: each task walks blocks of queries, and for
//! each of them all keys a block at a time, keeping the running maximum and sum
//! of each query's softmax (the streaming softmax of Milakov and Gimelshein,
//! arXiv:1805.02867). The two products use the register tile of [`crate::gemm`].

use half::bf16;

use crate::element::{Element, Pair, Word};
use crate::gemm::pack::{pack_cols, pack_depth_pairs, pack_depth_rows, pack_rows};
use crate::gemm::{GRAIN, Panels, Rows, Words};
use crate::math::exp;
use crate::parallel::{SharedOut, share_with_scratch};
use crate::reduce;
use crate::scratch::{Scratch, bytes, cut, padded};
use crate::set::{Exec, KernelSet};
use crate::simd::{Simd, per_set};

/// The largest head.
const DIM_MAX: usize = 2048;
/// Queries of a block: enough that packing a key for them is cheap.
const QUERIES: usize = 192;
/// Keys of a block, and keys times dimension: with these a task takes at most 0.9 MiB.
const KEYS: usize = 256;
const KEY_VALUES: usize = 1 << 15;

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
    let call = Call { shape, options, operands: Operands::new(exec.set, shape, q, k, v), o: SharedOut::new(o) };
    share_with_scratch(scratch.values(), blocking.tasks, blocking.units(), |units, part| {
        let mut buffers = Buffers::new(&blocking, part);
        for unit in units {
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
        let unit = exec.set.unit_rows();
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

    /// The (head, block of queries) pairs.
    fn units(&self) -> usize {
        self.heads * self.query_blocks
    }

    /// The product of some queries and keys.
    fn scores(&self, words: Words, queries: usize, keys: usize) -> Panels {
        Panels { set: self.set, words, rows: queries, cols: keys, depth: words.of(self.dim) }
    }

    /// The product of the softmax and the values of some keys.
    fn outputs(&self, words: Words, queries: usize, keys: usize) -> Panels {
        Panels { set: self.set, words, rows: queries, cols: self.dim, depth: words.of(keys) }
    }

    /// Lengths of [`Buffers`], in the order of its fields, for words that are values; pairs need no more.
    fn parts(&self) -> [usize; 8] {
        let scores = self.scores(Words::Singles, self.queries, self.keys);
        let outputs = self.outputs(Words::Singles, self.queries, self.keys);
        [
            self.queries * self.dim,
            scores.right_len(),
            scores.sums_len(),
            self.queries * Words::Pairs.of(self.keys),
            outputs.right_len(),
            outputs.sums_len(),
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
    /// The softmax as pairs, the packed values, and the output before its division.
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
    operands: Operands<'a, A>,
    o: SharedOut<'a, A>,
}

/// Queries, keys and values; where they are multiplied in pairs, queries and
/// keys as pairs of a head's values, and values as they are, to be paired over the keys.
enum Operands<'a, A> {
    Singles { q: &'a [A], k: &'a [A], v: &'a [A] },
    Pairs { q: &'a [Pair], k: &'a [Pair], v: &'a [bf16] },
}

impl<'a, A: Element> Operands<'a, A> {
    fn new(set: KernelSet, shape: &AttentionShape, q: &'a [A], k: &'a [A], v: &'a [A]) -> Self {
        let even = shape.dim.is_multiple_of(2);
        let halves = A::halves(q).zip(A::halves(k)).zip(A::halves(v)).filter(|_| even);
        match (Words::choose(set, halves.is_some()), halves) {
            (Words::Pairs, Some(((q, k), v))) => Self::Pairs { q: Pair::all(q), k: Pair::all(k), v },
            _ => Self::Singles { q, k, v },
        }
    }

    fn words(&self) -> Words {
        if matches!(self, Self::Pairs { .. }) { Words::Pairs } else { Words::Singles }
    }

    fn pack_queries(&self, at: &Place<'_>, rows: usize, out: &mut [f32]) {
        match self {
            Self::Singles { q, .. } => pack_rows(at.set, &q[at.first(1)..], at.stride(1), rows, at.shape.dim, out),
            Self::Pairs { q, .. } => pack_rows(at.set, &q[at.first(2)..], at.stride(2), rows, at.shape.dim / 2, out),
        }
    }

    fn pack_keys(&self, at: &Place<'_>, keys: usize, out: &mut [f32]) {
        fn pack<W: Word>(at: &Place<'_>, k: &[W], per_word: usize, keys: usize, out: &mut [f32]) {
            let run = at.shape.dim / per_word;
            pack_cols(at.set, &k[at.first(per_word)..], at.stride(per_word), keys, run, 1, out);
        }
        match self {
            Self::Singles { k, .. } => pack(at, k, 1, keys, out),
            Self::Pairs { k, .. } => pack(at, k, 2, keys, out),
        }
    }

    fn pack_values(&self, at: &Place<'_>, keys: usize, out: &mut [f32]) {
        let (first, stride) = (at.first(1), at.stride(1));
        match self {
            Self::Singles { v, .. } => pack_depth_rows(at.set, &v[first..], stride, keys, at.shape.dim, out),
            Self::Pairs { v, .. } => pack_depth_pairs(at.set, &v[first..], stride, keys, at.shape.dim, out),
        }
    }
}

/// One position of one head.
struct Place<'a> {
    set: KernelSet,
    shape: &'a AttentionShape,
    head: usize,
    position: usize,
}

impl Place<'_> {
    /// Words from one position to the next, of `per_word` values each.
    fn stride(&self, per_word: usize) -> usize {
        self.shape.stride() / per_word
    }

    /// The position's first word.
    fn first(&self, per_word: usize) -> usize {
        (self.position * self.shape.stride() + self.head * self.shape.dim) / per_word
    }
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
        self.call.operands.pack_queries(&self.place(self.query), self.queries, buffers.q);
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

    fn place(&self, position: usize) -> Place<'_> {
        Place { set: self.blocking.set, shape: self.call.shape, head: self.head, position }
    }

    /// Keys that the block's query of this index sees.
    fn seen(&self, index: usize) -> usize {
        let (shape, options) = (self.call.shape, self.call.options);
        let len = options.key_len.unwrap_or(shape.keys);
        if options.causal { len.min(self.query + index + shape.keys - shape.queries + 1) } else { len }
    }

    /// Adds a block of keys.
    fn step(&self, buffers: &mut Buffers<'_>, key: usize, keys: usize) {
        let (operands, place) = (&self.call.operands, self.place(key));
        let words = operands.words();
        let scores = self.blocking.scores(words, self.queries, keys);
        let right = &mut buffers.k[..scores.right_len()];
        operands.pack_keys(&place, keys, right);
        scores.multiply(&Rows::dense(buffers.q, scores.depth), right, buffers.scores, false);

        let outputs = self.blocking.outputs(words, self.queries, keys);
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
            soften(place.set, &mut softmax, row, out);
            if words == Words::Pairs {
                pair_up(place.set, row, &mut buffers.p[index * outputs.depth..][..outputs.depth]);
            }
        }
        let left = match words {
            Words::Singles => Rows::strided(buffers.scores, scores.stride(), keys),
            Words::Pairs => Rows::dense(buffers.p, outputs.depth),
        };
        let right = &mut buffers.v[..outputs.right_len()];
        operands.pack_values(&place, keys, right);
        outputs.multiply(&left, right, buffers.out, true);
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
        let stride = self.blocking.outputs(Words::Singles, self.queries, 1).stride();
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
    /// Rounds a row to bf16 and packs it in pairs; a zero stands for the value that an odd number lacks.
    fn pair_up(values: &[f32], words: &mut [f32]) = pair_up_for
}

#[inline(always)]
fn pair_up_for<S: Simd>(values: &[f32], words: &mut [f32]) {
    let (pairs, rest) = values.as_chunks::<2>();
    for (pair, word) in pairs.iter().zip(&mut *words) {
        *word = Pair::new(bf16::narrow(pair[0]), bf16::narrow(pair[1])).word();
    }
    if let ([value], Some(word)) = (rest, words.last_mut()) {
        *word = Pair::new(bf16::narrow(*value), bf16::ZERO).word();
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

//! The products of tiles, and whole kernels over them, with tile registers in memory; where the machine has its own,
//! with those.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use half::bf16;

use super::*;
use crate::gemm::Words;
use crate::set::{Exec, KernelSet};
use crate::{
    Activation, AttentionOptions, AttentionShape, ConvShape, LinearShape, SpatialPad, Weights, attention, conv3d,
    linear,
};

/// A linear congruential generator.
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % most
    }

    /// Whole numbers from -8 to 8: sums of their products are exact in f32, in any order.
    fn whole(&mut self, len: usize) -> Vec<bf16> {
        (0..len).map(|_| bf16::from_f32(self.below(17) as f32 - 8.0)).collect()
    }
}

fn pairs(values: &[bf16]) -> Vec<f32> {
    let word = |pair: &[bf16; 2]| f32::from_bits(u32::from(pair[0].to_bits()) | u32::from(pair[1].to_bits()) << 16);
    values.as_chunks::<2>().0.iter().map(word).collect()
}

/// A left operand as a convolution has it: pixels in lines, kernel lines as runs.
struct Picture {
    words: Vec<f32>,
    values: Vec<bf16>,
    runs: Vec<usize>,
    len: usize,
    step: usize,
    line: usize,
    width: usize,
}

impl Picture {
    fn new(random: &mut Random, rows: usize, len: usize, runs: usize, width: usize) -> Self {
        let (step, gap) = (1 + random.below(2 * len), random.below(40));
        let line = width * step + gap;
        let runs: Vec<usize> = (0..runs).map(|_| random.below(500)).collect();
        let words = (rows / width + 1) * line + 500 + len;
        let values = random.whole(2 * words);
        Self { words: pairs(&values), values, runs, len, step, line, width }
    }

    fn rows(&self) -> Rows<'_> {
        let Self { words, runs, len, step, line, width, .. } = self;
        Rows { words, width: *width, step: *step, line: *line, runs, len: *len }
    }

    /// The values of a row, one after the other.
    fn row(&self, row: usize) -> Vec<f32> {
        let start = row / self.width * self.line + row % self.width * self.step;
        let run = |run: &usize| self.values[2 * (start + run)..][..2 * self.len].to_vec();
        self.runs.iter().flat_map(run).map(bf16::to_f32).collect()
    }
}

/// Products by the tiles that a test asks for.
fn check_product(unit: &mut impl TileUnit, random: &mut Random, rows: usize, cols: usize, picture: &Picture) {
    let depth = picture.runs.len() * picture.len;
    let panels = Panels { set: KernelSet::AmxBf16, words: Words::Pairs, rows, cols, depth };
    let columns = random.whole(2 * depth * cols);
    let column = |c: usize| &columns[2 * depth * c..][..2 * depth];
    let mut right = vec![0f32; panels.right_len()];
    for (p, panel) in right.chunks_mut(COLS * depth).enumerate() {
        let width = panel.len() / depth;
        for (c, words) in (0..width.min(cols - p * COLS)).map(|c| (c, pairs(column(p * COLS + c)))) {
            words.iter().enumerate().for_each(|(k, word)| panel[k * width + c] = *word);
        }
    }
    let mut sums = vec![f32::NAN; panels.sums_len()];
    for (add, times) in [(false, 1.0), (true, 2.0)] {
        multiply(unit, &panels, &picture.rows(), &right, &mut sums, add);
        for row in 0..rows {
            let left = picture.row(row);
            for c in 0..cols {
                let product: f32 = left.iter().zip(column(c)).map(|(a, b)| a * b.to_f32()).sum();
                let found = sums[row * panels.stride() + c];
                assert_eq!(found, times * product, "[{row}, {c}] of {rows} x {cols} x {depth}, add {add}");
            }
        }
    }
}

fn check_products(unit: &mut impl TileUnit) {
    for seed in 0..60 {
        let random = &mut Random(seed);
        let (rows, cols) = (1 + random.below(75), 1 + random.below(70));
        // Whole tiles in place, tiles that cross lines, runs that are not whole blocks, depths beyond one part.
        let (len, runs) = match seed % 4 {
            0 => (16 * (1 + random.below(3)), 1 + random.below(9)),
            1 => (1 + random.below(50), 1 + random.below(9)),
            2 => (48, 9),
            _ => (1 + random.below(1100), 1),
        };
        let width = [1, 5, 16, 32, 33, 200][random.below(6)];
        let picture = Picture::new(random, rows, len, runs, width);
        check_product(unit, random, rows, cols, &picture);
    }
}

#[test]
fn products_of_tiles_in_memory_are_exact_for_whole_numbers() {
    check_products(&mut Software::new());
}

#[test]
#[cfg(target_arch = "x86_64")]
fn products_of_the_machine_s_tiles_are_exact_for_whole_numbers() {
    if !crate::gemm::amx::usable() {
        return eprintln!("skipped: this machine has no AMX tiles for bf16, or the system does not let them be used");
    }
    check_products(&mut crate::gemm::amx::Amx);
}

/// Where rows lie decides how tiles get them, and must not decide what comes out.
#[test]
fn rows_in_place_and_rows_that_are_copied_give_the_same_bits() {
    let random = &mut Random(1);
    let mut value = || random.below(1 << 16) as f32 / 65_536.0 - 0.5;
    let (rows, cols, depth) = (64, 48, 160);
    let values: Vec<bf16> = (0..2 * rows * depth).map(|_| bf16::from_f32(value())).collect();
    let words = pairs(&values);
    let panels = Panels { set: KernelSet::AmxBf16, words: Words::Pairs, rows, cols, depth };
    let right = pairs(&(0..2 * panels.right_len()).map(|_| bf16::from_f32(value())).collect::<Vec<_>>());
    let product = |left: &Rows<'_>, rows: usize| {
        let mut sums = vec![0f32; panels.sums_len()];
        multiply(&mut Software::new(), &Panels { rows, ..panels }, left, &right, &mut sums, false);
        sums[..rows * panels.stride()].to_vec()
    };
    let in_place = product(&Rows::dense(&words, depth), rows);
    // A run of the same words that is no multiple of a block.
    let runs: Vec<usize> = (0..16).map(|run| run * 10).collect();
    let copied = product(&Rows { runs: &runs, len: 10, ..Rows::dense(&words, depth) }, rows);
    assert!(in_place.iter().zip(&copied).all(|(a, b)| a.to_bits() == b.to_bits()));
    let fewer = product(&Rows::dense(&words, depth), 50);
    assert!(in_place.iter().zip(&fewer).all(|(a, b)| a.to_bits() == b.to_bits()));
}

/// What a kernel gives with tiles on each number of threads, beside what it gives without.
fn with_and_without(len: usize, run: impl Fn(Exec, &mut [bf16])) -> Option<[Vec<bf16>; 2]> {
    if !KernelSet::AmxBf16.available() {
        eprintln!("skipped: this machine has no AVX-512, which the set has for all but products");
        return None;
    }
    let out = |set, threads| {
        let mut out = vec![bf16::NAN; len];
        run(Exec::new(set, threads), &mut out);
        out
    };
    let tiles = [1, 2, 3].map(|threads| out(KernelSet::AmxBf16, threads));
    assert!(tiles.iter().all(|t| t.iter().zip(&tiles[0]).all(|(a, b)| a.to_bits() == b.to_bits())), "threads");
    let [one, ..] = tiles;
    Some([one, out(KernelSet::Plain, 1)])
}

#[test]
fn linear_layers_on_tiles_are_those_without() {
    for seed in 0..40 {
        let random = &mut Random(seed);
        // Even depths are multiplied in pairs.
        let shape =
            LinearShape { rows: 1 + random.below(130), inputs: 1 + random.below(700), outputs: 1 + random.below(130) };
        let (x, w) = (random.whole(shape.rows * shape.inputs), random.whole(shape.outputs * shape.inputs));
        let bias = random.whole(shape.outputs);
        let run = |exec: Exec, y: &mut [bf16]| {
            linear(exec, &shape, &x, Weights::Bf16(&w), Some(Weights::Bf16(&bias)), Activation::None, y);
        };
        let Some([tiles, plain]) = with_and_without(shape.rows * shape.outputs, run) else { return };
        assert_eq!(tiles, plain, "{shape:?}");
    }
}

#[test]
fn convolutions_on_tiles_are_those_without() {
    for seed in 0..25 {
        let random = &mut Random(seed);
        let kernel = [[3, 3, 3], [1, 3, 3], [1, 1, 1], [3, 1, 1]][random.below(4)];
        let shape = ConvShape {
            input: [1 + random.below(3), 3 + random.below(8), 3 + random.below(60)],
            channels_in: 1 + random.below(70),
            channels_out: 1 + random.below(50),
            kernel,
            stride: [1, 1 + random.below(2), 1 + random.below(2)],
            history: random.below(3),
            pad_front: 2,
            pad: SpatialPad::all(1),
        };
        let frame = shape.input[1] * shape.input[2] * shape.channels_in;
        let (x, history) = (random.whole(shape.input[0] * frame), random.whole(shape.history * frame));
        let w = random.whole(shape.channels_out * shape.channels_in * kernel.iter().product::<usize>());
        let run = |exec: Exec, y: &mut [bf16]| conv3d(exec, &shape, &x, &history, Weights::Bf16(&w), None, y);
        let len = shape.output().iter().product::<usize>() * shape.channels_out;
        let Some([tiles, plain]) = with_and_without(len, run) else { return };
        assert_eq!(tiles, plain, "{shape:?}");
    }
}

/// The softmax rounds its weights to bf16 for the second product, so results are near and not equal.
#[test]
fn attention_on_tiles_is_near_that_without() {
    for seed in 0..20 {
        let random = &mut Random(seed);
        let keys = 1 + random.below(400);
        let (heads, dim) = (1 + random.below(3), [2, 40, 64, 80, 128][random.below(5)]);
        let shape = AttentionShape { queries: 1 + random.below(keys), keys, heads, dim };
        let mut values = |positions: usize| random.whole(positions * heads * dim);
        let (q, k, v) = (values(shape.queries), values(keys), values(keys));
        let options = AttentionOptions { causal: seed % 2 == 0, ..AttentionOptions::scaled(0.01) };
        let run = |exec: Exec, o: &mut [bf16]| attention(exec, &shape, &options, &q, &k, &v, o);
        let Some([tiles, plain]) = with_and_without(q.len(), run) else { return };
        for (a, b) in tiles.iter().zip(&plain) {
            // Two roundings of what is at most 8, and one of each weight.
            assert!((a.to_f32() - b.to_f32()).abs() <= 8.0 / 64.0, "{a} and {b}: {shape:?}");
        }
    }
}

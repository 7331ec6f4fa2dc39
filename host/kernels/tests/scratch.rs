//! Declared scratch against what a counting allocator saw. A binary of its own
//! with one test, since the counter sees every thread.
#![allow(clippy::unwrap_used)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Activations, Rng, cases, sets};
use half::bf16;
use loadline_kernels::*;

/// Adds up allocations of at least this size; smaller ones are bookkeeping.
const COUNTED: usize = 4096;

struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

fn count(size: usize) {
    if size >= COUNTED {
        ALLOCATED.fetch_add(size, Ordering::SeqCst);
    }
}

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: the caller's promise is the same.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is the same.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs a kernel and compares what it allocated with what it declares: never
/// more, and less by at most one per cent or what is too small to be counted.
fn check(name: &str, exec: Exec, declared: usize, run: impl FnOnce()) {
    let before = ALLOCATED.load(Ordering::SeqCst);
    run();
    let seen = ALLOCATED.load(Ordering::SeqCst) - before;
    let what = format!("{name} {} x{}: declared {declared}, seen {seen}", exec.set.name(), exec.threads);
    assert!(seen <= declared, "{what}");
    assert!(declared - seen < COUNTED.max(declared / 100), "{what}");
}

fn linear_case<A: Activations>(exec: Exec, rng: &mut Rng) {
    let shape = LinearShape { rows: rng.size(0, 600), inputs: rng.size(1, 900), outputs: rng.size(0, 600) };
    let x: Vec<A> = rng.values(shape.rows * shape.inputs);
    let (w, bias) = (rng.weights(shape.inputs * shape.outputs), rng.weights(shape.outputs));
    let mut y: Vec<A> = rng.values(shape.rows * shape.outputs);
    check("linear", exec, linear_scratch(&shape, exec), || {
        linear(exec, &shape, &x, w.view(), Some(bias.view()), Activation::Silu, &mut y);
    });
}

/// Packed weights are decoded on the stack: a layer declares and takes the same as over plain ones.
fn packed_case<A: Activations>(exec: Exec, rng: &mut Rng) {
    let format = rng.pick(&Format::ALL);
    let shape = LinearShape { rows: rng.size(0, 600), inputs: 256 * rng.size(1, 4), outputs: rng.size(0, 600) };
    let x: Vec<A> = rng.values(shape.rows * shape.inputs);
    let (elements, bytes) = format.block();
    let w = vec![0; shape.inputs * shape.outputs / elements * bytes];
    let mut y: Vec<A> = rng.values(shape.rows * shape.outputs);
    check("linear of packed weights", exec, linear_scratch(&shape, exec), || {
        linear(exec, &shape, &x, Packed::new(format, &w, 1.0), None, Activation::None, &mut y);
    });
}

fn conv_case<A: Activations>(exec: Exec, rng: &mut Rng) {
    let shape = ConvShape {
        input: [rng.size(1, 4), rng.size(1, 20), rng.size(1, 20)],
        channels_in: rng.size(1, 120),
        channels_out: rng.size(1, 120),
        kernel: rng.pick(&[[3, 3, 3], [1, 3, 3], [1, 1, 1], [3, 1, 1]]),
        stride: [1, rng.size(1, 2), 1],
        history: rng.size(0, 2),
        pad_front: rng.size(0, 2),
        pad: SpatialPad::all(rng.size(0, 1)),
    };
    let frame = shape.input[1] * shape.input[2] * shape.channels_in;
    let x: Vec<A> = rng.values(shape.input[0] * frame);
    let history: Vec<A> = rng.values(shape.history * frame);
    let taps: usize = shape.kernel.iter().product();
    let w = rng.weights(shape.channels_in * shape.channels_out * taps);
    let mut y: Vec<A> = rng.values(shape.output().iter().product::<usize>() * shape.channels_out);
    check("conv3d", exec, conv3d_scratch(&shape, exec), || {
        conv3d(exec, &shape, &x, &history, w.view(), None, &mut y);
    });
}

fn attention_case<A: Activations>(exec: Exec, rng: &mut Rng) {
    let (queries, keys, heads) = (rng.size(0, 500), rng.size(1, 500), rng.size(1, 4));
    let shape = AttentionShape { queries, keys, heads, dim: rng.pick(&[1, 8, 40, 64, 128, 256]) };
    let q: Vec<A> = rng.values(queries * heads * shape.dim);
    let [k, v] = [0, 1].map(|_| rng.values::<A>(keys * heads * shape.dim));
    let mut o = q.clone();
    check("attention", exec, attention_scratch(&shape, exec), || {
        attention(exec, &shape, &AttentionOptions::scaled(0.1), &q, &k, &v, &mut o);
    });
}

fn norm_cases<A: Activations>(exec: Exec, rng: &mut Rng) {
    let (rows, cols) = (rng.size(0, 100), rng.size(1, 4000));
    let x: Vec<A> = rng.values(rows * cols);
    let w = rng.weights(cols);
    let mut y = x.clone();
    let declared = row_norm_scratch(rows, cols, exec);
    let norm = LayerNorm { weight: Some(w.view()), ..LayerNorm::plain(1e-6) };
    check("layer_norm", exec, declared, || layer_norm(exec, cols, &x, &norm, &mut y));
    check("rms_norm", exec, declared, || rms_norm(exec, cols, &x, w.view(), 1e-6, &mut y));
    check("l2_norm", exec, declared, || l2_norm_channels(exec, cols, &x, w.view(), true, &mut y));
    check("rms_norm_assign", exec, declared, || rms_norm_assign(exec, cols, &mut y, w.view(), 1e-6));
    check("l2_norm_assign", exec, declared, || l2_norm_channels_assign(exec, cols, &mut y, w.view(), true));
    let shape = GroupNormShape { positions: rows * cols / 32, channels: 32, groups: rng.pick(&[1, 8, 32]) };
    let norm = GroupNorm { weight: None, bias: None, eps: 1e-6, silu: true };
    let len = shape.positions * 32;
    check("group_norm", exec, group_norm_scratch(&shape, exec), || {
        group_norm(exec, &shape, &x[..len], &norm, &mut y[..len]);
    });
}

/// The kernels that declare no scratch.
fn in_place_cases<A: Activations>(exec: Exec, rng: &mut Rng) {
    let (rows, cols) = (rng.size(1, 60), 2 * rng.size(1, 1500));
    let [mut x, y] = [0, 1].map(|_| rng.values::<A>(rows * cols));
    let [scale, shift] = [0, 1].map(|_| rng.values::<f32>(cols));
    let [cos, sin] = [0, 1].map(|_| rng.values::<f32>(rows * cols / 2));
    let (w, mut wide, terms) = (rng.weights(rows * cols), vec![0f32; rows * cols], rng.values::<f32>(rows * cols));
    let mut large = vec![x[0]; 4 * x.len()];
    check("add", exec, 0, || add_assign(exec, &mut x, &y));
    check("mul", exec, 0, || mul_assign(exec, &mut x, &y));
    check("gated_add", exec, 0, || gated_add_assign(exec, cols, &mut x, &y, PerRow::Shared(&scale)));
    check("scale_shift", exec, 0, || scale_shift_channels(exec, &mut x, &scale, &shift));
    check("activate", exec, 0, || activate_assign(exec, &mut x, Activation::GeluTanh));
    check("clamp", exec, 0, || clamp_assign(exec, &mut x, -1.0, 1.0));
    check("cast", exec, 0, || cast(exec, w.view(), &mut x));
    check("combine", exec, 0, || combine(exec, &mut wide, &[(0.5, &terms), (0.25, &terms)]));
    check("rope", exec, 0, || rope_interleaved(exec, 1, cols, &mut x, &cos, &sin));
    check("upsample", exec, 0, || upsample_nearest_2x(exec, [1, rows, cols, 1], &x, &mut large));
    check("permute", exec, 0, || permute(exec, &[rows, cols], &[1, 0], &x, &mut large[..x.len()]));
}

#[test]
fn declared_scratch_is_what_is_allocated() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    pool.install(|| {
        cases(40, |rng| {
            for set in sets() {
                let exec = Exec::new(set, rng.size(1, 3));
                linear_case::<f32>(exec, rng);
                linear_case::<bf16>(exec, rng);
                packed_case::<f32>(exec, rng);
                packed_case::<bf16>(exec, rng);
                conv_case::<f32>(exec, rng);
                conv_case::<bf16>(exec, rng);
                attention_case::<f32>(exec, rng);
                attention_case::<bf16>(exec, rng);
                norm_cases::<f32>(exec, rng);
                norm_cases::<bf16>(exec, rng);
                in_place_cases::<f32>(exec, rng);
                in_place_cases::<bf16>(exec, rng);
            }
        });
    });
}

//! Prints the rate of the heavy kernels on this machine, for each kernel set.
// Measuring is what this example is for; the crate itself knows no clock.
#![allow(clippy::print_stdout, clippy::disallowed_methods)]

use std::time::Instant;

use half::bf16;
use loadline_kernels::{
    Activation, AttentionOptions, AttentionShape, ConvShape, Element, Exec, KernelSet, LinearShape, SpatialPad,
    Weights, attention, conv3d, linear,
};

fn main() {
    for set in KernelSet::ALL.into_iter().filter(|set| set.available()) {
        for threads in [1, 2] {
            let exec = Exec::new(set, threads);
            for (rows, inputs, outputs) in [(1560, 1536, 8960), (8, 1536, 9216), (1, 1536, 9216)] {
                linear_rate(exec, LinearShape { rows, inputs, outputs });
            }
            conv_rate::<f32>(exec, "conv3d 96->96 3x3x3 f32");
            conv_rate::<bf16>(exec, "conv3d 96->96 3x3x3 bf16");
            attention_rate(exec, 1560);
        }
    }
}

/// The best of a few runs, in GF/s; others may use the machine too.
fn rate(name: &str, exec: Exec, flops: usize, mut run: impl FnMut()) {
    let mut best = f64::MAX;
    for _ in 0..4 {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_secs_f64());
    }
    let gflops = flops as f64 / best / 1e9;
    println!("{:7} x{} {name:40} {:8.2} ms {gflops:7.1} GF/s", exec.set.name(), exec.threads, best * 1e3);
}

fn linear_rate(exec: Exec, shape: LinearShape) {
    let x = vec![0.5f32; shape.rows * shape.inputs];
    let w = vec![0.25f32; shape.outputs * shape.inputs];
    let mut y = vec![0f32; shape.rows * shape.outputs];
    let name = format!("linear {}x{}x{}", shape.rows, shape.inputs, shape.outputs);
    rate(&name, exec, 2 * shape.rows * shape.inputs * shape.outputs, || {
        linear(exec, &shape, &x, Weights::F32(&w), None, Activation::None, &mut y);
    });
}

fn conv_rate<A: Element>(exec: Exec, name: &str) {
    let shape = ConvShape {
        input: [4, 120, 208],
        channels_in: 96,
        channels_out: 96,
        kernel: [3, 3, 3],
        stride: [1, 1, 1],
        history: 2,
        pad_front: 0,
        pad: SpatialPad::all(1),
    };
    let frame = 120 * 208 * 96;
    let x = vec![A::narrow(0.5); 4 * frame];
    let history = vec![A::narrow(0.25); 2 * frame];
    let w = vec![bf16::from_f32(0.125); 96 * 96 * 27];
    let mut y = vec![A::narrow(0.0); 4 * frame];
    rate(name, exec, 2 * 4 * frame * 96 * 27, || {
        conv3d(exec, &shape, &x, &history, Weights::Bf16(&w), None, &mut y);
    });
}

fn attention_rate(exec: Exec, positions: usize) {
    let shape = AttentionShape { queries: positions, keys: positions, heads: 12, dim: 128 };
    let len = positions * shape.heads * shape.dim;
    let x: Vec<f32> = (0..len).map(|i| (i % 251) as f32 / 251.0).collect();
    let mut o = vec![0f32; len];
    let options = AttentionOptions::scaled(1.0 / (shape.dim as f32).sqrt());
    rate(&format!("attention 12x{positions}x128"), exec, 4 * positions * len, || {
        attention(exec, &shape, &options, &x, &x, &x, &mut o);
    });
}

//! Prints the rate of the heavy kernels on this machine, for each kernel set.
#![allow(clippy::print_stdout)]

use std::time::Instant;

use loadline_kernels::{Activation, Exec, KernelSet, LinearShape, Weights, linear};

fn main() {
    for set in KernelSet::ALL.into_iter().filter(|set| set.available()) {
        for threads in [1, 2] {
            let exec = Exec::new(set, threads);
            for (rows, inputs, outputs) in [(1560, 1536, 8960), (1560, 1536, 1536), (8, 1536, 9216), (1, 1536, 9216)] {
                linear_rate(exec, LinearShape { rows, inputs, outputs });
            }
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

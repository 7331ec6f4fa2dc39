//! Prints the rate of the heavy kernels on this machine: `gemm_rate [KERNEL-SET [PART-OF-NAME]]`.
// Measuring is what this example is for; the crate itself knows no clock.
#![allow(clippy::print_stdout, clippy::disallowed_methods)]

use half::bf16;
use loadline_kernels::{
    Activation, AttentionOptions, AttentionShape, ConvShape, Element, Exec, KernelSet, LinearShape, SpatialPad,
    Weights, attention, conv3d, linear,
};

fn main() {
    let only = std::env::args().nth(1);
    let wanted = |set: &KernelSet| set.available() && only.as_deref().is_none_or(|name| set.name() == name);
    for set in KernelSet::ALL.into_iter().filter(wanted) {
        for threads in [1, 2] {
            let exec = Exec::new(set, threads);
            for (rows, inputs, outputs) in [(1560, 1536, 8960), (1560, 8960, 1536), (512, 4096, 10240), (1, 1536, 9216)]
            {
                linear_rate::<f32>(exec, LinearShape { rows, inputs, outputs });
                linear_rate::<bf16>(exec, LinearShape { rows, inputs, outputs });
            }
            conv_rate::<f32>(exec, [120, 208], 96, [3, 3, 3]);
            conv_rate::<bf16>(exec, [120, 208], 96, [3, 3, 3]);
            conv_rate::<f32>(exec, [60, 104], 384, [3, 3, 3]);
            conv_rate::<bf16>(exec, [60, 104], 384, [3, 3, 3]);
            conv_rate::<f32>(exec, [240, 416], 96, [1, 3, 3]);
            conv_rate::<bf16>(exec, [240, 416], 96, [1, 3, 3]);
            attention_rate::<f32>(exec, 1560);
            attention_rate::<bf16>(exec, 1560);
        }
    }
}

/// This process's time on all processors, in seconds: what others do to the machine hardly shows in it.
fn processor_time() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 * 1e-9
}

/// The best of a few runs, in GF for each second of a processor.
fn rate(name: &str, exec: Exec, flops: usize, mut run: impl FnMut()) {
    if std::env::args().nth(2).is_some_and(|part| !name.contains(&part)) {
        return;
    }
    let mut best = f64::MAX;
    for _ in 0..4 {
        let start = processor_time();
        run();
        best = best.min(processor_time() - start);
    }
    let gflops = flops as f64 / best / 1e9;
    println!("{:7} x{} {name:40} {:8.2} ms {gflops:7.1} GF/cpu-s", exec.set.name(), exec.threads, best * 1e3);
}

fn linear_rate<A: Stored>(exec: Exec, shape: LinearShape) {
    let x = vec![A::narrow(0.5); shape.rows * shape.inputs];
    let w = vec![A::narrow(0.25); shape.outputs * shape.inputs];
    let mut y = vec![A::narrow(0.0); shape.rows * shape.outputs];
    let name = format!("linear {}x{}x{} {}", shape.rows, shape.inputs, shape.outputs, A::NAME);
    rate(&name, exec, 2 * shape.rows * shape.inputs * shape.outputs, || {
        linear(exec, &shape, &x, A::weights(&w), None, Activation::None, &mut y);
    });
}

/// An activation type that weights are stored in as well.
trait Stored: Element {
    const NAME: &'static str;
    fn weights(values: &[Self]) -> Weights<'_>
    where
        Self: Sized;
}

impl Stored for f32 {
    const NAME: &'static str = "f32";
    fn weights(values: &[Self]) -> Weights<'_> {
        Weights::F32(values)
    }
}

impl Stored for bf16 {
    const NAME: &'static str = "bf16";
    fn weights(values: &[Self]) -> Weights<'_> {
        Weights::Bf16(values)
    }
}

fn conv_rate<A: Stored>(exec: Exec, [height, width]: [usize; 2], channels: usize, kernel: [usize; 3]) {
    let shape = ConvShape {
        input: [4, height, width],
        channels_in: channels,
        channels_out: channels,
        kernel,
        stride: [1, 1, 1],
        history: kernel[0] - 1,
        pad_front: 0,
        pad: SpatialPad::all(1),
    };
    let frame = height * width * channels;
    let taps: usize = kernel.iter().product();
    let x = vec![A::narrow(0.5); 4 * frame];
    let history = vec![A::narrow(0.25); shape.history * frame];
    let w = vec![A::narrow(0.125); channels * channels * taps];
    let mut y = vec![A::narrow(0.0); 4 * frame];
    let name = format!("conv {channels} {kernel:?} 4x{height}x{width} {}", A::NAME);
    rate(&name, exec, 2 * 4 * frame * channels * taps, || {
        conv3d(exec, &shape, &x, &history, A::weights(&w), None, &mut y);
    });
}

fn attention_rate<A: Stored>(exec: Exec, positions: usize) {
    let shape = AttentionShape { queries: positions, keys: positions, heads: 12, dim: 128 };
    let len = positions * shape.heads * shape.dim;
    let x: Vec<A> = (0..len).map(|i| A::narrow((i % 251) as f32 / 251.0)).collect();
    let mut o = x.clone();
    let options = AttentionOptions::scaled(1.0 / (shape.dim as f32).sqrt());
    rate(&format!("attention 12x{positions}x128 {}", A::NAME), exec, 4 * positions * len, || {
        attention(exec, &shape, &options, &x, &x, &x, &mut o);
    });
}

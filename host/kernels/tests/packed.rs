//! Linear layers over packed weights against f64 references, and against the same layers over plain weights.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Activations, Expected, Rng, THREADS, blank, cases, check, exact, sets, sum_error};
use half::{bf16, f16};
use loadline_kernels::{Activation, Exec, Format, LinearShape, Packed, Weights, linear};

/// Where a block has halves, and what they are at most, so that weights are about one.
fn halves(format: Format) -> (&'static [usize], f32) {
    match format {
        Format::F8E4M3 => (&[], 0.0),
        Format::Q8_0 => (&[0], 1.0 / 128.0),
        Format::Q5_0 | Format::Q4_0 => (&[0], 1.0 / 8.0),
        Format::Q5_1 | Format::Q4_1 => (&[0, 2], 1.0 / 8.0),
        Format::Q5K | Format::Q4K => (&[0, 2], 1.0 / 512.0),
        Format::Q6K => (&[208], 1.0 / 2048.0),
        Format::Q3K => (&[108], 1.0 / 64.0),
        Format::Q2K => (&[80, 82], 1.0 / 32.0),
    }
}

/// Blocks of every bit pattern, with scales that make them numbers.
fn blocks(rng: &mut Rng, format: Format, elements: usize) -> Vec<u8> {
    let (per_block, size) = format.block();
    let mut bytes: Vec<u8> = (0..elements / per_block * size).map(|_| rng.next() as u8).collect();
    if format == Format::F8E4M3 {
        // All ones are no number.
        bytes.iter_mut().filter(|byte| **byte & 0x7f == 0x7f).for_each(|byte| *byte ^= 1);
    }
    let (places, most) = halves(format);
    for block in bytes.chunks_exact_mut(size) {
        for at in places {
            block[*at..at + 2].copy_from_slice(&f16::from_f32(rng.unit() * most).to_le_bytes());
        }
    }
    bytes
}

/// The scale of the tensor, which only 8-bit floats have.
fn scale(format: Format) -> f32 {
    if format == Format::F8E4M3 { 1.0 / 300.0 } else { 1.0 }
}

/// A row of at most `most` values: whole blocks.
fn inputs(rng: &mut Rng, format: Format, most: usize) -> usize {
    let (block, _) = format.block();
    block * rng.size(1, most / block)
}

fn decoded(weights: Packed<'_>) -> Vec<f32> {
    let mut values = vec![0.0; weights.len()];
    weights.decode(0, &mut values);
    values
}

/// Products in f32, but that weights may be rounded to bf16 beside activations of bf16.
fn reference<A: Activations>(shape: &LinearShape, x: &[A], w: &[f32], bias: &[f32]) -> Vec<Expected> {
    let rounding = A::ROUNDING / 2.0;
    let (x, mut all) = (exact(x), Vec::new());
    for x in x.chunks(shape.inputs) {
        for (w, bias) in w.chunks(shape.inputs).zip(bias) {
            let products = || x.iter().zip(w).map(|(x, w)| x * f64::from(*w));
            let size: f64 = products().map(f64::abs).sum::<f64>() + f64::from(bias.abs());
            let error = sum_error(shape.inputs, size) + rounding * size;
            all.push(Expected { value: products().sum::<f64>() + f64::from(*bias), error });
        }
    }
    all
}

fn reference_case<A: Activations>(rng: &mut Rng, format: Format) {
    let shape = LinearShape { rows: rng.size(1, 40), inputs: inputs(rng, format, 2048), outputs: rng.size(1, 40) };
    let bytes = blocks(rng, format, shape.inputs * shape.outputs);
    let weights = Packed::new(format, &bytes, scale(format));
    let (x, bias): (Vec<A>, Vec<f32>) = (rng.values(shape.rows * shape.inputs), rng.values(shape.outputs));
    let expected = reference(&shape, &x, &decoded(weights), &bias);
    check(&blank::<A>(expected.len()), &expected, |exec, y| {
        linear(exec, &shape, &x, weights, Some(Weights::F32(&bias)), Activation::None, y);
    });
}

#[test]
fn a_linear_layer_over_packed_weights_is_the_dot_product() {
    for format in Format::ALL {
        cases(3, |rng| {
            reference_case::<f32>(rng, format);
            reference_case::<bf16>(rng, format);
        });
    }
}

/// Within one block of the depth sums are made in one order, so that decoding on the way may not show in any bit.
fn plain_case<A: Activations>(rng: &mut Rng, format: Format) {
    let shape = LinearShape { rows: rng.size(1, 60), inputs: inputs(rng, format, 256), outputs: rng.size(1, 60) };
    let bytes = blocks(rng, format, shape.inputs * shape.outputs);
    let weights = Packed::new(format, &bytes, scale(format));
    let x: Vec<A> = rng.values(shape.rows * shape.inputs);
    let wide = decoded(weights);
    let narrow: Vec<bf16> = wide.iter().map(|w| bf16::from_f32(*w)).collect();
    for (set, threads) in sets().flat_map(|set| THREADS.map(|threads| (set, threads))) {
        let exec = Exec::new(set, threads);
        let with = |weights: &dyn Fn(&mut [A])| {
            let mut y = blank::<A>(shape.rows * shape.outputs);
            weights(&mut y);
            y.iter().map(|y| y.bits()).collect::<Vec<_>>()
        };
        let packed = with(&|y| linear(exec, &shape, &x, weights, None, Activation::None, y));
        let f32s = with(&|y| linear(exec, &shape, &x, Weights::F32(&wide), None, Activation::None, y));
        let bf16s = with(&|y| linear(exec, &shape, &x, Weights::Bf16(&narrow), None, Activation::None, y));
        let same = packed == f32s || A::ROUNDING > 1e-6 && packed == bf16s;
        assert!(same, "{format:?} {} x{threads}: {shape:?}", set.name());
    }
}

#[test]
fn decoding_on_the_way_is_decoding_before() {
    for format in Format::ALL {
        cases(3, |rng| {
            plain_case::<f32>(rng, format);
            plain_case::<bf16>(rng, format);
        });
    }
}

#[test]
#[should_panic(expected = "rows of w must be whole blocks")]
fn a_row_that_is_no_whole_number_of_blocks_is_named() {
    let shape = LinearShape { rows: 1, inputs: 16, outputs: 2 };
    let exec = Exec::new(loadline_kernels::KernelSet::Plain, 1);
    let weights = Packed::new(Format::Q8_0, &[0; 34], 1.0);
    linear(exec, &shape, &[0f32; 16], weights, None, Activation::None, &mut [0f32; 2]);
}

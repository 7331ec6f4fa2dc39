//! Linear layers.

use loadline_cuda::kernels::{Activation, Element, Linear, Stored, linear_scratch};

use crate::gpu::{Gpu, plain};
use crate::numbers::{ACTIVATIONS, Chance, ELEMENTS, activated, close, encode, round};
use crate::stored::sample;

struct Case {
    element: Element,
    rows: u64,
    inputs: u64,
    outputs: u64,
    stored: Stored,
    bias: Option<Stored>,
    act: Activation,
    /// Bytes by which rows and weights are out of line.
    offset: usize,
}

impl Case {
    fn new(element: Element, [rows, inputs, outputs]: [u64; 3]) -> Self {
        let (stored, bias, act) = (plain(element), Some(plain(element)), Activation::None);
        Self { element, rows, inputs, outputs, stored, bias, act, offset: 0 }
    }

    fn what(&self) -> String {
        let Self { element, rows, inputs, outputs, stored, act, offset, .. } = self;
        format!("linear {element:?} {rows} x {inputs} x {outputs} {stored:?} {act:?} off by {offset}")
    }

    fn check(&self, gpu: &Gpu) {
        let mut chance = Chance::new(self.rows * 31 + self.outputs);
        let x = chance.values(self.element, self.rows * self.inputs);
        let (w, mut weights) = sample(self.stored, self.outputs * self.inputs, &mut chance);
        let bias = self.bias.map(|stored| sample(stored, self.outputs, &mut chance));
        let found = gpu.compute(&self.what(), |gpu| {
            let at = gpu.bytes(&encode(self.element, &x), self.offset).at;
            let bytes = linear_scratch(self.element, self.rows, self.inputs, self.outputs, self.stored);
            let y = gpu.room(self.rows * self.outputs * self.element.bytes(), self.offset);
            let mut stored = gpu.weight(self.stored, self.outputs * self.inputs, &w);
            if self.offset > 0 {
                stored.at = gpu.bytes(&w, self.offset).at;
            }
            let linear = Linear {
                element: self.element,
                rows: self.rows,
                inputs: self.inputs,
                outputs: self.outputs,
                x: at,
                w: stored,
                bias: bias.as_ref().zip(self.bias).map(|((b, _), stored)| gpu.weight(stored, self.outputs, b)),
                act: self.act,
                y: y.at,
                scratch: gpu.room(bytes.max(1), 0).scratch(),
            };
            gpu.run(linear.launches());
            gpu.get(self.element, &y)
        });
        // Products of more than a few rows take their weights in the activations' type.
        if self.rows > 8 {
            weights.iter_mut().for_each(|w| *w = round(self.element, *w));
        }
        let bias = bias.map(|(_, values)| values);
        let expected = reference(&x, &weights, bias.as_deref(), self.act, self.inputs as usize);
        let most = f64::from(weights.iter().fold(1.0f32, |most, w| most.max(w.abs())));
        close(&self.what(), self.element, &found, &expected, 4e-6 * most * (self.inputs as f64).sqrt());
    }
}

fn reference(x: &[f32], w: &[f32], bias: Option<&[f32]>, act: Activation, inputs: usize) -> Vec<f64> {
    let outputs = w.len() / inputs;
    let value = |row: &[f32], n: usize| {
        let pairs = row.iter().zip(&w[n * inputs..][..inputs]);
        let sum: f64 = pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        activated(act, sum + bias.map_or(0.0, |bias| f64::from(bias[n])))
    };
    x.chunks(inputs).flat_map(|row| (0..outputs).map(move |n| value(row, n))).collect()
}

/// Sizes that are no multiple of a tile in any direction, of every tile.
#[test]
fn linear_layers() {
    let gpu = Gpu::start();
    gpu.also_with_library(many);
    few(&gpu);
    gpu.also_with_library(of_other_types);
    gpu.has_run_all_of(&["linear"]);
}

fn many(gpu: &Gpu) {
    for element in ELEMENTS {
        for sizes in [[9, 64, 64], [70, 72, 100], [129, 8, 33], [65, 200, 136]] {
            Case::new(element, sizes).check(gpu);
        }
        gpu.in_one_order(|gpu| Case::new(element, [1500, 104, 1400]).check(gpu));
        // Rows that are no whole accesses of 16 bytes, and places that are not aligned.
        for sizes in [[17, 7, 19], [130, 33, 70]] {
            Case::new(element, sizes).check(gpu);
        }
        Case { offset: element.bytes() as usize, ..Case::new(element, [20, 64, 24]) }.check(gpu);
        for act in ACTIVATIONS {
            Case { act, bias: None, ..Case::new(element, [33, 24, 40]) }.check(gpu);
            Case { act, ..Case::new(element, [3, 24, 40]) }.check(gpu);
        }
    }
}

/// Few rows take weights as they are stored.
fn few(gpu: &Gpu) {
    for element in ELEMENTS {
        for (rows, inputs, outputs) in [(1, 512, 30), (4, 300, 9), (5, 8, 8), (8, 1032, 17), (2, 13, 5)] {
            Case::new(element, [rows, inputs, outputs]).check(gpu);
        }
        Case { offset: element.bytes() as usize, ..Case::new(element, [3, 64, 24]) }.check(gpu);
        for stored in Stored::ALL {
            Case { stored, bias: Some(Stored::F16), ..Case::new(element, [3, 512, 10]) }.check(gpu);
        }
    }
}

/// More rows take them unpacked, in slices where they are large.
fn of_other_types(gpu: &Gpu) {
    for element in ELEMENTS {
        for stored in Stored::ALL {
            Case { stored, bias: Some(Stored::F8E4M3), ..Case::new(element, [11, 256, 20]) }.check(gpu);
        }
    }
    // 256 rows of weights are a slice here.
    let sliced = Case { stored: Stored::Q8_0, ..Case::new(Element::F32, [9, 32768, 257]) };
    assert!(linear_scratch(Element::F32, 9, 32768, 257, Stored::Q8_0) < 257 * 32768 * 4);
    gpu.in_one_order(|gpu| sliced.check(gpu));
}

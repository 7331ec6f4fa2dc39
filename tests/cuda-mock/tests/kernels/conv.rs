//! Convolutions.

use loadline_cuda::kernels::{Conv, ConvShape, Element, Stored, conv_scratch};

use crate::gpu::{Gpu, plain};
use crate::numbers::{Chance, ELEMENTS, close, encode, round};
use crate::stored::sample;

const PLAIN: ConvShape = ConvShape {
    input: [3, 5, 6],
    channels_in: 16,
    channels_out: 40,
    kernel: [3, 3, 3],
    stride: [1, 1, 1],
    history: 0,
    pad_front: 2,
    pad: [1, 1, 1, 1],
};

struct Case {
    element: Element,
    shape: ConvShape,
    stored: Stored,
    bias: bool,
    offset: usize,
}

impl Case {
    fn new(element: Element, shape: ConvShape) -> Self {
        Self { element, shape, stored: plain(element), bias: true, offset: 0 }
    }

    fn check(&self, gpu: &Gpu) {
        let (shape, element) = (&self.shape, self.element);
        let what = format!("conv {element:?} {:?} {shape:?}", self.stored);
        let mut chance = Chance::new(shape.channels_out);
        let [frames, height, width] = shape.input;
        let plane = height * width * shape.channels_in;
        let taps: u64 = shape.kernel.iter().product();
        let x = chance.values(element, frames * plane);
        let history = chance.values(element, shape.history * plane);
        let count = shape.channels_out * shape.channels_in * taps;
        let (w, weights) = sample(self.stored, count, &mut chance);
        let bias = self.bias.then(|| chance.values(element, shape.channels_out));
        let outputs = shape.output().iter().product::<u64>() * shape.channels_out;
        let found = gpu.compute(&what, |gpu| {
            let y = gpu.room(outputs * element.bytes(), 0);
            let conv = Conv {
                element,
                shape: *shape,
                x: gpu.bytes(&encode(element, &x), self.offset).at,
                history: (shape.history > 0).then(|| gpu.values(element, &history).at),
                w: gpu.weight(self.stored, count, &w),
                bias: bias.as_ref().map(|bias| gpu.dense(element, bias)),
                y: y.at,
                scratch: gpu.room(conv_scratch(element, shape, self.stored).max(1), 0).scratch(),
            };
            gpu.run(conv.launches());
            gpu.get(element, &y)
        });
        let weights: Vec<f32> = weights.into_iter().map(|w| round(element, w)).collect();
        let all = [history, x].concat();
        let expected = reference(shape, &all, &weights, bias.as_deref());
        close(&what, element, &found, &expected, 3e-6 * ((taps * shape.channels_in) as f64).sqrt());
    }
}

/// Every output from the definition; `x` begins with the history.
fn reference(shape: &ConvShape, x: &[f32], w: &[f32], bias: Option<&[f32]>) -> Vec<f64> {
    let [frames, height, width] = shape.output();
    let pixels = (0..frames).flat_map(|t| (0..height).flat_map(move |h| (0..width).map(move |w| [t, h, w])));
    let values = pixels.flat_map(|pixel| (0..shape.channels_out).map(move |channel| (pixel, channel)));
    let start = |channel: u64| bias.map_or(0.0, |bias| f64::from(bias[channel as usize]));
    values.map(|(pixel, channel)| start(channel) + value(shape, x, w, pixel, channel)).collect()
}

fn value(shape: &ConvShape, x: &[f32], w: &[f32], pixel: [u64; 3], output: u64) -> f64 {
    let [kt, kh, kw] = shape.kernel;
    let inputs = shape.channels_in as usize;
    let before = [shape.pad_front, shape.pad[0], shape.pad[2]];
    let limits = [shape.input[0] + shape.history, shape.input[1], shape.input[2]];
    let mut sum = 0.0;
    for tap in 0..kt * kh * kw {
        let at = [tap / (kh * kw), tap / kw % kh, tap % kw];
        let place: Option<Vec<u64>> = (0..3)
            .map(|i| (pixel[i] * shape.stride[i] + at[i]).checked_sub(before[i]).filter(|p| *p < limits[i]))
            .collect();
        let Some(place) = place else { continue };
        let from = ((place[0] * limits[1] + place[1]) * limits[2] + place[2]) as usize * inputs;
        for input in 0..inputs {
            let weight = w[(output as usize * inputs + input) * (kt * kh * kw) as usize + tap as usize];
            sum += f64::from(x[from + input]) * f64::from(weight);
        }
    }
    sum
}

fn shapes() -> Vec<ConvShape> {
    vec![
        PLAIN,
        // A later chunk: what precedes it is given instead of zeros.
        ConvShape { history: 2, pad_front: 0, input: [2, 5, 6], ..PLAIN },
        ConvShape { history: 1, pad_front: 1, ..PLAIN },
        // The last convolution of a VAE.
        ConvShape { channels_out: 3, ..PLAIN },
        // Downsampling: zeros at the bottom and right alone.
        ConvShape { kernel: [1, 3, 3], stride: [1, 2, 2], pad_front: 0, pad: [0, 1, 0, 1], input: [2, 8, 7], ..PLAIN },
        ConvShape { kernel: [3, 1, 1], stride: [2, 1, 1], pad_front: 0, pad: [0; 4], input: [5, 3, 4], ..PLAIN },
        ConvShape { kernel: [1, 1, 1], pad_front: 0, pad: [0; 4], ..PLAIN },
        ConvShape { kernel: [1, 1, 1], stride: [1, 2, 2], pad_front: 0, pad: [0; 4], ..PLAIN },
        // A patch embedding.
        ConvShape { kernel: [1, 2, 2], stride: [1, 2, 2], pad_front: 0, pad: [0; 4], input: [2, 4, 6], ..PLAIN },
        // Channels that are no whole accesses of 16 bytes.
        ConvShape { channels_in: 3, ..PLAIN },
        ConvShape { channels_in: 12, channels_out: 20, ..PLAIN },
        ConvShape { channels_in: 5, channels_out: 7, kernel: [1, 3, 3], pad_front: 0, ..PLAIN },
    ]
}

#[test]
fn convolutions() {
    let gpu = Gpu::start();
    for element in ELEMENTS {
        for shape in shapes() {
            Case::new(element, shape).check(&gpu);
            Case { bias: false, ..Case::new(element, shape) }.check(&gpu);
        }
        Case { offset: element.bytes() as usize, ..Case::new(element, PLAIN) }.check(&gpu);
        // Enough tiles for the large ones.
        let wide = ConvShape { input: [8, 32, 33], channels_out: 260, channels_in: 8, kernel: [1, 1, 5], ..PLAIN };
        gpu.in_one_order(|gpu| Case::new(element, ConvShape { pad_front: 0, ..wide }).check(gpu));
    }
    gpu.has_run_all_of(&["conv"]);
}

/// Weights of every stored type, which are brought into the order of the product first.
pub(crate) fn reordered(gpu: &Gpu) {
    for (element, stored) in ELEMENTS.into_iter().flat_map(|e| Stored::ALL.map(|s| (e, s))) {
        let shape = ConvShape { channels_in: 256, channels_out: 6, kernel: [1, 1, 3], input: [1, 2, 4], ..PLAIN };
        Case { stored, ..Case::new(element, ConvShape { pad_front: 0, ..shape }) }.check(gpu);
        let point = ConvShape { kernel: [1, 1, 1], stride: [1, 1, 2], pad: [0; 4], pad_front: 0, ..shape };
        Case { stored, ..Case::new(element, point) }.check(gpu);
    }
}

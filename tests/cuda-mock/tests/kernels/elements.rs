//! What is done to each element alone.

use loadline_cuda::kernels::{Element, PerRow, elements};

use crate::gpu::Gpu;
use crate::numbers::{ACTIVATIONS, Chance, ELEMENTS, activated, close, encode};

/// Lengths around those of an access and of a block's share.
const LENGTHS: [u64; 7] = [1, 3, 8, 9, 255, 2048, 5001];

/// Values by chance in place, `work` on them, and what then is there.
fn in_place(
    gpu: &Gpu,
    what: &str,
    (element, x, offset): (Element, &[f32], usize),
    work: impl Fn(&Gpu, loadline_cuda::driver::DevicePtr),
) -> Vec<f32> {
    gpu.compute(what, |gpu| {
        let room = gpu.bytes(&encode(element, x), offset);
        work(gpu, room.at);
        gpu.get(element, &room)
    })
}

fn wide(x: &[f32]) -> impl Iterator<Item = f64> {
    x.iter().map(|value| f64::from(*value))
}

fn pairs(gpu: &Gpu, element: Element, count: u64, offset: usize) {
    let mut chance = Chance::new(count);
    let [x, y] = [0, 1].map(|_| chance.values(element, count));
    let sum = in_place(gpu, "sum", (element, &x, offset), |gpu, at| {
        gpu.run(Ok(elements::add_assign(element, at, gpu.values(element, &y).at, count)));
    });
    close("sum", element, &sum, &wide(&x).zip(wide(&y)).map(|(a, b)| a + b).collect::<Vec<_>>(), 0.0);
    let product = in_place(gpu, "product", (element, &x, offset), |gpu, at| {
        gpu.run(Ok(elements::mul_assign(element, at, gpu.values(element, &y).at, count)));
    });
    close("product", element, &product, &wide(&x).zip(wide(&y)).map(|(a, b)| a * b).collect::<Vec<_>>(), 0.0);
}

fn gates(gpu: &Gpu, element: Element, [rows, channels]: [u64; 2], each: bool) {
    let mut chance = Chance::new(rows);
    let [x, y] = [0, 1].map(|_| chance.values(element, rows * channels));
    let gate = chance.values(Element::F32, if each { rows * channels } else { channels });
    let found = in_place(gpu, "gate", (element, &x, 0), |gpu, at| {
        let (y, gate) = (gpu.values(element, &y).at, PerRow { at: gpu.floats(&gate), each });
        gpu.run(elements::gated_add_assign(element, at, y, gate, rows, channels));
    });
    let gates = (0..x.len()).map(|i| f64::from(gate[i % gate.len()]));
    let expected = wide(&x).zip(wide(&y)).zip(gates).map(|((x, y), gate)| x + y * gate);
    close("gate", element, &found, &expected.collect::<Vec<_>>(), 1e-7);
}

fn activations(gpu: &Gpu, element: Element, count: u64) {
    let mut x = Chance::new(count).values(element, count);
    // Where exponentials overflow.
    x.iter_mut().enumerate().for_each(|(i, x)| *x *= [1.0, 8.0, 128.0][i % 3]);
    for act in ACTIVATIONS {
        let found = in_place(gpu, "activation", (element, &x, 0), |gpu, at| {
            gpu.run(Ok(elements::activate_assign(element, at, count, act)));
        });
        let expected: Vec<f64> = wide(&x).map(|x| activated(act, x)).collect();
        close(&format!("{act:?}"), element, &found, &expected, 4e-7);
    }
}

fn clamps(gpu: &Gpu, element: Element, count: u64) {
    let mut x = Chance::new(count).values(element, count);
    x[0] = f32::NAN;
    let found = in_place(gpu, "clamp", (element, &x, 0), |gpu, at| {
        gpu.run(Ok(elements::clamp_assign(element, at, count, -0.25, 0.5)));
    });
    // `f64::clamp` keeps NaN.
    close("clamp", element, &found, &wide(&x).map(|x| x.clamp(-0.25, 0.5)).collect::<Vec<_>>(), 0.0);
}

fn affine(gpu: &Gpu, element: Element, [rows, channels]: [u64; 2]) {
    let mut chance = Chance::new(rows);
    let x = chance.values(element, rows * channels);
    let [mul, add] = [0, 1].map(|_| chance.values(Element::F32, channels));
    let found = in_place(gpu, "affine", (element, &x, 0), |gpu, at| {
        gpu.run(elements::channel_affine_assign(element, at, rows, &mul, &add));
    });
    let of = |values: &[f32], i: usize| f64::from(values[i % channels as usize]);
    let expected = wide(&x).enumerate().map(|(i, x)| x * of(&mul, i) + of(&add, i));
    close("affine", element, &found, &expected.collect::<Vec<_>>(), 1e-7);
}

fn rope(gpu: &Gpu, element: Element, [rows, heads, dim]: [u64; 3]) {
    let mut chance = Chance::new(dim);
    let x = chance.values(element, rows * heads * dim);
    let angles: Vec<f32> = (0..rows * dim / 2).map(|_| chance.float() * 4.0).collect();
    let [cos, sin] = [f32::cos, f32::sin].map(|f| angles.iter().map(|angle| f(*angle)).collect::<Vec<f32>>());
    let found = in_place(gpu, "rope", (element, &x, 0), |gpu, at| {
        gpu.run(elements::rope_assign(element, at, gpu.floats(&cos), gpu.floats(&sin), [rows, heads, dim]));
    });
    let value = |i: u64| {
        let (row, pair) = (i / dim / heads, i % dim / 2);
        let angle = (row * (dim / 2) + pair) as usize;
        let (c, s) = (f64::from(cos[angle]), f64::from(sin[angle]));
        let first = (i / 2 * 2) as usize;
        let (a, b) = (f64::from(x[first]), f64::from(x[first + 1]));
        if i.is_multiple_of(2) { a * c - b * s } else { a * s + b * c }
    };
    close("rope", element, &found, &(0..rows * heads * dim).map(value).collect::<Vec<_>>(), 2e-7);
}

fn sums(gpu: &Gpu, count: u64, terms: usize) {
    let mut chance = Chance::new(count);
    let terms: Vec<(f32, Vec<f32>)> =
        (0..terms).map(|_| (chance.float(), chance.values(Element::F32, count))).collect();
    let found = gpu.compute("sum of terms", |gpu| {
        let out = gpu.room(count * 4, 0);
        let placed: Vec<_> = terms.iter().map(|(factor, values)| (*factor, gpu.floats(values))).collect();
        gpu.run(elements::combine(out.at, count, &placed));
        gpu.get(Element::F32, &out)
    });
    let value = |i: usize| terms.iter().map(|(factor, values)| f64::from(*factor) * f64::from(values[i])).sum();
    close("sum of terms", Element::F32, &found, &(0..count as usize).map(value).collect::<Vec<_>>(), 1e-6);
}

fn means(gpu: &Gpu, element: Element, count: u64, group: u64) {
    let x = Chance::new(count).values(element, count * group);
    let found = gpu.compute("means", |gpu| {
        let (from, to) = (gpu.values(element, &x), gpu.room(count * element.bytes(), 0));
        gpu.run(elements::mean_channels(element, from.at, to.at, count, group));
        gpu.get(element, &to)
    });
    let expected = x.chunks(group as usize).map(|part| wide(part).sum::<f64>() / group as f64);
    close("means", element, &found, &expected.collect::<Vec<_>>(), 1e-6);
}

#[test]
fn elementwise() {
    let gpu = Gpu::start();
    for element in ELEMENTS {
        for count in LENGTHS {
            pairs(&gpu, element, count, 0);
            activations(&gpu, element, count);
            clamps(&gpu, element, count);
        }
        pairs(&gpu, element, 700, element.bytes() as usize);
        for (sizes, each) in [([5, 16], false), ([7, 33], false), ([7, 33], true), ([300, 24], true), ([1, 1], false)] {
            gates(&gpu, element, sizes, each);
        }
        for sizes in [[5, 1], [9, 3], [40, 64], [3, 150]] {
            affine(&gpu, element, sizes);
        }
        for sizes in [[1, 1, 2], [5, 3, 64], [130, 2, 6]] {
            rope(&gpu, element, sizes);
        }
        for (count, group) in [(1, 1), (100, 4), (333, 3)] {
            means(&gpu, element, count, group);
        }
    }
    for (count, terms) in [(1, 1), (1000, 2), (4099, 8)] {
        sums(&gpu, count, terms);
    }
    gpu.has_run_all_of(&["elements"]);
}

//! Weights as they are stored.

use half::{bf16, f16};
use loadline_cuda::kernels::{Element, Stored, elements};
use loadline_kernels::{Format, Packed};

use crate::gpu::Gpu;
use crate::numbers::{Chance, ELEMENTS, close};

/// Bytes of so many elements by chance, at least that many where blocks are whole, and the values that they stand for.
pub(crate) fn sample(stored: Stored, elements: u64, chance: &mut Chance) -> (Vec<u8>, Vec<f32>) {
    let values: Vec<f32> = (0..elements).map(|_| chance.float()).collect();
    match stored {
        Stored::F32 => (values.iter().flat_map(|v| v.to_le_bytes()).collect(), values),
        Stored::Bf16 => {
            let values: Vec<bf16> = values.into_iter().map(bf16::from_f32).collect();
            (values.iter().flat_map(|v| v.to_le_bytes()).collect(), values.iter().map(|v| v.to_f32()).collect())
        }
        Stored::F16 => {
            let values: Vec<f16> = values.into_iter().map(f16::from_f32).collect();
            (values.iter().flat_map(|v| v.to_le_bytes()).collect(), values.iter().map(|v| v.to_f32()).collect())
        }
        Stored::F8E4M3 => eighths(elements, chance),
        blocks => packed(blocks, elements, chance),
    }
}

/// Every number but NaN, and behind them their scale.
fn eighths(elements: u64, chance: &mut Chance) -> (Vec<u8>, Vec<f32>) {
    let byte = |chance: &mut Chance| Some(chance.word() as u8).filter(|byte| byte & 0x7f != 0x7f).unwrap_or(0x3a);
    let mut bytes: Vec<u8> = (0..elements).map(|_| byte(chance)).collect();
    let mut values = vec![0.0; elements as usize];
    Packed::new(Format::F8E4M3, &bytes, 0.01).decode(0, &mut values);
    bytes.extend(0.01f32.to_le_bytes());
    (bytes, values)
}

/// Where the format's scales are, as f16.
fn scales(stored: Stored) -> (Format, &'static [usize]) {
    match stored {
        Stored::Q4_0 => (Format::Q4_0, &[0]),
        Stored::Q4_1 => (Format::Q4_1, &[0, 2]),
        Stored::Q5_0 => (Format::Q5_0, &[0]),
        Stored::Q5_1 => (Format::Q5_1, &[0, 2]),
        Stored::Q8_0 => (Format::Q8_0, &[0]),
        Stored::Q2K => (Format::Q2K, &[80, 82]),
        Stored::Q3K => (Format::Q3K, &[108]),
        Stored::Q4K => (Format::Q4K, &[0, 2]),
        Stored::Q5K => (Format::Q5K, &[0, 2]),
        Stored::Q6K => (Format::Q6K, &[208]),
        other => panic!("{other:?} has no blocks"),
    }
}

fn packed(stored: Stored, elements: u64, chance: &mut Chance) -> (Vec<u8>, Vec<f32>) {
    let ((length, size), (format, places)) = (stored.block(), scales(stored));
    let blocks = elements.div_ceil(length);
    let mut bytes: Vec<u8> = (0..blocks * size).map(|_| chance.word() as u8).collect();
    for block in bytes.chunks_exact_mut(size as usize) {
        for place in places {
            let scale = f16::from_f32(chance.float() * 0.02);
            block[*place..place + 2].copy_from_slice(&scale.to_le_bytes());
        }
    }
    let mut values = vec![0.0; (blocks * length) as usize];
    Packed::new(format, &bytes, 1.0).decode(0, &mut values);
    values.truncate(elements as usize);
    (bytes, values)
}

fn widened(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

/// Every stored type to either type of activations, whole and from within.
fn unpacking(gpu: &Gpu) {
    for (element, stored) in ELEMENTS.into_iter().flat_map(|e| Stored::ALL.map(|s| (e, s))) {
        let tail = if stored.in_blocks() { 0 } else { 5 };
        for (first, count, offset) in [(0, 1024, 0), (256, 512, 0), (8, 40 + tail, 0), (0, 512, element.bytes())] {
            let what = format!("unpack {stored:?} to {element:?}, {count} from {first}");
            let (bytes, values) = sample(stored, 1024 + tail, &mut Chance::new(count));
            let found = gpu.compute(&what, |gpu| {
                let w = gpu.weight(stored, 1024 + tail, &bytes);
                let y = gpu.room(count * element.bytes(), offset as usize);
                gpu.run(elements::unpack(element, w, first, count, y.at));
                gpu.get(element, &y)
            });
            close(&what, element, &found, &widened(&values[first as usize..(first + count) as usize]), 1e-7);
        }
    }
}

/// All 256 values of an 8-bit float, NaN among them.
fn eight_bits(gpu: &Gpu) {
    let mut bytes: Vec<u8> = (0..=255).collect();
    bytes.extend(2.0f32.to_le_bytes());
    let expected = (0..=255u8).map(|bits| {
        let (exponent, mantissa) = (i32::from(bits >> 3 & 15), f64::from(bits & 7) / 8.0);
        let size = if exponent == 0 { mantissa * 2f64.powi(-6) } else { (1.0 + mantissa) * 2f64.powi(exponent - 7) };
        let value = if bits & 0x7f == 0x7f { f64::NAN } else { size };
        if bits & 0x80 == 0 { 2.0 * value } else { -2.0 * value }
    });
    let found = gpu.compute("fp8", |gpu| {
        let (w, y) = (gpu.weight(Stored::F8E4M3, 256, &bytes), gpu.room(1024, 0));
        gpu.run(elements::unpack(Element::F32, w, 0, 256, y.at));
        gpu.get(Element::F32, &y)
    });
    close("fp8", Element::F32, &found, &expected.collect::<Vec<_>>(), 0.0);
}

/// A table of relative positions in more offsets than one launch brings.
fn relative_bias(gpu: &Gpu) {
    let (heads, rows, offsets) = (3, 32, 1500);
    for stored in [Stored::F32, Stored::Bf16, Stored::Q8_0] {
        let (bytes, values) = sample(stored, heads * rows, &mut Chance::new(7));
        let buckets: Vec<u32> = (0..offsets).map(|i| i * 7 % rows as u32).collect();
        let found = gpu.compute("relative bias", |gpu| {
            let w = gpu.weight(stored, heads * rows, &bytes);
            let table = gpu.room(heads * u64::from(offsets) * 4, 0);
            gpu.run(elements::relative_bias(w, heads, &buckets, table.at));
            gpu.get(Element::F32, &table)
        });
        let value = |head: u64, bucket: &u32| f64::from(values[(u64::from(*bucket) * heads + head) as usize]);
        let expected: Vec<f64> = (0..heads).flat_map(|h| buckets.iter().map(move |b| value(h, b))).collect();
        close("relative bias", Element::F32, &found, &expected, 1e-7);
    }
}

#[test]
fn stored_weights() {
    let gpu = Gpu::start();
    unpacking(&gpu);
    eight_bits(&gpu);
    relative_bias(&gpu);
    // Weights of convolutions that are not in the activations' type or order; see `conv`.
    crate::conv::reordered(&gpu);
    gpu.has_run_all_of(&["stored"]);
}

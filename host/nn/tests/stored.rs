//! What the kernels decode against what candle dequantises, bit for bit.
//!
//! Weights are made by candle where a run converts them, so both must mean the same by the same bytes.
#![allow(clippy::unwrap_used)]

use candle_core::quantized::{GgmlDType, ggml_file::qtensor_from_ggml};
use candle_core::{DType, Device};
use half::f16;
use loadline_kernels::{Format, Packed};

/// Enough for every pattern of a block's bytes to come beside others.
const BLOCKS: usize = 500;

/// Candle's name of a format, and where its blocks have halves.
fn known(format: Format) -> Option<(GgmlDType, &'static [usize])> {
    Some(match format {
        Format::Q8_0 => (GgmlDType::Q8_0, &[0]),
        Format::Q6K => (GgmlDType::Q6K, &[208]),
        Format::Q5K => (GgmlDType::Q5K, &[0, 2]),
        Format::Q4K => (GgmlDType::Q4K, &[0, 2]),
        Format::Q3K => (GgmlDType::Q3K, &[108]),
        Format::Q2K => (GgmlDType::Q2K, &[80, 82]),
        Format::Q5_1 => (GgmlDType::Q5_1, &[0, 2]),
        Format::Q5_0 => (GgmlDType::Q5_0, &[0]),
        Format::Q4_1 => (GgmlDType::Q4_1, &[0, 2]),
        Format::Q4_0 => (GgmlDType::Q4_0, &[0]),
        // The formats that candle has no blocks for.
        Format::F8E4M3 => return None,
    })
}

/// A stream of bytes.
fn bytes(count: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..count).map(|_| next()).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn blocks_mean_to_the_kernels_what_they_mean_to_candle() {
    for (format, (dtype, halves)) in Format::ALL.into_iter().filter_map(|f| Some((f, known(f)?))) {
        let (elements, size) = format.block();
        let mut raw = bytes(BLOCKS * size);
        for (n, block) in raw.chunks_exact_mut(size).enumerate() {
            for at in halves {
                let half = f16::from_f32((n as f32 - 250.0) * 0.003);
                block[*at..at + 2].copy_from_slice(&half.to_le_bytes());
            }
        }
        let theirs = qtensor_from_ggml(dtype, &raw, vec![BLOCKS, elements], &Device::Cpu).unwrap();
        let theirs = theirs.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let mut ours = vec![0.0; BLOCKS * elements];
        Packed::new(format, &raw, 1.0).decode(0, &mut ours);
        let first = bits(&ours).iter().zip(bits(&theirs)).position(|(a, b)| *a != b);
        assert_eq!(first, None, "{format:?}: {:?}", first.map(|n| (ours[n], theirs[n])));
    }
}

#[test]
fn an_8_bit_float_means_to_the_kernels_what_it_means_to_candle() {
    let raw: Vec<u8> = (0..=u8::MAX).collect();
    let file = one_tensor(&raw);
    let tensors = candle_core::safetensors::load_buffer(&file, &Device::Cpu).unwrap();
    let theirs = tensors["all"].to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
    let mut ours = vec![0.0; 256];
    Packed::new(Format::F8E4M3, &raw, 1.0).decode(0, &mut ours);
    for (byte, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!(a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(), "{byte:#x}: {a} and {b}");
    }
}

/// A safetensors file of one tensor of 8-bit floats.
fn one_tensor(raw: &[u8]) -> Vec<u8> {
    let header = br#"{"all":{"dtype":"F8_E4M3","shape":[256],"data_offsets":[0,256]}}      "#;
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header);
    file.extend_from_slice(raw);
    file
}

//! What the op layer declares against what the allocator sees, for every operation with a kernel.
//!
//! One test in a binary of its own: the counter is the process's.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::alloc::System;
use std::path::PathBuf;
use std::sync::Arc;

use loadline_core::{Bytes, DType};
use loadline_device::memory::{Counting, Domain, Stage, peak, reset_peak};
use loadline_device::{BlockSource, Segment, SlabView, WeightFiles, load_block};
use loadline_kernels::{Exec, KernelSet};
use loadline_models::ops::{Activation, Bias, ConvSpec, Modulation, OpError, Ops, Tensor, Weight};
use loadline_nn::{CandleCpu, CpuKernels};

#[global_allocator]
static ALLOCATOR: Counting<System> = Counting(System);

type O = Ops<CandleCpu>;
type T = Tensor<candle_core::Tensor>;
type W = Weight<SlabView>;

/// A linear congruential generator; a failure prints the seed of its case.
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        1 + (self.0 >> 33) as usize % most
    }
}

/// Weights read from a file of zeros and ones, converted as a run would.
struct Source {
    files: WeightFiles,
}

impl Source {
    const ELEMENTS: usize = 1 << 20;

    fn new(path: &PathBuf) -> Self {
        let bytes: Vec<u8> = (0..Self::ELEMENTS).flat_map(|i| ((i % 7) as f32 * 0.1).to_le_bytes()).collect();
        std::fs::write(path, bytes).unwrap();
        Self { files: WeightFiles::open(std::slice::from_ref(path)).unwrap() }
    }

    fn weight(&self, shape: &[usize], dtype: DType) -> W {
        let elements = shape.iter().product();
        assert!(elements <= Self::ELEMENTS);
        let (file_dtype, tensor) = (DType::F32, String::new());
        let segment = Segment { tensor, file: 0, offset: 0, elements, file_dtype, place: 0, dtype, scale: 1.0 };
        let slab = load_block(&self.files, &BlockSource { segments: vec![segment], ..BlockSource::default() }).unwrap();
        Weight { shape: shape.to_vec(), dtype, data: SlabView { slab, offset: 0, elements, dtype } }
    }
}

fn tensor(ops: &mut O, shape: &[usize], dtype: DType) -> T {
    let x = ops.filled(shape, &mut |out| {
        out.iter_mut().enumerate().for_each(|(i, v)| *v = (i % 5) as f32 * 0.2);
        Ok(())
    });
    ops.cast(x.unwrap(), dtype).unwrap()
}

/// Runs one operation and compares the ledger's peak with the allocator's.
fn check<R>(what: &str, ops: &mut O, body: impl FnOnce(&mut O) -> Result<R, OpError>) {
    let stage = Stage::begin();
    reset_peak(Domain::Device);
    let (seen_before, declared_before) = (peak(Domain::Device), ops.ledger.begin());
    let result = body(ops);
    let declared = ops.ledger.end(declared_before).peak - declared_before;
    let seen = peak(Domain::Device) - seen_before;
    drop(stage);
    result.unwrap_or_else(|e| panic!("{what}: {e}"));
    // Below the size that counts, what is declared is not seen.
    assert!(seen <= declared, "{what}: declared {declared:?}, seen {seen:?}");
    let slack = Bytes(declared.0 / 100 + 2 * 4096);
    assert!(declared <= seen + slack, "{what}: declared {declared:?}, seen {seen:?}");
}

fn rows(r: &mut Random, ops: &mut O, source: &Source, act: DType, weight: DType, tag: &str) {
    let (m, n, k) = (r.below(300), r.below(500), r.below(600));
    let (x, w, b) = (tensor(ops, &[m, k], act), source.weight(&[n, k], weight), source.weight(&[n], weight));
    check(&format!("{tag} linear {m}x{n}x{k}"), ops, |o| o.linear(&x, &w, Some(&b), Activation::GeluTanh));
    let gamma = source.weight(&[k], weight);
    check(&format!("{tag} rms-norm {m}x{k}"), ops, |o| o.rms_norm(&x, &gamma, 1e-6));
    check(&format!("{tag} channel-norm {m}x{k}"), ops, |o| o.channel_norm(&x, &gamma, true));
    let row = tensor(ops, &[1, k], DType::F32);
    let modulation = Some(Modulation { shift: &row, scale: &row });
    check(&format!("{tag} layer-norm {m}x{k}"), ops, |o| o.layer_norm(&x, None, 1e-6, modulation));
    let y = tensor(ops, &[m, k], act);
    let own = tensor(ops, &[m, k], act);
    check(&format!("{tag} gated-add {m}x{k}"), ops, |o| o.gated_add_assign(own, &y, &row));
    let own = tensor(ops, &[m, k], act);
    check(&format!("{tag} rms-norm in place {m}x{k}"), ops, |o| o.rms_norm_assign(own, &gamma, 1e-6));
    let own = tensor(ops, &[m, k], act);
    check(&format!("{tag} channel-norm in place {m}x{k}"), ops, |o| o.channel_norm_assign(own, &gamma, false));
    let own = tensor(ops, &[m, k], act);
    check(&format!("{tag} activation {m}x{k}"), ops, |o| o.activate_assign(own, Activation::Silu));
    check(&format!("{tag} permute {m}x{k}"), ops, |o| o.permute(&x, &[m, k], &[1, 0]));
    check(&format!("{tag} concat {m}x{k}"), ops, |o| o.concat(&[&x, &y]));
    check(&format!("{tag} pad {m}x{k}"), ops, |o| o.pad_rows(x.clone(), m + 7));
}

fn attention(r: &mut Random, ops: &mut O, act: DType, tag: &str) {
    let (heads, dim) = (r.below(6), 2 * r.below(70));
    let (queries, keys) = (r.below(400), r.below(400));
    let q = tensor(ops, &[queries, heads * dim], act);
    let (k, v) = (tensor(ops, &[keys, heads * dim], act), tensor(ops, &[keys, heads * dim], act));
    let what = format!("{tag} attention {heads}x{dim} {queries}:{keys}");
    check(&what, ops, |o| o.attention(&q, &k, &v, heads, 0.1, keys, Bias::None));
    let (cos, sin) = (tensor(ops, &[queries, dim / 2], DType::F32), tensor(ops, &[queries, dim / 2], DType::F32));
    check(&format!("{tag} rope"), ops, |o| o.rope_assign(q, &cos, &sin, heads));
}

fn video(r: &mut Random, ops: &mut O, source: &Source, act: DType, weight: DType, tag: &str) {
    let (t, h, w, c, n) = (r.below(4), 2 + r.below(24), 2 + r.below(24), r.below(40), r.below(40));
    let x = tensor(ops, &[t, h, w, c], act);
    let history = tensor(ops, &[2, h, w, c], act);
    let (kernel, bias) = (source.weight(&[n, c, 3, 3, 3], weight), source.weight(&[n], weight));
    let spec = ConvSpec { stride: [1, 1, 1], pad: [1, 1, 1, 1], pad_front: 0 };
    let what = format!("{tag} conv {t}x{h}x{w} {c}->{n}");
    check(&what, ops, |o| o.conv(&x, Some(&history), &kernel, Some(&bias), spec));
    check(&format!("{tag} upsample"), ops, |o| o.upsample(&x));
    check(&format!("{tag} crop"), ops, |o| o.crop(&x, [0, 1, 1], [t, h - 1, w - 1]));
    check(&format!("{tag} rows"), ops, |o| o.rows(&x, 0, t));
    let latents = tensor(ops, &[t, h, w, c], DType::F32);
    check(&format!("{tag} combine"), ops, |o| o.combine(&[(0.5, &latents), (0.25, &latents)]));
    check(&format!("{tag} cast"), ops, |o| o.cast(latents.clone(), DType::Bf16));
}

#[test]
fn what_is_declared_is_what_is_allocated() {
    let path = std::env::temp_dir().join(format!("loadline-scratch-{}.bin", std::process::id()));
    let source = Source::new(&path);
    for set in KernelSet::ALL.into_iter().filter(|s| s.available()) {
        for threads in [1, 2] {
            let kernels = CpuKernels { exec: Exec::new(set, threads) };
            let mut ops = Ops::new(CandleCpu { exec: kernels.exec }, Arc::new(kernels));
            ops.recording.off = true;
            // The pool's threads allocate when they start.
            let warm = tensor(&mut ops, &[512, 512], DType::F32);
            let weight = source.weight(&[512, 512], DType::F32);
            drop(ops.linear(&warm, &weight, None, Activation::None).unwrap());
            for seed in 0..6 {
                let mut r = Random(seed * 7919 + threads as u64);
                for act in [DType::F32, DType::Bf16] {
                    for weight in [DType::F32, DType::Bf16, DType::F16] {
                        let tag = format!("{} {threads} threads seed {seed} {act}/{weight}:", set.name());
                        rows(&mut r, &mut ops, &source, act, weight, &tag);
                        attention(&mut r, &mut ops, act, &tag);
                        video(&mut r, &mut ops, &source, act, weight, &tag);
                    }
                }
            }
        }
    }
    std::fs::remove_file(path).unwrap();
}

//! Every layer of the tiny Wan model against what diffusers and transformers computed with the same weights.
//!
//! Tolerances: relative L2 of 1e-4 and, for one forward, a largest difference of 5e-5 of the largest value. The
//! reference itself moves by 1.2e-5 between AVX2 and AVX-512.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use loadline_core::{DType, Knobs, Size};
use loadline_device::{BlockSource, Segment, SlabView, WeightFiles, load_block};
use loadline_models::arch::t5;
use loadline_models::arch::wan_dit::{self, Inputs, Patches};
use loadline_models::arch::wan_vae::{self, Blend, FeatureCache, Picture, tiles};
use loadline_models::ops::{BlockWeights, Ops, Tensor};
use loadline_models::params::{T5Config, WanDitConfig, WanVaeConfig};
use loadline_models::spec::Folder;
use loadline_models::weights::WeightIndex;
use loadline_nn::{CandleCpu, CpuKernels, TensorsAt, block_weights};

type T = Tensor<candle_core::Tensor>;
type Blocks = BTreeMap<String, BlockWeights<SlabView>>;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/wan_t2v")
}

/// The reference's tensors, all f32 but the token ids.
struct Golden {
    files: WeightFiles,
    index: WeightIndex,
}

impl Golden {
    fn open() -> Self {
        let index = WeightIndex::open_component(&fixture().join("golden.safetensors")).unwrap();
        Self { files: WeightFiles::open(&index.files).unwrap(), index }
    }

    fn shape(&self, name: &str) -> Vec<usize> {
        self.index.get(name).unwrap().shape.iter().map(|d| *d as usize).collect()
    }

    fn values(&self, name: &str) -> Vec<f32> {
        let entry = self.index.get(name).unwrap();
        let mut bytes = vec![0; entry.bytes as usize];
        self.files.read(entry.file, entry.offset, &mut bytes).unwrap();
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    fn ids(&self, name: &str) -> Vec<Vec<u32>> {
        let entry = self.index.get(name).unwrap();
        let mut bytes = vec![0; entry.bytes as usize];
        self.files.read(entry.file, entry.offset, &mut bytes).unwrap();
        let ids: Vec<u32> = bytes.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect();
        ids.chunks(entry.shape[1] as usize).map(<[u32]>::to_vec).collect()
    }
}

fn ops() -> Ops<CandleCpu> {
    let kernels = CpuKernels::detect();
    Ops::new(CandleCpu { exec: kernels.exec }, Arc::new(kernels))
}

fn tensor(ops: &mut Ops<CandleCpu>, shape: &[usize], values: &[f32]) -> T {
    ops.restored(shape, values).unwrap()
}

fn host(ops: &mut Ops<CandleCpu>, x: &T) -> Vec<f32> {
    let mut out = Vec::new();
    ops.to_host(x, &mut |values| out = values.to_vec()).unwrap();
    out
}

/// All blocks of a component, loaded in a storage type.
fn blocks(component: &str, storage: DType) -> Blocks {
    let folder = Folder::open(&fixture().join("model")).unwrap();
    let spec = folder.model.component(component).unwrap();
    let weights = &folder.components.iter().find(|c| c.name == component).unwrap().weights;
    let files = WeightFiles::open(&weights.files).unwrap();
    let knobs = Knobs { storage: vec![(component.to_owned(), storage)], ..Knobs::default() };
    let load = |index: usize| {
        let layout = TensorsAt::new(spec, index, &knobs);
        let segment = |(name, shape, dtype, place): &(String, Vec<usize>, DType, usize)| {
            let entry = weights.get(name).unwrap();
            Segment {
                tensor: name.clone(),
                file: entry.file,
                offset: entry.offset,
                elements: shape.iter().product(),
                file_dtype: DType::F32,
                place: *place,
                dtype: *dtype,
                scale: 1.0,
            }
        };
        let segments = layout.tensors.iter().map(segment).collect();
        let source = BlockSource { segments, ..BlockSource::default() };
        let slab = load_block(&files, &source).unwrap();
        (spec.blocks[index].name.clone(), block_weights(&layout, &slab))
    };
    (0..spec.blocks.len()).map(load).collect()
}

fn config(component: &str) -> serde_json::Value {
    let path = fixture().join("model").join(component).join("config.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Relative L2 error and the largest difference relative to the largest value.
fn errors(got: &[f32], expected: &[f32]) -> (f64, f64) {
    assert_eq!(got.len(), expected.len());
    let pairs = || got.iter().zip(expected).map(|(a, b)| (f64::from(*a), f64::from(*b)));
    let difference: f64 = pairs().map(|(a, b)| (a - b) * (a - b)).sum();
    let norm: f64 = pairs().map(|(_, b)| b * b).sum();
    let largest = pairs().map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    let scale = pairs().map(|(_, b)| b.abs()).fold(0.0, f64::max);
    ((difference / norm).sqrt(), largest / scale)
}

fn check(what: &str, got: &[f32], expected: &[f32]) {
    let (l2, largest) = errors(got, expected);
    assert!(l2 <= 1e-4 && largest <= 5e-5, "{what}: relative L2 {l2:e}, largest {largest:e}");
}

#[test]
fn umt5_follows_the_reference_layer_by_layer() {
    let (golden, blocks, mut ops) = (Golden::open(), blocks("text_encoder", DType::F32), ops());
    let config = T5Config::from_json("UMT5EncoderModel", &config("text_encoder")).unwrap();
    let (ids, mask) = (golden.ids("text.input_ids"), golden.ids("text.attention_mask"));
    let tokens = ids[0].len();
    let buckets = t5::relative_buckets(tokens, 32, 128);
    let embedded = golden.values("text.hidden.0");
    for prompt in 0..2 {
        let part = |name: &str| {
            let size = tokens * config.d_model;
            golden.values(name)[prompt * size..(prompt + 1) * size].to_vec()
        };
        let size = tokens * config.d_model;
        let rows = tensor(&mut ops, &[tokens, config.d_model], &embedded[prompt * size..(prompt + 1) * size]);
        let mut state = t5::start(&mut ops, rows, DType::F32).unwrap();
        let visible = mask[prompt].iter().sum::<u32>() as usize;
        for layer in 0..config.num_layers {
            let weights = &blocks[&format!("encoder.block.{layer}")];
            t5::block(&mut ops, &config, layer, weights, &buckets, visible, &mut state).unwrap();
            // The reference's last recorded state is already normed.
            if layer + 1 < config.num_layers {
                let got = host(&mut ops, &state.hidden);
                check(&format!("prompt {prompt} layer {layer}"), &got, &part(&format!("text.hidden.{}", layer + 1)));
            }
        }
        let last = t5::finish(&mut ops, &config, &blocks["tail"], state).unwrap();
        check(&format!("prompt {prompt} last"), &host(&mut ops, &last), &part("text.last_hidden_state"));
    }
}

/// One forward of the transformer; gives the velocity and checks everything on the way if it is f32.
fn transformer(storage: DType, every_block: bool) -> Vec<f32> {
    let (golden, blocks, mut ops) = (Golden::open(), blocks("transformer", storage), ops());
    let config = WanDitConfig::from_json("WanTransformer3DModel", &config("transformer")).unwrap();
    let grid = Patches { frames: 3, rows: 3, columns: 4 };
    let shape = golden.shape("dit.in.hidden_states");
    let latents = tensor(&mut ops, &shape[1..], &golden.values("dit.in.hidden_states"));
    let prompt = tensor(&mut ops, &[512, config.text_dim], &golden.values("dit.in.encoder_hidden_states"));
    let prompt = ops.cast(prompt, storage.compute()).unwrap();
    let timestep = f64::from(golden.values("dit.in.timestep")[0]);
    let rotary = wan_dit::rotary(&mut ops, &config, grid, 1).unwrap();
    let inputs = Inputs { latents: &latents, prompts: &[&prompt], image: None, control: None };
    let mut branch = wan_dit::start(&mut ops, &config, grid, &blocks["front"], timestep, &inputs).unwrap();
    if every_block {
        check("temb", &host(&mut ops, &branch.temb), &golden.values("dit.condition_embedder.0.0"));
        check("modulation", &host(&mut ops, &branch.modulation), &golden.values("dit.condition_embedder.0.1"));
        check("text", &host(&mut ops, &branch.text), &golden.values("dit.condition_embedder.0.2"));
        let every_second: Vec<f32> = golden.values("dit.rope.0.0").into_iter().step_by(2).collect();
        check("rotary", &host(&mut ops, &rotary.cos), &every_second);
    }
    for index in 0..config.num_layers {
        let weights = &blocks[&format!("blocks.{index}")];
        wan_dit::block(&mut ops, &config, index, weights, &rotary, &mut branch).unwrap();
        if every_block {
            let got = host(&mut ops, &branch.hidden);
            check(&format!("block {index}"), &got, &golden.values(&format!("dit.block.{index}.0")));
        }
    }
    let out = wan_dit::finish(&mut ops, &config, grid, &blocks["tail"], branch).unwrap();
    host(&mut ops, &out[0])
}

#[test]
fn the_transformer_follows_the_reference_block_by_block() {
    check("velocity", &transformer(DType::F32, true), &Golden::open().values("dit.out"));
}

/// The reference's own bf16 forward is 0.69 % off its f32 one; ours may not be worse.
#[test]
fn bf16_is_no_worse_than_the_references_bf16() {
    let golden = Golden::open();
    let exact = golden.values("dit.out");
    let (reference, _) = errors(&golden.values("dit.bf16.out"), &exact);
    let (ours, _) = errors(&transformer(DType::Bf16, false), &exact);
    assert!(ours <= reference, "ours {ours:e}, the reference's {reference:e}");
}

fn vae() -> WanVaeConfig {
    WanVaeConfig::from_json(&config("vae")).unwrap()
}

/// `[1, c, t, h, w]` of the reference as `[t, h, w, c]`.
fn channels_last(ops: &mut Ops<CandleCpu>, golden: &Golden, name: &str) -> T {
    let shape = golden.shape(name);
    let x = tensor(ops, &shape[1..], &golden.values(name));
    ops.permute(&x, &shape[1..], &[1, 2, 3, 0]).unwrap()
}

fn channels_first(picture: &Picture) -> Vec<f32> {
    let c = picture.shape[3];
    (0..c).flat_map(|channel| picture.values.iter().skip(channel).step_by(c).copied()).collect()
}

/// One side of the VAE on one chunk of one tile.
type Side<'a> = &'a mut dyn FnMut(&mut Ops<CandleCpu>, &mut FeatureCache<candle_core::Tensor>, T) -> T;

/// How a video is cut up and what comes out.
struct Cut<'a> {
    tile: Option<Size>,
    overlap: usize,
    scale: usize,
    chunks: &'a [(usize, usize)],
    out: [usize; 4],
    out_tile: Size,
    out_overlap: usize,
}

/// Runs one side of the VAE over tiles and chunks and blends what comes out.
fn through_vae(ops: &mut Ops<CandleCpu>, input: &T, cut: &Cut<'_>, side: Side<'_>) -> Picture {
    let mut blend = Blend::new(cut.out, cut.out_tile, cut.out_overlap);
    let rows = tiles(input.shape[1], input.shape[2], cut.tile, cut.overlap, cut.scale);
    for (i, row) in rows.iter().enumerate() {
        for (j, area) in row.iter().enumerate() {
            let (mut cache, mut whole) = (FeatureCache::new(), Picture::default());
            for (start, len) in cut.chunks {
                let size = [*len, area.height, area.width];
                let part = ops.crop(input, [*start, area.top, area.left], size).unwrap();
                let got = side(ops, &mut cache, part);
                cache.rewind();
                whole.shape = [whole.shape[0] + got.shape[0], got.shape[1], got.shape[2], got.shape[3]];
                whole.values.extend(host(ops, &got));
            }
            blend.add(i, j, whole, j + 1 == row.len());
        }
    }
    blend.into_picture()
}

fn decoded(tile: Option<Size>) -> Vec<f32> {
    let (golden, blocks, mut ops, config) = (Golden::open(), blocks("vae", DType::F32), ops(), vae());
    let z = channels_last(&mut ops, &golden, "vae.z");
    let levels = config.decoder_stages().len();
    let mut side = |ops: &mut Ops<CandleCpu>, cache: &mut FeatureCache<candle_core::Tensor>, part: T| {
        let mut x = wan_vae::decode_front(ops, &blocks["decoder.front"], cache, part).unwrap();
        for level in 0..levels {
            let weights = &blocks[&format!("decoder.up_blocks.{level}")];
            x = wan_vae::decode_level(ops, &config, level, weights, cache, x).unwrap();
        }
        wan_vae::decode_tail(ops, &config, &blocks["decoder.tail"], cache, x).unwrap()
    };
    let (out_tile, overlap) = tile.map_or((Size { width: 64, height: 48 }, 0), |t| (t, 8));
    let chunks = &[(0, 1), (1, 1), (2, 1)];
    let cut = Cut { tile, overlap, scale: 8, chunks, out: [9, 48, 64, 3], out_tile, out_overlap: overlap };
    let picture = through_vae(&mut ops, &z, &cut, &mut side);
    channels_first(&picture).into_iter().map(|v| v.clamp(-1.0, 1.0)).collect()
}

fn encoded(tile: Option<Size>) -> Vec<f32> {
    let (golden, blocks, mut ops, config) = (Golden::open(), blocks("vae", DType::F32), ops(), vae());
    let video = channels_last(&mut ops, &golden, "vae.video");
    let levels = config.encoder_stages().len();
    let mut side = |ops: &mut Ops<CandleCpu>, cache: &mut FeatureCache<candle_core::Tensor>, part: T| {
        let mut x = wan_vae::encode_front(ops, &blocks["encoder.front"], cache, &part).unwrap();
        for level in 0..levels {
            let weights = &blocks[&format!("encoder.levels.{level}")];
            x = wan_vae::encode_level(ops, &config, level, weights, cache, x).unwrap();
        }
        wan_vae::encode_tail(ops, &blocks["encoder.tail"], cache, x).unwrap()
    };
    // Tiles of 32 pixels are 4 latent pixels, of which neighbours share one.
    let (out_tile, out_overlap) = tile.map_or((Size { width: 8, height: 6 }, 0), |_| (Size { width: 4, height: 4 }, 1));
    let (chunks, overlap) = (&[(0, 1), (1, 4), (5, 4)], if tile.is_some() { 8 } else { 0 });
    let cut = Cut { tile, overlap, scale: 1, chunks, out: [3, 6, 8, 32], out_tile, out_overlap };
    let picture = through_vae(&mut ops, &video, &cut, &mut side);
    channels_first(&picture)
}

const TILE: Option<Size> = Some(Size { width: 32, height: 32 });

#[test]
fn the_vae_decodes_as_the_reference() {
    let golden = Golden::open();
    check("decoded", &decoded(None), &golden.values("vae.decoded"));
    check("decoded in tiles", &decoded(TILE), &golden.values("vae.decoded_tiled"));
}

#[test]
fn the_vae_encodes_as_the_reference() {
    let golden = Golden::open();
    check("encoded", &encoded(None), &golden.values("vae.encoded_params"));
    check("encoded in tiles", &encoded(TILE), &golden.values("vae.encoded_params_tiled"));
}

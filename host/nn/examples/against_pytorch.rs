//! Our side of `benches/against_pytorch.py`: one case on random weights, run when a line on the standard input says so.
//!
//! `against_pytorch FOLDER CASE DTYPE LAYERS` with CASE one of `block-TOKENS`, `step-TOKENS`, `text`, `vae` and
//! `vae-tiled`, and DTYPE `f32` or `bf16`. A line `run` runs the case and prints its wall time and the process's time
//! on all processors, in seconds; a line `save PATH` writes the last result as raw f32.
// Measuring is what this example is for; the crate itself knows no clock.
#![allow(clippy::print_stdout, clippy::disallowed_methods)]

use std::alloc::System;
use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use loadline_core::{DType, Knobs, Size};
use loadline_device::memory::Counting;
use loadline_device::{BlockSource, Segment, SlabView, WeightFiles, load_block};
use loadline_models::arch::t5;
use loadline_models::arch::wan_dit::{self, Branch, Inputs, Patches, Rotary};
use loadline_models::arch::wan_vae::{self, Blend, FeatureCache, Picture, tiles};
use loadline_models::ops::{BlockWeights, Ops, Tensor};
use loadline_models::params::{T5Config, WanDitConfig, WanVaeConfig};
use loadline_models::spec::Folder;
use loadline_models::weights::WeightIndex;
use loadline_nn::{CandleCpu, CpuKernels, TensorsAt, block_weights};

/// As the program's: bytes are counted, and the system's allocator hands them out.
#[global_allocator]
static ALLOCATOR: Counting<System> = Counting(System);

type Data = candle_core::Tensor;
type T = Tensor<Data>;
type Blocks = BTreeMap<String, BlockWeights<SlabView>>;
type Fallible<R> = Result<R, Box<dyn Error>>;

fn main() -> Fallible<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [folder, case, dtype, layers] = args.as_slice() else {
        return Err("usage: against_pytorch FOLDER CASE DTYPE LAYERS".into());
    };
    let dtype = match dtype.as_str() {
        "f32" => DType::F32,
        "bf16" => DType::Bf16,
        other => return Err(format!("DTYPE is f32 or bf16, not {other}").into()),
    };
    let mut bench = Bench::open(Path::new(folder), case, dtype, layers.parse()?)?;
    println!("ready {} x{}", bench.kernels.exec.set.name(), bench.kernels.exec.threads);
    let mut last = Vec::new();
    for line in std::io::stdin().lock().lines() {
        match line?.split_once(' ') {
            None => {
                let (wall, processor) = (Instant::now(), processor_time());
                last = bench.run()?;
                println!("{} {}", wall.elapsed().as_secs_f64(), processor_time() - processor);
            }
            Some((_, path)) => {
                let bytes: Vec<u8> = last.iter().flat_map(|v| v.to_le_bytes()).collect();
                std::fs::write(path, bytes)?;
                println!("saved");
            }
        }
        std::io::stdout().flush()?;
    }
    Ok(())
}

/// This process's time on all processors, in seconds.
fn processor_time() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 * 1e-9
}

/// One case, ready to run.
struct Bench {
    kernels: CpuKernels,
    ops: Ops<CandleCpu>,
    dtype: DType,
    layers: usize,
    inputs: Values,
    blocks: Blocks,
    case: Case,
}

/// What is run.
enum Case {
    /// The block alone, from the state that `start` gives.
    Block {
        config: WanDitConfig,
        rotary: Rotary<Data>,
        branch: Box<Branch<Data>>,
    },
    /// The whole forward: patches, time, prompt, all blocks, velocity.
    Step {
        config: WanDitConfig,
        grid: Patches,
    },
    Text(T5Config),
    Vae {
        config: WanVaeConfig,
        tile: Option<Size>,
    },
}

impl Bench {
    fn open(folder: &Path, case: &str, dtype: DType, layers: usize) -> Fallible<Self> {
        let mut kernels = CpuKernels::detect();
        // As many as RAYON_NUM_THREADS says.
        kernels.exec.threads = rayon::current_num_threads();
        let mut ops = Ops::new(CandleCpu { exec: kernels.exec }, Arc::new(kernels));
        ops.recording.off = true;
        let component = match case.split_once('-').map_or(case, |(kind, _)| kind) {
            "vae" => "vae",
            "text" => "text_encoder",
            _ => "transformer",
        };
        let inputs = Values::open(&folder.join("inputs.safetensors"))?;
        let (blocks, config) = (blocks(folder, component, dtype)?, config(folder, component)?);
        let case = match (case, component) {
            ("text", _) => Case::Text(T5Config::from_json("UMT5EncoderModel", &config)?),
            (_, "vae") => {
                let tile = case.ends_with("tiled").then_some(Size { width: 256, height: 256 });
                Case::Vae { config: WanVaeConfig::from_json(&config)?, tile }
            }
            _ => {
                let config = WanDitConfig::from_json("WanTransformer3DModel", &config)?;
                let tokens: usize = case.split_once('-').map_or("", |(_, tokens)| tokens).parse()?;
                let grid = Patches { frames: tokens / 1560, rows: 30, columns: 52 };
                if case.starts_with("block") {
                    let rotary = wan_dit::rotary(&mut ops, &config, grid, 1)?;
                    let branch = Box::new(begin(&mut ops, &config, grid, &blocks, &inputs, dtype)?);
                    Case::Block { config, rotary, branch }
                } else {
                    Case::Step { config, grid }
                }
            }
        };
        Ok(Self { kernels, ops, dtype, layers, inputs, blocks, case })
    }

    fn run(&mut self) -> Fallible<Vec<f32>> {
        let Self { ops, blocks, inputs, dtype, layers, .. } = self;
        match &mut self.case {
            Case::Block { config, rotary, branch } => {
                let start = branch.hidden.clone();
                branch.hidden = ops.concat(&[&start])?;
                wan_dit::block(ops, config, 0, block(blocks, "blocks.0")?, rotary, branch)?;
                let out = std::mem::replace(&mut branch.hidden, start);
                host(ops, &out)
            }
            Case::Step { config, grid } => {
                let rotary = wan_dit::rotary(ops, config, *grid, 1)?;
                let mut branch = begin(ops, config, *grid, blocks, inputs, *dtype)?;
                for _ in 0..*layers {
                    wan_dit::block(ops, config, 0, block(blocks, "blocks.0")?, &rotary, &mut branch)?;
                }
                let out = wan_dit::finish(ops, config, *grid, block(blocks, "tail")?, branch)?;
                host(ops, &out[0])
            }
            Case::Text(config) => encoded(ops, config, blocks, inputs, *dtype, *layers),
            Case::Vae { config, tile } => decoded(ops, config, blocks, inputs, *dtype, *tile),
        }
    }
}

/// Everything before the first block.
fn begin(
    ops: &mut Ops<CandleCpu>,
    config: &WanDitConfig,
    grid: Patches,
    blocks: &Blocks,
    inputs: &Values,
    dtype: DType,
) -> Fallible<Branch<Data>> {
    let (shape, values) = inputs.get(&format!("latents-{}", grid.tokens()))?;
    let latents = ops.restored(&shape, &values)?;
    let (shape, values) = inputs.get("prompt")?;
    let prompt = ops.restored(&shape, &values)?;
    let prompt = ops.cast(prompt, dtype)?;
    let given = Inputs { latents: &latents, prompts: &[&prompt], image: None, control: None };
    Ok(wan_dit::start(ops, config, grid, block(blocks, "front")?, 700.0, &given)?)
}

fn encoded(
    ops: &mut Ops<CandleCpu>,
    config: &T5Config,
    blocks: &Blocks,
    inputs: &Values,
    dtype: DType,
    layers: usize,
) -> Fallible<Vec<f32>> {
    let (shape, values) = inputs.get("embedded")?;
    let rows = ops.restored(&shape, &values)?;
    let buckets = t5::relative_buckets(shape[0], 32, 128);
    let mut state = t5::start(ops, rows, dtype)?;
    for _ in 0..layers {
        t5::block(ops, config, 0, block(blocks, "encoder.block.0")?, &buckets, shape[0], &mut state)?;
    }
    let out = t5::finish(ops, config, block(blocks, "tail")?, state)?;
    host(ops, &out)
}

/// Five frames, in chunks of a latent frame, tile by tile.
fn decoded(
    ops: &mut Ops<CandleCpu>,
    config: &WanVaeConfig,
    blocks: &Blocks,
    inputs: &Values,
    dtype: DType,
    tile: Option<Size>,
) -> Fallible<Vec<f32>> {
    const SCALE: usize = 8;
    let (shape, values) = inputs.get("latents-3120")?;
    let z = ops.restored(&shape, &values)?;
    let z = ops.permute(&z, &shape, &[1, 2, 3, 0])?;
    let [frames, height, width] = [shape[1], shape[2], shape[3]];
    let out = [4 * frames - 3, SCALE * height, SCALE * width, 3];
    let overlap = if tile.is_some() { 64 } else { 0 };
    let whole = Size { width: out[2] as u32, height: out[1] as u32 };
    let mut blend = Blend::new(out, tile.unwrap_or(whole), overlap);
    for (i, row) in tiles(height, width, tile, overlap, SCALE).iter().enumerate() {
        for (j, area) in row.iter().enumerate() {
            let (mut cache, mut picture) = (FeatureCache::new(), Picture::default());
            for frame in 0..frames {
                let part = ops.crop(&z, [frame, area.top, area.left], [1, area.height, area.width])?;
                let part = ops.cast(part, dtype)?;
                let got = chunk(ops, config, blocks, &mut cache, part)?;
                cache.rewind();
                picture.shape = [picture.shape[0] + got.shape[0], got.shape[1], got.shape[2], got.shape[3]];
                picture.values.extend(host(ops, &got)?);
            }
            blend.add(i, j, picture, j + 1 == row.len());
        }
    }
    let picture = blend.into_picture();
    // The reference's layout, so that results can be compared.
    let first = |channel: usize| picture.values.iter().skip(channel).step_by(3).map(|v| v.clamp(-1.0, 1.0));
    Ok((0..3).flat_map(first).collect())
}

fn chunk(
    ops: &mut Ops<CandleCpu>,
    config: &WanVaeConfig,
    blocks: &Blocks,
    cache: &mut FeatureCache<Data>,
    part: T,
) -> Fallible<T> {
    let mut x = wan_vae::decode_front(ops, block(blocks, "decoder.front")?, cache, part)?;
    for level in 0..config.decoder_stages().len() {
        let weights = block(blocks, &format!("decoder.up_blocks.{level}"))?;
        x = wan_vae::decode_level(ops, config, level, weights, cache, x)?;
    }
    Ok(wan_vae::decode_tail(ops, config, block(blocks, "decoder.tail")?, cache, x)?)
}

fn host(ops: &mut Ops<CandleCpu>, x: &T) -> Fallible<Vec<f32>> {
    let mut out = Vec::new();
    ops.to_host(x, &mut |values| out = values.to_vec())?;
    Ok(out)
}

fn block<'a>(blocks: &'a Blocks, name: &str) -> Fallible<&'a BlockWeights<SlabView>> {
    blocks.get(name).ok_or_else(|| format!("the model has no block {name}").into())
}

/// All blocks of a component in one storage type.
fn blocks(folder: &Path, component: &str, dtype: DType) -> Fallible<Blocks> {
    let folder = Folder::open(folder)?;
    let lacking = || format!("the folder has no component {component}");
    let spec = folder.model.component(component).ok_or_else(lacking)?;
    let weights = &folder.components.iter().find(|c| c.name == component).ok_or_else(lacking)?.weights;
    let files = WeightFiles::open(&weights.files)?;
    let knobs = Knobs { storage: vec![(component.to_owned(), dtype)], ..Knobs::default() };
    let mut blocks = Blocks::new();
    for (index, block) in spec.blocks.iter().enumerate() {
        let layout = TensorsAt::new(spec, index, &knobs);
        let mut source = BlockSource::default();
        for (name, shape, dtype, place) in &layout.tensors {
            let entry = weights.get(name).ok_or_else(|| format!("no weight file holds {name}"))?;
            source.segments.push(Segment {
                tensor: name.clone(),
                file: entry.file,
                offset: entry.offset,
                elements: shape.iter().product(),
                file_dtype: DType::F32,
                place: *place,
                dtype: *dtype,
                scale: 1.0,
            });
        }
        blocks.insert(block.name.clone(), block_weights(&layout, &load_block(&files, &source)?));
    }
    Ok(blocks)
}

fn config(folder: &Path, component: &str) -> Fallible<serde_json::Value> {
    Ok(serde_json::from_str(&std::fs::read_to_string(folder.join(component).join("config.json"))?)?)
}

/// The tensors of an f32 file.
struct Values {
    files: WeightFiles,
    index: WeightIndex,
}

impl Values {
    fn open(path: &Path) -> Fallible<Self> {
        let index = WeightIndex::open_component(path)?;
        Ok(Self { files: WeightFiles::open(&index.files)?, index })
    }

    /// Shape and values.
    fn get(&self, name: &str) -> Fallible<(Vec<usize>, Vec<f32>)> {
        let entry = self.index.get(name).ok_or_else(|| format!("no input {name}"))?;
        let mut bytes = vec![0; entry.bytes as usize];
        self.files.read(entry.file, entry.offset, &mut bytes)?;
        let values = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        Ok((entry.shape.iter().map(|d| *d as usize).collect(), values))
    }
}

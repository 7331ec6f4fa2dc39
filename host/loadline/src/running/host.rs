//! What a running pipeline asks the host for, and gives it.

use std::collections::BTreeMap;

use loadline_core::{DType, TileSize};
use loadline_device::memory::{Domain, within};
use loadline_device::{Segment, WeightFiles};
use loadline_models::arch::wan_vae::{Blend, Picture};
use loadline_models::pipeline::{Host, WanRecipe};

use super::noise::Noise;

/// The embedding table where it lies.
pub(super) struct Table {
    pub(super) files: WeightFiles,
    pub(super) segment: Segment,
    pub(super) width: usize,
}

/// The host's side of one job.
pub(super) struct RunHost {
    pub(super) table: Table,
    pub(super) seed: u64,
    /// Latents to start from instead of noise.
    pub(super) latents: Option<(Vec<usize>, Vec<f32>)>,
    /// Whether intermediate results are wanted.
    pub(super) dump: bool,
    pub(super) dumped: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    pub(super) frames: Frames,
}

impl Host for RunHost {
    fn embedding_rows(&mut self, _: &str, ids: &[u32], out: &mut [f32]) -> Result<(), String> {
        let Table { files, segment, width } = &self.table;
        let rows = segment.elements / width;
        for (id, row) in ids.iter().zip(out.chunks_exact_mut(*width)) {
            let id = *id as usize;
            if id >= rows {
                return Err(format!(
                    "token {id} is outside the embedding table of {rows} rows: tokenizer and text encoder do not \
                     belong together"
                ));
            }
            within(Domain::Host, || files.read_f32(segment, id * width, row)).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    fn noise(&mut self, shape: &[usize], out: &mut [f32]) -> Result<(), String> {
        let Some((given, values)) = &self.latents else {
            Noise::new(self.seed).fill(out);
            return Ok(());
        };
        if given.iter().filter(|d| **d != 1).ne(shape.iter().filter(|d| **d != 1)) {
            return Err(format!("--latents: the tensor has shape {given:?}, this request needs {shape:?}"));
        }
        out.copy_from_slice(values);
        Ok(())
    }

    fn frames(&mut self, tile: usize, chunk: usize, shape: [usize; 4], values: &[f32]) {
        within(Domain::Host, || self.frames.take(tile, chunk, shape, values));
    }

    fn wants(&self, _: &str) -> bool {
        self.dump
    }

    fn observe(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        within(Domain::Host, || self.dumped.insert(name.to_owned(), (shape.to_vec(), values.to_vec())));
    }
}

/// Decoded chunks on their way to a video.
pub(super) struct Frames {
    tiles: Vec<(usize, usize, bool)>,
    chunks: usize,
    blend: Option<Blend>,
    tile: Vec<(usize, [usize; 4], Vec<f32>)>,
    /// What was taken since the checkpoint last asked.
    pub(super) fresh: Vec<f32>,
    pub(super) keep_fresh: bool,
}

impl Frames {
    pub(super) fn new(recipe: &WanRecipe) -> Self {
        let tiles = recipe.tiles.iter().enumerate().flat_map(|(i, row)| {
            let last = row.len() - 1;
            (0..row.len()).map(move |j| (i, j, j == last))
        });
        let [frames, height, width, channels] = recipe.output_shape();
        let whole = TileSize { width: width as u32, height: height as u32 };
        let (size, overlap) = match recipe.knobs.tile {
            Some(tile) if recipe.tiles.iter().flatten().count() > 1 => (tile, recipe.knobs.tile_overlap as usize),
            _ => (whole, 0),
        };
        Self {
            tiles: tiles.collect(),
            chunks: recipe.chunks(),
            blend: Some(Blend::new([frames, height, width, channels], size, overlap)),
            tile: Vec::new(),
            fresh: Vec::new(),
            keep_fresh: false,
        }
    }

    pub(super) fn take(&mut self, tile: usize, chunk: usize, shape: [usize; 4], values: &[f32]) {
        if self.keep_fresh {
            self.fresh.extend([shape[0] as f32, shape[1] as f32, shape[2] as f32, shape[3] as f32]);
            self.fresh.extend_from_slice(values);
        }
        self.tile.push((chunk, shape, values.to_vec()));
        if chunk + 1 < self.chunks {
            return;
        }
        let chunks = std::mem::take(&mut self.tile);
        let [_, height, width, channels] = chunks[0].1;
        let frames = chunks.iter().map(|(_, s, _)| s[0]).sum();
        let values = chunks.into_iter().flat_map(|(_, _, v)| v).collect();
        let picture = Picture { shape: [frames, height, width, channels], values };
        if let (Some(blend), Some((i, j, ends_row))) = (&mut self.blend, self.tiles.get(tile)) {
            blend.add(*i, *j, picture, *ends_row);
        }
    }

    /// Takes the `n`-th chunk of a checkpoint again.
    pub(super) fn replay(&mut self, n: usize, shape: [usize; 4], values: &[f32]) {
        self.keep_fresh = false;
        self.take(n / self.chunks, n % self.chunks, shape, values);
    }

    /// The finished video, `[frames, height, width, 3]` in 0..1.
    pub(super) fn finish(&mut self) -> Picture {
        let mut picture = self.blend.take().map(Blend::into_picture).unwrap_or_default();
        // The reference clamps to -1..1 after blending, then maps to 0..1.
        picture.values.iter_mut().for_each(|v| *v = v.clamp(-1.0, 1.0) * 0.5 + 0.5);
        picture
    }
}

/// An f32 segment of a table, whatever its type in the file.
pub(super) fn table_segment(entry: &loadline_models::weights::TensorEntry, dtype: DType, file: usize) -> Segment {
    Segment {
        tensor: entry.name.clone(),
        file,
        offset: entry.offset,
        elements: entry.elements() as usize,
        file_dtype: dtype,
        place: 0,
        dtype: DType::F32,
    }
}

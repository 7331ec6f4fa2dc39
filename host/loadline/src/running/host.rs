//! What a running pipeline asks the host for, and gives it.

use loadline_core::DType;
use loadline_device::memory::{Domain, within};
use loadline_device::{Segment, WeightFiles};
use loadline_engine::DeviceError;
use loadline_models::arch::wan_vae::{Blend, Picture};
use loadline_models::pipeline::{Host, WanRecipe};

use super::noise::Noise;
use super::output::{Tensor, Tensors};

/// The embedding table where it lies.
pub(super) struct Table {
    pub(super) files: WeightFiles,
    pub(super) segment: Segment,
    pub(super) width: usize,
}

/// The host's side of one job.
pub(super) struct RunHost {
    pub(super) table: Table,
    /// Why rows of the table could not be had, which is a matter of its file.
    pub(super) failed: Option<DeviceError>,
    pub(super) seed: u64,
    /// Latents to start from instead of noise.
    pub(super) latents: Option<Tensor>,
    /// Whether intermediate results are wanted.
    pub(super) dump: bool,
    pub(super) dumped: Tensors,
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
            if let Err(error) = within(Domain::Host, || files.read_weights_f32(segment, id * width, row)) {
                let text = error.to_string();
                self.failed = Some(error);
                return Err(text);
            }
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
    chunks: usize,
    made: Made,
    /// What was taken since the checkpoint last asked.
    pub(super) fresh: Vec<f32>,
    pub(super) keep_fresh: bool,
}

/// The video as far as it is made.
enum Made {
    /// Untiled: chunks go straight to their place.
    Whole { picture: Picture, filled: usize },
    /// Tiled: a tile is blended with its neighbours when its last chunk has come.
    Tiled { blend: Blend, places: Vec<(usize, usize, bool)>, tile: Picture },
}

impl Frames {
    pub(super) fn new(recipe: &WanRecipe) -> Self {
        let shape = recipe.output_shape();
        let lengths = recipe.tiles.iter().map(Vec::len).enumerate();
        let places: Vec<_> = lengths.flat_map(|(i, row)| (0..row).map(move |j| (i, j, j + 1 == row))).collect();
        let made = match recipe.knobs.tile {
            Some(tile) if places.len() > 1 => {
                let blend = Blend::new(shape, tile, recipe.knobs.tile_overlap as usize);
                Made::Tiled { blend, places, tile: Picture::default() }
            }
            _ => Made::Whole { picture: Picture::new(shape), filled: 0 },
        };
        Self { chunks: recipe.chunks(), made, fresh: Vec::new(), keep_fresh: false }
    }

    pub(super) fn take(&mut self, tile: usize, chunk: usize, shape: [usize; 4], values: &[f32]) {
        if self.keep_fresh {
            self.fresh.extend(shape.map(|side| side as f32));
            self.fresh.extend_from_slice(values);
        }
        let ends = chunk + 1 == self.chunks;
        match &mut self.made {
            Made::Whole { picture, filled } => {
                let rest = &mut picture.values[*filled..];
                let count = rest.len().min(values.len());
                rest[..count].copy_from_slice(&values[..count]);
                *filled += count;
            }
            Made::Tiled { blend, places, tile: part } => {
                part.shape = [part.shape[0] + shape[0], shape[1], shape[2], shape[3]];
                part.values.extend_from_slice(values);
                if let (true, Some((i, j, ends_row))) = (ends, places.get(tile)) {
                    blend.add(*i, *j, std::mem::take(part), *ends_row);
                }
            }
        }
    }

    /// Takes the `n`-th chunk of a checkpoint again.
    pub(super) fn replay(&mut self, n: usize, shape: [usize; 4], values: &[f32]) {
        self.keep_fresh = false;
        self.take(n / self.chunks, n % self.chunks, shape, values);
    }

    /// The finished video, `[frames, height, width, 3]` in 0..1.
    pub(super) fn finish(self) -> Picture {
        let mut picture = match self.made {
            Made::Whole { picture, .. } => picture,
            Made::Tiled { blend, .. } => blend.into_picture(),
        };
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
        scale: 1.0,
    }
}

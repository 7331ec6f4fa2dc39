//! Norms of rows and of groups of channels.

use loadline_cuda::kernels::{Element, GroupNorm, PerRow, RowNorm, RowNormKind, Spatial, Stored, group_norm_scratch};

use crate::gpu::Gpu;
use crate::numbers::{ACTIVATIONS, Chance, ELEMENTS, activated, close, encode, round};
use crate::stored::sample;

#[derive(Clone, Copy, Debug)]
enum Kind {
    Layer { affine: bool, modulation: Option<[bool; 2]> },
    Rms,
    L2 { silu: bool },
}

struct Rows {
    element: Element,
    rows: u64,
    channels: u64,
    kind: Kind,
    /// The stored type of weights.
    stored: Stored,
    in_place: bool,
    offset: usize,
    /// Added to every value: a large mean must not swamp the variance.
    mean: f32,
}

/// What a case's rows are multiplied and moved by.
struct Parts {
    weight: (Vec<u8>, Vec<f32>),
    bias: (Vec<u8>, Vec<f32>),
    scale: Vec<f32>,
    shift: Vec<f32>,
}

impl Rows {
    fn new(element: Element, rows: u64, channels: u64, kind: Kind) -> Self {
        Self { element, rows, channels, kind, stored: Stored::F32, in_place: false, offset: 0, mean: 0.0 }
    }

    fn what(&self) -> String {
        format!("norm {:?} {:?} {} x {}", self.kind, self.element, self.rows, self.channels)
    }

    fn parts(&self, chance: &mut Chance) -> Parts {
        let each = match self.kind {
            Kind::Layer { modulation: Some(each), .. } => each,
            _ => [false; 2],
        };
        let rows = each.map(|each| if each { self.rows } else { 1 });
        Parts {
            weight: sample(self.stored, self.channels, chance),
            bias: sample(self.stored, self.channels, chance),
            scale: chance.values(Element::F32, rows[0] * self.channels),
            shift: chance.values(Element::F32, rows[1] * self.channels),
        }
    }

    fn kind(&self, gpu: &Gpu, parts: &Parts) -> RowNormKind {
        let weight = |values: &(Vec<u8>, Vec<f32>)| gpu.weight(self.stored, self.channels, &values.0);
        let rows = |values: &[f32], each: bool| PerRow { at: gpu.floats(values), each };
        match self.kind {
            Kind::Layer { affine, modulation } => RowNormKind::Layer {
                eps: 1e-6,
                affine: affine.then(|| (weight(&parts.weight), weight(&parts.bias))),
                modulation: modulation.map(|[a, b]| (rows(&parts.scale, a), rows(&parts.shift, b))),
            },
            Kind::Rms => RowNormKind::Rms { eps: 1e-6, weight: weight(&parts.weight) },
            Kind::L2 { silu } => RowNormKind::L2 { gamma: weight(&parts.weight), silu },
        }
    }

    fn check(&self, gpu: &Gpu) {
        let mut chance = Chance::new(self.channels);
        let mut x = chance.values(self.element, self.rows * self.channels);
        x.iter_mut().for_each(|x| *x = round(self.element, *x + self.mean));
        let parts = self.parts(&mut chance);
        let found = gpu.compute(&self.what(), |gpu| {
            let from = gpu.bytes(&encode(self.element, &x), self.offset);
            let to = if self.in_place { from } else { gpu.room(x.len() as u64 * self.element.bytes(), self.offset) };
            let norm = RowNorm {
                element: self.element,
                rows: self.rows,
                channels: self.channels,
                kind: self.kind(gpu, &parts),
                x: from.at,
                y: to.at,
            };
            gpu.run(norm.launches());
            gpu.get(self.element, &to)
        });
        let slack = 2e-6 * (1.0 + 4.0 * f64::from(self.mean));
        close(&self.what(), self.element, &found, &self.reference(&x, &parts), slack);
    }

    fn reference(&self, x: &[f32], parts: &Parts) -> Vec<f64> {
        let channels = self.channels as usize;
        let rows = x.chunks(channels).enumerate();
        rows.flat_map(|(row, values)| self.row(row * channels, values, parts)).collect()
    }

    fn row(&self, start: usize, values: &[f32], parts: &Parts) -> Vec<f64> {
        let wide: Vec<f64> = values.iter().map(|value| f64::from(*value)).collect();
        let count = wide.len() as f64;
        let mean = if matches!(self.kind, Kind::Layer { .. }) { wide.iter().sum::<f64>() / count } else { 0.0 };
        let squares: f64 = wide.iter().map(|value| (value - mean) * (value - mean)).sum();
        let factor = match self.kind {
            Kind::L2 { .. } => count.sqrt() / squares.sqrt().max(1e-12),
            _ => 1.0 / (squares / count + 1e-6).sqrt(),
        };
        let (weight, bias) = (&parts.weight.1, &parts.bias.1);
        let per_row = |rows: &[f32], i: usize| f64::from(rows[if rows.len() > wide.len() { start + i } else { i }]);
        let finish = |(i, value): (usize, &f64)| {
            let (normed, w) = ((value - mean) * factor, f64::from(weight[i]));
            match self.kind {
                Kind::Layer { affine, modulation } => {
                    let moved = if affine { normed * w + f64::from(bias[i]) } else { normed };
                    let modulated = || moved * (1.0 + per_row(&parts.scale, i)) + per_row(&parts.shift, i);
                    if modulation.is_some() { modulated() } else { moved }
                }
                Kind::Rms => normed * w,
                Kind::L2 { silu } => activated(ACTIVATIONS[usize::from(silu)], normed * w),
            }
        };
        wide.iter().enumerate().map(finish).collect()
    }
}

fn kinds() -> Vec<Kind> {
    let layers = [None, Some([false, false]), Some([true, true]), Some([true, false])];
    let layers =
        layers.into_iter().flat_map(|modulation| [true, false].map(|affine| Kind::Layer { affine, modulation }));
    layers.chain([Kind::Rms, Kind::L2 { silu: false }, Kind::L2 { silu: true }]).collect()
}

/// Rows of a warp and of a block, that fit in shared memory and that do not, whole accesses and odd ones.
#[test]
fn norms_of_rows() {
    let gpu = Gpu::start();
    for element in ELEMENTS {
        for (rows, channels) in [(1, 1), (9, 8), (17, 100), (3, 511), (8, 512), (2, 513), (3, 1536), (2, 5001)] {
            for kind in kinds() {
                Rows::new(element, rows, channels, kind).check(&gpu);
            }
        }
        // More than shared memory holds.
        Rows::new(element, 2, 13_000, Kind::Layer { affine: true, modulation: None }).check(&gpu);
        Rows::new(element, 2, 13_001, Kind::Rms).check(&gpu);
        let layer = Kind::Layer { affine: true, modulation: Some([true, true]) };
        Rows { in_place: true, ..Rows::new(element, 5, 640, layer) }.check(&gpu);
        Rows { offset: element.bytes() as usize, ..Rows::new(element, 5, 640, layer) }.check(&gpu);
        for stored in [Stored::Bf16, Stored::F16, Stored::F8E4M3] {
            Rows { stored, ..Rows::new(element, 3, 96, layer) }.check(&gpu);
        }
        Rows { mean: 30.0, ..Rows::new(element, 3, 1000, Kind::Layer { affine: false, modulation: None }) }.check(&gpu);
    }
    gpu.has_run_all_of(&["norms"]);
}

struct Groups {
    element: Element,
    extent: [u64; 3],
    channels: u64,
    groups: u64,
    grid: Option<[u64; 3]>,
    silu: bool,
    offset: usize,
    mean: f32,
}

impl Groups {
    fn new(element: Element, extent: [u64; 3], channels: u64, groups: u64) -> Self {
        Self { element, extent, channels, groups, grid: None, silu: false, offset: 0, mean: 0.0 }
    }

    fn check(&self, gpu: &Gpu) {
        let what = format!(
            "group norm {:?} {:?} {}/{} {:?}",
            self.element, self.extent, self.channels, self.groups, self.grid
        );
        let mut chance = Chance::new(self.channels);
        let mut x = chance.values(self.element, self.extent.iter().product::<u64>() * self.channels);
        x.iter_mut().for_each(|x| *x = round(self.element, *x + self.mean));
        let [weight, bias] = [0, 1].map(|_| chance.values(Element::F32, self.channels));
        let places = self.grid.map_or(0, |grid| grid.iter().product::<u64>()) * self.channels;
        let [scale, shift] = [0, 1].map(|_| chance.values(self.element, places));
        let found = gpu.compute(&what, |gpu| {
            let y = gpu.room(x.len() as u64 * self.element.bytes(), self.offset);
            let grid = |values: &[f32]| gpu.values(self.element, values).at;
            let norm = GroupNorm {
                element: self.element,
                extent: self.extent,
                channels: self.channels,
                groups: self.groups,
                eps: 1e-6,
                affine: (gpu.dense(Element::F32, &weight), gpu.dense(Element::F32, &bias)),
                spatial: self.grid.map(|extent| Spatial { scale: grid(&scale), shift: grid(&shift), extent }),
                silu: self.silu,
                x: gpu.bytes(&encode(self.element, &x), self.offset).at,
                y: y.at,
                scratch: gpu.room(group_norm_scratch(self.channels, self.groups), 0).scratch(),
            };
            gpu.run(norm.launches());
            gpu.get(self.element, &y)
        });
        let expected = self.reference(&x, [&weight, &bias], [&scale, &shift]);
        close(&what, self.element, &found, &expected, 3e-6 * (1.0 + 4.0 * f64::from(self.mean)));
    }

    /// Mean and one over the deviation of a group.
    fn measure(&self, x: &[f32], group: usize) -> (f64, f64) {
        let (channels, width) = (self.channels as usize, (self.channels / self.groups) as usize);
        let values: Vec<f64> = x
            .chunks(channels)
            .flat_map(|pixel| pixel[group * width..][..width].iter().map(|v| f64::from(*v)))
            .collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / values.len() as f64;
        (mean, 1.0 / (variance + 1e-6).sqrt())
    }

    fn reference(&self, x: &[f32], [weight, bias]: [&[f32]; 2], grids: [&[f32]; 2]) -> Vec<f64> {
        let (channels, width) = (self.channels as usize, (self.channels / self.groups) as usize);
        let stats: Vec<(f64, f64)> = (0..self.groups as usize).map(|group| self.measure(x, group)).collect();
        let value = |(i, value): (usize, &f32)| {
            let (place, channel) = (i / channels, i % channels);
            let (mean, factor) = stats[channel / width];
            let mut y = (f64::from(*value) - mean) * factor * f64::from(weight[channel]) + f64::from(bias[channel]);
            if self.grid.is_some() {
                let at = self.grid_place(place as u64) as usize * channels + channel;
                y = y * f64::from(grids[0][at]) + f64::from(grids[1][at]);
            }
            activated(ACTIVATIONS[usize::from(self.silu)], y)
        };
        x.iter().enumerate().map(value).collect()
    }

    /// The place of the grid that a place of `x` reads.
    fn grid_place(&self, place: u64) -> u64 {
        let ([frames, height, width], [gf, gh, gw]) = (self.extent, self.grid.unwrap_or([1; 3]));
        let (t, h, w) = (place / width / height, place / width % height, place % width);
        let odd = frames > 1 && frames % 2 == 1 && gf > 1;
        let frame = match (odd, t) {
            (false, _) => t * gf / frames,
            (true, 0) => 0,
            (true, _) => 1 + (t - 1) * (gf - 1) / (frames - 1),
        };
        (frame * gh + h * gh / height) * gw + w * gw / width
    }
}

#[test]
fn norms_of_groups() {
    let gpu = Gpu::start();
    for element in ELEMENTS {
        for (extent, channels, groups) in
            [([1, 1, 1], 4, 2), ([1, 3, 5], 32, 32), ([3, 9, 7], 24, 3), ([2, 40, 50], 16, 4), ([1, 5, 13], 7, 1)]
        {
            Groups::new(element, extent, channels, groups).check(&gpu);
            Groups { silu: true, ..Groups::new(element, extent, channels, groups) }.check(&gpu);
        }
        // More positions than pieces of the least size.
        gpu.in_one_order(|gpu| Groups::new(element, [2, 150, 120], 8, 2).check(gpu));
        for (extent, grid) in
            [([5, 8, 12], [2, 4, 6]), ([5, 8, 12], [1, 2, 3]), ([4, 6, 6], [2, 3, 6]), ([9, 4, 4], [3, 2, 2])]
        {
            Groups { grid: Some(grid), silu: true, ..Groups::new(element, extent, 16, 4) }.check(&gpu);
            Groups { grid: Some(grid), ..Groups::new(element, extent, 6, 3) }.check(&gpu);
        }
        Groups { offset: element.bytes() as usize, ..Groups::new(element, [1, 4, 4], 16, 4) }.check(&gpu);
        Groups { mean: 30.0, ..Groups::new(element, [2, 40, 50], 16, 4) }.check(&gpu);
    }
    gpu.has_run_all_of(&["groups"]);
}

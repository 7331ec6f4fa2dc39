//! Attention.

use loadline_cuda::kernels::{Attention, Element};

use crate::gpu::Gpu;
use crate::numbers::{Chance, ELEMENTS, close, encode, round};

#[derive(Clone, Copy)]
struct Case {
    element: Element,
    queries: u64,
    keys: u64,
    heads: u64,
    dim: u64,
    visible: u64,
    causal: bool,
    bias: bool,
    offset: usize,
    /// What queries and keys are multiplied by; large ones make the softmax sharp.
    size: f32,
}

impl Case {
    fn new(element: Element, [queries, keys, heads, dim]: [u64; 4]) -> Self {
        let (causal, bias) = (false, false);
        Self { element, queries, keys, heads, dim, visible: keys, causal, bias, offset: 0, size: 1.0 }
    }

    fn what(&self) -> String {
        let Self { element, queries, keys, heads, dim, visible, causal, bias, .. } = self;
        format!("attention {element:?} {queries} {keys}/{visible} {heads} x {dim}, causal {causal}, bias {bias}")
    }

    fn tensor(&self, positions: u64, size: f32, chance: &mut Chance) -> Vec<f32> {
        let values = chance.values(self.element, positions * self.heads * self.dim);
        values.into_iter().map(|value| round(self.element, value * size)).collect()
    }

    fn check(&self, gpu: &Gpu) {
        let mut chance = Chance::new(self.queries + self.dim);
        let q = self.tensor(self.queries, self.size, &mut chance);
        let [k, v] = [self.size, 1.0].map(|size| self.tensor(self.keys, size, &mut chance));
        let table = self.bias.then(|| chance.values(Element::F32, self.heads * (self.queries + self.keys - 1)));
        let scale = (self.dim as f32).sqrt().recip();
        let found = gpu.compute(&self.what(), |gpu| {
            let place = |values: &[f32]| gpu.bytes(&encode(self.element, values), self.offset).at;
            let o = gpu.room(self.queries * self.heads * self.dim * self.element.bytes(), self.offset);
            let attention = Attention {
                element: self.element,
                queries: self.queries,
                keys: self.keys,
                heads: self.heads,
                dim: self.dim,
                scale,
                visible: self.visible,
                causal: self.causal,
                bias: table.as_ref().map(|table| gpu.floats(table)),
                q: place(&q),
                k: place(&k),
                v: place(&v),
                o: o.at,
            };
            gpu.run(attention.launches());
            gpu.get(self.element, &o)
        });
        let expected = self.reference(&q, &k, &v, table.as_deref(), f64::from(scale));
        // On the tensor cores the weights of the softmax are bf16.
        let slack = if self.element == Element::Bf16 { 4e-3 } else { 2e-6 };
        close(&self.what(), self.element, &found, &expected, slack);
    }

    fn reference(&self, q: &[f32], k: &[f32], v: &[f32], table: Option<&[f32]>, scale: f64) -> Vec<f64> {
        let places = (0..self.queries).flat_map(|query| (0..self.heads).map(move |head| (query, head)));
        places.flat_map(|(query, head)| self.row(query, head, [q, k, v], table, scale)).collect()
    }

    fn row(&self, query: u64, head: u64, [q, k, v]: [&[f32]; 3], table: Option<&[f32]>, scale: f64) -> Vec<f64> {
        let (heads, dim) = (self.heads, self.dim as usize);
        let of = |x: &'_ [f32], at: u64| -> Vec<f64> {
            x[(at * heads + head) as usize * dim..][..dim].iter().map(|value| f64::from(*value)).collect()
        };
        let limit = query + self.keys - self.queries.min(self.keys) + 1;
        let seen = if self.causal { self.visible.min(limit) } else { self.visible };
        let queried = of(q, query);
        let score = |key: u64| {
            let dot: f64 = of(k, key).iter().zip(&queried).map(|(a, b)| a * b).sum();
            let width = self.queries + self.keys - 1;
            let more =
                table.map_or(0.0, |table| f64::from(table[(head * width + key + self.queries - 1 - query) as usize]));
            dot * scale + more
        };
        let scores: Vec<f64> = (0..seen).map(score).collect();
        let most = scores.iter().copied().fold(f64::MIN, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mut out = vec![0.0; dim];
        for (key, weight) in weights.iter().enumerate() {
            out.iter_mut().zip(of(v, key as u64)).for_each(|(o, value)| *o += weight / total * value);
        }
        out
    }
}

/// Masks of every kind, on sizes around those of tiles.
fn masked(gpu: &Gpu, element: Element, dim: u64) {
    for sizes in [[1, 1, 1, dim], [5, 33, 2, dim], [130, 70, 2, dim], [64, 64, 1, dim], [200, 129, 1, dim]] {
        let case = Case::new(element, sizes);
        case.check(gpu);
        Case { bias: true, ..case }.check(gpu);
        Case { visible: sizes[1].div_ceil(2), ..case }.check(gpu);
        Case { visible: 1, bias: true, ..case }.check(gpu);
    }
    for (queries, keys) in [(70, 70), (3, 131), (129, 200)] {
        let case = Case { causal: true, ..Case::new(element, [queries, keys, 2, dim]) };
        case.check(gpu);
        Case { bias: true, visible: keys - 1, ..case }.check(gpu);
    }
    // Scores far apart, as trained queries and keys have them.
    Case { size: 6.0, ..Case::new(element, [40, 150, 1, dim]) }.check(gpu);
}

#[test]
fn attention() {
    let gpu = Gpu::start();
    for dim in [64, 96, 128] {
        masked(&gpu, Element::Bf16, dim);
    }
    for dim in [8, 40, 72, 88, 104, 120] {
        Case::new(Element::Bf16, [37, 50, 3, dim]).check(&gpu);
    }
    masked(&gpu, Element::F32, 20);
    for element in ELEMENTS {
        for dim in [1, 7, 33, 127, 128, 129, 200, 384, 513] {
            Case::new(element, [21, 67, 2, dim]).check(&gpu);
        }
        // Operands that are not aligned.
        Case { offset: element.bytes() as usize, ..Case::new(element, [20, 40, 2, 64]) }.check(&gpu);
        Case { causal: true, bias: true, ..Case::new(element, [66, 66, 1, 384]) }.check(&gpu);
    }
    gpu.has_run_all_of(&["attention_bf16", "attention_plain"]);
}

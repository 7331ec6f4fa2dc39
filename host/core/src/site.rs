//! Operations by name and shape, and how long recorded ones take.
//!
//! A table holds the measured times of one operation in one type over scattered shapes. Between them a time is the
//! product of two things: a sum of terms that grow with the shape as the work does (fitted to the table), and a
//! correction that is interpolated from the nearest measured shapes, so that each of these is given back exactly.

use serde::{Deserialize, Serialize};

use crate::dtype::DType;
use crate::forecast::Estimate;
use crate::job::OpCost;
use crate::machine::Quantiles;

macro_rules! operations {
    ($($(#[$doc:meta])* $variant:ident $name:literal $dims:literal,)*) => {
        /// An operation of the op layer. What its dimensions are is said with each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Op {
            $($(#[$doc])* #[doc = concat!(" Dimensions: ", $dims, ".")] #[serde(rename = $name)] $variant,)*
        }

        impl Op {
            /// Every operation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name in profiles and errors.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// What the dimensions of a site are.
            #[must_use]
            pub const fn dimensions(self) -> &'static str {
                match self { $(Self::$variant => $dims),* }
            }
        }
    };
}

operations! {
    /// A matrix product with bias.
    Linear "linear" "rows, outputs, inputs",
    /// A matrix product with bias and a nonlinearity.
    LinearActivated "linear-activated" "rows, outputs, inputs",
    /// A convolution.
    Conv "conv" "output positions, input channels, output channels, taps",
    /// Attention.
    Attention "attention" "queries, keys, heads, channels of a head",
    /// Attention with a term for each offset added to its logits.
    AttentionBiased "attention-biased" "queries, keys, heads, channels of a head",
    /// Layer norm with what is fused into it.
    LayerNorm "layer-norm" "rows, channels",
    /// Root-mean-square norm.
    RmsNorm "rms-norm" "rows, channels",
    /// The same in place.
    RmsNormAssign "rms-norm-assign" "rows, channels",
    /// The causal VAE's norm over channels.
    ChannelNorm "channel-norm" "rows, channels",
    /// The same in place.
    ChannelNormAssign "channel-norm-assign" "rows, channels",
    /// Group norm.
    GroupNorm "group-norm" "positions, channels, groups",
    /// Group norm under two grids.
    SpatialNorm "spatial-norm" "bytes",
    /// A sum in place.
    Add "add" "bytes",
    /// A sum with a gate, in place.
    GatedAdd "gated-add" "bytes",
    /// A product in place.
    Mul "mul" "bytes",
    /// A nonlinearity in place.
    Activation "activation" "bytes",
    /// A factor and a summand for each channel.
    ChannelAffine "channel-affine" "bytes",
    /// Clamping in place.
    Clamp "clamp" "bytes",
    /// Rotary embedding in place.
    Rope "rope" "bytes",
    /// A sum of tensors with coefficients.
    Combine "combine" "bytes",
    /// Nearest-neighbour doubling.
    Upsample "upsample" "bytes",
    /// Axes in another order.
    Permute "permute" "bytes",
    /// Another element type.
    Cast "cast" "bytes",
    /// Zero rows appended.
    PadRows "pad-rows" "bytes",
    /// The relative bias of T5.
    RelativeBias "relative-bias" "bytes",
    /// Channels repeated.
    RepeatChannels "repeat-channels" "bytes",
    /// Means of neighbouring channels.
    MeanChannels "mean-channels" "bytes",
    /// A part of a video.
    Crop "crop" "bytes",
    /// Tensors one after the other.
    Concat "concat" "bytes",
    /// Tensors side by side.
    ConcatChannels "concat-channels" "bytes",
    /// A weight as activations.
    WeightPlus "weight-plus" "bytes",
    /// Values that the host writes.
    Filled "filled" "bytes",
    /// Values that the host reads.
    ToHost "to-host" "bytes",
    /// A copy of rows.
    Rows "rows" "bytes",
}

/// An operation, the type of its weights and its dimensions; those that an operation does not have are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Site {
    /// The operation.
    pub op: Op,
    /// The type of its weights, or of its operands where it has none.
    pub weight: DType,
    /// Its dimensions, see [`Op`].
    pub dims: [u64; 4],
}

impl Site {
    /// The number of weights of a linear layer; nothing for operations whose weights are not packed.
    #[must_use]
    pub const fn weights(&self) -> u64 {
        match self.op {
            Op::Linear | Op::LinearActivated => self.dims[1].saturating_mul(self.dims[2]),
            _ => 0,
        }
    }
}

/// The measured time of one shape.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SitePoint {
    /// The dimensions.
    pub dims: [u64; 4],
    /// Nanoseconds of one call; `p10` is the fast end.
    pub time_ns: Quantiles,
}

/// More work takes no less time, but a disturbance of a few milliseconds can make it look so by half.
const TIME_LEAST: f64 = 0.5;

impl SitePoint {
    /// The smaller and the larger of two shapes if their times cannot both be true: a shape that is at least as large
    /// in every size takes no less time. Shapes that trade one size for another may.
    #[must_use]
    pub fn contradiction<'a>(&'a self, other: &'a Self) -> Option<(&'a Self, &'a Self)> {
        let within = |x: &Self, y: &Self| x.dims != y.dims && x.dims.iter().zip(&y.dims).all(|(x, y)| x <= y);
        let (small, large) = match (within(self, other), within(other, self)) {
            (true, _) => (self, other),
            (_, true) => (other, self),
            _ => return None,
        };
        (large.time_ns.p50 < TIME_LEAST * small.time_ns.p50).then_some((small, large))
    }
}

/// Measured times of one operation in one type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SiteTable {
    op: Op,
    dtype: DType,
    weight: DType,
    points: Vec<SitePoint>,
    /// Output channels are computed in groups of so many, and a part of a group takes as long as a whole one.
    tile: u64,
    /// Factors of [`terms`], in nanoseconds.
    factors: [f64; TERMS],
}

const TERMS: usize = 5;
/// Widths of register tiles and of matrix units; which one a kernel has shows in its times.
const TILES: [u64; 6] = [1, 8, 16, 32, 64, 128];
/// So many of the nearest measured shapes correct a time.
const NEIGHBOURS: usize = 6;
/// The fit converges in a few dozen sweeps.
const SWEEPS: usize = 200;

impl SiteTable {
    /// A table of one operation, its arithmetic's type and its weights' type; there must be a point.
    #[must_use]
    pub fn new(op: Op, dtype: DType, weight: DType, points: Vec<SitePoint>) -> Self {
        let (tile, factors) = TILES
            .iter()
            .map(|tile| (*tile, fit(op, *tile, &points)))
            .min_by(|a, b| residual(op, a, &points).total_cmp(&residual(op, b, &points)))
            .unwrap_or((1, [0.0; TERMS]));
        Self { op, dtype, weight, points, tile, factors }
    }

    /// Whether the table is for such operations.
    #[must_use]
    pub fn covers(&self, cost: &OpCost) -> bool {
        (self.op, self.dtype, self.weight) == (cost.site.op, cost.dtype, cost.site.weight)
    }

    /// Nanoseconds of one call.
    #[must_use]
    pub fn time_ns(&self, site: &Site, estimate: Estimate) -> f64 {
        let (mut weights, mut sum) = (0.0, 0.0);
        for (distance, point) in self.nearest(&site.dims) {
            let measured = point.time_ns.time(estimate);
            if distance == 0.0 {
                return measured;
            }
            let weight = distance.powi(-2);
            weights += weight;
            sum += weight * (measured / self.fitted(&point.dims)).ln();
        }
        self.fitted(&site.dims) * if weights > 0.0 { (sum / weights).exp() } else { 1.0 }
    }

    /// The nearest points with their squared distance in powers of two.
    fn nearest(&self, dims: &[u64; 4]) -> Vec<(f64, &SitePoint)> {
        let mut all: Vec<_> = self.points.iter().map(|point| (distance(dims, &point.dims), point)).collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        all.truncate(NEIGHBOURS);
        all
    }

    fn fitted(&self, dims: &[u64; 4]) -> f64 {
        terms(self.op, self.tile, dims)
            .iter()
            .zip(self.factors)
            .map(|(term, factor)| term * factor)
            .sum::<f64>()
            .max(1.0)
    }
}

fn distance(a: &[u64; 4], b: &[u64; 4]) -> f64 {
    let log = |n: u64| (n.max(1) as f64).log2();
    a.iter().zip(b).map(|(a, b)| (log(*a) - log(*b)).powi(2)).sum()
}

/// What the time of an operation is a sum of: a start, its arithmetic, and passes over each of its operands.
fn terms(op: Op, tile: u64, dims: &[u64; 4]) -> [f64; TERMS] {
    let [a, b, c, d] = dims.map(|n| n as f64);
    let whole = |n: u64| (n as f64 / tile as f64).ceil() * tile as f64;
    match op {
        Op::Linear | Op::LinearActivated => [1.0, a * whole(dims[1]) * c, b * c, a * c, a * b],
        Op::Conv => [1.0, a * b * whole(dims[2]) * d, b * c * d, a * b, a * c],
        Op::Attention | Op::AttentionBiased => [1.0, a * b * c * d, a * b * c, a * c * d, b * c * d],
        Op::LayerNorm | Op::RmsNorm | Op::RmsNormAssign | Op::ChannelNorm | Op::ChannelNormAssign => {
            [1.0, a * b, a, 0.0, 0.0]
        }
        Op::GroupNorm => [1.0, a * b, 0.0, 0.0, 0.0],
        _ => [1.0, a, 0.0, 0.0, 0.0],
    }
}

/// The terms of each point as shares of its time.
fn relative(op: Op, tile: u64, points: &[SitePoint]) -> Vec<[f64; TERMS]> {
    points.iter().map(|p| terms(op, tile, &p.dims).map(|term| term / p.time_ns.p50.max(1.0))).collect()
}

/// The sum of the squares of the relative errors.
fn residual(op: Op, (tile, factors): &(u64, [f64; TERMS]), points: &[SitePoint]) -> f64 {
    let sum = |row: [f64; TERMS]| row.iter().zip(factors).map(|(r, f)| r * f).sum::<f64>();
    relative(op, *tile, points).into_iter().map(|row| (1.0 - sum(row)).powi(2)).sum()
}

/// Factors that are not negative and minimise the squares of the relative errors: coordinate descent on the normal
/// equations, which never increases the sum.
fn fit(op: Op, tile: u64, points: &[SitePoint]) -> [f64; TERMS] {
    let rows = relative(op, tile, points);
    let mut factors = [0.0; TERMS];
    for _ in 0..SWEEPS {
        for j in 0..TERMS {
            let square: f64 = rows.iter().map(|row| row[j] * row[j]).sum();
            if square > 0.0 {
                let sum = |row: &[f64; TERMS]| row.iter().zip(factors).map(|(r, f)| r * f).sum::<f64>();
                let slope: f64 = rows.iter().map(|row| row[j] * (1.0 - sum(row))).sum();
                factors[j] = (factors[j] + slope / square).max(0.0);
            }
        }
    }
    factors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(time: impl Fn(f64, f64, f64) -> f64) -> SiteTable {
        let sizes = [8u64, 64, 512, 4096];
        let mut points = Vec::new();
        for m in sizes {
            for n in sizes {
                for k in sizes {
                    let time_ns = Quantiles::exactly(time(m as f64, n as f64, k as f64));
                    points.push(SitePoint { dims: [m, n, k, 0], time_ns });
                }
            }
        }
        SiteTable::new(Op::Linear, DType::F32, DType::F32, points)
    }

    fn at(table: &SiteTable, dims: [u64; 4]) -> f64 {
        table.time_ns(&Site { op: Op::Linear, weight: DType::F32, dims }, Estimate::Median)
    }

    #[test]
    fn measured_shapes_are_given_back_exactly() {
        let odd = |m: f64, n: f64, k: f64| 777.0 + m * n * k / 50.0 * if m > 100.0 { 1.0 } else { 2.5 };
        let table = table(odd);
        assert_eq!(at(&table, [64, 512, 8, 0]), odd(64.0, 512.0, 8.0));
        assert_eq!(at(&table, [4096, 8, 64, 0]), odd(4096.0, 8.0, 64.0));
    }

    #[test]
    fn shapes_between_follow_the_work() {
        let smooth = |m: f64, n: f64, k: f64| 2000.0 + m * n * k / 60.0 + n * k / 4.0 + m * k / 8.0;
        let table = table(smooth);
        for dims in [[100, 1536, 256, 0], [1560, 1536, 1536, 0], [20_000, 5120, 1536, 0]] {
            let [m, n, k, _] = dims.map(|d| d as f64);
            let (got, expected) = (at(&table, dims), smooth(m, n, k));
            assert!((got / expected - 1.0).abs() < 0.02, "{dims:?}: {got} instead of {expected}");
        }
    }

    #[test]
    fn the_width_of_tiles_shows_in_the_times() {
        let padded = |channels: u64| channels.next_multiple_of(32) as f64;
        let time = |positions: u64, cout: u64| 900.0 + positions as f64 * 64.0 * padded(cout) * 27.0 / 80.0;
        let point = |positions, cout| SitePoint {
            dims: [positions, 64, cout, 27],
            time_ns: Quantiles::exactly(time(positions, cout)),
        };
        let sizes = [64, 1024, 16_384];
        let points = sizes.iter().flat_map(|p| [3, 24, 32, 64, 96, 192].map(|c| point(*p, c))).collect();
        let table = SiteTable::new(Op::Conv, DType::F32, DType::F32, points);
        let site = Site { op: Op::Conv, weight: DType::F32, dims: [4096, 64, 40, 27] };
        let got = table.time_ns(&site, Estimate::Median);
        assert!((got / time(4096, 40) - 1.0).abs() < 0.02, "{got} instead of {}", time(4096, 40));
    }

    #[test]
    fn the_estimate_picks_the_quantile() {
        let time_ns = Quantiles { p10: 9.0, p50: 10.0, p90: 12.0 };
        let table = SiteTable::new(Op::Add, DType::F32, DType::F32, vec![SitePoint { dims: [8, 0, 0, 0], time_ns }]);
        let site = Site { op: Op::Add, weight: DType::F32, dims: [8, 0, 0, 0] };
        assert_eq!(table.time_ns(&site, Estimate::Fast), 9.0);
        assert_eq!(table.time_ns(&site, Estimate::Slow), 12.0);
    }
}

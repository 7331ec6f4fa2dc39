//! Norms: of rows, and of groups of channels.

use crate::driver::{Args, DevicePtr};

use super::launch::{Launch, with};
use super::linear::{check_bias, scratch_for, sides};
use super::name::Name;
use super::operand::{Element, Misfit, Packed, PerRow, Scratch, Weight, aligned, narrow, require};

/// Rows up to this many channels are a warp's, longer ones a block's.
const WARP_COLS: u64 = 512;
/// The most shared memory that needs no permission.
const SHARED_FREE: u64 = 48 << 10;

/// Which norm of a row.
#[derive(Clone, Copy, Debug)]
pub enum RowNormKind {
    /// `(x - mean) / sqrt(variance + eps)`, then `* weight + bias`, then `* (1 + scale) + shift`, each where it is
    /// given.
    Layer {
        /// Added to the variance.
        eps: f32,
        /// `[channels]`.
        affine: Option<(Weight, Weight)>,
        /// Scale, then shift: f32 `[channels]` or `[rows, channels]`.
        modulation: Option<(PerRow, PerRow)>,
    },
    /// `x / sqrt(mean(x^2) + eps) * weight`.
    Rms {
        /// Added to the mean.
        eps: f32,
        /// `[channels]`.
        weight: Weight,
    },
    /// `x / max(|x|, 1e-12) * sqrt(channels) * gamma`, then SiLU if wanted.
    L2 {
        /// `[channels]`.
        gamma: Weight,
        /// Whether SiLU follows.
        silu: bool,
    },
}

/// A norm of each row of `x[rows, channels]` into `y`, which may be `x`. It needs no scratch.
#[derive(Clone, Copy, Debug)]
pub struct RowNorm {
    /// The type of `x` and `y`.
    pub element: Element,
    /// Rows.
    pub rows: u64,
    /// Channels.
    pub channels: u64,
    /// Which norm.
    pub kind: RowNormKind,
    /// `[rows, channels]`.
    pub x: DevicePtr,
    /// `[rows, channels]`.
    pub y: DevicePtr,
}

impl RowNorm {
    const KERNEL: &'static str = "norm";

    /// What is to be launched.
    ///
    /// # Errors
    /// If the operands do not fit together.
    pub fn launches(&self) -> Result<Vec<Launch>, Misfit> {
        require(Self::KERNEL, self.channels > 0, || "rows must not be empty".into())?;
        if self.rows == 0 {
            return Ok(Vec::new());
        }
        let warp = self.channels <= WARP_COLS;
        let name = match warp {
            true => self.element.of(Name::NormWarpF32, Name::NormWarpBf16),
            false => self.element.of(Name::NormBlockF32, Name::NormBlockBf16),
        };
        let rows_each = if warp { 8 } else { 1 };
        let kept = 32 + rows_each * self.channels * 4;
        let fits = kept <= SHARED_FREE;
        let shared = if fits { kept as u32 } else { 32 };
        let blocks = narrow(Self::KERNEL, self.rows.div_ceil(rows_each))?;
        let args = with(Args::new(), self.packed(fits)?);
        Ok(vec![Launch::new(name, [blocks, 1, 1], 256, shared, args)])
    }

    fn packed(&self, kept: bool) -> Result<Packed, Misfit> {
        let (code, weight, bias, modulation, eps, silu) = match self.kind {
            RowNormKind::Layer { eps, affine, modulation } => {
                (0, affine.map(|a| a.0), affine.map(|a| a.1), modulation, eps, false)
            }
            RowNormKind::Rms { eps, weight } => (1, Some(weight), None, None, eps, false),
            RowNormKind::L2 { gamma, silu } => (2, Some(gamma), None, None, 0.0, silu),
        };
        check_bias(Self::KERNEL, weight, self.channels)?;
        check_bias(Self::KERNEL, bias, self.channels)?;
        let (scale, shift) = (modulation.map(|m| m.0), modulation.map(|m| m.1));
        let each = |rows: Option<PerRow>| u32::from(rows.is_some_and(|rows| rows.each));
        let [_, rows, cols] = sides(Self::KERNEL, [0, self.rows, self.channels])?;
        let runs = self.channels.is_multiple_of(self.element.run()) && aligned(self.x) && aligned(self.y);
        let packed = Packed::default().ptr(self.x).ptr(self.y).weight(weight).weight(bias);
        let packed = packed.maybe(scale.map(|s| s.at)).maybe(shift.map(|s| s.at));
        let packed = packed.u32(each(scale)).u32(each(shift)).u32(rows).u32(cols);
        Ok(packed.u32(code).u32(u32::from(silu)).f32(eps).u32(u32::from(kept)).u32(u32::from(runs)))
    }
}

/// The most pieces that positions are cut into, and the fewest positions of one that is not the last.
const PIECES: u64 = 512;
const PIECE: u64 = 64;

/// Two grids `[frames, height, width, channels]` that are stretched to `x` by taking the nearest.
///
/// The element at `i` of an axis reads the grid at `i * grid / x`, rounded down. Where `x` has an odd number of frames
/// above one and the grid has more than one, its first frame reads the grid's first, and the others the rest of the
/// grid.
#[derive(Clone, Copy, Debug)]
pub struct Spatial {
    /// Multiplied.
    pub scale: DevicePtr,
    /// Added.
    pub shift: DevicePtr,
    /// Frames, height and width of both.
    pub extent: [u64; 3],
}

/// Group norm of `x[frames, height, width, channels]` into `y`: one mean and variance for each group of channels over
/// all positions, then weight and bias, then the grids, then SiLU where wanted.
#[derive(Clone, Copy, Debug)]
pub struct GroupNorm {
    /// The type of `x`, `y` and the grids.
    pub element: Element,
    /// Frames, height and width; what has no such axes has ones.
    pub extent: [u64; 3],
    /// Channels, a multiple of the groups.
    pub channels: u64,
    /// Groups of neighbouring channels.
    pub groups: u64,
    /// Added to the variance.
    pub eps: f32,
    /// `[channels]` each.
    pub affine: (Weight, Weight),
    /// The grids.
    pub spatial: Option<Spatial>,
    /// Whether SiLU follows.
    pub silu: bool,
    /// `[frames, height, width, channels]`.
    pub x: DevicePtr,
    /// The same.
    pub y: DevicePtr,
    /// At least [`group_norm_scratch`] bytes.
    pub scratch: Option<Scratch>,
}

/// Bytes of scratch of a [`GroupNorm`] with or without grids: statistics of the pieces, and two floats a channel. They
/// depend on channels and groups alone, so that one piece of memory of that size serves every norm of a model.
#[must_use]
pub fn group_norm_scratch(channels: u64, groups: u64) -> u64 {
    stats_bytes(groups) + channels * 2 * 4
}

fn stats_bytes(groups: u64) -> u64 {
    (PIECES * groups * 2 * 4).next_multiple_of(16)
}

impl GroupNorm {
    const KERNEL: &'static str = "group-norm";

    /// What is to be launched.
    ///
    /// # Errors
    /// If the operands do not fit together.
    pub fn launches(&self) -> Result<Vec<Launch>, Misfit> {
        let fits = self.groups > 0 && self.channels > 0 && self.channels.is_multiple_of(self.groups);
        require(Self::KERNEL, fits, || format!("{} channels in {} groups", self.channels, self.groups))?;
        check_bias(Self::KERNEL, Some(self.affine.0), self.channels)?;
        check_bias(Self::KERNEL, Some(self.affine.1), self.channels)?;
        if self.positions() == 0 {
            return Ok(Vec::new());
        }
        let stats = scratch_for(Self::KERNEL, self.scratch, group_norm_scratch(self.channels, self.groups))?;
        let affine = stats.offset(stats_bytes(self.groups));
        Ok(vec![self.measure(stats)?, self.join(stats, affine)?, self.apply(affine)?])
    }

    fn positions(&self) -> u64 {
        self.extent.iter().product()
    }

    fn piece(&self) -> u64 {
        self.positions().div_ceil(PIECES).max(PIECE)
    }

    fn sizes(&self) -> Result<[u32; 4], Misfit> {
        let [positions, channels, groups] = sides(Self::KERNEL, [self.positions(), self.channels, self.groups])?;
        Ok([positions, channels, groups, narrow(Self::KERNEL, self.piece() * self.channels / self.groups)?])
    }

    fn measure(&self, stats: DevicePtr) -> Result<Launch, Misfit> {
        let [positions, channels, groups, _] = self.sizes()?;
        let packed = Packed::default().ptr(self.x).ptr(stats);
        let packed = packed.u32(positions).u32(channels).u32(groups).u32(self.piece() as u32);
        let name = self.element.of(Name::GroupMeasureF32, Name::GroupMeasureBf16);
        let pieces = self.positions().div_ceil(self.piece()) as u32;
        Ok(Launch::new(name, [groups, pieces, 1], 256, 256 * 4, with(Args::new(), packed)))
    }

    fn join(&self, stats: DevicePtr, affine: DevicePtr) -> Result<Launch, Misfit> {
        let [positions, channels, groups, _] = self.sizes()?;
        let packed = Packed::default().ptr(stats).weight(Some(self.affine.0)).weight(Some(self.affine.1)).ptr(affine);
        let packed = packed.u32(positions).u32(channels).u32(groups).u32(self.piece() as u32);
        let packed = packed.u32(self.positions().div_ceil(self.piece()) as u32).f32(self.eps);
        Ok(Launch::new(Name::GroupJoin, [channels.div_ceil(128), 1, 1], 128, 0, with(Args::new(), packed)))
    }

    fn apply(&self, affine: DevicePtr) -> Result<Launch, Misfit> {
        let grid = self.spatial.map_or([1; 3], |s| s.extent);
        let inside = (0..3).all(|i| (1..=self.extent[i]).contains(&grid[i]));
        require(Self::KERNEL, inside, || format!("a grid of {grid:?} for {:?}", self.extent))?;
        let (scale, shift) = (self.spatial.map(|s| s.scale), self.spatial.map(|s| s.shift));
        let whole = self.channels.is_multiple_of(self.element.run());
        let places = [Some(self.x), Some(self.y), scale, shift];
        let runs = whole && places.into_iter().flatten().all(aligned);
        let mut packed = Packed::default().ptr(self.x).ptr(self.y).ptr(affine).maybe(scale).maybe(shift);
        for size in sides(Self::KERNEL, grid)? {
            packed = packed.u32(size);
        }
        // The grid is a structure of its own, and ends where its addresses' alignment wants it.
        packed = packed.u32(0);
        for size in sides(Self::KERNEL, self.extent)? {
            packed = packed.u32(size);
        }
        packed = packed.u32(narrow(Self::KERNEL, self.channels)?).u32(u32::from(self.silu)).u32(u32::from(runs));
        let name = self.element.of(Name::GroupApplyF32, Name::GroupApplyBf16);
        let items = self.positions() * self.channels.div_ceil(self.element.run());
        Ok(Launch::over(name, items, with(Args::new(), packed)))
    }
}

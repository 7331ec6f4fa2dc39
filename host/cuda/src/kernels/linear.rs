//! Linear layers, and the products that convolutions become.

use crate::blas;
use crate::driver::{Args, DevicePtr};

use super::launch::{Launch, with};
use super::name::Name;
use super::operand::{Activation, Element, Misfit, Packed, Scratch, Stored, Weight, aligned, narrow, require};

/// With at most so many rows the weights are read once, as they are stored, and nothing of them is kept.
const FEW_ROWS: u64 = 8;
/// The most bytes of weights that are unpacked at a time, unless 256 rows of them take more.
const SLICE_BYTES: u64 = 32 << 20;
/// Slices are whole numbers of so many rows, so that blocks of stored weights stay whole.
const SLICE_ROWS: u64 = 256;
/// Tiles below which a product is cut into smaller ones, to give every multiprocessor some.
const TILES_FEW: u64 = 128;

/// `y[rows, outputs] = act(x[rows, inputs] w[outputs, inputs]^T + bias[outputs])`.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    /// The type of `x` and `y`.
    pub element: Element,
    /// Rows of `x` and `y`.
    pub rows: u64,
    /// Values of a row of `x`.
    pub inputs: u64,
    /// Values of a row of `y`.
    pub outputs: u64,
    /// `[rows, inputs]`.
    pub x: DevicePtr,
    /// `[outputs, inputs]`.
    pub w: Weight,
    /// `[outputs]`, of a type without blocks.
    pub bias: Option<Weight>,
    /// Applied to the sums.
    pub act: Activation,
    /// `[rows, outputs]`.
    pub y: DevicePtr,
    /// At least [`linear_scratch`] bytes, where that is not 0.
    pub scratch: Option<Scratch>,
}

/// Bytes of scratch of a [`Linear`]: weights of another type than the activations' are unpacked a slice at a time.
#[must_use]
pub fn linear_scratch(element: Element, rows: u64, inputs: u64, outputs: u64, stored: Stored) -> u64 {
    if rows <= FEW_ROWS && few_fits(stored, inputs) || stored.is(element) {
        return 0;
    }
    slice(element, outputs, inputs) * inputs * element.bytes()
}

/// Whether the kernel for few rows takes such weights: blocks are read eight values at a time.
fn few_fits(stored: Stored, inputs: u64) -> bool {
    !stored.in_blocks() || inputs.is_multiple_of(8)
}

/// Rows of weights that are unpacked at a time.
pub(super) fn slice(element: Element, outputs: u64, depth: u64) -> u64 {
    let row = (depth * element.bytes()).max(1);
    let fit = SLICE_BYTES / row / SLICE_ROWS * SLICE_ROWS;
    outputs.min(fit.max(SLICE_ROWS))
}

impl Linear {
    const KERNEL: &'static str = "linear";

    /// What is to be launched.
    ///
    /// # Errors
    /// If the operands do not fit together.
    pub fn launches(&self) -> Result<Vec<Launch>, Misfit> {
        self.check()?;
        if self.rows == 0 || self.outputs == 0 {
            return Ok(Vec::new());
        }
        let whole = !self.w.stored.in_blocks() || aligned(self.x);
        if self.rows <= FEW_ROWS && few_fits(self.w.stored, self.inputs) && whole {
            return Ok(vec![self.few()?]);
        }
        if self.w.stored.is(self.element) {
            return Ok(vec![self.product(0, self.outputs, self.w.at)?]);
        }
        self.slices()
    }

    /// Each slice of columns is multiplied before the next one's weights are unpacked over its own.
    fn slices(&self) -> Result<Vec<Launch>, Misfit> {
        let step = slice(self.element, self.outputs, self.inputs);
        let at = scratch_for(Self::KERNEL, self.scratch, step * self.inputs * self.element.bytes())?;
        let mut launches = Vec::new();
        for first in (0..self.outputs).step_by(step as usize) {
            let cols = step.min(self.outputs - first);
            let part = Unpack { w: self.w, first: first * self.inputs, elements: cols * self.inputs };
            launches.push(part.launch(self.element, at)?);
            launches.push(self.product(first, cols, at)?);
        }
        Ok(launches)
    }

    fn check(&self) -> Result<(), Misfit> {
        let (n, k) = (self.outputs, self.inputs);
        require(Self::KERNEL, k > 0, || "rows must not be empty".into())?;
        require(Self::KERNEL, self.w.elements == n * k, || {
            format!("{} weights for {n} outputs of {k} inputs", self.w.elements)
        })?;
        check_bias(Self::KERNEL, self.bias, n)
    }

    fn few(&self) -> Result<Launch, Misfit> {
        let [rows, cols, depth] = sides(Self::KERNEL, [self.rows, self.outputs, self.inputs])?;
        let whole = self.inputs.is_multiple_of(8) && aligned(self.x);
        let runs = whole && (aligned(self.w.at) || self.w.stored.in_blocks());
        let packed = Packed::default().ptr(self.x).ptr(self.y).weight(Some(self.w)).weight(self.bias);
        let packed = packed.u32(rows).u32(cols).u32(depth).u32(self.act as u32).u32(u32::from(runs));
        let name = self.element.of(Name::LinearFewF32, Name::LinearFewBf16);
        Ok(Launch::new(name, [cols.div_ceil(8), rows.div_ceil(4), 1], 256, 0, with(Args::new(), packed)))
    }

    fn product(&self, first: u64, cols: u64, w: DevicePtr) -> Result<Launch, Misfit> {
        let product = Product {
            element: self.element,
            rows: self.rows,
            depth: self.inputs,
            cols,
            stride: self.outputs,
            w,
            y: self.y.offset(first * self.element.bytes()),
            bias: self.bias,
            bias_first: first,
            act: self.act,
        };
        let (tile, odd) = (product.tile(false), !product.runs(aligned(self.x)));
        let e = self.element;
        let name = match tile {
            _ if odd => e.of(Name::LinearF32Odd, Name::LinearBf16Odd),
            Tile::Large => e.of(Name::LinearF32Large, Name::LinearBf16Large),
            Tile::Small | Tile::Narrow => e.of(Name::LinearF32Small, Name::LinearBf16Small),
        };
        let tile = if odd { Tile::Small } else { tile };
        let launch = product.launch(name, tile, Args::new().ptr(self.x))?;
        Ok(Launch { product: if odd { None } else { product.dense(self.x) }, ..launch })
    }
}

/// How large a block's share of a product is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tile {
    Large,
    Small,
    Narrow,
}

impl Tile {
    /// Rows and columns.
    fn sides(self, element: Element) -> [u64; 2] {
        match self {
            Self::Large => [128, element.of(64, 128)],
            Self::Small => [64, 64],
            Self::Narrow => [128, 32],
        }
    }

    fn threads(self) -> u32 {
        if self == Self::Large { 256 } else { 128 }
    }

    /// Three stages of 64 bytes a row of both operands.
    fn shared(self, element: Element) -> u32 {
        let [rows, cols] = self.sides(element);
        (3 * 64 * (rows + cols)) as u32
    }

    fn count(self, element: Element, rows: u64, cols: u64) -> u64 {
        let [high, wide] = self.sides(element);
        rows.div_ceil(high) * cols.div_ceil(wide)
    }
}

/// A product of rows with the dense rows of weights in the activations' type.
pub(super) struct Product {
    pub(super) element: Element,
    pub(super) rows: u64,
    pub(super) cols: u64,
    pub(super) depth: u64,
    /// Values from one row of `y` to the next.
    pub(super) stride: u64,
    pub(super) w: DevicePtr,
    pub(super) y: DevicePtr,
    pub(super) bias: Option<Weight>,
    /// The bias of the first column.
    pub(super) bias_first: u64,
    pub(super) act: Activation,
}

impl Product {
    const KERNEL: &'static str = "product";

    /// The tile that suits its size.
    pub(super) fn tile(&self, narrow: bool) -> Tile {
        if narrow && self.cols <= 32 {
            return Tile::Narrow;
        }
        let large = Tile::Large.count(self.element, self.rows, self.cols);
        if large >= TILES_FEW { Tile::Large } else { Tile::Small }
    }

    /// Whether all rows of the weights, and those of an `aligned` left operand, are whole accesses of 16 bytes.
    pub(super) fn runs(&self, left: bool) -> bool {
        left && aligned(self.w) && self.depth.is_multiple_of(self.element.run())
    }

    /// The same product of a dense left operand, for a library that has a bias of the operands' type only.
    fn dense(&self, x: DevicePtr) -> Option<blas::Product> {
        let at = |bias: Weight| bias.at.offset(self.bias_first * self.element.bytes());
        let fits = self.bias.is_none_or(|bias| bias.stored.is(self.element) && aligned(at(bias)));
        let whole = aligned(self.y) && self.stride.is_multiple_of(self.element.run());
        (fits && whole).then_some(blas::Product {
            element: self.element,
            rows: self.rows,
            cols: self.cols,
            depth: self.depth,
            stride: self.stride,
            x,
            w: self.w,
            bias: self.bias.map(at),
            act: self.act,
            y: self.y,
        })
    }

    pub(super) fn launch(&self, name: Name, tile: Tile, args: Args) -> Result<Launch, Misfit> {
        let blocks = narrow(Self::KERNEL, tile.count(self.element, self.rows, self.cols))?;
        let [rows, cols, depth] = sides(Self::KERNEL, [self.rows, self.cols, self.depth])?;
        let [stride, bias_first] = [self.stride, self.bias_first].map(|size| narrow(Self::KERNEL, size));
        let packed = Packed::default().ptr(self.w).ptr(self.y).weight(self.bias).u32(bias_first?);
        let packed = packed.u32(rows).u32(cols).u32(depth).u32(stride?).u32(self.act as u32);
        let shared = tile.shared(self.element);
        Ok(Launch::new(name, [blocks, 1, 1], tile.threads(), shared, with(args, packed)))
    }
}

pub(super) fn sides(kernel: &'static str, sizes: [u64; 3]) -> Result<[u32; 3], Misfit> {
    Ok([narrow(kernel, sizes[0])?, narrow(kernel, sizes[1])?, narrow(kernel, sizes[2])?])
}

pub(super) fn check_bias(kernel: &'static str, bias: Option<Weight>, outputs: u64) -> Result<(), Misfit> {
    let Some(bias) = bias else { return Ok(()) };
    require(kernel, bias.elements == outputs, || format!("a bias of {} for {outputs} outputs", bias.elements))?;
    require(kernel, !bias.stored.in_blocks(), || format!("a bias stored as {:?}", bias.stored))
}

/// The scratch of a call that needs so many bytes.
pub(super) fn scratch_for(kernel: &'static str, scratch: Option<Scratch>, bytes: u64) -> Result<DevicePtr, Misfit> {
    let found = scratch.map_or(0, |scratch| scratch.bytes);
    let fits = scratch.filter(|scratch| scratch.bytes >= bytes && aligned(scratch.at));
    fits.map(|scratch| scratch.at).ok_or_else(|| Misfit {
        kernel,
        detail: format!("needs {bytes} bytes of scratch at a multiple of 16, has {found}"),
    })
}

/// Values of a stored tensor, from a multiple of eight on.
pub(super) struct Unpack {
    pub(super) w: Weight,
    pub(super) first: u64,
    pub(super) elements: u64,
}

impl Unpack {
    pub(super) fn launch(&self, element: Element, y: DevicePtr) -> Result<Launch, Misfit> {
        let inside = self.first + self.elements <= self.w.elements && self.first.is_multiple_of(8);
        require("unpack", inside, || format!("{} from {} of {}", self.elements, self.first, self.w.elements))?;
        let whole = !self.w.stored.in_blocks() || self.elements.is_multiple_of(8);
        require("unpack", whole, || format!("{} values of {:?}", self.elements, self.w.stored))?;
        let args = with(Args::new(), Packed::default().weight(Some(self.w)));
        let args = args.u64(self.first).ptr(y).u64(self.elements);
        let name = element.of(Name::UnpackF32, Name::UnpackBf16);
        Ok(Launch::over(name, self.elements.div_ceil(8), args))
    }
}

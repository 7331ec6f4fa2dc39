//! Attention.

use crate::driver::{Args, DevicePtr};

use super::launch::{Launch, with};
use super::linear::sides;
use super::name::Name;
use super::operand::{Element, Misfit, Packed, aligned, narrow, require};

/// The most shared memory that one of its kernels asks for.
pub(super) const SHARED_MOST: u32 = 64 << 10;

/// `o = softmax(scale * q k^T + bias) v` for each head, with `q` and `o` `[queries, heads, dim]`, `k` and `v`
/// `[keys, heads, dim]`. It needs no scratch.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// The type of all four tensors.
    pub element: Element,
    /// Query positions.
    pub queries: u64,
    /// Key positions.
    pub keys: u64,
    /// Heads.
    pub heads: u64,
    /// Values of a head.
    pub dim: u64,
    /// Multiplies the dot products.
    pub scale: f32,
    /// How many of the keys are seen at all, at least one.
    pub visible: u64,
    /// Whether query `i` sees only the keys up to `i + keys - queries`.
    pub causal: bool,
    /// f32 `[heads, queries + keys - 1]`, added for a query and a key at `key - query + queries - 1`.
    pub bias: Option<DevicePtr>,
    /// Queries.
    pub q: DevicePtr,
    /// Keys.
    pub k: DevicePtr,
    /// Values.
    pub v: DevicePtr,
    /// The result.
    pub o: DevicePtr,
}

impl Attention {
    const KERNEL: &'static str = "attention";

    /// What is to be launched.
    ///
    /// # Errors
    /// If the operands do not fit together.
    pub fn launches(&self) -> Result<Vec<Launch>, Misfit> {
        let seen = (1..=self.keys).contains(&self.visible) && self.dim > 0;
        require(Self::KERNEL, seen, || format!("{} of {} keys, heads of {}", self.visible, self.keys, self.dim))?;
        require(Self::KERNEL, !self.causal || self.keys >= self.queries, || {
            format!("{} queries see up to themselves, with {} keys", self.queries, self.keys)
        })?;
        if self.queries == 0 || self.heads == 0 {
            return Ok(Vec::new());
        }
        require(Self::KERNEL, self.heads < 1 << 16, || format!("{} heads", self.heads))?;
        if self.on_tensor_cores() { Ok(vec![self.flash()?]) } else { Ok(vec![self.plain()?]) }
    }

    fn on_tensor_cores(&self) -> bool {
        let whole = [self.q, self.k, self.v, self.o].into_iter().all(aligned) && self.dim.is_multiple_of(8);
        self.element == Element::Bf16 && whole && self.dim <= 128
    }

    fn flash(&self) -> Result<Launch, Misfit> {
        let (name, dim) = match self.dim {
            0..=64 => (Name::Attention64, 64),
            65..=96 => (Name::Attention96, 96),
            _ => (Name::Attention128, 128),
        };
        // 128 queries, and two stages of 32 keys and of 32 values, all bf16.
        let shared = (128 + 4 * 32) * dim * 2;
        let blocks = narrow(Self::KERNEL, self.queries.div_ceil(128))?;
        Ok(Launch::new(name, [blocks, self.heads as u32, 1], 128, shared, self.args()?))
    }

    fn plain(&self) -> Result<Launch, Misfit> {
        let wide = self.dim > 128;
        let name = match wide {
            false => self.element.of(Name::AttentionPlainF32, Name::AttentionPlainBf16),
            true => self.element.of(Name::AttentionWideF32, Name::AttentionWideBf16),
        };
        let columns = if wide { 512 } else { 128 };
        // Operands of 64 rows in pitches of 36 floats, weights in one of 68, and three numbers a query.
        let shared = (2 * 64 * 36 + 64 * 68 + 3 * 64) * 4;
        let blocks = narrow(Self::KERNEL, self.queries.div_ceil(64))?;
        let grid = [blocks, self.heads as u32, self.dim.div_ceil(columns) as u32];
        Ok(Launch::new(name, grid, 256, shared, self.args()?))
    }

    fn args(&self) -> Result<Args, Misfit> {
        let [queries, keys, visible] = sides(Self::KERNEL, [self.queries, self.keys, self.visible])?;
        let [_, heads, dim] = sides(Self::KERNEL, [0, self.heads, self.dim])?;
        let packed = Packed::default().ptr(self.q).ptr(self.k).ptr(self.v).ptr(self.o).maybe(self.bias);
        let packed = packed.u32(queries).u32(keys).u32(heads).u32(dim);
        let packed = packed.u32(visible).u32(u32::from(self.causal)).f32(self.scale);
        Ok(with(Args::new(), packed))
    }
}

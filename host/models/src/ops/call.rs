//! One operation with its operands, as a backend sees it.

use super::{Tensor, Weight};

/// A pointwise nonlinearity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x`.
    None,
    /// `x * sigmoid(x)`.
    Silu,
    /// GELU in its tanh form.
    GeluTanh,
    /// GELU in its exact form.
    GeluErf,
    /// `x * sigmoid(1.702 x)`, as CLIP has it.
    QuickGelu,
}

/// How a convolution walks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvSpec {
    /// Steps in time, height and width.
    pub stride: [usize; 3],
    /// Zeros at the top, bottom, left and right.
    pub pad: [usize; 4],
    /// Zero frames in front of the history and the input.
    pub pad_front: usize,
}

/// A term added to attention logits.
#[derive(Debug)]
pub enum Bias<'a, D> {
    /// Nothing.
    None,
    /// Keys after the query are invisible.
    Causal,
    /// `table[head, key - query + queries - 1]`, f32.
    Relative(&'a Tensor<D>),
}

/// `y = norm(x) * (1 + scale) + shift`, with f32 rows: one for all rows of `x`, or one each.
#[derive(Debug)]
pub struct Modulation<'a, D> {
    /// Added; f32 `[channels]` or `[rows, channels]`.
    pub shift: &'a Tensor<D>,
    /// Multiplied after adding one; as `shift`.
    pub scale: &'a Tensor<D>,
}

/// What a group norm of `[t, h, w, c]` is multiplied by and what is added then: two grids `[t', h', w', c]` that are
/// stretched to `x` by taking the nearest.
///
/// The element at `i` of an axis reads the grid at `i * grid / x`, rounded down. Where `x` has an odd number of frames
/// above 1, its first frame reads the grid's first, and the others the rest of the grid.
#[derive(Debug)]
pub struct Spatial<'a, D> {
    /// Multiplied.
    pub scale: &'a Tensor<D>,
    /// Added.
    pub shift: &'a Tensor<D>,
}

// Derived impls would ask that the data be `Copy`, though only references to it are copied.
macro_rules! copied {
    ($($name:ident),*) => {$(
        impl<D> Clone for $name<'_, D> {
            fn clone(&self) -> Self {
                *self
            }
        }
        impl<D> Copy for $name<'_, D> {}
    )*};
}
copied!(Bias, Modulation, Spatial);

/// One operation with its operands. Outputs are dense and row-major.
#[allow(missing_docs)] // the operands are named as in the formulas above them
pub enum Call<'a, D, W> {
    /// `act(x w^T + b)`.
    Linear { x: &'a Tensor<D>, w: &'a Weight<W>, b: Option<&'a Weight<W>>, act: Activation },
    /// Convolution of `history ++ x` with `w [cout, cin, kt, kh, kw]`.
    Conv {
        x: &'a Tensor<D>,
        history: Option<&'a Tensor<D>>,
        w: &'a Weight<W>,
        b: Option<&'a Weight<W>>,
        spec: ConvSpec,
        output: [usize; 4],
    },
    /// Attention of `q` over the first `visible` rows of `k` and `v`.
    Attention {
        q: &'a Tensor<D>,
        k: &'a Tensor<D>,
        v: &'a Tensor<D>,
        heads: usize,
        scale: f32,
        visible: usize,
        bias: Bias<'a, D>,
    },
    /// Layer norm with an optional affine part and an optional modulation.
    LayerNorm {
        x: &'a Tensor<D>,
        affine: Option<(&'a Weight<W>, &'a Weight<W>)>,
        eps: f32,
        modulation: Option<Modulation<'a, D>>,
    },
    /// `x * rsqrt(mean(x^2) + eps) * w`, into a new tensor.
    RmsNorm { x: &'a Tensor<D>, w: &'a Weight<W>, eps: f32 },
    /// The same in place.
    RmsNormAssign { x: &'a Tensor<D>, w: &'a Weight<W>, eps: f32 },
    /// `silu?(x / max(|x|, 1e-12) * sqrt(channels) * gamma)`, rows of channels.
    ChannelNorm { x: &'a Tensor<D>, gamma: &'a Weight<W>, silu: bool },
    /// The same in place.
    ChannelNormAssign { x: &'a Tensor<D>, gamma: &'a Weight<W>, silu: bool },
    /// Group norm over frames, height and width.
    GroupNorm { x: &'a Tensor<D>, w: &'a Weight<W>, b: &'a Weight<W>, groups: usize, eps: f32, silu: bool },
    /// `silu?(group_norm(x) * scale + shift)`, both stretched to `x`.
    SpatialNorm {
        x: &'a Tensor<D>,
        affine: (&'a Weight<W>, &'a Weight<W>),
        groups: usize,
        eps: f32,
        spatial: Spatial<'a, D>,
        silu: bool,
    },
    /// `x += y`.
    AddAssign { x: &'a Tensor<D>, y: &'a Tensor<D> },
    /// `x += y * gate`, gate f32 `[channels]` or `[rows, channels]`.
    GatedAddAssign { x: &'a Tensor<D>, y: &'a Tensor<D>, gate: &'a Tensor<D> },
    /// `x *= y`.
    MulAssign { x: &'a Tensor<D>, y: &'a Tensor<D> },
    /// `x = act(x)`.
    ActivateAssign { x: &'a Tensor<D>, act: Activation },
    /// `x = x * mul[channel] + add[channel]`, f32 host values.
    ChannelAffineAssign { x: &'a Tensor<D>, mul: &'a [f32], add: &'a [f32] },
    /// `x = clamp(x, low, high)`.
    ClampAssign { x: &'a Tensor<D>, low: f32, high: f32 },
    /// Rotates pairs `(2i, 2i+1)` of every head; `cos`, `sin` f32 `[rows, dim/2]`.
    RopeAssign { x: &'a Tensor<D>, cos: &'a Tensor<D>, sin: &'a Tensor<D>, heads: usize },
    /// Sum of f32 tensors with coefficients.
    Combine { terms: &'a [(f32, &'a Tensor<D>)] },
    /// `[t, h, w, c]` to `[t, 2h, 2w, c]`, nearest.
    Upsample { x: &'a Tensor<D> },
    /// `x` seen as `view`, its axes reordered.
    Permute { x: &'a Tensor<D>, view: &'a [usize], axes: &'a [usize] },
    /// Another element type.
    Cast { x: &'a Tensor<D>, dtype: loadline_core::DType },
    /// A copy of rows `start..start + len` of the slowest axis.
    Rows { x: &'a Tensor<D>, start: usize, len: usize },
    /// Every channel `times` times in a row.
    RepeatChannels { x: &'a Tensor<D>, times: usize },
    /// The mean of every `group` neighbouring channels.
    MeanChannels { x: &'a Tensor<D>, group: usize },
    /// `x` with zero rows appended up to `rows`.
    PadRows { x: &'a Tensor<D>, rows: usize },
    /// `table[head, i] = w[bucket[i], head]` as f32, the T5 relative bias.
    RelativeBias { w: &'a Weight<W>, buckets: &'a [u32] },
    /// Frames `start[0]..`, rows `start[1]..`, columns `start[2]..` of `[t, h, w, c]`, `size` of each.
    Crop { x: &'a Tensor<D>, start: [usize; 3], size: [usize; 3] },
    /// Tensors of equal rows, one after the other along the slowest axis.
    Concat { parts: &'a [&'a Tensor<D>] },
    /// Tensors of equally many rows, side by side: the channels of the first, then those of the next.
    ConcatChannels { parts: &'a [&'a Tensor<D>] },
    /// The weight as an f32 tensor plus `add` (of the same size) where given.
    WeightPlus { w: &'a Weight<W>, add: Option<&'a Tensor<D>> },
    /// An f32 tensor that the host fills.
    Filled { shape: &'a [usize], fill: &'a mut dyn FnMut(&mut [f32]) -> Result<(), String> },
    /// Sends an f32 or compute-type tensor to the host as f32.
    ToHost { x: &'a Tensor<D>, sink: &'a mut dyn FnMut(&[f32]) },
}

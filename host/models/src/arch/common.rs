//! Layers that several architectures have.

use crate::ops::{Activation, Backend, BlockWeights, ConvSpec, Modulation, OpError, Ops, Tensor, Weight};

/// What an operation gives.
pub(super) type Out<B> = Result<Tensor<<B as Backend>::Data>, OpError>;

/// Weight and bias of a norm.
pub(super) type Affine<'a, W> = (&'a Weight<W>, &'a Weight<W>);

/// A 3x3 convolution that keeps the picture's size.
pub(super) const SAME: ConvSpec = ConvSpec { stride: [1, 1, 1], pad: [1, 1, 1, 1], pad_front: 0 };

/// A 3x3 convolution that halves the picture, with zeros at the bottom and the right alone.
pub(super) const HALVE: ConvSpec = ConvSpec { stride: [1, 2, 2], pad: [0, 1, 0, 1], pad_front: 0 };

/// The layer `name`, with its bias where it has one.
pub(super) fn layer<B: Backend>(
    ops: &mut Ops<B>,
    weights: &BlockWeights<B::Weight>,
    name: &str,
    x: &Tensor<B::Data>,
    act: Activation,
) -> Out<B> {
    let bias = weights.optional(&format!("{name}.bias"));
    ops.linear(x, weights.get(&format!("{name}.weight"))?, bias, act)
}

/// The layer `name` without an activation.
pub(super) fn plain<B: Backend>(
    ops: &mut Ops<B>,
    weights: &BlockWeights<B::Weight>,
    name: &str,
    x: &Tensor<B::Data>,
) -> Out<B> {
    layer(ops, weights, name, x, Activation::None)
}

/// Two layers, `{prefix}{first}` and `{prefix}{second}`, with an activation between them.
pub(super) fn two_layers<B: Backend>(
    ops: &mut Ops<B>,
    weights: &BlockWeights<B::Weight>,
    prefix: &str,
    names: [&str; 2],
    act: Activation,
    x: &Tensor<B::Data>,
) -> Out<B> {
    let inner = layer(ops, weights, &format!("{prefix}{}", names[0]), x, act)?;
    plain(ops, weights, &format!("{prefix}{}", names[1]), &inner)
}

/// The convolution `name` on frames and what it remembers of earlier ones.
pub(super) fn convolve<B: Backend>(
    ops: &mut Ops<B>,
    weights: &BlockWeights<B::Weight>,
    name: &str,
    x: &Tensor<B::Data>,
    history: Option<&Tensor<B::Data>>,
    spec: ConvSpec,
) -> Out<B> {
    let bias = weights.optional(&format!("{name}.bias"));
    ops.conv(x, history, weights.get(&format!("{name}.weight"))?, bias, spec)
}

/// The weight and bias of the norm `name`.
pub(super) fn affine<'a, W>(weights: &'a BlockWeights<W>, name: &str) -> Result<Affine<'a, W>, OpError> {
    Ok((weights.get(&format!("{name}.weight"))?, weights.get(&format!("{name}.bias"))?))
}

/// The weight and bias of the norm `name`, where it has some.
pub(super) fn optional_affine<'a, W>(weights: &'a BlockWeights<W>, name: &str) -> Option<Affine<'a, W>> {
    affine(weights, name).ok()
}

/// Every frame of `[t, h, w, c]` twice, but the first once where `first_once` says so.
pub(super) fn doubled_in_time<B: Backend>(ops: &mut Ops<B>, x: &Tensor<B::Data>, first_once: bool) -> Out<B> {
    let frames = x.shape[0];
    let mut parts = Vec::with_capacity(2 * frames);
    for i in 0..frames {
        let frame = ops.view_rows(x, i, 1)?;
        if i > 0 || !first_once {
            parts.push(frame.clone());
        }
        parts.push(frame);
    }
    ops.concat(&parts.iter().collect::<Vec<_>>())
}

/// A layer norm under rows `shift` and `scale` of a modulation table.
pub(super) fn modulated<B: Backend>(
    ops: &mut Ops<B>,
    x: &Tensor<B::Data>,
    affine: Option<Affine<'_, B::Weight>>,
    eps: f64,
    table: &Tensor<B::Data>,
    [shift, scale]: [usize; 2],
) -> Out<B> {
    let (shift, scale) = (ops.view_rows(table, shift, 1)?, ops.view_rows(table, scale, 1)?);
    ops.layer_norm(x, affine, eps as f32, Some(Modulation { shift: &shift, scale: &scale }))
}

/// The base of most rotary embeddings.
pub(super) const THETA: f64 = 10000.0;

/// Cosines and sines of an angle, in f32 after f64, for a row of positions: pair `i` of an axis of width `dim` turns
/// by `position / theta^(2 i / dim)`.
pub(super) fn fill_angles(out: &mut [f32], function: fn(f64) -> f64, theta: f64, axes: &[(usize, usize)]) {
    let angles = axes.iter().flat_map(|&(position, dim)| {
        (0..dim / 2).map(move |i| position as f64 / theta.powf(2.0 * i as f64 / dim as f64))
    });
    for (value, angle) in out.iter_mut().zip(angles) {
        *value = function(angle) as f32;
    }
}

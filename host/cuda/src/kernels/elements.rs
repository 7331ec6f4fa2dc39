//! What is done to each element alone. None of these needs scratch; all but [`combine`], [`unpack`], [`mean_channels`]
//! and [`relative_bias`] write over their operand.

use crate::driver::{Args, DevicePtr};

use super::launch::{Launch, with};
use super::linear::Unpack;
use super::name::Name;
use super::operand::{Activation, Element, Misfit, Packed, PerRow, Weight, narrow, require};

fn runs(element: Element, name: Name, elements: u64, args: Args) -> Vec<Launch> {
    if elements == 0 { Vec::new() } else { vec![Launch::over(name, elements.div_ceil(element.run()), args)] }
}

fn items(name: Name, elements: u64, args: Args) -> Vec<Launch> {
    if elements == 0 { Vec::new() } else { vec![Launch::over(name, elements, args)] }
}

/// `x += y`.
#[must_use]
pub fn add_assign(element: Element, x: DevicePtr, y: DevicePtr, elements: u64) -> Vec<Launch> {
    pair(element, x, y, elements, 0)
}

/// `x *= y`.
#[must_use]
pub fn mul_assign(element: Element, x: DevicePtr, y: DevicePtr, elements: u64) -> Vec<Launch> {
    pair(element, x, y, elements, 1)
}

fn pair(element: Element, x: DevicePtr, y: DevicePtr, elements: u64, kind: u32) -> Vec<Launch> {
    let args = Args::new().ptr(x).ptr(y).u64(elements).u32(kind);
    runs(element, element.of(Name::PairF32, Name::PairBf16), elements, args)
}

/// `x += y * gate` over rows of `channels`.
///
/// # Errors
/// If there are no channels or too many.
pub fn gated_add_assign(
    element: Element,
    x: DevicePtr,
    y: DevicePtr,
    gate: PerRow,
    rows: u64,
    channels: u64,
) -> Result<Vec<Launch>, Misfit> {
    require("gated-add", channels > 0, || "rows must not be empty".into())?;
    let (elements, cols) = (rows * channels, narrow("gated-add", channels)?);
    let args = Args::new().ptr(x).ptr(y).ptr(gate.at).u64(elements).u32(cols).u32(u32::from(gate.each));
    Ok(runs(element, element.of(Name::GatedF32, Name::GatedBf16), elements, args))
}

/// `x = act(x)`.
#[must_use]
pub fn activate_assign(element: Element, x: DevicePtr, elements: u64, act: Activation) -> Vec<Launch> {
    activate(element, x, elements, act, f32::NEG_INFINITY, f32::INFINITY)
}

/// `x = min(max(x, low), high)`; NaN stays NaN.
#[must_use]
pub fn clamp_assign(element: Element, x: DevicePtr, elements: u64, low: f32, high: f32) -> Vec<Launch> {
    activate(element, x, elements, Activation::None, low, high)
}

fn activate(element: Element, x: DevicePtr, elements: u64, act: Activation, low: f32, high: f32) -> Vec<Launch> {
    let args = Args::new().ptr(x).u64(elements).u32(act as u32).f32(low).f32(high);
    runs(element, element.of(Name::ActivateF32, Name::ActivateBf16), elements, args)
}

/// Channels whose values fit in one launch.
const AFFINE: usize = 64;

/// `x = x * mul + add` for each channel, with values of the host's.
///
/// # Errors
/// If there are not as many factors as summands.
pub fn channel_affine_assign(
    element: Element,
    x: DevicePtr,
    rows: u64,
    mul: &[f32],
    add: &[f32],
) -> Result<Vec<Launch>, Misfit> {
    let fits = mul.len() == add.len();
    require("channel-affine", fits, || format!("{} factors and {} summands", mul.len(), add.len()))?;
    let cols = narrow("channel-affine", mul.len() as u64)?;
    let mut launches = Vec::new();
    for (part, (mul, add)) in mul.chunks(AFFINE).zip(add.chunks(AFFINE)).enumerate() {
        let padded = |values: &[f32], packed: Packed| {
            (0..AFFINE).fold(packed, |packed, i| packed.f32(values.get(i).copied().unwrap_or_default()))
        };
        let packed = padded(add, padded(mul, Packed::default()));
        let packed = packed.u32((part * AFFINE) as u32).u32(mul.len() as u32);
        let args = with(Args::new().ptr(x).u64(rows).u32(cols), packed);
        launches.extend(items(element.of(Name::AffineF32, Name::AffineBf16), rows * mul.len() as u64, args));
    }
    Ok(launches)
}

/// Rotates the pairs `(2i, 2i + 1)` of every head of `x[rows, heads, dim]`; `cos` and `sin` are f32 `[rows, dim / 2]`.
///
/// # Errors
/// If heads have an odd number of values.
pub fn rope_assign(
    element: Element,
    x: DevicePtr,
    cos: DevicePtr,
    sin: DevicePtr,
    [rows, heads, dim]: [u64; 3],
) -> Result<Vec<Launch>, Misfit> {
    require("rope", dim.is_multiple_of(2), || format!("heads of {dim} values"))?;
    let (some, half) = (narrow("rope", heads)?, narrow("rope", dim / 2)?);
    let args = Args::new().ptr(x).ptr(cos).ptr(sin).u64(rows).u32(some).u32(half);
    let each = (dim / 2).div_ceil(element.run() / 2);
    Ok(items(element.of(Name::RopeF32, Name::RopeBf16), rows * heads * each, args))
}

/// The most terms of a sum.
const TERMS: usize = 8;

/// `out = sum of factor * values`, all f32, at most eight terms, added in their order.
///
/// # Errors
/// If there are no terms or too many.
pub fn combine(out: DevicePtr, elements: u64, terms: &[(f32, DevicePtr)]) -> Result<Vec<Launch>, Misfit> {
    require("combine", (1..=TERMS).contains(&terms.len()), || format!("{} terms", terms.len()))?;
    let term = |i: usize| terms.get(i).copied();
    let packed = (0..TERMS).fold(Packed::default(), |packed, i| packed.maybe(term(i).map(|t| t.1)));
    let packed = (0..TERMS).fold(packed, |packed, i| packed.f32(term(i).map_or(0.0, |t| t.0)));
    let args = with(Args::new().ptr(out).u64(elements), packed.u32(terms.len() as u32));
    Ok(items(Name::Combine, elements, args))
}

/// The mean of every `group` neighbouring values of `x` into `y[elements]`.
///
/// # Errors
/// If the group is empty or too large.
pub fn mean_channels(
    element: Element,
    x: DevicePtr,
    y: DevicePtr,
    elements: u64,
    group: u64,
) -> Result<Vec<Launch>, Misfit> {
    require("mean-channels", group > 0, || "groups must not be empty".into())?;
    let args = Args::new().ptr(x).ptr(y).u64(elements).u32(narrow("mean-channels", group)?);
    Ok(items(element.of(Name::MeansF32, Name::MeansBf16), elements, args))
}

/// Values `first..first + elements` of a stored tensor as activations: dequantisation, and any cast. `first` is a
/// multiple of eight.
///
/// # Errors
/// If the range is not inside.
pub fn unpack(element: Element, w: Weight, first: u64, elements: u64, y: DevicePtr) -> Result<Vec<Launch>, Misfit> {
    if elements == 0 {
        return Ok(Vec::new());
    }
    Ok(vec![Unpack { w, first, elements }.launch(element, y)?])
}

/// Offsets whose buckets fit in one launch.
const BUCKETS: usize = 1024;

/// `table[head, i] = w[bucket[i], head]` as f32, for a `w` of `heads` columns.
///
/// # Errors
/// If a bucket is not in the table.
pub fn relative_bias(w: Weight, heads: u64, buckets: &[u32], table: DevicePtr) -> Result<Vec<Launch>, Misfit> {
    const KERNEL: &str = "relative-bias";
    let rows = w.elements / heads.max(1);
    let outside = buckets.iter().find(|bucket| u64::from(**bucket) >= rows || **bucket > u32::from(u16::MAX));
    require(KERNEL, outside.is_none(), || format!("bucket {outside:?} of {rows}"))?;
    let (some, offsets) = (narrow(KERNEL, heads)?, narrow(KERNEL, buckets.len() as u64)?);
    let mut launches = Vec::new();
    for (part, run) in buckets.chunks(BUCKETS).enumerate() {
        let bucket = |i: usize| run.get(i).copied().unwrap_or_default() as u16;
        let packed = (0..BUCKETS).fold(Packed::default(), |packed, i| packed.u16(bucket(i)));
        let packed = packed.u32((part * BUCKETS) as u32).u32(run.len() as u32);
        let args = with(Args::new(), Packed::default().weight(Some(w))).ptr(table).u32(some).u32(offsets);
        launches.push(relative_launch(heads * run.len() as u64, with(args, packed))?);
    }
    Ok(launches)
}

/// Its threads have one value each and do not walk on.
fn relative_launch(values: u64, args: Args) -> Result<Launch, Misfit> {
    let blocks = narrow("relative-bias", values.div_ceil(256))?;
    Ok(Launch::new(Name::RelativeBias, [blocks, 1, 1], 256, 0, args))
}

//! Copies between places of tensors. None of them needs scratch.

use crate::driver::{Args, DevicePtr};

use super::launch::{Launch, with};
use super::name::Name;
use super::operand::{Element, Misfit, Packed, narrow, require};

/// The most axes of a walk, after those that stay neighbours on both sides have become one.
const AXES: usize = 8;
const KERNEL: &str = "move";

/// One axis: how many places it has, and elements from one to the next in the source and in the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axis {
    /// Places.
    pub size: u64,
    /// Elements from one to the next of the source; 0 repeats.
    pub from: u64,
    /// Elements from one to the next of the target.
    pub to: u64,
}

/// Copies `x` to `y` along `axes`, slowest first. Everything else here is written with it.
///
/// # Errors
/// If there are too many axes, or one is too long.
pub fn walk(element: Element, x: DevicePtr, y: DevicePtr, axes: &[Axis]) -> Result<Vec<Launch>, Misfit> {
    if axes.iter().any(|axis| axis.size == 0) {
        return Ok(Vec::new());
    }
    let (axes, unit) = in_units(joined(axes), element.bytes(), [x, y]);
    require(KERNEL, axes.len() <= AXES, || format!("{} axes", axes.len()))?;
    let units = axes.iter().map(|axis| axis.size).product();
    let missing = std::iter::repeat_n(Axis { size: 1, from: 0, to: 0 }, AXES - axes.len());
    let axes: Vec<Axis> = missing.chain(axes).collect();
    let mut packed = Packed::default().ptr(x).ptr(y).u64(units);
    for axis in &axes {
        packed = packed.u32(narrow(KERNEL, axis.size)?);
    }
    let packed = axes.iter().fold(packed, |packed, axis| packed.u64(axis.from));
    let packed = axes.iter().fold(packed, |packed, axis| packed.u64(axis.to));
    let name = match unit {
        16 => Name::Move16,
        8 => Name::Move8,
        4 => Name::Move4,
        _ => Name::Move2,
    };
    Ok(vec![Launch::over(name, units, with(Args::new(), packed))])
}

/// Axes without those of one place, neighbours on both sides as one.
fn joined(axes: &[Axis]) -> Vec<Axis> {
    let mut out: Vec<Axis> = Vec::new();
    for axis in axes.iter().filter(|axis| axis.size != 1) {
        match out.last_mut().filter(|o| o.from == axis.size * axis.from && o.to == axis.size * axis.to) {
            Some(outer) => *outer = Axis { size: outer.size * axis.size, ..*axis },
            None => out.push(*axis),
        }
    }
    out
}

/// The axes in units of as many bytes, at most 16, as places and strides on both sides allow, and that many bytes.
fn in_units(mut axes: Vec<Axis>, bytes: u64, places: [DevicePtr; 2]) -> (Vec<Axis>, u64) {
    let Some((last, outer)) = axes.split_last_mut().filter(|(last, _)| last.from == 1 && last.to == 1) else {
        return (axes, bytes);
    };
    let sizes = outer.iter().flat_map(|axis| [axis.from, axis.to]).chain([last.size]);
    let all = places.iter().map(|at| at.0).chain(sizes.map(|size| size * bytes)).fold(16, |all, size| all | size);
    let unit = 1 << all.trailing_zeros();
    let per = unit / bytes;
    last.size /= per;
    for axis in outer {
        (axis.from, axis.to) = (axis.from / per, axis.to / per);
    }
    (axes, unit)
}

/// `rows` runs of `len` elements, each so many elements after the last on either side.
///
/// # Errors
/// See [`walk`].
pub fn rows(
    element: Element,
    [x, y]: [DevicePtr; 2],
    [rows, len]: [u64; 2],
    [from, to]: [u64; 2],
) -> Result<Vec<Launch>, Misfit> {
    walk(element, x, y, &[Axis { size: rows, from, to }, Axis { size: len, from: 1, to: 1 }])
}

/// `x` seen as `view`, its axes reordered: axis `i` of `y` is axis `axes[i]` of `x`.
///
/// # Errors
/// If `axes` does not name every axis of `view`; see also [`walk`].
pub fn permute(
    element: Element,
    x: DevicePtr,
    y: DevicePtr,
    view: &[u64],
    axes: &[usize],
) -> Result<Vec<Launch>, Misfit> {
    let fits = view.len() == axes.len() && (0..axes.len()).all(|axis| axes.contains(&axis));
    require("permute", fits, || format!("{view:?} by {axes:?}"))?;
    let stride = |axis: usize| view[axis + 1..].iter().product();
    let after = |i: usize| axes[i + 1..].iter().map(|axis| view[*axis]).product();
    let walked = axes.iter().enumerate().map(|(i, axis)| Axis { size: view[*axis], from: stride(*axis), to: after(i) });
    walk(element, x, y, &walked.collect::<Vec<_>>())
}

/// `[frames, height, width, channels]` to `[frames, 2 height, 2 width, channels]`, the nearest.
///
/// # Errors
/// See [`walk`].
pub fn upsample(
    element: Element,
    x: DevicePtr,
    y: DevicePtr,
    [frames, height, width, channels]: [u64; 4],
) -> Result<Vec<Launch>, Misfit> {
    let line = width * channels;
    walk(
        element,
        x,
        y,
        &[
            Axis { size: frames * height, from: line, to: 4 * line },
            Axis { size: 2, from: 0, to: 2 * line },
            Axis { size: width, from: channels, to: 2 * channels },
            Axis { size: 2, from: 0, to: channels },
            Axis { size: channels, from: 1, to: 1 },
        ],
    )
}

/// Every one of `elements` values `times` times in a row.
///
/// # Errors
/// See [`walk`].
pub fn repeat_channels(
    element: Element,
    x: DevicePtr,
    y: DevicePtr,
    elements: u64,
    times: u64,
) -> Result<Vec<Launch>, Misfit> {
    walk(element, x, y, &[Axis { size: elements, from: 1, to: times }, Axis { size: times, from: 0, to: 1 }])
}

/// The part of `x[frames, height, width, channels]` that begins at `start` and has `size` frames, lines and columns.
///
/// # Errors
/// If the part is not inside; see also [`walk`].
pub fn crop(
    element: Element,
    x: DevicePtr,
    y: DevicePtr,
    shape: [u64; 4],
    start: [u64; 3],
    size: [u64; 3],
) -> Result<Vec<Launch>, Misfit> {
    let inside = (0..3).all(|i| start[i] + size[i] <= shape[i]);
    require("crop", inside, || format!("{size:?} at {start:?} of {shape:?}"))?;
    let [_, height, width, channels] = shape;
    let first = ((start[0] * height + start[1]) * width + start[2]) * channels;
    let line = size[2] * channels;
    walk(
        element,
        x.offset(first * element.bytes()),
        y,
        &[
            Axis { size: size[0], from: height * width * channels, to: size[1] * line },
            Axis { size: size[1], from: width * channels, to: line },
            Axis { size: line, from: 1, to: 1 },
        ],
    )
}

/// Channels of several tensors of equally many `rows` side by side: addresses with their channels.
///
/// # Errors
/// See [`walk`].
pub fn concat_channels(
    element: Element,
    parts: &[(DevicePtr, u64)],
    y: DevicePtr,
    count: u64,
) -> Result<Vec<Launch>, Misfit> {
    let all: u64 = parts.iter().map(|(_, channels)| channels).sum();
    let (mut launches, mut at) = (Vec::new(), 0);
    for (x, channels) in parts {
        let to = y.offset(at * element.bytes());
        launches.extend(rows(element, [*x, to], [count, *channels], [*channels, all])?);
        at += channels;
    }
    Ok(launches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_become_one_axis_in_the_largest_units() {
        let check = |element: Element, places: [u64; 2], axes: &[[u64; 3]], expected: &[[u64; 3]], unit: u64| {
            let axis = |[size, from, to]: &[u64; 3]| Axis { size: *size, from: *from, to: *to };
            let axes = axes.iter().map(axis).collect::<Vec<_>>();
            let found = in_units(joined(&axes), element.bytes(), places.map(DevicePtr));
            assert_eq!(found, (expected.iter().map(axis).collect(), unit), "{axes:?}");
        };
        check(Element::F32, [0, 0], &[[3, 8, 8], [8, 1, 1]], &[[6, 1, 1]], 16);
        check(Element::Bf16, [0, 0], &[[3, 16, 8], [8, 1, 1]], &[[3, 2, 1], [1, 1, 1]], 16);
        check(Element::Bf16, [2, 0], &[[3, 16, 8], [8, 1, 1]], &[[3, 16, 8], [8, 1, 1]], 2);
        check(Element::Bf16, [0, 0], &[[5, 6, 12], [1, 9, 9], [6, 1, 1]], &[[5, 3, 6], [3, 1, 1]], 4);
        check(Element::F32, [0, 0], &[[4, 1, 2], [2, 0, 1]], &[[4, 1, 2], [2, 0, 1]], 4);
    }
}

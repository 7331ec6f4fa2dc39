//! Sums and maxima in one fixed order: sixteen interleaved lanes, then a tree.

use crate::element::Widen;

const LANES: usize = 16;

#[inline(always)]
fn tree(mut lanes: [f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] = join(lanes[i], lanes[i + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// The sum of `f` over the values.
#[inline(always)]
pub(crate) fn sum<W: Widen>(values: &[W], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] += f(chunk[i].widen());
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane += f(value.widen());
    }
    tree(lanes, |a, b| a + b)
}

/// The largest value, and at least `least`.
#[inline(always)]
pub(crate) fn max(values: &[f32], least: f32) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [least; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] = larger(lanes[i], chunk[i]);
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane = larger(*lane, *value);
    }
    tree(lanes, larger)
}

//! Kernels that move values and compute nothing. None of them has scratch.

use crate::parallel::split;
use crate::set::Exec;

/// Values that are worth a task of their own.
const GRAIN: usize = 1 << 15;
/// The most axes of [`permute`].
const AXES: usize = 8;

/// Doubles the height and width of `x[T, H, W, C]` into `y[T, 2H, 2W, C]`, each
/// pixel repeated four times; `shape` is `[T, H, W, C]`.
///
/// # Panics
/// When a length does not fit the shape.
pub fn upsample_nearest_2x<T: Copy + Send + Sync>(exec: Exec, shape: [usize; 4], x: &[T], y: &mut [T]) {
    let [_, _, width, channels] = shape;
    assert_eq!(x.len(), shape.iter().product(), "upsample_nearest_2x: x must be [T, H, W, C]");
    assert_eq!(y.len(), 4 * x.len(), "upsample_nearest_2x: y must be [T, 2H, 2W, C]");
    if x.is_empty() {
        return;
    }
    let line = width * channels;
    split(y, 4 * line, exec.tasks(y.len(), GRAIN), |first, y| {
        for (x, y) in x[first * line..].chunks_exact(line).zip(y.chunks_exact_mut(4 * line)) {
            double_line(channels, x, y);
        }
    });
}

/// Writes one line of pixels as two lines of doubled pixels.
fn double_line<T: Copy>(channels: usize, x: &[T], y: &mut [T]) {
    let (upper, lower) = y.split_at_mut(2 * x.len());
    for (pixel, pair) in x.chunks_exact(channels).zip(upper.chunks_exact_mut(2 * channels)) {
        let (left, right) = pair.split_at_mut(channels);
        left.copy_from_slice(pixel);
        right.copy_from_slice(pixel);
    }
    lower.copy_from_slice(upper);
}

/// Reorders the axes of `x`: axis `i` of `y` is axis `axes[i]` of `x`. At most
/// eight axes.
///
/// # Panics
/// When `axes` is not a permutation of the axes of `shape`, or a length does
/// not fit the shape.
pub fn permute<T: Copy + Send + Sync>(exec: Exec, shape: &[usize], axes: &[usize], x: &[T], y: &mut [T]) {
    assert!(shape.len() <= AXES, "permute: takes at most {AXES} axes");
    assert_eq!(shape.len(), axes.len(), "permute: one entry for each axis");
    assert!((0..axes.len()).all(|axis| axes.contains(&axis)), "permute: axes must be a permutation");
    assert_eq!(x.len(), shape.iter().product(), "permute: x must have the shape");
    assert_eq!(x.len(), y.len(), "permute: y must have as many values as x");
    if x.is_empty() {
        return;
    }
    let walk = Walk::new(shape, axes);
    let line = walk.sizes[AXES - 1];
    split(y, line, exec.tasks(y.len(), GRAIN), |first, y| {
        for (i, y) in y.chunks_exact_mut(line).enumerate() {
            walk.line(first + i, x, y);
        }
    });
}

/// The axes of a permutation's output: sizes, and strides in its input. Axes
/// that stay neighbours are one; missing ones in front have size one.
#[derive(Debug)]
struct Walk {
    sizes: [usize; AXES],
    strides: [usize; AXES],
}

impl Walk {
    fn new(shape: &[usize], axes: &[usize]) -> Self {
        let mut walk = Self { sizes: [1; AXES], strides: [0; AXES] };
        let mut at = AXES;
        for axis in axes.iter().rev().copied().filter(|axis| shape[*axis] != 1) {
            let stride: usize = shape[axis + 1..].iter().product();
            if at < AXES && stride == walk.strides[at] * walk.sizes[at] {
                walk.sizes[at] *= shape[axis];
            } else {
                at -= 1;
                (walk.sizes[at], walk.strides[at]) = (shape[axis], stride);
            }
        }
        walk
    }

    /// Copies the values of one line of the output.
    fn line<T: Copy>(&self, mut index: usize, x: &[T], y: &mut [T]) {
        let mut from = 0;
        for axis in (0..AXES - 1).rev() {
            from += index % self.sizes[axis] * self.strides[axis];
            index /= self.sizes[axis];
        }
        match self.strides[AXES - 1] {
            0 | 1 => y.copy_from_slice(&x[from..from + y.len()]),
            stride => y.iter_mut().zip(x[from..].iter().step_by(stride)).for_each(|(y, x)| *y = *x),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_axes_are_walked_as_one() {
        let check = |shape: &[usize], axes: &[usize], sizes: &[usize]| {
            let walk = Walk::new(shape, axes);
            assert_eq!(walk.sizes[AXES - sizes.len()..], *sizes, "{shape:?} {axes:?}");
        };
        check(&[2, 3, 4], &[0, 1, 2], &[1, 24]);
        check(&[2, 3, 4], &[2, 0, 1], &[4, 6]);
        check(&[2, 3, 1, 4], &[0, 2, 3, 1], &[2, 4, 3]);
    }
}

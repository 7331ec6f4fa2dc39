//! Copies between places of tensors.

use loadline_cuda::driver::DevicePtr;
use loadline_cuda::kernels::moves::{self, Axis};
use loadline_cuda::kernels::{Element, Launch, Misfit};

use crate::gpu::Gpu;
use crate::numbers::{Chance, ELEMENTS, encode};

type Launches = Result<Vec<Launch>, Misfit>;

/// Runs a copy of `input` values into `expected.len()` that must be these of the input, by their index.
fn check(
    gpu: &Gpu,
    what: &str,
    (element, input, offset): (Element, u64, usize),
    expected: &[u64],
    copy: impl Fn(DevicePtr, DevicePtr) -> Launches,
) {
    let x = Chance::new(input).values(element, input);
    let found = gpu.compute(what, |gpu| {
        let (from, to) =
            (gpu.bytes(&encode(element, &x), offset), gpu.room(expected.len() as u64 * element.bytes(), 0));
        gpu.run(copy(from.at, to.at));
        gpu.get(element, &to)
    });
    let expected: Vec<f32> = expected.iter().map(|i| x[*i as usize]).collect();
    assert_eq!(found, expected, "{what} {element:?}");
}

/// The index in a dense tensor of these sizes.
fn at(sizes: &[u64], place: &[u64]) -> u64 {
    sizes.iter().zip(place).fold(0, |at, (size, place)| at * size + place)
}

/// Every place of a dense tensor, in order.
fn places(sizes: &[u64]) -> Vec<Vec<u64>> {
    let mut all = vec![Vec::new()];
    for size in sizes {
        all = all.into_iter().flat_map(|place| (0..*size).map(move |i| [place.clone(), vec![i]].concat())).collect();
    }
    all
}

fn permutations(gpu: &Gpu, element: Element, view: &[u64], axes: &[usize], offset: usize) {
    let sizes: Vec<u64> = axes.iter().map(|axis| view[*axis]).collect();
    let from = |place: &Vec<u64>| {
        let mut source = vec![0; view.len()];
        axes.iter().zip(place).for_each(|(axis, i)| source[*axis] = *i);
        at(view, &source)
    };
    let expected: Vec<u64> = places(&sizes).iter().map(from).collect();
    let all = view.iter().product();
    let what = format!("permute {view:?} by {axes:?}");
    check(gpu, &what, (element, all, offset), &expected, |x, y| moves::permute(element, x, y, view, axes));
}

fn crops(gpu: &Gpu, element: Element, shape: [u64; 4], start: [u64; 3], size: [u64; 3]) {
    let sizes = [size[0], size[1], size[2], shape[3]];
    let from = |p: &Vec<u64>| at(&shape, &[p[0] + start[0], p[1] + start[1], p[2] + start[2], p[3]]);
    let expected: Vec<u64> = places(&sizes).iter().map(from).collect();
    let input = (element, shape.iter().product(), 0);
    check(gpu, "crop", input, &expected, |x, y| moves::crop(element, x, y, shape, start, size));
}

fn larger(gpu: &Gpu, element: Element, shape: [u64; 4]) {
    let [frames, height, width, channels] = shape;
    let from = |p: &Vec<u64>| at(&shape, &[p[0], p[1] / 2, p[2] / 2, p[3]]);
    let expected: Vec<u64> = places(&[frames, 2 * height, 2 * width, channels]).iter().map(from).collect();
    let input = (element, shape.iter().product(), 0);
    check(gpu, "upsample", input, &expected, |x, y| moves::upsample(element, x, y, shape));
    let expected: Vec<u64> = (0..3 * input.1).map(|i| i / 3).collect();
    check(gpu, "repeat", input, &expected, |x, y| moves::repeat_channels(element, x, y, input.1, 3));
}

/// Two parts side by side, the second of the same memory.
fn concatenations(gpu: &Gpu, element: Element, rows: u64, [first, second]: [u64; 2]) {
    let part = |p: u64, row: u64| if p < first { row * first + p } else { rows * first + row * second + p - first };
    let expected: Vec<u64> = (0..rows).flat_map(|row| (0..first + second).map(move |p| part(p, row))).collect();
    let input = (element, rows * (first + second), 0);
    check(gpu, "concat", input, &expected, |x, y| {
        let parts = [(x, first), (x.offset(rows * first * element.bytes()), second)];
        moves::concat_channels(element, &parts, y, rows)
    });
}

#[test]
fn copies() {
    let gpu = Gpu::start();
    for element in ELEMENTS {
        for offset in [0, element.bytes() as usize, 2 * element.bytes() as usize] {
            permutations(&gpu, element, &[4, 6, 16], &[1, 0, 2], offset);
            permutations(&gpu, element, &[3, 5, 7], &[2, 0, 1], offset);
        }
        permutations(&gpu, element, &[2, 3, 2, 4, 2, 8], &[0, 3, 1, 4, 2, 5], 0);
        permutations(&gpu, element, &[2, 3, 2, 2, 2, 3, 2, 2], &[7, 5, 3, 1, 6, 4, 2, 0], 0);
        permutations(&gpu, element, &[300, 40], &[1, 0], 0);
        crops(&gpu, element, [3, 6, 8, 5], [1, 2, 3], [2, 3, 4]);
        crops(&gpu, element, [2, 4, 4, 16], [0, 0, 2], [2, 4, 2]);
        larger(&gpu, element, [2, 3, 5, 8]);
        larger(&gpu, element, [1, 2, 2, 3]);
        concatenations(&gpu, element, 9, [3, 5]);
        concatenations(&gpu, element, 10, [16, 8]);
        let nothing = Axis { size: 0, from: 1, to: 1 };
        assert!(moves::walk(element, DevicePtr(0), DevicePtr(0), &[nothing]).unwrap().is_empty());
    }
    gpu.has_run_all_of(&["moves"]);
}

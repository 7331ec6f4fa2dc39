//! Linear layers go to NVIDIA's library of products where there is one and it has them, and to our kernels otherwise.
#![allow(clippy::unwrap_used)]

use half::bf16;
use loadline_cuda::driver::{Context, DevicePtr, Driver, Pinned, Pool, Stream, sys};
use loadline_cuda::kernels::{Activation, Element, Kernels, Linear, Scratch, Stored, Weight, linear_scratch};
use loadline_cuda_mock::{Fault, Mock, Order, Settings, api, blas_api};

const MIB: u64 = 1 << 20;

struct Setup {
    kernels: Kernels,
    stream: Stream,
    pool: Pool,
    context: Context,
    mock: Mock,
}

fn setup(settings: Settings, library: bool, fault: Option<Fault>) -> Setup {
    let mock = Mock::start(settings);
    fault.into_iter().for_each(|fault| mock.inject(fault));
    let driver = Driver::with_api(api()).unwrap();
    let driver = if library { driver.with_blas(blas_api()) } else { driver };
    let context = Context::new(&driver, &driver.default_gpu().unwrap()).unwrap();
    let kernels = Kernels::load(&context).unwrap();
    let pool = Pool::new(&context, 256 * MIB).unwrap();
    Setup { kernels, stream: Stream::new(&context).unwrap(), pool, context, mock }
}

impl Setup {
    fn room(&self, bytes: u64) -> DevicePtr {
        self.pool.allocate(&self.stream, bytes.max(16)).unwrap()
    }

    fn floats(&self, values: &[f32]) -> DevicePtr {
        let bytes: Vec<u8> = values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect();
        let (mut host, at) = (Pinned::allocate(&self.context, bytes.len()).unwrap(), self.room(bytes.len() as u64));
        host.pin(bytes.len()).unwrap();
        // SAFETY: nobody else has the memory, and the copy is waited for.
        unsafe {
            host.write(0, bytes.len()).copy_from_slice(&bytes);
            self.stream.upload_later(at, host.address(0), bytes.len()).unwrap();
        }
        self.stream.synchronize().unwrap();
        at
    }

    fn read(&self, at: DevicePtr, count: usize) -> Vec<f32> {
        let host = Pinned::allocate(&self.context, 2 * count).unwrap();
        // SAFETY: the memory is this function's, and the copy is waited for.
        let bytes = unsafe {
            self.stream.download_later(at, host.address(0).cast_mut(), 2 * count).unwrap();
            self.stream.synchronize().unwrap();
            host.read(0, 2 * count)
        };
        bytes.as_chunks().0.iter().map(|value| bf16::from_le_bytes(*value).to_f32()).collect()
    }

    /// What a layer is queued as: products of the library, and kernels of ours.
    fn queued(&self, layer: &Linear) -> (usize, usize) {
        let count = |name: &str| self.mock.report().calls.iter().filter(|call| call.starts_with(name)).count();
        let before = (count("cublasLtMatmul"), count("cuLaunchKernel"));
        self.kernels.run(&self.stream, &layer.launches().unwrap()).unwrap();
        self.stream.synchronize().unwrap();
        (count("cublasLtMatmul") - before.0, count("cuLaunchKernel") - before.1)
    }

    /// A layer of values that nobody looks at.
    fn layer(&self, sizes: [u64; 3], stored: Stored) -> Linear {
        let [rows, inputs, outputs] = sizes;
        let bytes = linear_scratch(Element::Bf16, rows, inputs, outputs, stored);
        Linear {
            element: Element::Bf16,
            rows,
            inputs,
            outputs,
            x: self.room(2 * rows * inputs),
            w: Weight { at: self.room(4 * outputs * inputs), elements: outputs * inputs, stored },
            bias: None,
            act: Activation::None,
            y: self.room(2 * rows * outputs),
            scratch: (bytes > 0).then(|| Scratch { at: self.room(bytes), bytes }),
        }
    }
}

#[test]
fn the_library_takes_what_it_has() {
    let setup = setup(Settings::default(), true, None);
    assert_eq!(setup.kernels.blas().unwrap().version(), "12.0.0");
    let bias = |stored| Some(Weight { at: setup.room(4096), elements: 64, stored });
    let layer = setup.layer([32, 64, 64], Stored::Bf16);
    let check = |what: &str, layer: Linear, expected| assert_eq!(setup.queued(&layer), expected, "{what}");
    check("plain", layer, (1, 0));
    check("the same again", layer, (1, 0));
    check("bias and GELU", Linear { bias: bias(Stored::Bf16), act: Activation::GeluTanh, ..layer }, (1, 0));
    check("a bias of another type", Linear { bias: bias(Stored::F32), ..layer }, (0, 1));
    check("an activation that it lacks", Linear { act: Activation::Silu, ..layer }, (0, 1));
    check("few rows", setup.layer([4, 64, 64], Stored::Bf16), (0, 1));
    check("rows of odd length", setup.layer([32, 63, 64], Stored::Bf16), (0, 1));
    check("columns of odd length", setup.layer([32, 64, 63], Stored::Bf16), (0, 1));
    check("an operand that is not aligned", Linear { x: layer.x.offset(2), rows: 31, ..layer }, (0, 1));
    check("packed weights, unpacked by us", setup.layer([32, 64, 64], Stored::Q8_0), (1, 1));
    let ours = Setup { kernels: setup.kernels.of_our_own(), ..setup };
    assert_eq!(ours.queued(&layer), (0, 1));
}

#[test]
fn it_computes_the_layer() {
    let [rows, inputs, outputs] = [11usize, 16, 24];
    for order in [Order::Eager, Order::OldestQueue, Order::Random(4)] {
        let setup = setup(Settings { order, ..Settings::default() }, true, None);
        let value = |i: usize, of: usize| (i * 7 % of) as f32 / of as f32 - 0.5;
        let make =
            |count: usize, of: usize| (0..count).map(|i| bf16::from_f32(value(i, of)).to_f32()).collect::<Vec<_>>();
        let (x, w, bias) = (make(rows * inputs, 64), make(outputs * inputs, 32), make(outputs, 16));
        let weight =
            |values: &[f32]| Weight { at: setup.floats(values), elements: values.len() as u64, stored: Stored::Bf16 };
        let sizes = [rows, inputs, outputs].map(|size| size as u64);
        let layer = Linear {
            x: setup.floats(&x),
            w: weight(&w),
            bias: Some(weight(&bias)),
            act: Activation::GeluTanh,
            ..setup.layer(sizes, Stored::Bf16)
        };
        assert_eq!(setup.queued(&layer), (1, 0));
        let found = setup.read(layer.y, rows * outputs);
        for (i, found) in found.iter().enumerate() {
            let (row, col) = (i / outputs, i % outputs);
            let sum: f32 = (0..inputs).map(|k| x[row * inputs + k] * w[col * inputs + k]).sum::<f32>() + bias[col];
            let expected = 0.5 * sum * (1.0 + (0.797_884_6 * (sum + 0.044_715 * sum.powi(3))).tanh());
            assert!((found - expected).abs() <= 0.004 * expected.abs() + 1e-4, "{i}: {found} and not {expected}");
        }
        assert_eq!(setup.mock.report().hazards, [""; 0]);
    }
}

/// Where the library does not start or does not know a product, our kernels run, and nothing is left behind.
#[test]
fn whatever_it_refuses_is_ours() {
    let fault = |call, after| Some(Fault { call, after, code: 7, for_good: false });
    let no_room = Some(Fault { call: "cuMemAlloc", after: 1, code: sys::OUT_OF_MEMORY, for_good: false });
    for (fault, opens) in [
        (fault("cublasLtCreate", 0), false),
        (fault("cuMemAlloc", 0), false),
        (no_room, false),
        (fault("cublasLtMatmulDescCreate", 0), true),
        (fault("cublasLtMatrixLayoutCreate", 2), true),
        (fault("cublasLtMatmulPreferenceSetAttribute", 1), true),
        (fault("cublasLtMatmulAlgoGetHeuristic", 0), true),
        (fault("cublasLtMatmul", 0), true),
    ] {
        let setup = setup(Settings::default(), true, fault.clone());
        assert_eq!(setup.kernels.blas().is_some(), opens, "{fault:?}");
        let layer = setup.layer([32, 64, 64], Stored::Bf16);
        assert_eq!(setup.queued(&layer), (0, 1), "{fault:?}");
        // The fault is over, and the product is still not the library's: it is not asked twice.
        assert_eq!(setup.queued(&layer), (0, 1), "{fault:?}");
        // What is named first goes last.
        let Setup { mock, context: _context, stream: _stream, pool: _pool, kernels } = setup;
        drop(kernels);
        assert_eq!(mock.blas_handles(), 0, "{fault:?}");
    }
    assert!(setup(Settings::default(), false, None).kernels.blas().is_none());
}

/// What the library takes is there to be measured when it has been opened, and what it frees is what it loads later.
#[test]
fn its_memory_is_taken_when_it_is_opened() {
    let mock = Mock::start(Settings::default());
    let driver = Driver::with_api(api()).unwrap().with_blas(blas_api());
    let context = Context::new(&driver, &driver.default_gpu().unwrap()).unwrap();
    let (kernels, taken) = context.taken_by(|| Kernels::load(&context)).unwrap();
    assert_eq!(taken, (4 + 64) * MIB);
    let pool = Pool::new(&context, 256 * MIB).unwrap();
    let stream = Stream::new(&context).unwrap();
    let setup = Setup { kernels, stream, pool, context: context.clone(), mock };
    let layer = setup.layer([32, 64, 64], Stored::Bf16);
    let before = context.mem_info().unwrap().free;
    assert_eq!(setup.queued(&layer), (1, 0));
    assert_eq!(context.mem_info().unwrap().free - before, 64 * MIB);
    let before = context.mem_info().unwrap().free;
    let Setup { mock, context, stream: _stream, pool: _pool, kernels } = setup;
    drop(kernels);
    assert_eq!((context.mem_info().unwrap().free - before, mock.blas_handles()), (4 * MIB, 0));
}

//! The suite that every device passes, for the GPU's real code over a driver in host memory, and what it does when
//! something goes wrong. Every test runs with the queues worked off in several orders.
#![allow(clippy::unwrap_used)]
// Files are what these tests are about.
#![allow(clippy::disallowed_methods)]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use loadline_core::{BlockId, Bytes, DType, Tier};
use loadline_cuda::driver::{Args, Context, Driver, Kernel, Module, Shape, Stream, sys};
use loadline_cuda_mock::{Fault, Launch, Mock, Order, Settings};
use loadline_device::cuda::{CudaCompute, CudaDevice, HostLimits, Region, device_error};
use loadline_device::{BlockSource, Segment, WeightFiles};
use loadline_engine::{At, Audited, Budgeted, Buffer, Device, DeviceError, LoadOrder, Metered, TaskOrder, contract};

const ELEMENTS: usize = 4096;
const BYTES: Bytes = Bytes(4 * ELEMENTS as u64);
const FIXTURE: contract::Fixture = contract::Fixture { bytes: BYTES, activations: Bytes(4096) };
const LIMITS: HostLimits = HostLimits { pinned: Bytes(1 << 30), staging: Bytes(1 << 20) };
const ORDERS: [Order; 5] = [Order::Eager, Order::OldestQueue, Order::NewestQueue, Order::Random(1), Order::Random(2)];
const PTX: &str = ".version 8.0\n.visible .entry first(\n.param .u64 first_0,\n.param .u32 first_1\n)\n{ ret; }";

/// Launches a kernel that remembers the first of its weights, and that they are all the same.
struct First {
    stream: Stream,
    kernel: Kernel,
}

impl CudaCompute for First {
    fn run(&mut self, order: &TaskOrder, weights: Option<Region>) -> Result<(), DeviceError> {
        let args = Args::new().ptr(weights.unwrap().start).u32(order.at.task as u32);
        let shape = Shape { grid: [1; 3], block: [32, 1, 1], shared: 0 };
        // SAFETY: the kernel's two arguments, of which the first is a slab.
        unsafe { self.stream.launch(&self.kernel, shape, &args) }.map_err(device_error)
    }

    fn set_aside(&mut self, _: Option<Region>) -> Result<(), DeviceError> {
        Ok(())
    }
}

struct Setup {
    device: CudaDevice<First>,
    seen: Arc<Mutex<Vec<(u32, f32)>>>,
    file: PathBuf,
    _dir: tempfile::TempDir,
    mock: Mock,
}

/// A GPU with `blocks` blocks in one file, each of the numbers 1, 2, 3 and so on.
fn setup(settings: Settings, blocks: usize, limits: HostLimits) -> Setup {
    let mock = Mock::start(settings);
    let seen: Arc<Mutex<Vec<(u32, f32)>>> = Arc::default();
    let log = Arc::clone(&seen);
    mock.kernel("first", Arc::new(move |launch: &Launch| log.lock().unwrap().push(look(launch))));
    let driver = Driver::with_api(loadline_cuda_mock::api()).unwrap();
    let context = Context::new(&driver, &driver.default_gpu().unwrap()).unwrap();
    let stream = Stream::new(&context).unwrap();
    let kernel = Module::load(&context, PTX).unwrap().kernel("first").unwrap();
    let compute = First { stream: stream.clone(), kernel };
    let mut device = CudaDevice::new(&stream, Bytes(3 << 20), limits, compute).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("blocks.bin");
    write(&file, blocks, 0.0);
    device.set_sources(WeightFiles::open(std::slice::from_ref(&file)).unwrap(), (0..blocks).map(source).collect());
    Setup { device, seen, file, _dir: dir, mock }
}

fn look(launch: &Launch) -> (u32, f32) {
    // SAFETY: the first argument is a slab of so many elements.
    let values = unsafe { std::slice::from_raw_parts(launch.word(0) as *const f32, ELEMENTS) };
    let whole = values.iter().all(|value| *value == values[0]);
    (launch.word(1) as u32, if whole { values[0] } else { f32::NAN })
}

fn write(file: &Path, blocks: usize, more: f32) {
    let values = (0..blocks).flat_map(|block| [block as f32 + 1.0 + more; ELEMENTS]);
    std::fs::write(file, values.flat_map(f32::to_le_bytes).collect::<Vec<u8>>()).unwrap();
}

fn source(block: usize) -> BlockSource {
    let segment = Segment {
        tensor: "weight".into(),
        file: 0,
        offset: block as u64 * BYTES.0,
        elements: ELEMENTS,
        file_dtype: DType::F32,
        place: 0,
        dtype: DType::F32,
        scale: 1.0,
    };
    BlockSource { segments: vec![segment], ..BlockSource::default() }
}

fn order(task: usize, block: u32, buffer: Buffer) -> TaskOrder {
    TaskOrder { at: At { stage: 0, pass: 0, task }, template: 0, weights: Some((BlockId(block), buffer)) }
}

/// Streams blocks through two slots, `passes` times, as a plan would.
fn stream(device: &mut CudaDevice<First>, home: Tier, blocks: usize, passes: usize) -> Result<usize, DeviceError> {
    let slots = [device.allocate(BYTES)?, device.allocate(BYTES)?];
    let (mut free, mut ready) = ([device.past(); 2], [device.past(); 2]);
    let total = blocks * passes;
    let load = |device: &mut CudaDevice<First>, n: usize, after| {
        device.load(LoadOrder { block: BlockId((n % blocks) as u32), home, buffer: slots[n % 2] }, after)
    };
    for n in 0..2 {
        ready[n] = load(device, n, free[n])?;
    }
    let mut measured = 0;
    for n in 0..total {
        let (event, span) = device.run(order(n, (n % blocks) as u32, slots[n % 2]), ready[n % 2])?;
        assert!(span.is_none(), "a GPU runs behind its caller");
        free[n % 2] = event;
        if n + 2 < total {
            ready[n % 2] = load(device, n + 2, free[n % 2])?;
        }
        if (n + 1) % blocks == 0 {
            device.measure(&mut |_, _| measured += 1)?;
        }
    }
    device.settle(&mut |_, _| ())?;
    slots.into_iter().for_each(|slot| device.free(slot));
    Ok(measured)
}

#[test]
fn the_gpu_keeps_the_contract_in_every_order_of_work() {
    for order in ORDERS {
        let mut setup = setup(Settings { order, ..Settings::default() }, 1, LIMITS);
        assert_eq!(contract::run(&mut setup.device, FIXTURE), Ok(()), "{order:?}");
        assert_eq!(setup.mock.report().hazards, [""; 0], "{order:?}");
        assert_eq!(*setup.seen.lock().unwrap(), [(0, 1.0)], "{order:?}");
    }
}

#[test]
fn the_stack_of_a_session_keeps_the_contract() {
    for order in ORDERS {
        let Setup { device, mock, _dir, .. } = setup(Settings { order, ..Settings::default() }, 1, LIMITS);
        let mut device = Audited::new(Metered::new(Budgeted::new(device, Bytes(3 << 20), 512)));
        assert_eq!(contract::run(&mut device, FIXTURE), Ok(()), "{order:?}");
        let usage = device.inner.usage();
        assert_eq!((usage.loads, usage.tasks, usage.in_use), (4, 1, Bytes::ZERO), "{order:?}");
        drop(device);
        assert_eq!(mock.report().hazards, [""; 0], "{order:?}");
    }
}

/// Every home has its share, rather than the first ones all of theirs: each copy then is as fast as the others.
#[test]
fn a_short_pin_budget_is_spread_evenly() {
    let half = HostLimits { pinned: Bytes(5 * BYTES.0 / 2), ..LIMITS };
    let mut setup = setup(Settings::default(), 5, half);
    setup.device.set_homes(&[Tier::Pinned; 5], half);
    assert_eq!(stream(&mut setup.device, Tier::Pinned, 5, 2).unwrap(), 10);
    let report = setup.mock.report();
    let locked: Vec<_> = report.calls.iter().filter(|call| call.starts_with("cuMemHostRegister")).collect();
    assert_eq!(locked, vec![&format!("cuMemHostRegister {}", BYTES.0 / 2); 5]);
    assert_eq!((report.pinned_most, report.hazards), (half.pinned.0, Vec::new()));
}

/// Nobody waits for a load whose slot goes: the slot goes behind it.
#[test]
fn a_slot_is_given_back_behind_its_last_copy() {
    for (home, order) in [Tier::Disk, Tier::Pinned, Tier::Host].into_iter().flat_map(|h| ORDERS.map(|o| (h, o))) {
        let mut setup = setup(Settings { order, ..Settings::default() }, 4, LIMITS);
        setup.device.set_homes(&[home; 4], LIMITS);
        for n in 0..8 {
            let (buffer, past) = (setup.device.allocate(BYTES).unwrap(), setup.device.past());
            setup.device.load(LoadOrder { block: BlockId(n % 4), home, buffer }, past).unwrap();
            setup.device.free(buffer);
        }
        let mut loads = 0;
        setup.device.settle(&mut |_, _| loads += 1).unwrap();
        assert_eq!((loads, setup.mock.report().hazards), (8, Vec::new()), "{home:?} {order:?}");
    }
}

/// Weights arrive before their task and are replaced after it, wherever they come from and however little is locked.
#[test]
fn blocks_stream_through_slots_in_every_order_of_work() {
    let few = HostLimits { pinned: Bytes(3 * 4096 + 2 * BYTES.0), ..LIMITS };
    let none = HostLimits { pinned: Bytes::ZERO, ..LIMITS };
    for (home, limits) in
        [Tier::Disk, Tier::Pinned, Tier::Host].into_iter().flat_map(|h| [LIMITS, few, none].map(|l| (h, l)))
    {
        for order in ORDERS {
            let mut setup = setup(Settings { order, ..Settings::default() }, 5, limits);
            setup.device.set_homes(&[home; 5], limits);
            assert_eq!(stream(&mut setup.device, home, 5, 3).unwrap(), 15, "{home:?} {order:?}");
            let expected: Vec<(u32, f32)> = (0..15).map(|n| (n, (n % 5) as f32 + 1.0)).collect();
            assert_eq!(*setup.seen.lock().unwrap(), expected, "{home:?} {limits:?} {order:?}");
            let report = setup.mock.report();
            assert_eq!(report.hazards, [""; 0], "{home:?} {limits:?} {order:?}");
            assert!(report.pinned_most <= limits.pinned.0, "{} of {:?}", report.pinned_most, limits.pinned);
        }
    }
}

/// Between two safe points nothing waits for the GPU.
#[test]
fn a_pass_is_queued_without_waiting() {
    let mut setup = setup(Settings::default(), 4, LIMITS);
    setup.device.set_homes(&[Tier::Pinned; 4], LIMITS);
    let slots = [setup.device.allocate(BYTES).unwrap(), setup.device.allocate(BYTES).unwrap()];
    let before = setup.mock.report().waits;
    let mut free = [setup.device.past(); 2];
    for n in 0..8 {
        let load = LoadOrder { block: BlockId(n % 4), home: Tier::Pinned, buffer: slots[n as usize % 2] };
        let ready = setup.device.load(load, free[n as usize % 2]).unwrap();
        free[n as usize % 2] = setup.device.run(order(n as usize, n % 4, slots[n as usize % 2]), ready).unwrap().0;
    }
    assert_eq!(setup.mock.report().waits, before);
    assert!(setup.seen.lock().unwrap().is_empty());
    setup.device.measure(&mut |_, _| ()).unwrap();
    assert_eq!(setup.seen.lock().unwrap().len(), 8);
}

#[test]
fn the_driver_refuses_what_is_over_the_budget_or_taken_by_others() {
    let mut setup = setup(Settings::default(), 1, LIMITS);
    let first = setup.device.allocate(Bytes(2 << 20)).unwrap();
    let error = setup.device.allocate(Bytes(2 << 20)).unwrap_err();
    assert!(matches!(error, DeviceError::OutOfDeviceMemory { requested: Bytes(0x20_0000) }), "{error}");
    setup.device.free(first);
    setup.mock.others_take(0, Settings::default().memory);
    let around = setup.device.surroundings().device.unwrap();
    assert_eq!((around.held, around.free), (Bytes(2 << 20), Bytes::ZERO));
    let error = setup.device.set_aside(Bytes(3 << 20)).unwrap_err();
    assert!(matches!(error, DeviceError::OutOfDeviceMemory { .. }), "{error}");
    assert!(setup.mock.report().pool_most <= 3 << 20);
}

#[test]
fn a_lost_gpu_is_told_as_lost_by_whatever_asks_next() {
    for call in ["cuLaunchKernel", "cuMemcpyHtoDAsync", "cuEventSynchronize", "cuMemAllocFromPoolAsync"] {
        let mut setup = setup(Settings::default(), 2, LIMITS);
        let fault = Fault { call, after: 0, code: sys::ECC_UNCORRECTABLE, for_good: true };
        setup.mock.inject(fault);
        let error = stream(&mut setup.device, Tier::Disk, 2, 2).unwrap_err();
        let DeviceError::Lost(text) = &error else { panic!("{call}: {error}") };
        assert!(text.contains("Mock GPU 0 was lost") && text.contains("CUDA_ERROR_ECC_UNCORRECTABLE"), "{text}");
    }
}

/// A read that fails is told at the latest where results are asked for, and what came behind it is forgotten.
#[test]
fn a_read_error_comes_before_any_result() {
    for order in ORDERS {
        let mut setup = setup(Settings { order, ..Settings::default() }, 2, LIMITS);
        let length = std::fs::metadata(&setup.file).unwrap().len();
        std::fs::OpenOptions::new().write(true).open(&setup.file).unwrap().set_len(8).unwrap();
        let error = stream(&mut setup.device, Tier::Disk, 2, 2).unwrap_err();
        assert!(error.to_string().contains("has become shorter"), "{order:?}: {error}");
        write(&setup.file, 2, 0.0);
        assert_eq!(std::fs::metadata(&setup.file).unwrap().len(), length);
        setup.seen.lock().unwrap().clear();
        assert!(setup.device.settle(&mut |_, _| ()).is_ok());
    }
}

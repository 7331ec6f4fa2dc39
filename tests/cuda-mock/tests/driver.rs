//! The mock finds what it is there to find, and the driver's errors say what to do.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use loadline_cuda::driver::{
    Args, Context, CudaError, DevicePtr, Driver, Event, Kernel, Module, Pinned, Pool, Shape, Stream, sys,
};
use loadline_cuda_mock::{Fault, Mock, Order, Settings, api};

const PTX: &str = ".version 8.0\n.visible .entry use(.param .u64 use_0)\n{ ret; }";
const BYTES: usize = 4096;

struct Setup {
    mock: Mock,
    context: Context,
    pool: Pool,
    copy: Stream,
    compute: Stream,
    read: Stream,
    kernel: Kernel,
}

fn setup(order: Order) -> Setup {
    let mock = Mock::start(Settings { order, ..Settings::default() });
    mock.kernel("use", Arc::new(|_| ()));
    let driver = Driver::with_api(api()).unwrap();
    let context = Context::new(&driver, &driver.default_gpu().unwrap()).unwrap();
    let pool = Pool::new(&context, 1 << 20).unwrap();
    let [copy, compute, read] = [0; 3].map(|_| Stream::new(&context).unwrap());
    let kernel = Module::load(&context, PTX).unwrap().kernel("use").unwrap();
    Setup { mock, context, pool, copy, compute, read, kernel }
}

/// A copy into a slot and a kernel that uses it, in this order or the other, with or without what orders them.
fn hazards(order: Order, copy_first: bool, ordered: bool) -> usize {
    let Setup { mock, context, pool, copy, compute, kernel, .. } = setup(order);
    let mut host = Pinned::allocate(&context, BYTES).unwrap();
    host.pin(BYTES).unwrap();
    let slot = pool.allocate(&copy, BYTES as u64).unwrap();
    copy.synchronize().unwrap();
    let event = Event::untimed(&context).unwrap();
    let shape = Shape { grid: [1; 3], block: [32, 1, 1], shared: 0 };
    // SAFETY: memory that lives to the end of this function, and the kernel's one argument.
    let load = || unsafe { copy.upload_later(slot, host.address(0), BYTES) }.unwrap();
    // SAFETY: as above.
    let run = || unsafe { compute.launch(&kernel, shape, &Args::new().ptr(slot)) }.unwrap();
    let (first, second) = if copy_first { (&copy, &compute) } else { (&compute, &copy) };
    if copy_first {
        load()
    } else {
        run()
    }
    if ordered {
        first.record(&event).unwrap();
        second.wait(&event).unwrap();
    }
    if copy_first {
        run()
    } else {
        load()
    }
    copy.synchronize().and(compute.synchronize()).unwrap();
    mock.report().hazards.len()
}

#[test]
fn what_only_luck_orders_is_found_in_every_order_of_work() {
    for order in [Order::Eager, Order::OldestQueue, Order::NewestQueue, Order::Random(3)] {
        for copy_first in [true, false] {
            assert_eq!(hazards(order, copy_first, true), 0, "{order:?}");
            assert_eq!(hazards(order, copy_first, false), 1, "{order:?}");
        }
    }
}

type Attempt = fn(&Setup, &Pinned, &Event, bool);

/// Mistakes in ordering that a streaming loop can make, each with what orders it rightly.
const ATTEMPTS: [(&str, Attempt); 6] = [
    ("memory is used on a queue that has not waited for its allocation", |s, host, event, right| {
        let slot = s.pool.allocate(&s.compute, BYTES as u64).unwrap();
        if right {
            s.compute.record(event).and_then(|()| s.copy.wait(event)).unwrap();
        }
        load(s, slot, host);
    }),
    ("memory is freed while another queue still copies into it", |s, host, event, right| {
        let slot = allocated(s);
        load(s, slot, host);
        if right {
            s.copy.record(event).and_then(|()| s.compute.wait(event)).unwrap();
        }
        s.pool.free(&s.compute, slot).unwrap();
    }),
    ("a queue waits for an event that nobody has recorded", |s, host, event, right| {
        let slot = allocated(s);
        if right {
            load(s, slot, host);
            s.copy.record(event).and_then(|()| s.compute.wait(event)).unwrap();
        } else {
            s.compute.wait(event).unwrap();
            load(s, slot, host);
            s.copy.record(event).unwrap();
        }
        run(s, slot);
    }),
    ("an event stands before the copy that it is to tell of", |s, host, event, right| {
        let slot = allocated(s);
        if !right {
            s.copy.record(event).unwrap();
        }
        load(s, slot, host);
        if right {
            s.copy.record(event).unwrap();
        }
        s.compute.wait(event).unwrap();
        run(s, slot);
    }),
    ("an event is recorded again before its first place was waited for", |s, host, event, right| {
        let slot = allocated(s);
        load(s, slot, host);
        s.copy.record(event).unwrap();
        if right {
            s.compute.wait(event).unwrap();
        }
        s.read.record(event).unwrap();
        s.compute.wait(event).unwrap();
        run(s, slot);
    }),
    ("two queues write the same memory", |s, host, event, right| {
        let slot = allocated(s);
        load(s, slot, host);
        if right {
            s.copy.record(event).and_then(|()| s.read.wait(event)).unwrap();
        }
        s.read.fill(slot, 0, BYTES).unwrap();
    }),
];

#[test]
fn wrong_orders_are_found_and_right_ones_are_not() {
    for order in [Order::Eager, Order::OldestQueue, Order::NewestQueue, Order::Random(3)] {
        for (what, attempt) in ATTEMPTS {
            for right in [true, false] {
                let setup = setup(order);
                let mut host = Pinned::allocate(&setup.context, BYTES).unwrap();
                host.pin(BYTES).unwrap();
                attempt(&setup, &host, &Event::untimed(&setup.context).unwrap(), right);
                // The host's memory goes next.
                [&setup.copy, &setup.compute, &setup.read].iter().for_each(|queue| queue.synchronize().unwrap());
                let hazards = setup.mock.report().hazards;
                assert_eq!(hazards.is_empty(), right, "{what}, {order:?}: {hazards:?}");
            }
        }
    }
}

/// A slot that every queue may use.
fn allocated(setup: &Setup) -> DevicePtr {
    let slot = setup.pool.allocate(&setup.copy, BYTES as u64).unwrap();
    setup.copy.synchronize().unwrap();
    slot
}

fn load(setup: &Setup, slot: DevicePtr, host: &Pinned) {
    // SAFETY: the host's memory lives until the queues have ended.
    unsafe { setup.copy.upload_later(slot, host.address(0), BYTES) }.unwrap();
}

fn run(setup: &Setup, slot: DevicePtr) {
    let shape = Shape { grid: [1; 3], block: [32, 1, 1], shared: 0 };
    // SAFETY: the mock's kernel does nothing, and has this one argument.
    unsafe { setup.compute.launch(&setup.kernel, shape, &Args::new().ptr(slot)) }.unwrap();
}

#[test]
fn memory_that_was_freed_is_not_used() {
    let Setup { mock, pool, copy, compute, kernel, .. } = setup(Order::Eager);
    let slot = pool.allocate(&compute, BYTES as u64).unwrap();
    pool.free(&compute, slot).unwrap();
    let shape = Shape { grid: [1; 3], block: [32, 1, 1], shared: 0 };
    // SAFETY: the mock's kernel does nothing.
    unsafe { compute.launch(&kernel, shape, &Args::new().ptr(slot)) }.unwrap();
    assert_eq!(mock.report().hazards, ["kernel use uses memory that was freed"]);
    assert!(copy.fill(slot, 0, BYTES).is_err());
}

#[test]
fn locked_memory_is_not_given_back_while_it_is_copied() {
    let Setup { mock, context, pool, copy, .. } = setup(Order::OldestQueue);
    let mut host = Pinned::allocate(&context, BYTES).unwrap();
    host.pin(BYTES).unwrap();
    let slot = pool.allocate(&copy, BYTES as u64).unwrap();
    // SAFETY: the mock has not copied when the memory goes; nobody waits for it afterwards.
    unsafe { copy.upload_later(slot, host.address(0), BYTES) }.unwrap();
    let before = mock.report().hazards.len();
    copy.synchronize().unwrap();
    drop(host);
    assert_eq!((before, mock.report().hazards.len()), (0, 0));
    assert_eq!(mock.report().pinned, 0);
}

#[test]
fn a_driver_that_cannot_be_used_says_why() {
    let open = |settings: Settings| {
        let _mock = Mock::start(settings);
        Driver::with_api(api()).and_then(|driver| driver.default_gpu()).map(drop).map_err(|e| e.to_string())
    };
    let says = |settings: Settings, parts: &[&str]| {
        let text = open(settings).unwrap_err();
        assert!(parts.iter().all(|part| text.contains(part)) && !text.contains('\n'), "{text}");
    };
    assert_eq!(open(Settings::default()), Ok(()));
    says(Settings { gpus: 0, ..Settings::default() }, &["no GPU", "CUDA_ERROR_NO_DEVICE", "--device cpu"]);
    says(Settings { version: 11_080, ..Settings::default() }, &["CUDA 11.8", "CUDA 12.2 is needed", "535"]);
    says(Settings { capability: (7, 5), ..Settings::default() }, &["Mock GPU 0", "7.5", "8.0", "--gpu-index"]);
    let missing = Driver::open_at(std::path::Path::new("libcuda-that-is-not-there.so.1")).unwrap_err().to_string();
    assert!(missing.starts_with("no NVIDIA driver on this machine") && !missing.contains('\n'), "{missing}");
}

#[test]
fn one_of_two_gpus_is_chosen() {
    let _mock = Mock::start(Settings { gpus: 2, ..Settings::default() });
    let driver = Driver::with_api(api()).unwrap();
    assert_eq!(driver.default_gpu().unwrap().index, 0);
    assert_eq!(driver.gpu(1).unwrap().pci, "0000:02:00.0");
    let error = driver.gpu(2).unwrap_err().to_string();
    assert_eq!(error, "there is no GPU 2: 0 is Mock GPU 0, 1 is Mock GPU 1; choose one of them with --gpu-index");
}

#[test]
fn limits_and_faults_have_errors_of_their_own() {
    let Setup { mock, context, pool, compute, .. } = setup(Order::Eager);
    assert_eq!(pool.allocate(&compute, 2 << 20), Err(CudaError::OutOfMemory { requested: 2 << 20 }));
    assert_eq!(context.measure(), Ok(200 << 20));
    mock.inject(Fault { call: "cuMemsetD8Async", after: 1, code: sys::LAUNCH_FAILED, for_good: true });
    let memory = pool.allocate(&compute, 64).unwrap();
    compute.fill(memory, 0, 64).unwrap();
    let error = compute.fill(memory, 0, 64).unwrap_err();
    assert!(matches!(&error, CudaError::Lost { name, .. } if name == "CUDA_ERROR_LAUNCH_FAILED"), "{error}");
    assert!(matches!(context.mem_info(), Err(CudaError::Lost { .. })));
}

#[test]
fn a_system_that_locks_no_memory_refuses_politely() {
    let mock = Mock::start(Settings { pinned: 0, ..Settings::default() });
    let driver = Driver::with_api(api()).unwrap();
    let context = Context::new(&driver, &driver.default_gpu().unwrap()).unwrap();
    let mut memory = Pinned::allocate(&context, BYTES).unwrap();
    assert!(matches!(memory.pin(BYTES), Err(CudaError::PinRefused { requested: 4096, .. })));
    assert_eq!((memory.pinned(), mock.report().pinned_most), (0, 0));
}

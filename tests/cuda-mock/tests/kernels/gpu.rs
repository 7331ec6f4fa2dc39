//! Where the kernels run: on the processor, by way of the mock, or on a GPU.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use loadline_cuda::Staging;
use loadline_cuda::driver::{Context, DevicePtr, Driver, Pool, Stream};
use loadline_cuda::kernels::{Element, Kernels, Launch, Misfit, Name, Scratch, Stored, Weight};
use loadline_cuda_mock::{Mock, Settings, api, blas_api};

use crate::numbers::{decode, encode};

/// What lies around every operand; a kernel that writes it writes outside.
const GUARD: usize = 256;
const FILL: u8 = 0xa5;
/// Orders of threads: as they are numbered, backwards, and by chance.
const ORDERS: [u32; 3] = [0, 1, 5];

type SetOrder = unsafe extern "C" fn(u32);

/// A GPU, or what stands in for one.
pub(crate) struct Gpu {
    kernels: Kernels,
    /// Whether NVIDIA's library takes what it has; otherwise every kernel is ours.
    library: Cell<bool>,
    stream: Stream,
    pool: Pool,
    staging: RefCell<Staging>,
    order: Option<SetOrder>,
    orders: Cell<&'static [u32]>,
    seen: RefCell<BTreeSet<Name>>,
    taken: RefCell<Vec<DevicePtr>>,
    mock: Option<Mock>,
}

/// Device memory with guards around it.
#[derive(Clone, Copy)]
pub(crate) struct Room {
    pub(crate) at: DevicePtr,
    bytes: usize,
}

impl Room {
    pub(crate) fn scratch(self) -> Option<Scratch> {
        Some(Scratch { at: self.at, bytes: self.bytes as u64 })
    }
}

impl Gpu {
    pub(crate) fn start() -> Self {
        let on_gpu = std::env::var("LOADLINE_KERNELS_ON").is_ok_and(|on| on == "gpu");
        let (driver, mock, order) = if on_gpu { (Driver::open().unwrap(), None, None) } else { emulated() };
        let context = Context::new(&driver, &driver.default_gpu().unwrap()).unwrap();
        Self {
            kernels: Kernels::load(&context).unwrap(),
            library: Cell::new(false),
            stream: Stream::new(&context).unwrap(),
            pool: Pool::new(&context, 2 << 30).unwrap(),
            staging: RefCell::new(Staging::new(&context, 2, 1 << 20).unwrap()),
            order,
            orders: Cell::new(&ORDERS),
            seen: RefCell::default(),
            taken: RefCell::default(),
            mock,
        }
    }

    /// Memory with these bytes in it, which begin so many bytes behind a multiple of 256.
    pub(crate) fn bytes(&self, values: &[u8], offset: usize) -> Room {
        let mut all = vec![FILL; GUARD + offset];
        all.extend_from_slice(values);
        all.resize(all.len() + GUARD, FILL);
        let start = self.pool.allocate(&self.stream, all.len() as u64).unwrap();
        self.taken.borrow_mut().push(start);
        self.staging.borrow_mut().upload(&self.stream, start, &all).unwrap();
        Room { at: start.offset((GUARD + offset) as u64), bytes: values.len() }
    }

    /// Memory of so many bytes that nobody has written.
    pub(crate) fn room(&self, bytes: u64, offset: usize) -> Room {
        self.bytes(&vec![FILL; bytes as usize], offset)
    }

    pub(crate) fn values(&self, element: Element, values: &[f32]) -> Room {
        self.bytes(&encode(element, values), 0)
    }

    pub(crate) fn floats(&self, values: &[f32]) -> DevicePtr {
        self.values(Element::F32, values).at
    }

    /// A weight of these bytes.
    pub(crate) fn weight(&self, stored: Stored, elements: u64, bytes: &[u8]) -> Weight {
        Weight { at: self.bytes(bytes, 0).at, elements, stored }
    }

    /// A weight in the type of activations.
    pub(crate) fn dense(&self, element: Element, values: &[f32]) -> Weight {
        self.weight(plain(element), values.len() as u64, &encode(element, values))
    }

    pub(crate) fn run(&self, launches: Result<Vec<Launch>, Misfit>) {
        let launches = launches.unwrap();
        self.seen.borrow_mut().extend(launches.iter().map(|launch| launch.kernel));
        let ours = self.kernels.of_our_own();
        let kernels = if self.library.get() { &self.kernels } else { &ours };
        kernels.run(&self.stream, &launches).unwrap();
    }

    /// The bytes of an operand; those around it are as they were.
    fn read(&self, room: &Room) -> Vec<u8> {
        let mut all = vec![0; room.bytes + 2 * GUARD];
        let start = DevicePtr(room.at.0 - GUARD as u64);
        self.staging.borrow_mut().download(&self.stream, start, &mut all).unwrap();
        let around = all[..GUARD].iter().chain(&all[GUARD + room.bytes..]);
        assert!(around.copied().all(|byte| byte == FILL), "a kernel wrote outside of its operand");
        all[GUARD..GUARD + room.bytes].to_vec()
    }

    pub(crate) fn get(&self, element: Element, room: &Room) -> Vec<f32> {
        decode(element, &self.read(room))
    }

    /// Runs cases once more with NVIDIA's library, where there is one.
    pub(crate) fn also_with_library(&self, cases: impl Fn(&Self)) {
        cases(self);
        self.library.set(self.kernels.blas().is_some());
        if self.library.get() {
            cases(self);
        }
        self.library.set(false);
    }

    /// Runs cases that are too large for every order of threads.
    pub(crate) fn in_one_order(&self, cases: impl FnOnce(&Self)) {
        self.orders.set(&ORDERS[2..]);
        cases(self);
        self.orders.set(&ORDERS);
    }

    /// What `body` computes, which is the same in every order of threads.
    pub(crate) fn compute(&self, what: &str, body: impl Fn(&Self) -> Vec<f32>) -> Vec<f32> {
        let run = |order: u32| {
            if let Some(set) = self.order {
                // SAFETY: the emulation's function, which takes any number.
                unsafe { set(order) };
            }
            let values = body(self);
            for memory in self.taken.borrow_mut().drain(..) {
                self.pool.free(&self.stream, memory).unwrap();
            }
            values
        };
        let orders = self.orders.get();
        let first = run(orders[0]);
        for order in &orders[1..] {
            let same = run(*order).iter().zip(&first).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{what}: the order of threads changes the result");
        }
        first
    }

    /// Shows that no kernel of these modules was left out.
    pub(crate) fn has_run_all_of(&self, modules: &[&str]) {
        assert!(self.mock.as_ref().is_none_or(|mock| mock.report().hazards.is_empty()));
        let seen = self.seen.borrow();
        let wanted = Name::ALL.iter().filter(|name| modules.contains(&name.module()));
        let missing: Vec<_> = wanted.filter(|name| !seen.contains(name)).collect();
        assert!(missing.is_empty(), "no case runs {missing:?}");
    }
}

/// The stored type that is an activation's.
pub(crate) fn plain(element: Element) -> Stored {
    match element {
        Element::F32 => Stored::F32,
        Element::Bf16 => Stored::Bf16,
    }
}

/// The driver in host memory, with the kernels on the processor.
fn emulated() -> (Driver, Option<Mock>, Option<SetOrder>) {
    let file = built();
    let mock = Mock::start(Settings { emulation: Some(file.display().to_string()), ..Settings::default() });
    // SAFETY: the library was built from this repository's sources.
    let library = Box::leak(Box::new(unsafe { libloading::Library::new(file) }.unwrap()));
    // SAFETY: its function of this name has this form.
    let order = unsafe { library.get::<SetOrder>(b"emulation_order") }.unwrap();
    (Driver::with_api(api()).unwrap().with_blas(blas_api()), Some(mock), Some(*order))
}

/// The kernels as a library for this processor.
fn built() -> PathBuf {
    let built = loadline_cuda_mock::emulation(Path::new(env!("CARGO_TARGET_TMPDIR")));
    built.unwrap_or_else(|why| panic!("nothing here shows what the kernels compute: {why}"))
}

//! What the driver knows.

use std::collections::BTreeMap;

use loadline_cuda::driver::sys;

use crate::blas::Blas;
use crate::kernels::Kernels;
use crate::work::{Clock, Queue};

/// In which order queues are worked off when somebody waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Whatever can be done is done at once, as on a GPU that is faster than its host.
    Eager,
    /// Of the queues that can go on, the one that was made first does; nothing is done before somebody waits.
    OldestQueue,
    /// The one that was made last does.
    NewestQueue,
    /// One by chance, from a seed.
    Random(u64),
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// GPUs.
    pub gpus: usize,
    /// Bytes of memory that each has.
    pub memory: u64,
    /// The CUDA version that the driver serves.
    pub version: i32,
    /// The compute capability of the GPUs.
    pub capability: (i32, i32),
    /// Bytes of host memory that may be locked.
    pub pinned: u64,
    /// Bytes that a context takes.
    pub context: u64,
    /// The order of work.
    pub order: Order,
    /// A library with `emu_<name>` for each kernel.
    pub emulation: Option<String>,
    /// Bytes that other programs have of each GPU.
    pub others: u64,
    /// Calls that fail.
    pub faults: Vec<Fault>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            gpus: 1,
            memory: 8 << 30,
            version: 12_020,
            capability: (8, 6),
            pinned: u64::MAX,
            context: 200 << 20,
            order: Order::OldestQueue,
            emulation: None,
            others: 0,
            faults: Vec::new(),
        }
    }
}

impl Settings {
    /// What variables named `CUDA_MOCK_...` say, for programs that find this library as their driver.
    #[allow(clippy::disallowed_methods)] // A library that stands in for a driver has no other way to be told.
    pub(crate) fn from_environment() -> Self {
        let text = |name: &str| std::env::var(format!("CUDA_MOCK_{name}")).ok();
        let number = |name: &str| text(name)?.parse::<u64>().ok();
        let plain = Self::default();
        let order = match text("ORDER").as_deref() {
            Some("eager") => Order::Eager,
            Some("newest") => Order::NewestQueue,
            Some(seed) => seed.parse().map_or(Order::OldestQueue, Order::Random),
            None => Order::OldestQueue,
        };
        Self {
            gpus: number("GPUS").map_or(plain.gpus, |n| n as usize),
            memory: number("MEMORY").unwrap_or(plain.memory),
            version: number("VERSION").map_or(plain.version, |n| n as i32),
            capability: number("CAPABILITY").map_or(plain.capability, |n| (n as i32 / 10, n as i32 % 10)),
            pinned: number("PINNED").unwrap_or(plain.pinned),
            context: number("CONTEXT").unwrap_or(plain.context),
            order,
            emulation: text("EMULATION"),
            others: number("OTHERS").unwrap_or(plain.others),
            faults: text("FAULT").and_then(|text| Fault::read(&text)).into_iter().collect(),
        }
    }
}

/// A call that fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The driver's function.
    pub call: &'static str,
    /// How many calls of it go well first.
    pub after: u64,
    /// What it answers.
    pub code: i32,
    /// Whether every later call of any function answers the same, as after a GPU is lost.
    pub for_good: bool,
}

impl Fault {
    /// The GPU is lost at a call: `cuLaunchKernel:100:719` is the launch behind the first hundred, and the code that it
    /// and every later call answer.
    fn read(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let (call, after, code) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        // A process has one driver, and a driver its settings for as long as it lives.
        Some(Self { call: Box::leak(call.to_owned().into_boxed_str()), after, code, for_good: true })
    }
}

/// What has happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Every call that queued work or took memory, in order.
    pub calls: Vec<String>,
    /// Accesses that nothing orders, and use of memory that is not there.
    pub hazards: Vec<String>,
    /// The most bytes that pools have held.
    pub pool_most: u64,
    /// Bytes of host memory that are locked.
    pub pinned: u64,
    /// The most of them.
    pub pinned_most: u64,
    /// How often a call waited for the GPU.
    pub waits: u64,
}

/// One GPU.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gpu {
    pub(crate) contexts: u64,
    pub(crate) others: u64,
    pub(crate) pooled: u64,
    /// What was allocated outside of pools.
    pub(crate) apart: u64,
}

/// A pool of device memory.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    pub(crate) gpu: usize,
    pub(crate) limit: u64,
    pub(crate) used: u64,
    pub(crate) used_most: u64,
    pub(crate) reserved: u64,
    pub(crate) reserved_most: u64,
}

/// An allocation. Its bytes are the host's.
pub(crate) struct Memory {
    pub(crate) bytes: u64,
    /// The pool that it is of, if it is of one.
    pub(crate) pool: Option<usize>,
    /// Words, so that every type is aligned in it.
    pub(crate) _words: Vec<u128>,
}

/// An access that was queued: what, where, and its place in the order of work.
pub(crate) struct Access {
    pub(crate) what: String,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) writes: bool,
    /// Kernels may share what they use: which of it they write is not known.
    pub(crate) kernel: bool,
    pub(crate) queue: usize,
    pub(crate) number: u64,
}

/// An event.
#[derive(Clone, Default)]
pub(crate) struct Event {
    pub(crate) timed: bool,
    /// The queue and the number of the work that it stands behind.
    pub(crate) at: Option<(usize, u64)>,
    pub(crate) clock: Clock,
    pub(crate) time: Option<std::time::Instant>,
}

/// Everything.
pub(crate) struct State {
    pub(crate) settings: Settings,
    pub(crate) gpus: Vec<Gpu>,
    pub(crate) pools: Vec<Pool>,
    pub(crate) memory: BTreeMap<u64, Memory>,
    /// What was freed stays mapped, so that its use is a hazard and not a crash.
    pub(crate) freed: BTreeMap<u64, Memory>,
    /// Locked host memory: start and bytes.
    pub(crate) locked: BTreeMap<u64, u64>,
    pub(crate) queues: Vec<Queue>,
    pub(crate) events: Vec<Event>,
    pub(crate) kernels: Kernels,
    pub(crate) blas: Blas,
    pub(crate) accesses: Vec<Access>,
    /// What the host has waited for.
    pub(crate) host: Clock,
    pub(crate) faults: Vec<Fault>,
    pub(crate) lost: Option<i32>,
    pub(crate) current: usize,
    pub(crate) report: Report,
    pub(crate) chance: u64,
}

impl State {
    pub(crate) fn new(settings: Settings) -> Self {
        let chance = if let Order::Random(seed) = settings.order { seed } else { 0 };
        Self {
            gpus: vec![Gpu { others: settings.others, ..Gpu::default() }; settings.gpus],
            kernels: Kernels::new(settings.emulation.as_deref()),
            faults: settings.faults.clone(),
            settings,
            pools: Vec::new(),
            memory: BTreeMap::new(),
            freed: BTreeMap::new(),
            locked: BTreeMap::new(),
            queues: Vec::new(),
            events: Vec::new(),
            blas: Blas::default(),
            accesses: Vec::new(),
            host: Clock::default(),
            lost: None,
            current: 0,
            report: Report::default(),
            chance,
        }
    }

    /// Whether a call fails, and how.
    pub(crate) fn fails(&mut self, call: &str) -> Result<(), i32> {
        if let Some(code) = self.lost {
            return Err(code);
        }
        for fault in self.faults.iter_mut().filter(|fault| fault.call == call) {
            if fault.after == 0 {
                let code = fault.code;
                fault.after = u64::MAX;
                self.lost = fault.for_good.then_some(code);
                return Err(code);
            }
            fault.after = fault.after.saturating_sub(1);
        }
        Ok(())
    }

    /// Free bytes of a GPU.
    pub(crate) fn free(&self, gpu: usize) -> u64 {
        let Gpu { contexts, others, pooled, apart } = self.gpus[gpu];
        self.settings.memory.saturating_sub(contexts * self.settings.context + others + pooled + apart)
    }

    pub(crate) fn allocate(&mut self, pool: usize, bytes: u64) -> Result<u64, i32> {
        let rounded = bytes.next_multiple_of(512);
        let Pool { gpu, limit, used, reserved, .. } = self.pools[pool];
        let more = (used + rounded).saturating_sub(reserved);
        if used + rounded > limit || more > self.free(gpu) {
            return Err(sys::OUT_OF_MEMORY);
        }
        self.gpus[gpu].pooled += more;
        let pool_ = &mut self.pools[pool];
        (pool_.used, pool_.reserved) = (used + rounded, reserved + more);
        pool_.used_most = pool_.used_most.max(pool_.used);
        pool_.reserved_most = pool_.reserved_most.max(pool_.reserved);
        self.report.pool_most = self.report.pool_most.max(pool_.reserved);
        Ok(self.memory_of(bytes, Some(pool)))
    }

    /// Memory of the current GPU outside of any pool.
    pub(crate) fn allocate_apart(&mut self, bytes: u64) -> Result<u64, i32> {
        if bytes > self.free(self.current) {
            return Err(sys::OUT_OF_MEMORY);
        }
        self.gpus[self.current].apart += bytes;
        Ok(self.memory_of(bytes, None))
    }

    fn memory_of(&mut self, bytes: u64, pool: Option<usize>) -> u64 {
        // Whatever was there before: nobody may count on zeros.
        let words = vec![u128::from_ne_bytes([0xa5; 16]); bytes.div_ceil(16) as usize];
        let address = words.as_ptr() as u64;
        self.memory.insert(address, Memory { bytes, pool, _words: words });
        address
    }

    /// Frees what was allocated; the bytes stay readable.
    pub(crate) fn release(&mut self, address: u64) -> Result<(), i32> {
        let memory = self.memory.remove(&address).ok_or(sys::INVALID_VALUE)?;
        match memory.pool {
            Some(pool) => self.pools[pool].used -= memory.bytes.next_multiple_of(512),
            None => self.gpus[self.current].apart -= memory.bytes,
        }
        self.freed.insert(address, memory);
        Ok(())
    }

    /// Gives what a pool does not use back.
    pub(crate) fn trim(&mut self, pool: usize, keep: u64) {
        let Pool { gpu, used, reserved, .. } = self.pools[pool];
        let left = reserved.min(used.max(keep));
        self.gpus[gpu].pooled -= reserved - left;
        self.pools[pool].reserved = left;
    }

    /// The live allocation that an address is in: its start and its bytes.
    pub(crate) fn allocation(&self, address: u64) -> Option<(u64, u64)> {
        let (start, memory) = self.memory.range(..=address).next_back()?;
        (address < start + memory.bytes.max(1)).then_some((*start, memory.bytes))
    }

    /// Whether all of a range of host memory is locked.
    pub(crate) fn is_locked(&self, start: u64, bytes: u64) -> bool {
        let before = self.locked.range(..=start).next_back();
        before.is_some_and(|(from, length)| start + bytes <= from + length)
    }
}

//! What is known of a machine before anything is concluded. A field is `None` where the system does not say.
//! Paths are text for people: what is not UTF-8 in them is replaced.

use serde::{Deserialize, Serialize};

/// Everything that [`super::examine`] looks at. Names end in their unit.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Facts {
    /// The processor and the kernels.
    pub processor: Processor,
    /// RAM, swap and large pages.
    pub memory: Memory,
    /// What a process may use.
    pub limits: Limits,
    /// What the control group of this process may use.
    pub group: Group,
    /// Pressure stall information; `None` where the kernel gives none.
    pub pressure: Option<Pressure>,
    /// Asynchronous reads.
    pub io_uring: IoUring,
    /// The folder that models or results lie in.
    pub folder: Folder,
    /// The folders of compiled code and of installed policies.
    pub kept: Vec<Kept>,
    /// What NVIDIA's driver says.
    pub gpus: Gpus,
    /// The profile that forecasts use where none is named.
    pub profile: CpuProfile,
}

/// The processor.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Processor {
    /// As people call it.
    pub name: String,
    /// The architecture that this program was built for: `x86_64`, `aarch64`.
    pub architecture: String,
    /// Physical cores.
    pub cores: Option<u64>,
    /// Logical processors of the machine.
    pub logical: Option<u64>,
    /// Logical processors that this process may use: affinity and control groups count.
    pub threads: u64,
    /// Instruction sets that matter to kernels, as the system names them.
    pub instructions: Vec<String>,
    /// Whether the system runs in a virtual machine, which may hide instructions.
    pub is_virtual: bool,
    /// The kernel set that is used.
    pub kernels: String,
    /// All kernel sets that can run here, the fastest first.
    pub kernels_available: Vec<String>,
}

/// RAM.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Memory {
    /// RAM.
    pub total_bytes: Option<u64>,
    /// What can be allocated without swapping; cached files count, for they give way.
    pub available_bytes: Option<u64>,
    /// Swap.
    pub swap_bytes: Option<u64>,
    /// Swap that is not in use.
    pub swap_free_bytes: Option<u64>,
    /// Transparent huge pages: `always`, `madvise` or `never`.
    pub huge_pages: Option<String>,
}

/// Limits of this process (`ulimit`).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Limits {
    /// Memory that may be locked (`ulimit -l`).
    pub locked_bytes: Limit,
    /// Files that may be open (`ulimit -n`).
    pub open_files: Limit,
    /// Address space (`ulimit -v`).
    pub address_space_bytes: Limit,
}

/// A limit; `None` is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Limit {
    /// What counts.
    pub soft: Option<u64>,
    /// What the user may raise it to.
    pub hard: Option<u64>,
}

/// The tightest limits of a control group and of those above it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Group {
    /// 1 or 2; `None` where there are no control groups.
    pub version: Option<u8>,
    /// Beyond it the system kills (`memory.max`); `None` is unlimited.
    pub memory_max_bytes: Option<u64>,
    /// Beyond it the system slows (`memory.high`); `None` is unlimited.
    pub memory_high_bytes: Option<u64>,
    /// What the group with the limit uses now, cached files included.
    pub memory_current_bytes: Option<u64>,
    /// Processors' worth of time (`cpu.max`); `None` is unlimited.
    pub processors: Option<f64>,
}

/// Percent of the last ten seconds in which something waited.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Pressure {
    /// For a processor.
    pub cpu_percent: f64,
    /// For memory.
    pub memory_percent: f64,
    /// For a disk.
    pub io_percent: f64,
}

/// What decides about `io_uring`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct IoUring {
    /// `kernel.io_uring_disabled`: 0 for all, 1 for one group, 2 for nobody; kernels before 6.6 have none.
    pub disabled: Option<u32>,
    /// Whether this process may use it where that says 1.
    pub in_group: bool,
    /// Whether a seccomp filter decides about system calls.
    pub filtered: bool,
    /// Version of the kernel, such as 6.12.
    pub kernel: Option<(u32, u32)>,
    /// Whether a ring was set up and used.
    pub tried: Tried,
    /// Whether that failed for want of memory that may be locked.
    pub is_short_of_locked: bool,
}

/// A folder and the disk below it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Folder {
    /// Where it is.
    pub path: String,
    /// Why it cannot be looked at.
    pub missing: Option<String>,
    /// Type of its file system, such as `ext4`.
    pub file_system: Option<String>,
    /// What this user may still write.
    pub free_bytes: Option<u64>,
    /// Whether this user may write there.
    pub writable: bool,
    /// Reads that pass by the page cache.
    pub direct: Tried,
    /// A file that was read.
    pub reading: Reading,
}

/// Whether something works that a system may refuse.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Tried {
    /// It was done.
    Works,
    /// It was refused.
    Refused {
        /// What the system said.
        reason: String,
    },
    /// It could not be tried.
    #[default]
    Untried,
}

/// Reading a file from its start to its end, or until time is up.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Reading {
    /// Nobody asked for it.
    #[default]
    NotAsked,
    /// There is no file that is large enough.
    NoFile {
        /// What would have been.
        least_bytes: u64,
    },
    /// It failed.
    Failed {
        /// The file.
        file: String,
        /// What the system said.
        reason: String,
    },
    /// It was read.
    Done {
        /// The file.
        file: String,
        /// So much of it.
        bytes: u64,
        /// In so many seconds.
        seconds: f64,
        /// Whether the page cache was passed by.
        direct: bool,
        /// The share of the file that was in the page cache before, 0 to 1.
        cached: Option<f64>,
        /// Whether the file was made to be read.
        made: bool,
    },
}

/// A folder that the program keeps files in.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Kept {
    /// What it is for.
    pub what: KeptFor,
    /// Where it is; `None` if it is switched off, or if the user has no home.
    pub path: Option<String>,
    /// What is there.
    pub state: KeptState,
}

/// What a folder is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeptFor {
    /// Compiled code of policies.
    Cache,
    /// Installed policies.
    Policies,
}

/// What is at the place of a folder.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum KeptState {
    /// Nothing yet.
    Absent,
    /// A folder.
    Folder {
        /// Its permission bits.
        mode: u32,
        /// Whether it belongs to this user.
        own: bool,
        /// Whether this user may write there.
        writable: bool,
    },
    /// Something else, or something that cannot be looked at.
    Other {
        /// What it is, or what the system said.
        what: String,
    },
}

/// What NVIDIA's driver says.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Gpus {
    /// There is no driver.
    NoDriver {
        /// Whether a card of NVIDIA sits on the bus all the same.
        cards: u64,
    },
    /// There is one and it does not work.
    Broken {
        /// What it said.
        reason: String,
        /// Whether its library and its module in the kernel are of two versions.
        mismatch: bool,
    },
    /// It works.
    Driver {
        /// Its version.
        version: String,
        /// The newest CUDA that it runs, such as 12.8.
        cuda: Option<String>,
        /// The cards.
        cards: Vec<Card>,
    },
}

impl Default for Gpus {
    fn default() -> Self {
        Self::NoDriver { cards: 0 }
    }
}

/// A card.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Card {
    /// Its number, from 0.
    pub index: u32,
    /// As its maker calls it.
    pub name: String,
    /// Its place on the bus, such as `00000000:01:00.0`.
    pub bus: Option<String>,
    /// Why it cannot be looked at.
    pub lost: Option<String>,
    /// Compute capability, such as 8.9.
    pub capability: Option<String>,
    /// Memory of the card.
    pub total_bytes: Option<u64>,
    /// Memory that nobody uses.
    pub free_bytes: Option<u64>,
    /// Memory that programs use; what the driver keeps for itself does not count.
    pub used_bytes: Option<u64>,
    /// Who uses it.
    pub processes: Vec<Process>,
    /// Generation of its PCIe link.
    pub link_generation: Reach,
    /// Lanes of its PCIe link.
    pub link_width: Reach,
    /// Clock of its processors, in MHz.
    pub clock_mhz: Reach,
    /// Clock of its memory, in MHz.
    pub memory_clock_mhz: Reach,
    /// Why its clocks are not higher.
    pub held_back: Vec<HeldBack>,
    /// Degrees Celsius.
    pub celsius: Option<u32>,
    /// Whether programs may compute on it; everybody, where the card does not say.
    pub compute: Compute,
    /// What the card does not say.
    pub unanswered: Vec<Unanswered>,
}

/// A question that a card does not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unanswered {
    /// What was asked.
    pub what: String,
    /// What the driver said instead.
    pub reason: String,
}

/// A value that moves below a maximum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reach {
    /// What it is.
    pub now: Option<u32>,
    /// What the card, and for a link its slot, can do.
    pub max: Option<u32>,
}

/// A process on a card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its program, where it may be known.
    pub name: Option<String>,
    /// What it uses.
    pub used_bytes: Option<u64>,
}

/// Why clocks are not higher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeldBack {
    /// Nothing runs.
    Idle,
    /// Somebody set them.
    Setting,
    /// The limit of power.
    Power,
    /// The power supply asked for it.
    PowerBrake,
    /// It is too hot.
    Heat,
    /// Heat, power or the supply: the card does not say.
    Hardware,
    /// Another card of its group.
    Group,
}

/// Who may compute on a card.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compute {
    /// Everybody.
    #[default]
    Shared,
    /// One process at a time.
    Exclusive,
    /// Nobody.
    Prohibited,
}

/// The profile `cpu`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CpuProfile {
    /// The machine that it was recorded on.
    pub recorded_on: String,
    /// The kernels that it was recorded with.
    pub kernels: String,
    /// What a recording of this machine would say.
    pub this_machine: String,
}

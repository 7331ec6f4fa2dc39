//! What a computer can do: sizes, rates, latencies, each with an interval.

use serde::{Deserialize, Serialize};

use crate::ContentHash;
use crate::dtype::DType;
use crate::forecast::Provenance;
use crate::job::{OpCost, OpKind, Stage, StageKind, Task};
use crate::plan::Tier;
use crate::site::{Op, Site, SiteTable};
use crate::units::{Bytes, Nanos};

/// A figure with its spread. For rates `p10` is the slow end and `p90` the fast one; a forecast's
/// p90 time uses the p10 rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// One in ten is below.
    pub p10: f64,
    /// The median.
    pub p50: f64,
    /// One in ten is above.
    pub p90: f64,
}

impl Quantiles {
    /// A figure without spread.
    #[must_use]
    pub const fn exactly(value: f64) -> Self {
        Self { p10: value, p50: value, p90: value }
    }

    /// The rate to use for an estimate.
    #[must_use]
    pub const fn rate(&self, estimate: crate::Estimate) -> f64 {
        match estimate {
            crate::Estimate::Fast => self.p90,
            crate::Estimate::Median => self.p50,
            crate::Estimate::Slow => self.p10,
        }
    }

    /// The time to use for an estimate, where the figure is a time and not a rate.
    #[must_use]
    pub const fn time(&self, estimate: crate::Estimate) -> f64 {
        match estimate {
            crate::Estimate::Fast => self.p10,
            crate::Estimate::Median => self.p50,
            crate::Estimate::Slow => self.p90,
        }
    }
}

/// A rate that depends on the amount of work: measured points, interpolated in the logarithm of the
/// amount, held flat beyond the ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// A fixed time for every operation, in nanoseconds.
    pub latency_ns: f64,
    /// `(amount, amount per second)`, amounts rising.
    pub points: Vec<(f64, Quantiles)>,
}

impl Curve {
    /// A curve with one rate for every amount.
    #[must_use]
    pub fn flat(latency_ns: f64, rate: Quantiles) -> Self {
        Self { latency_ns, points: vec![(1.0, rate)] }
    }

    /// The time for an amount, in nanoseconds; the latency alone for no amount.
    #[must_use]
    pub fn time_ns(&self, amount: f64, estimate: crate::Estimate) -> f64 {
        if amount <= 0.0 {
            return self.latency_ns;
        }
        self.latency_ns + amount / self.rate(amount, estimate) * 1e9
    }

    fn rate(&self, amount: f64, estimate: crate::Estimate) -> f64 {
        let after = self.points.partition_point(|(x, _)| *x <= amount);
        let value = |i: usize| self.points[i].1.rate(estimate);
        match after {
            0 => self.points.first().map_or(f64::INFINITY, |(_, q)| q.rate(estimate)),
            n if n == self.points.len() => value(n - 1),
            n => {
                let (low, high) = (self.points[n - 1].0, self.points[n].0);
                let share = (amount / low).ln() / (high / low).ln();
                value(n - 1) + (value(n) - value(n - 1)) * share
            }
        }
    }
}

/// How fast one kind of operation runs in one type: the slower of its arithmetic and its memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpRate {
    /// What is done.
    pub kind: OpKind,
    /// The type of the arithmetic.
    pub dtype: DType,
    /// Floating-point operations per second against floating-point operations of one call; its
    /// latency is the cost of a launch.
    pub flops: Curve,
    /// Bytes per second against bytes of one call.
    pub bytes: Curve,
}

impl OpRate {
    fn time_ns(&self, cost: &OpCost, estimate: crate::Estimate) -> f64 {
        let count = f64::from(cost.count.max(1));
        let flops = self.flops.time_ns(cost.flops as f64 / count, estimate);
        let bytes = self.bytes.time_ns(cost.bytes as f64 / count, estimate);
        flops.max(bytes) * count
    }
}

/// The device: a GPU, or the CPU's own accounting domain of RAM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// The product name.
    pub name: String,
    /// Memory of the whole device.
    pub memory: Bytes,
    /// Sizes are rounded up to a multiple of this.
    pub granularity: u64,
    /// Context, modules and libraries: taken before the first tensor.
    pub fixed_overhead: Bytes,
    /// Whose scratch declarations hold on this device.
    pub kernel_set: String,
    /// The time that allocating a buffer takes, where that was measured.
    pub allocation: Option<Curve>,
    /// True where device memory is host memory: blocks are read from disk straight into slots, and
    /// reading and copying share one lane.
    pub unified: bool,
}

/// The host's memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostSpec {
    /// RAM of the whole machine.
    pub memory: Bytes,
    /// Bytes of file per second of conversion between element types while loading.
    pub convert: Curve,
    /// The same from one type to another, where that was measured.
    pub conversions: Vec<(DType, DType, Curve)>,
}

impl HostSpec {
    /// The time of converting so many bytes of file. Where a pair was not measured: types with scales take their time
    /// for each element, whatever plain type it comes from or becomes, and go by way of a plain one; other pairs take
    /// the rate of all.
    fn conversion_ns(&self, from: DType, to: DType, file: f64, estimate: crate::Estimate) -> f64 {
        let find = |fits: &dyn Fn(DType, DType) -> bool| self.conversions.iter().find(|(from, to, _)| fits(*from, *to));
        if let Some((_, _, curve)) = find(&|f, t| (f, t) == (from, to)) {
            return curve.time_ns(file, estimate);
        }
        let rate = |bytes: f64| self.convert.time_ns(bytes, estimate);
        let elements = file / from.block_bytes() as f64 * from.block_elements() as f64;
        let packed = |elements: f64| {
            let like = find(&|f, t| f.is_plain() && t == to);
            like.map(|(f, _, curve)| curve.time_ns(elements * f.element_bytes() as f64, estimate))
        };
        let unpacked = || find(&|f, t| f == from && t.is_plain()).map(|(_, _, curve)| curve.time_ns(file, estimate));
        match (from.is_plain(), to.is_plain()) {
            (true, true) => rate(file),
            (true, false) => packed(elements).unwrap_or_else(|| rate(file)),
            (false, true) => unpacked().unwrap_or_else(|| rate(file)),
            (false, false) => unpacked().unwrap_or_else(|| rate(file)) + packed(elements).unwrap_or_else(|| rate(file)),
        }
    }
}

/// The link between host and device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkSpec {
    /// Pinned host memory to the device.
    pub h2d_pinned: Curve,
    /// Pageable host memory to the device.
    pub h2d_pageable: Curve,
    /// Device to host.
    pub d2h: Curve,
}

/// The disk that weights are read from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiskSpec {
    /// Sequential reads of a block.
    pub read: Curve,
    /// The same from files that the operating system holds in its page cache, where that was measured.
    pub cached: Option<Curve>,
}

/// A machine as data, made from a profile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The profile's name, such as `rtx-3060-12gb`.
    pub name: String,
    /// The profile's content hash.
    pub hash: ContentHash,
    /// How the least certain of the figures was obtained.
    pub provenance: Provenance,
    /// The device.
    pub device: Device,
    /// The host.
    pub host: HostSpec,
    /// The link.
    pub link: LinkSpec,
    /// The disk.
    pub disk: DiskSpec,
    /// Rates of operations, for those that no table has.
    pub ops: Vec<OpRate>,
    /// Recorded times of operations by shape.
    pub sites: Vec<SiteTable>,
    /// What computing and loading do to each other.
    pub contention: Contention,
    /// How whole stages compare with the sum of their operations, where runs have shown it.
    pub calibration: Vec<Level>,
}

/// Speeds while the device computes and a load is in flight, as shares of the speeds alone: above 0, at most 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Contention {
    /// Of computing.
    pub compute: f64,
    /// Of loading.
    pub load: f64,
}

impl Contention {
    /// Neither slows the other.
    pub const NONE: Self = Self { compute: 1.0, load: 1.0 };
}

/// What runs of one kind of stage took, beside the sum of their operations' times: `factor x (start + operations)`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Level {
    /// The kind of stage.
    pub stage: StageKind,
    /// The type of the arithmetic.
    pub dtype: DType,
    /// What a stage takes before its first operation, and for finding caches empty, in nanoseconds.
    pub start_ns: f64,
    /// The multiple; `p10` is the fast end.
    pub factor: Quantiles,
}

/// A job needs an operation for which a profile has no figure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("profile '{profile}' has no rate for {kind:?} in {dtype}: choose another storage type or another profile")]
pub struct MissingRate {
    /// The profile.
    pub profile: String,
    /// The kind of operation.
    pub kind: OpKind,
    /// The type it would run in.
    pub dtype: DType,
}

impl Machine {
    /// The time of a task's arithmetic on the device.
    ///
    /// # Errors
    /// If the profile has no figure for one of the task's operations; none is made up.
    pub fn task_time(&self, stage: StageKind, task: &Task, estimate: crate::Estimate) -> Result<Nanos, MissingRate> {
        let level = self.level(stage, task);
        // Where runs have shown how far a stage strays, the spread of single operations says nothing more.
        let of_ops = if level.is_some() { crate::Estimate::Median } else { estimate };
        let mut total = 0.0;
        for cost in &task.ops {
            total += self.op_time_ns(cost, of_ops)?;
        }
        total *= level.map_or(1.0, |l| l.factor.time(estimate));
        if task.gathered > Bytes::ZERO {
            total += self.disk.read.time_ns(task.gathered.as_f64(), estimate);
        }
        Ok(Nanos(total.round() as u64))
    }

    /// The level of a task's stage in the type of its matrix products.
    fn level(&self, stage: StageKind, task: &Task) -> Option<&Level> {
        self.level_of(stage, task.ops.iter().max_by_key(|cost| cost.flops)?.dtype)
    }

    /// The level of a kind of stage in a type of arithmetic, if runs have shown one.
    #[must_use]
    pub fn level_of(&self, stage: StageKind, dtype: DType) -> Option<&Level> {
        self.calibration.iter().find(|l| l.stage == stage && l.dtype == dtype)
    }

    /// What a stage takes once, on top of its operations; nothing where no run has shown it.
    #[must_use]
    pub fn start_time(&self, stage: &Stage, estimate: crate::Estimate) -> Nanos {
        let level = stage.arithmetic().and_then(|dtype| self.level_of(stage.kind, dtype));
        Nanos(level.map_or(0.0, |l| l.start_ns * l.factor.time(estimate)).round() as u64)
    }

    /// The time of equal operations in nanoseconds, as recorded for their shape or else by the rate of their kind.
    fn op_time_ns(&self, cost: &OpCost, estimate: crate::Estimate) -> Result<f64, MissingRate> {
        if let Some(table) = self.sites.iter().find(|table| table.covers(cost)) {
            return Ok(table.time_ns(&cost.site, estimate) * f64::from(cost.count));
        }
        if !cost.site.weight.is_plain() {
            let plain = OpCost { site: Site { weight: cost.dtype, ..cost.site }, ..*cost };
            return Ok(self.op_time_ns(&plain, estimate)? + self.unpacking_ns(cost, estimate)?);
        }
        let rate = self.ops.iter().find(|r| r.kind == cost.kind && r.dtype == cost.dtype);
        let missing = || MissingRate { profile: self.name.clone(), kind: cost.kind, dtype: cost.dtype };
        Ok(rate.ok_or_else(missing)?.time_ns(cost, estimate))
    }

    /// What it takes to make weights with scales into what is multiplied, where no table has that: as an elementwise
    /// operation that reads the one and writes the other.
    fn unpacking_ns(&self, cost: &OpCost, estimate: crate::Estimate) -> Result<f64, MissingRate> {
        let (packed, elements) = (cost.site.weight, cost.site.weights().saturating_mul(u64::from(cost.count)));
        let bytes = packed.bytes(elements) + cost.dtype.bytes(elements);
        let site = Site { op: Op::Cast, weight: cost.dtype, dims: [bytes.0 / u64::from(cost.count.max(1)), 0, 0, 0] };
        self.op_time_ns(&OpCost { kind: OpKind::Elementwise, site, flops: 0, bytes: bytes.0, ..*cost }, estimate)
    }

    /// The machine with its weight files in the page cache, so that reading does not reach the disk; the machine as it
    /// is where that was not measured.
    #[must_use]
    pub fn with_cached_files(mut self) -> Self {
        self.disk.read = self.disk.cached.take().unwrap_or(self.disk.read);
        if !self.calibration.is_empty() {
            // As for moves in memory, see `of_moves`.
            let conversions = self.host.conversions.iter_mut().map(|(_, _, curve)| curve);
            for curve in conversions.chain([&mut self.disk.read, &mut self.host.convert]) {
                curve.points.iter_mut().for_each(|(_, rate)| *rate = Quantiles::exactly(rate.p50));
            }
        }
        self
    }

    /// What estimate of copies and allocations goes into a forecast: where runs have shown how far a stage strays, what
    /// its loads stray is in it, and the spread of single ones says nothing more. Reads from the disk itself stay as
    /// they were measured, since runs for calibration have their files in the page cache.
    fn of_moves(&self, estimate: crate::Estimate) -> crate::Estimate {
        if self.calibration.is_empty() { estimate } else { crate::Estimate::Median }
    }

    /// The machine with a disk whose reads take so many times as long.
    #[must_use]
    pub fn with_slower_disk(mut self, times: f64) -> Self {
        let slower = |rate: &mut Quantiles| {
            *rate = Quantiles { p10: rate.p10 / times, p50: rate.p50 / times, p90: rate.p90 / times };
        };
        self.disk.read.points.iter_mut().for_each(|(_, rate)| slower(rate));
        self.disk.read.latency_ns *= times;
        self
    }

    /// The time that a copy of one block keeps the link busy.
    #[must_use]
    pub fn copy_time(&self, from: Tier, bytes: Bytes, estimate: crate::Estimate) -> Nanos {
        let curve = match from {
            Tier::Pinned => &self.link.h2d_pinned,
            Tier::Host | Tier::Disk | Tier::Device => &self.link.h2d_pageable,
        };
        Nanos(curve.time_ns(bytes.as_f64(), self.of_moves(estimate)).round() as u64)
    }

    /// The time that reading one block keeps the disk busy, conversion included.
    #[must_use]
    pub fn read_time(&self, file: Bytes, conversion: Option<(DType, DType)>, estimate: crate::Estimate) -> Nanos {
        let read = self.disk.read.time_ns(file.as_f64(), estimate);
        let convert = conversion.map_or(0.0, |(from, to)| self.host.conversion_ns(from, to, file.as_f64(), estimate));
        Nanos((read + convert).round() as u64)
    }

    /// The time that allocating takes by the size of a buffer, and which end of it a forecast takes.
    #[must_use]
    pub fn allocation(&self, estimate: crate::Estimate) -> Option<(&Curve, crate::Estimate)> {
        Some((self.device.allocation.as_ref()?, self.of_moves(estimate)))
    }

    /// The time to allocate the host copy of one block: that of a buffer, where both are the same memory.
    #[must_use]
    pub fn host_allocation_time(&self, bytes: Bytes, estimate: crate::Estimate) -> Nanos {
        let curve = self.allocation(estimate).filter(|_| self.device.unified);
        Nanos(curve.map_or(0.0, |(curve, end)| curve.time_ns(bytes.as_f64(), end)).round() as u64)
    }

    /// The time to send bytes to the host.
    #[must_use]
    pub fn send_time(&self, bytes: Bytes, estimate: crate::Estimate) -> Nanos {
        Nanos(self.link.d2h.time_ns(bytes.as_f64(), self.of_moves(estimate)).round() as u64)
    }
}

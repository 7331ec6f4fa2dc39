//! From a profile to a machine.

use loadline_core::{
    Bytes, Contention, Curve, Device, DiskSpec, HostSpec, Level, LinkSpec, Machine, OpRate, Provenance, Quantiles,
    SiteTable,
};

use crate::error::ProfileError;
use crate::schema::{
    Basis, ContentionPart, DevicePart, DiskPart, LevelPart, LinkPart, OpPart, Point, Profile, Rate, SiteRows,
};

impl Profile {
    /// The machine that the profile describes: a rate is its points, or its share of the peak.
    ///
    /// The fixed overhead is the p90 one: a budget that is short by a little more overhead than
    /// usual fails in the middle of a run, and one that is too careful costs a few blocks.
    /// The provenance is that of the least certain figure; peaks count through the rates made of them.
    ///
    /// # Errors
    /// If [`Profile::lint`] finds anything, which it does not in a profile that was parsed.
    pub fn to_machine(&self) -> Result<Machine, ProfileError> {
        self.sound(&self.name)?;
        let recorded = self.device.recorded.as_ref();
        Ok(Machine {
            name: self.name.clone(),
            hash: self.hash(),
            provenance: self.provenances().into_iter().max().unwrap_or(Provenance::Datasheet),
            device: device(&self.device),
            host: HostSpec {
                memory: Bytes(self.host.memory_bytes.value),
                convert: curve(&self.host.convert, 0.0, None),
                conversions: self.host.conversions.iter().map(|c| (c.from, c.to, curve(&c.rate, 0.0, None))).collect(),
            },
            link: link(&self.link),
            disk: disk(&self.disk),
            ops: self.device.ops.iter().flat_map(|op| rates(&self.device, op)).collect(),
            sites: recorded.iter().flat_map(|r| r.sites.iter().map(table)).collect(),
            contention: recorded.and_then(|r| r.contention.as_ref()).map_or(Contention::NONE, contention),
            calibration: recorded.iter().flat_map(|r| r.calibration.iter().map(level)).collect(),
        })
    }

    /// Every provenance that the profile's figures have.
    fn provenances(&self) -> Vec<Provenance> {
        let Self { device, link, host, disk, .. } = self;
        let mut all = vec![
            device.memory_bytes.provenance,
            device.granularity_bytes.provenance,
            device.fixed_overhead_bytes.provenance,
            device.launch_ns.provenance,
            link.latency_ns.provenance,
            host.memory_bytes.provenance,
            disk.latency_ns.provenance,
        ];
        let rates = [&link.h2d_pinned, &link.h2d_pageable, &link.d2h, &host.convert, &disk.read];
        let ops = device.ops.iter().flat_map(|op| [&op.flops, &op.bytes]);
        all.extend(rates.into_iter().chain(ops).map(|rate| rate.provenance));
        let of_host = host.conversions.iter().map(|c| &c.rate);
        all.extend(of_host.chain(&disk.cached).map(|rate| rate.provenance));
        if let Some(recorded) = &device.recorded {
            all.extend(recorded.sites.iter().map(|rows| rows.provenance));
            all.extend(recorded.allocation.iter().map(|rate| rate.provenance));
            let contention = recorded.contention.iter().flat_map(|c| [&c.compute, &c.load]);
            all.extend(recorded.calibration.iter().filter_map(|l| l.start_ns.as_ref()).map(|known| known.provenance));
            let levels = recorded.calibration.iter().map(|level| &level.factor);
            all.extend(contention.chain(levels).map(|figure| figure.provenance));
        }
        all
    }
}

fn device(part: &DevicePart) -> Device {
    Device {
        name: part.name.clone(),
        memory: Bytes(part.memory_bytes.value),
        granularity: part.granularity_bytes.value,
        fixed_overhead: Bytes(part.fixed_overhead_bytes.spread.p90.ceil() as u64),
        kernel_set: part.kernel_set.clone(),
        allocation: part.recorded.as_ref().and_then(|r| r.allocation.as_ref()).map(|rate| curve(rate, 0.0, None)),
        unified: part.unified,
    }
}

fn disk(part: &DiskPart) -> DiskSpec {
    // The page cache answers without the disk's latency.
    let cached = part.cached.as_ref().map(|rate| curve(rate, 0.0, None));
    DiskSpec { read: curve(&part.read, part.latency_ns.value, None), cached }
}

fn table(rows: &SiteRows) -> SiteTable {
    SiteTable::new(rows.op, rows.dtype, rows.weight, rows.rows.iter().map(|row| row.0).collect())
}

fn contention(part: &ContentionPart) -> Contention {
    Contention { compute: part.compute.spread.p50, load: part.load.spread.p50 }
}

fn level(part: &LevelPart) -> Level {
    let start_ns = part.start_ns.as_ref().map_or(0.0, |known| known.value);
    Level { stage: part.stage, dtype: part.dtype, start_ns, factor: part.factor.spread }
}

fn link(part: &LinkPart) -> LinkSpec {
    let peak = part.pcie.as_ref().map(|known| known.value.peak_bytes_per_s());
    let curve = |rate| curve(rate, part.latency_ns.value, peak);
    LinkSpec { h2d_pinned: curve(&part.h2d_pinned), h2d_pageable: curve(&part.h2d_pageable), d2h: curve(&part.d2h) }
}

/// The launch is in both curves: an operation starts before it computes and before it moves bytes,
/// so the slower of the two comes on top of it.
fn rates<'a>(device: &'a DevicePart, op: &'a OpPart) -> impl Iterator<Item = OpRate> + 'a {
    let launch = device.launch_ns.value;
    op.dtypes.iter().map(move |&dtype| {
        let peak_dtype = DevicePart::peak_dtype(op.kind, dtype);
        let peak_flops = device.peak_flops_per_s.get(&peak_dtype).map(|known| known.value);
        let peak_bytes = device.peak_bytes_per_s.as_ref().map(|known| known.value);
        OpRate {
            kind: op.kind,
            dtype,
            flops: curve(&op.flops, launch, peak_flops),
            bytes: curve(&op.bytes, launch, peak_bytes),
        }
    })
}

fn curve(rate: &Rate, latency_ns: f64, peak: Option<f64>) -> Curve {
    match &rate.basis {
        // Lint has refused a utilisation without a peak; a peak of zero would show as an infinite time.
        Basis::Utilisation(share) => Curve::flat(latency_ns, scaled(share, peak.unwrap_or(0.0))),
        Basis::Points(points) => Curve { latency_ns, points: points.iter().map(pair).collect() },
    }
}

fn pair(point: &Point) -> (f64, Quantiles) {
    (point.amount, point.rate)
}

fn scaled(share: &Quantiles, peak: f64) -> Quantiles {
    Quantiles { p10: share.p10 * peak, p50: share.p50 * peak, p90: share.p90 * peak }
}

//! A profile as a flat list of its figures, for tables, comparisons and checks.

use loadline_core::{Bytes, OpKind, Provenance, Quantiles};

use crate::schema::{Basis, DevicePart, Figure, Known, OpPart, Profile, Rate};

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Bytes per second.
    BytesPerSecond,
    /// Floating-point operations per second.
    FlopsPerSecond,
    /// Nanoseconds.
    Nanoseconds,
}

impl Unit {
    /// A value with its unit, as people read it.
    #[must_use]
    pub fn show(self, value: f64) -> String {
        match self {
            Self::Bytes => Bytes(value as u64).to_string(),
            Self::BytesPerSecond => scaled(value, "B/s"),
            Self::FlopsPerSecond => scaled(value, "FLOP/s"),
            Self::Nanoseconds if value < 1e6 => format!("{} us", short(value / 1e3)),
            Self::Nanoseconds => format!("{} ms", short(value / 1e6)),
        }
    }
}

fn scaled(value: f64, unit: &str) -> String {
    let steps = [(1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    let (size, letter) = steps.into_iter().find(|(size, _)| value >= *size).unwrap_or((1.0, ""));
    format!("{} {letter}{unit}", short(value / size))
}

/// Four digits at most, and no zeros at the end.
fn short(value: f64) -> String {
    let places = if value >= 100.0 { 1 } else { 2 };
    let text = format!("{value:.places$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// One figure of a profile.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Where it stands, with operations by kind and type: `device.linear.bf16.flops`.
    pub field: String,
    /// What it counts.
    pub unit: Unit,
    /// The figure at each amount of one call; a single one with amount 0 where it holds for all.
    pub values: Vec<(f64, Quantiles)>,
    /// How it was obtained.
    pub provenance: Provenance,
    /// From where.
    pub source: String,
}

impl Entry {
    /// The values in words: `25.5 TFLOP/s`, or with the interval where there is one.
    #[must_use]
    pub fn show(&self) -> String {
        match self.values.as_slice() {
            [] => "nothing".to_owned(),
            [(_, only)] => self.spread(only),
            [first, .., last] => {
                let (low, high) = (self.unit.show(first.1.p50), self.unit.show(last.1.p50));
                format!("{low} to {high} over {} amounts", self.values.len())
            }
        }
    }

    fn spread(&self, q: &Quantiles) -> String {
        let show = |value| self.unit.show(value);
        if q.p10 == q.p90 { show(q.p50) } else { format!("{} ({} to {})", show(q.p50), show(q.p10), show(q.p90)) }
    }
}

impl Profile {
    /// Every figure, rates as they are used: a share of a peak is already multiplied by it. What a
    /// recording adds in tables of its own is not among them.
    #[must_use]
    pub fn figures(&self) -> Vec<Entry> {
        let Self { device, link, host, disk, .. } = self;
        let mut all = device_figures(device);
        let peak = link.pcie.as_ref().map(|known| known.value.peak_bytes_per_s());
        if let (Some(pcie), Some(peak)) = (&link.pcie, peak) {
            let values = vec![(0.0, Quantiles::exactly(peak))];
            let (provenance, source) = (pcie.provenance, pcie.source.clone());
            all.push(Entry { field: "link.pcie".to_owned(), unit: Unit::BytesPerSecond, values, provenance, source });
        }
        let bytes = |field: &str, of: &Rate, peak| rate(field, Unit::BytesPerSecond, of, peak);
        all.extend([
            known("link.latency_ns", Unit::Nanoseconds, &link.latency_ns),
            bytes("link.h2d_pinned", &link.h2d_pinned, peak),
            bytes("link.h2d_pageable", &link.h2d_pageable, peak),
            bytes("link.d2h", &link.d2h, peak),
            whole("host.memory_bytes", &host.memory_bytes),
            bytes("host.convert", &host.convert, None),
            known("disk.latency_ns", Unit::Nanoseconds, &disk.latency_ns),
            bytes("disk.read", &disk.read, None),
        ]);
        all.extend(disk.cached.iter().map(|cached| bytes("disk.cached", cached, None)));
        all
    }
}

fn device_figures(device: &DevicePart) -> Vec<Entry> {
    let mut all = vec![
        whole("device.memory_bytes", &device.memory_bytes),
        whole("device.granularity_bytes", &device.granularity_bytes),
        figure("device.fixed_overhead_bytes", Unit::Bytes, &device.fixed_overhead_bytes),
        known("device.launch_ns", Unit::Nanoseconds, &device.launch_ns),
    ];
    all.extend(device.peak_bytes_per_s.iter().map(|p| known("device.peak_bytes_per_s", Unit::BytesPerSecond, p)));
    let peak = |(dtype, peak)| known(&format!("device.peak_flops_per_s.{dtype}"), Unit::FlopsPerSecond, peak);
    all.extend(device.peak_flops_per_s.iter().map(peak));
    all.extend(device.ops.iter().flat_map(|op| op_figures(device, op)));
    all
}

fn op_figures(device: &DevicePart, op: &OpPart) -> Vec<Entry> {
    let bytes_peak = device.peak_bytes_per_s.as_ref().map(|known| known.value);
    let each = |dtype| {
        let peak = device.peak_flops_per_s.get(&DevicePart::peak_dtype(op.kind, dtype)).map(|known| known.value);
        let field = format!("device.{}.{dtype}", kind_name(op.kind));
        [
            rate(&format!("{field}.flops"), Unit::FlopsPerSecond, &op.flops, peak),
            rate(&format!("{field}.bytes"), Unit::BytesPerSecond, &op.bytes, bytes_peak),
        ]
    };
    op.dtypes.iter().copied().flat_map(each).collect()
}

/// The kind as profile files spell it.
pub(crate) const fn kind_name(kind: OpKind) -> &'static str {
    match kind {
        OpKind::Linear => "linear",
        OpKind::Attention => "attention",
        OpKind::Conv => "conv",
        OpKind::Elementwise => "elementwise",
    }
}

fn whole(field: &str, of: &Known<u64>) -> Entry {
    let values = vec![(0.0, Quantiles::exactly(of.value as f64))];
    let (provenance, source) = (of.provenance, of.source.clone());
    Entry { field: field.to_owned(), unit: Unit::Bytes, values, provenance, source }
}

fn known(field: &str, unit: Unit, of: &Known<f64>) -> Entry {
    let values = vec![(0.0, Quantiles::exactly(of.value))];
    Entry { field: field.to_owned(), unit, values, provenance: of.provenance, source: of.source.clone() }
}

fn figure(field: &str, unit: Unit, of: &Figure) -> Entry {
    let values = vec![(0.0, of.spread)];
    Entry { field: field.to_owned(), unit, values, provenance: of.provenance, source: of.source.clone() }
}

fn rate(field: &str, unit: Unit, of: &Rate, peak: Option<f64>) -> Entry {
    let peak = peak.unwrap_or(0.0);
    let values = match &of.basis {
        Basis::Utilisation(q) => vec![(0.0, Quantiles { p10: q.p10 * peak, p50: q.p50 * peak, p90: q.p90 * peak })],
        Basis::Points(points) => points.iter().map(|point| (point.amount, point.rate)).collect(),
    };
    Entry { field: field.to_owned(), unit, values, provenance: of.provenance, source: of.source.clone() }
}

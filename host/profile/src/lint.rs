//! What cannot be true about a profile.
//!
//! The limits are far outside of any machine of today. They catch a wrong unit, a figure counted
//! with sparsity, a clock that ran backwards; they do not judge whether a figure is right.

mod recorded;

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use loadline_core::{DType, OpKind, Quantiles};

use crate::error::Finding;
use crate::schema::{Basis, DevicePart, DiskPart, Figure, HostPart, Known, LinkPart, Point, Profile, Rate, SCHEMA};

/// From a slow scalar core to a thousand of today's accelerators.
const FLOPS_PER_S: RangeInclusive<f64> = 1e6..=1e18;
/// From a floppy drive to a hundred of today's widest memories.
const BYTES_PER_S: RangeInclusive<f64> = 1e4..=1e15;
/// Up to a second.
const LATENCY_NS: RangeInclusive<f64> = 0.0..=1e9;
/// Bytes or operations of one call.
const AMOUNT: RangeInclusive<f64> = 1.0..=1e18;
/// From 64 MiB to 64 TiB.
const MEMORY_BYTES: RangeInclusive<u64> = 1 << 26..=1 << 46;
/// Up to 1 GiB, the largest page of today's machines.
const GRANULARITY_BYTES: RangeInclusive<u64> = 1..=1 << 30;
/// More work takes no less time. Timers, clocks, caches and larger pages make neighbouring points cross, and the ends
/// of the interval more so; only a fall below this share of the time is an error.
const TIME_LEAST: [Least; 3] = [("p10", |q| q.p10, 0.3), ("p50", |q| q.p50, 0.5), ("p90", |q| q.p90, 0.3)];
/// A quantile's name, the way to it, and a share.
type Least = (&'static str, fn(&Quantiles) -> f64, f64);
/// No cache is larger. A call that moves less may run from one, faster than memory does.
pub(crate) const CACHE_BYTES_MOST: f64 = (256 << 20) as f64;
const LANES: [u64; 5] = [1, 2, 4, 8, 16];

impl Profile {
    /// Everything that cannot be true: values out of range, not finite or out of order, rates above
    /// the peak of their part, calls that do more in less time, a slot for a device without one, and
    /// texts without which a reader could not judge a figure. Empty if sound.
    #[must_use]
    pub fn lint(&self) -> Vec<Finding> {
        let mut lint = Lint::default();
        if self.schema != SCHEMA {
            lint.add("schema", format!("'{}'", self.schema), format!("'{SCHEMA}'"));
        }
        let letters = self.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if self.name.is_empty() || !letters {
            lint.add("name", format!("'{}'", self.name), "made of lower-case letters, digits and hyphens");
        }
        lint.text("title", &self.title);
        lint.device(&self.device);
        lint.link(&self.link);
        lint.host(&self.host);
        lint.disk(&self.disk);
        if let (true, Some(pcie)) = (self.device.unified, &self.link.pcie) {
            let found = format!("PCI Express {}.0 x{}", pcie.value.generation, pcie.value.width);
            lint.add("link.pcie", found, "absent, because 'device.unified' says that device memory is host memory");
        }
        lint.recorded(self);
        lint.findings
    }
}

/// The most that a rate can be, and the field that says so.
struct Peak {
    field: String,
    value: Option<f64>,
    /// Smaller calls are not bound by it.
    from_amount: f64,
}

/// What a rate counts: its limits, and its peak where the part can have one.
struct Scale {
    limits: RangeInclusive<f64>,
    peak: Option<Peak>,
}

impl Scale {
    fn bytes(peak: Option<Peak>) -> Self {
        Self { limits: BYTES_PER_S, peak }
    }
}

#[derive(Default)]
struct Lint {
    findings: Vec<Finding>,
}

impl Lint {
    fn add(&mut self, field: impl Into<String>, found: impl Into<String>, expected: impl Into<String>) {
        let finding = Finding::new(field, found, expected);
        // A rate that several types share is looked at once for each.
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    fn text(&mut self, field: impl Into<String>, text: &str) {
        if text.trim().is_empty() {
            self.add(field, "empty", "a text");
        }
    }

    fn number(&mut self, field: impl Into<String>, value: f64, limits: &RangeInclusive<f64>) {
        // A range contains no NaN and only what lies between its finite ends.
        if !limits.contains(&value) {
            self.add(field, value.to_string(), format!("between {:e} and {:e}", limits.start(), limits.end()));
        }
    }

    fn whole(&mut self, field: &str, known: &Known<u64>, limits: &RangeInclusive<u64>) {
        self.text(format!("{field}.source"), &known.source);
        if !limits.contains(&known.value) {
            let expected = format!("between {} and {} bytes", limits.start(), limits.end());
            self.add(format!("{field}.value"), known.value.to_string(), expected);
        }
    }

    fn known(&mut self, field: &str, known: &Known<f64>, limits: &RangeInclusive<f64>) {
        self.text(format!("{field}.source"), &known.source);
        self.number(format!("{field}.value"), known.value, limits);
    }

    fn spread(&mut self, field: &str, spread: &Quantiles, limits: &RangeInclusive<f64>) {
        let Quantiles { p10, p50, p90 } = *spread;
        self.number(format!("{field}.p10"), p10, limits);
        self.number(format!("{field}.p50"), p50, limits);
        self.number(format!("{field}.p90"), p90, limits);
        if p10 > p50 {
            self.add(format!("{field}.p50"), p50.to_string(), format!("at least p10, which is {p10}"));
        }
        if p50 > p90 {
            self.add(format!("{field}.p90"), p90.to_string(), format!("at least p50, which is {p50}"));
        }
    }

    fn figure(&mut self, field: &str, figure: &Figure, limits: &RangeInclusive<f64>) {
        self.text(format!("{field}.source"), &figure.source);
        self.spread(field, &figure.spread, limits);
    }

    fn rate(&mut self, field: &str, rate: &Rate, scale: &Scale) {
        self.text(format!("{field}.source"), &rate.source);
        match &rate.basis {
            Basis::Utilisation(share) => self.utilisation(field, share, scale),
            Basis::Points(points) => self.points(&format!("{field}.points"), points, scale),
        }
    }

    fn utilisation(&mut self, field: &str, share: &Quantiles, scale: &Scale) {
        let peak = scale.peak.as_ref();
        match peak {
            None => self.add(field, "a utilisation", "given as 'points', because nothing here has a peak"),
            Some(Peak { field: at, value: None, .. }) => {
                self.add(at, "missing", format!("given, because '{field}' is a utilisation"));
            }
            Some(_) => {}
        }
        // A share of a thousandth is a wrong unit rather than a slow kernel.
        self.spread(&format!("{field}.utilisation"), share, &(1e-3..=1.0));
    }

    fn points(&mut self, field: &str, points: &[Point], scale: &Scale) {
        if points.is_empty() {
            self.add(field, "an empty list", "at least one point");
        }
        for (i, point) in points.iter().enumerate() {
            let at = format!("{field}[{i}]");
            self.number(format!("{at}.amount"), point.amount, &AMOUNT);
            self.spread(&at, &point.rate, &scale.limits);
            if let Some(Peak { field: peak, value: Some(most), from_amount }) = &scale.peak
                && point.amount >= *from_amount
                && point.rate.p90 > *most
            {
                self.add(format!("{at}.p90"), point.rate.p90.to_string(), format!("at most '{peak}', {most}"));
            }
        }
        for (i, pair) in points.windows(2).enumerate() {
            let (before, after) = (pair[0].amount, pair[1].amount);
            if before >= after {
                let expected = format!("above the amount of the point before, {before}");
                self.add(format!("{field}[{}].amount", i + 1), after.to_string(), expected);
            }
            self.time_rises(&format!("{field}[{}]", i + 1), &pair[0], &pair[1]);
        }
    }

    fn time_rises(&mut self, field: &str, before: &Point, after: &Point) {
        for (name, of, least) in TIME_LEAST {
            let (short, long) = (before.amount / of(&before.rate), after.amount / of(&after.rate));
            if long < least * short {
                let most = of(&before.rate) * after.amount / before.amount;
                let found = format!(
                    "{}, which takes {:.4} of the time of the smaller call before it",
                    of(&after.rate),
                    long / short
                );
                self.add(
                    format!("{field}.{name}"),
                    found,
                    format!("at most about {most:.4e}, since more work takes no less time"),
                );
            }
        }
    }

    fn device(&mut self, device: &DevicePart) {
        self.text("device.name", &device.name);
        self.text("device.kernel_set", &device.kernel_set);
        self.whole("device.memory_bytes", &device.memory_bytes, &MEMORY_BYTES);
        self.whole("device.granularity_bytes", &device.granularity_bytes, &GRANULARITY_BYTES);
        let granularity = device.granularity_bytes.value;
        if !granularity.is_power_of_two() {
            self.add("device.granularity_bytes.value", granularity.to_string(), "a power of two");
        }
        let memory = device.memory_bytes.value as f64;
        self.figure("device.fixed_overhead_bytes", &device.fixed_overhead_bytes, &(0.0..=memory));
        self.known("device.launch_ns", &device.launch_ns, &LATENCY_NS);
        self.peaks(device);
        self.ops(device);
    }

    fn peaks(&mut self, device: &DevicePart) {
        if let Some(peak) = &device.peak_bytes_per_s {
            self.known("device.peak_bytes_per_s", peak, &BYTES_PER_S);
        }
        for (dtype, peak) in &device.peak_flops_per_s {
            self.known(&format!("device.peak_flops_per_s.{dtype}"), peak, &FLOPS_PER_S);
        }
    }

    fn ops(&mut self, device: &DevicePart) {
        if device.ops.is_empty() {
            self.add("device.ops", "an empty list", "at least one kind of operation");
        }
        let mut seen = BTreeSet::new();
        for (i, op) in device.ops.iter().enumerate() {
            let at = format!("device.ops[{i}]");
            if op.dtypes.is_empty() {
                self.add(format!("{at}.dtypes"), "an empty list", "at least one element type");
            }
            for dtype in &op.dtypes {
                if !seen.insert((op.kind, *dtype)) {
                    self.add(format!("{at}.dtypes"), dtype.to_string(), "named once for each kind");
                }
                let peak = flops_peak(device, op.kind, *dtype);
                self.rate(&format!("{at}.flops"), &op.flops, &Scale { limits: FLOPS_PER_S, peak: Some(peak) });
            }
            let peak = device.peak_bytes_per_s.as_ref().map(|known| known.value);
            let peak = Peak { field: "device.peak_bytes_per_s".to_owned(), value: peak, from_amount: CACHE_BYTES_MOST };
            self.rate(&format!("{at}.bytes"), &op.bytes, &Scale::bytes(Some(peak)));
        }
    }

    fn link(&mut self, link: &LinkPart) {
        self.text("link.name", &link.name);
        self.known("link.latency_ns", &link.latency_ns, &LATENCY_NS);
        if let Some(pcie) = &link.pcie {
            self.text("link.pcie.source", &pcie.source);
            if pcie.value.peak_bytes_per_s() <= 0.0 {
                self.add("link.pcie.value.generation", pcie.value.generation.to_string(), "between 1 and 6");
            }
            if !LANES.contains(&pcie.value.width) {
                self.add("link.pcie.value.width", pcie.value.width.to_string(), "1, 2, 4, 8 or 16");
            }
        }
        for (name, rate) in [("h2d_pinned", &link.h2d_pinned), ("h2d_pageable", &link.h2d_pageable), ("d2h", &link.d2h)]
        {
            let value = link.pcie.as_ref().map(|known| known.value.peak_bytes_per_s());
            let peak = Peak { field: "link.pcie".to_owned(), value, from_amount: 0.0 };
            self.rate(&format!("link.{name}"), rate, &Scale::bytes(Some(peak)));
        }
    }

    fn host(&mut self, host: &HostPart) {
        self.text("host.name", &host.name);
        self.whole("host.memory_bytes", &host.memory_bytes, &MEMORY_BYTES);
        self.rate("host.convert", &host.convert, &Scale::bytes(None));
        for (i, pair) in host.conversions.iter().enumerate() {
            self.rate(&format!("host.conversions[{i}].rate"), &pair.rate, &Scale::bytes(None));
        }
    }

    fn disk(&mut self, disk: &DiskPart) {
        self.text("disk.name", &disk.name);
        self.known("disk.latency_ns", &disk.latency_ns, &LATENCY_NS);
        self.rate("disk.read", &disk.read, &Scale::bytes(None));
        if let Some(cached) = &disk.cached {
            self.rate("disk.cached", cached, &Scale::bytes(None));
        }
    }
}

fn flops_peak(device: &DevicePart, kind: OpKind, dtype: DType) -> Peak {
    let dtype = DevicePart::peak_dtype(kind, dtype);
    Peak {
        field: format!("device.peak_flops_per_s.{dtype}"),
        value: device.peak_flops_per_s.get(&dtype).map(|known| known.value),
        from_amount: 0.0,
    }
}

//! From what was measured to a profile.

use std::collections::BTreeMap;

use loadline_core::{Bytes, DType, Op, OpKind, Provenance, Quantiles};
use loadline_models::ops::KernelSet;
use loadline_profile::{
    Basis, ContentionPart, ConversionPart, DevicePart, DiskPart, Figure, HostPart, Known, LinkPart, Measurement,
    MeasurementRow, OpPart, Point, Profile, Rate, Recorded, SCHEMA, SiteRow, SiteRows,
};

use super::{Measured, RecordOptions, moves, rows};

/// The page of the machines that this runs on; slabs start at one.
const PAGE: u64 = 4096;

pub(super) fn profile(options: &RecordOptions, measured: &Measured) -> Profile {
    Profile {
        schema: SCHEMA.to_owned(),
        name: options.name.clone(),
        title: format!("{}, {} threads (recorded)", options.processor, measured.kernels.exec.threads),
        device: device(options, measured),
        link: link(measured),
        host: host(options, measured),
        disk: disk(measured),
    }
}

pub(super) fn source(measured: &Measured, what: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let Measured { on, rounds, .. } = measured;
    format!("loadline {version}, {on}, {rounds} rounds: {what}")
}

pub(super) fn known<T>(value: T, provenance: Provenance, source: impl Into<String>) -> Known<T> {
    Known { value, provenance, source: source.into() }
}

fn device(options: &RecordOptions, measured: &Measured) -> DevicePart {
    let source = |what: &str| source(measured, what);
    let derived = |what: &str| (Provenance::Derived, what.to_owned());
    let (provenance, why) = derived("device memory is an accounting domain of RAM: no context, no modules");
    DevicePart {
        name: super::device_name(&options.processor),
        kernel_set: measured.kernels.name().to_owned(),
        unified: true,
        memory_bytes: known(options.memory.0, Provenance::Measured, "RAM as the operating system counts it"),
        granularity_bytes: known(PAGE, Provenance::Measured, "page size of the operating system"),
        fixed_overhead_bytes: Figure { spread: Quantiles::exactly(0.0), provenance, source: why },
        launch_ns: known(0.0, Provenance::Derived, "the call is part of the measured times"),
        peak_bytes_per_s: None,
        peak_flops_per_s: BTreeMap::new(),
        ops: classes(measured),
        recorded: Some(Recorded {
            sites: measured.sites.iter().map(|(kind, shapes)| table(*kind, rows(shapes), &source)).collect(),
            allocation: Some(rate(&measured.allocation, source("device buffers allocated, their pages written"))),
            contention: Some(contention(measured, &source)),
            calibration: Vec::new(),
        }),
        measurements: vec![sustained(measured, &source)],
    }
}

type Source<'a> = &'a dyn Fn(&str) -> String;

pub(super) fn table((op, dtype, weight): super::Kind, rows: Vec<SiteRow>, source: Source<'_>) -> SiteRows {
    let source = source("medians of repeated calls through the op layer, outputs allocated and dropped");
    SiteRows { op, dtype, weight, provenance: Provenance::Measured, source, rows }
}

fn contention(measured: &Measured, source: Source<'_>) -> ContentionPart {
    let figure = |spread| Figure {
        spread,
        provenance: Provenance::Measured,
        source: source(&format!(
            "{} beside reads of 16 MiB through the page cache, four times a round",
            anchor(measured)
        )),
    };
    ContentionPart { compute: figure(measured.contention.0), load: figure(measured.contention.1) }
}

/// The product that every round begins with, in words.
fn anchor(measured: &Measured) -> String {
    let (_, [m, n, k, _]) = measured.anchor;
    format!("a {m}x{n}x{k} product")
}

pub(super) fn sustained(measured: &Measured, source: Source<'_>) -> Measurement {
    let flops = arithmetic(measured.anchor.0.0, &measured.anchor.1);
    let row = |setting: &str, time_ns: f64| {
        MeasurementRow::rounded(setting.to_owned(), Quantiles::exactly(flops / time_ns * 1e9))
    };
    Measurement {
        name: "sustained-product".to_owned(),
        unit: "flops/s".to_owned(),
        provenance: Provenance::Measured,
        source: source(&format!("{}: whether the clock holds over the recording", anchor(measured))),
        rows: vec![row("first round", measured.sustained.0), row("last round", measured.sustained.1)],
    }
}

/// Rates by kind, for operations without a table: made of the tables, so they are derived.
pub(super) fn classes(measured: &Measured) -> Vec<OpPart> {
    let dtypes = [DType::F32, DType::Bf16];
    let kinds = [
        (OpKind::Linear, Op::Linear),
        (OpKind::Attention, Op::Attention),
        (OpKind::Conv, Op::Conv),
        (OpKind::Elementwise, Op::Add),
    ];
    let part = |(kind, op, dtype)| {
        let flops = rates(measured, op, dtype, &arithmetic)?;
        let bytes = rates(measured, Op::Add, dtype, &|_, dims: &[u64; 4]| dims[0] as f64)?;
        Some(OpPart { kind, dtypes: vec![dtype], flops, bytes })
    };
    kinds.into_iter().flat_map(|(kind, op)| dtypes.map(|dtype| (kind, op, dtype))).filter_map(part).collect()
}

/// Floating-point operations of a call; elementwise ones are bound by memory, and one a byte never binds.
fn arithmetic(op: Op, dims: &[u64; 4]) -> f64 {
    let [a, b, c, d] = dims.map(|n| n as f64);
    match op {
        Op::Linear => 2.0 * a * b * c,
        Op::Conv => 2.0 * a * b * c * d,
        Op::Attention => 4.0 * a * b * c * d,
        _ => a,
    }
}

/// The rate of an operation over the amount of its work, a point for each factor of 32.
fn rates(measured: &Measured, op: Op, dtype: DType, amount: &dyn Fn(Op, &[u64; 4]) -> f64) -> Option<Rate> {
    let tables = measured.sites.iter().filter(|(kind, _)| (kind.0, kind.1) == (op, dtype));
    let mut steps: BTreeMap<i32, Vec<(f64, Quantiles)>> = BTreeMap::new();
    for row in tables.flat_map(|(_, shapes)| rows(shapes)) {
        let (work, time) = (amount(op, &row.0.dims), row.0.time_ns);
        let rate = |ns: f64| work / ns * 1e9;
        let rate = Quantiles { p10: rate(time.p90), p50: rate(time.p50), p90: rate(time.p10) };
        steps.entry((work.log2() / 5.0).floor() as i32).or_default().push((work, rate));
    }
    let middle = |mut step: Vec<(f64, Quantiles)>| {
        step.sort_by(|a, b| a.1.p50.total_cmp(&b.1.p50));
        step[step.len() / 2]
    };
    let points: Vec<Point> = steps.into_values().map(middle).map(|(amount, rate)| Point { amount, rate }).collect();
    let why = source(measured, "the median shape of each amount of work in the table of the recording");
    (!points.is_empty()).then_some(Rate { basis: Basis::Points(points), provenance: Provenance::Derived, source: why })
}

fn points(measured: &[moves::Point]) -> Basis {
    Basis::Points(measured.iter().map(|(bytes, rate)| Point { amount: *bytes as f64, rate: *rate }).collect())
}

pub(super) fn rate(measured: &[moves::Point], source: String) -> Rate {
    Rate { basis: points(measured), provenance: Provenance::Measured, source }
}

fn link(measured: &Measured) -> LinkPart {
    let one = measured.copies.first().map(|(_, curve)| curve.as_slice()).unwrap_or_default();
    let copy = || rate(one, source(measured, "copies in RAM by one thread, as the copy thread makes them"));
    let setting = |threads: usize, bytes: u64| format!("{threads} threads, {} each", Bytes(bytes));
    let copies = measured.copies.iter().flat_map(|(threads, curve)| {
        curve.iter().map(move |(bytes, figure)| MeasurementRow::rounded(setting(*threads, *bytes), *figure))
    });
    LinkPart {
        name: "copies in RAM".to_owned(),
        pcie: None,
        latency_ns: known(0.0, Provenance::Derived, "the call is part of the measured rates"),
        h2d_pinned: copy(),
        h2d_pageable: copy(),
        d2h: copy(),
        measurements: vec![Measurement {
            name: "memory-copy".to_owned(),
            unit: "bytes/s".to_owned(),
            provenance: Provenance::Measured,
            source: source(measured, "copies in RAM by several threads at once, their rates added up"),
            rows: copies.collect(),
        }],
    }
}

pub(super) fn host(options: &RecordOptions, measured: &Measured) -> HostPart {
    let why = "bytes of file that loading converts, beyond what reading takes";
    let rate_of = |figure: Quantiles, what: &str| Rate {
        basis: Basis::Points(vec![Point { amount: 1.0, rate: figure }]),
        provenance: Provenance::Measured,
        source: source(measured, what),
    };
    let plain = measured.conversions.iter().filter(|(from, to, _)| from.is_plain() && to.is_plain());
    let slowest = plain.min_by(|a, b| a.2.p50.total_cmp(&b.2.p50));
    let convert = slowest.map_or(Quantiles::exactly(1e9), |(_, _, rate)| *rate);
    let pair = |(from, to, figure): &(DType, DType, Quantiles)| ConversionPart {
        from: *from,
        to: *to,
        rate: rate_of(*figure, why),
    };
    HostPart {
        name: format!("{} of RAM", options.memory),
        memory_bytes: known(options.memory.0, Provenance::Measured, "RAM as the operating system counts it"),
        convert: rate_of(convert, &format!("{why}; the slowest pair of plain types")),
        conversions: measured.conversions.iter().map(pair).collect(),
        measurements: Vec::new(),
    }
}

pub(super) fn disk(measured: &Measured) -> DiskPart {
    let cached = rate(
        &measured.cached,
        source(measured, "blocks of files in the page cache, loaded for the first time by one thread"),
    );
    let read = match &measured.blocks {
        Some((points, report)) => {
            let way = report.way.map_or_else(String::new, |way| format!(": {way}, {} in flight", report.in_flight));
            rate(
                points,
                source(measured, &format!("blocks one after the other, as runs read them past the page cache{way}")),
            )
        }
        None => {
            let why = "the file system takes no direct reads: the rate of cached ones stands in";
            Rate { provenance: Provenance::Derived, source: why.to_owned(), ..cached.clone() }
        }
    };
    let row = |(block, threads, figure): &(u64, u64, Quantiles)| {
        MeasurementRow::rounded(format!("{} blocks, {threads} at once", Bytes(*block)), *figure)
    };
    let grid = Measurement {
        name: "direct-read".to_owned(),
        unit: "bytes/s".to_owned(),
        provenance: Provenance::Measured,
        source: source(measured, "direct reads past the page cache by several threads at once"),
        rows: measured.disk.iter().map(row).collect(),
    };
    DiskPart {
        name: "the disk under the folder given".to_owned(),
        latency_ns: known(0.0, Provenance::Derived, "the wait is part of the measured rates"),
        read,
        cached: Some(cached),
        measurements: if measured.disk.is_empty() { Vec::new() } else { vec![grid] },
    }
}

//! From what was measured on a GPU to a profile.

use std::collections::BTreeMap;

use loadline_core::{Provenance, Quantiles};
use loadline_models::ops::KernelSet;
use loadline_nn::cuda::CudaKernels;
use loadline_profile::{
    ContentionPart, DevicePart, Figure, HostPart, LinkPart, Measurement, MeasurementRow, Pcie, Profile, Rate, Recorded,
    SCHEMA,
};

use super::super::moves::Point;
use super::super::parts::{classes, disk, host, known, rate, source, sustained, table};
use super::super::{Measured, RecordOptions, rows};
use super::{Card, exactly};

pub(super) fn profile(options: &RecordOptions, computed: &Measured, stored: &Measured, card: &Card<'_>) -> Profile {
    Profile {
        schema: SCHEMA.to_owned(),
        name: options.name.clone(),
        title: format!("{} (recorded)", card.gpu.facts().name),
        device: device(computed, card),
        link: link(computed, card),
        host: with_pinning(host(options, stored), computed, card),
        disk: disk(stored),
    }
}

fn device(computed: &Measured, card: &Card<'_>) -> DevicePart {
    let source = |what: &str| source(computed, &format!("{what}{}", state(card)));
    let facts = card.gpu.facts();
    DevicePart {
        name: facts.name.clone(),
        kernel_set: CudaKernels.name().to_owned(),
        unified: false,
        memory_bytes: known(facts.memory.0, Provenance::Measured, "what the driver gives programs"),
        granularity_bytes: known(card.granularity, Provenance::Measured, source("what one byte takes of a pool")),
        fixed_overhead_bytes: Figure {
            spread: exactly(facts.overhead),
            provenance: Provenance::Measured,
            source: source("free memory before and after a second context, and before and after the modules"),
        },
        launch_ns: known(0.0, Provenance::Derived, "the launch is part of the measured times"),
        peak_bytes_per_s: None,
        peak_flops_per_s: BTreeMap::new(),
        ops: classes(computed),
        recorded: Some(Recorded {
            sites: computed.sites.iter().map(|(kind, shapes)| table(*kind, rows(shapes), &source)).collect(),
            allocation: Some(rate(&card.allocation, source("memory taken from a new pool, and waited for"))),
            contention: Some(contention(computed, &source)),
            calibration: Vec::new(),
        }),
        measurements: vec![sustained(computed, &source)],
    }
}

/// Which driver and library, and the card's state, in words, for the origin of figures.
fn state(card: &Card<'_>) -> String {
    let driver = card.facts.as_ref().map(|facts| format!(", driver {}", facts.driver)).unwrap_or_default();
    let library = match card.gpu.kernels().blas() {
        Some(blas) => format!(", cuBLASLt {}", blas.version()),
        None => ", without cuBLASLt".to_owned(),
    };
    let others = card.facts.as_ref().map_or(0, |facts| facts.others);
    let others = if others > 0 { format!(", beside {others} other processes") } else { String::new() };
    let warm = card.warm.as_ref();
    let clock = warm.and_then(|warm| warm.clock_mhz).map(|mhz| format!(", {mhz} MHz")).unwrap_or_default();
    let held = if warm.is_some_and(crate::card::CardSample::is_throttled) { ", throttled" } else { "" };
    format!("{driver}{library}{clock}{held}{others}")
}

fn contention(computed: &Measured, source: &dyn Fn(&str) -> String) -> ContentionPart {
    let figure = |spread| Figure {
        spread,
        provenance: Provenance::Measured,
        source: source("products on the tensor cores beside copies of 32 MiB of locked memory"),
    };
    ContentionPart { compute: figure(computed.contention.0), load: figure(computed.contention.1) }
}

fn link(computed: &Measured, card: &Card<'_>) -> LinkPart {
    let source = |what: &str| source(computed, &format!("{what}{}", state(card)));
    let facts = card.facts.as_ref();
    let pcie = facts.and_then(|facts| facts.link_generation.zip(facts.link_width));
    let pcie = pcie.map(|(generation, width)| Pcie { generation: generation.into(), width: width.into() });
    let links = &card.links;
    let row = |setting: &str, figure: Quantiles| MeasurementRow::rounded(setting.to_owned(), figure);
    let locked = |points: &[Point], what: &str| match links.locked {
        true => rate(points, source(what)),
        false => Rate {
            provenance: Provenance::Derived,
            ..rate(points, source("the system locks no memory: copies of other memory stand in"))
        },
    };
    LinkPart {
        name: pcie.map_or("the card's link".to_owned(), |p| format!("PCIe {}.0 x{}", p.generation, p.width)),
        pcie: pcie.map(|value| known(value, Provenance::Measured, "NVIDIA's management library")),
        latency_ns: known(0.0, Provenance::Derived, "the wait is part of the measured rates"),
        h2d_pinned: locked(&links.up_pinned, "copies of locked memory to the card, by events"),
        h2d_pageable: rate(&links.up_pageable, source("copies of other memory to the card, by events")),
        d2h: locked(&links.down, "copies to locked memory, by events"),
        measurements: vec![Measurement {
            name: "both-ways".to_owned(),
            unit: "bytes/s".to_owned(),
            provenance: Provenance::Measured,
            source: source("copies in both directions at once, their rates added up"),
            rows: vec![row("32MiB each way", links.both)],
        }],
    }
}

fn with_pinning(mut host: HostPart, computed: &Measured, card: &Card<'_>) -> HostPart {
    host.measurements.extend(card.links.pinning.map(|(bytes, rate)| Measurement {
        name: "pinning".to_owned(),
        unit: "bytes/s".to_owned(),
        provenance: Provenance::Measured,
        source: source(computed, "host memory locked for the card"),
        rows: vec![MeasurementRow::rounded(format!("{bytes} at once"), rate)],
    }));
    host
}

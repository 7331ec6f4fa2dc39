//! Where a derived card's shares of its peaks come from: a recording, or a set of assumptions.

use std::collections::BTreeMap;

use loadline_core::{ContentHash, DType, Provenance, Quantiles};

use crate::datasheet::{Datasheet, Distance, Lineage};
use crate::error::Finding;
use crate::read::{FromNode, Node};
use crate::schema::{Figure, Known, OpPart, Profile};

const MIB: f64 = (1 << 20) as f64;
const GIB: f64 = (1 << 30) as f64;
/// What the driver keeps of a device's memory, in MiB, and for each of its GiB: 11.75 of 12 GiB,
/// 23.64 of 24 GiB and 79.1 of 80 GiB are reported under Linux.
const RESERVED_MIB: f64 = 130.0;
const RESERVED_MIB_PER_GIB: f64 = 10.0;

/// Figures of one card, or of one kind of card, that others can take over.
#[derive(Clone, Debug)]
pub struct Reference {
    /// The profile's name, or the set's.
    pub name: String,
    /// What it is near to.
    pub lineage: Lineage,
    /// The catalog name of the card that the figures hold for.
    pub card: String,
    /// The recording's hash; `None` for a set of assumptions.
    pub recording: Option<ContentHash>,
    /// Whose kernels the shares hold for.
    pub kernel_set: String,
    pub(crate) granularity_bytes: Known<u64>,
    pub(crate) launch_ns: Known<f64>,
    pub(crate) overhead: Overhead,
    /// The peaks that recorded points are shares of.
    pub(crate) bytes_per_s: Option<f64>,
    pub(crate) flops_per_s: BTreeMap<DType, f64>,
    pub(crate) ops: Vec<OpPart>,
}

/// How the fixed overhead of another card follows.
#[derive(Clone, Debug)]
pub(crate) enum Overhead {
    /// Context, modules and libraries in MiB: at least, and for each multiprocessor.
    Assumed { context: Quantiles, per_multiprocessor: Quantiles, source: String },
    /// What was recorded, and what of it the driver kept for the memory of that card.
    Recorded { figure: Figure, reserved_bytes: f64 },
}

impl Overhead {
    /// Bytes that are taken before the first tensor. Only what the card does not decide (context,
    /// modules, libraries) grows more uncertain with the distance.
    pub(crate) fn of(&self, sheet: &Datasheet, distance: Distance) -> Figure {
        let reserved = reserved_bytes(sheet);
        let total = |context: Quantiles| {
            map(&distance.widened(&context), |bytes| {
                (((reserved + bytes) / MIB).round() * MIB).clamp(0.0, sheet.memory_bytes.value as f64)
            })
        };
        match self {
            Self::Assumed { context, per_multiprocessor, source } => {
                let count = sheet.multiprocessors.value as f64;
                let spread = total(zip(context, per_multiprocessor, |base, each| (base + each * count) * MIB));
                Figure { spread, provenance: Provenance::Datasheet, source: source.clone() + ecc_words(sheet) }
            }
            Self::Recorded { figure, reserved_bytes } => {
                let spread = total(map(&figure.spread, |bytes| (bytes - reserved_bytes).max(0.0)));
                let source = format!("{}; with the driver's share for this card's memory", figure.source);
                Figure { spread, provenance: figure.provenance, source }
            }
        }
    }
}

fn ecc_words(sheet: &Datasheet) -> &'static str {
    if sheet.ecc_share.is_some() { "; check bits of error correction on top" } else { "" }
}

/// What the driver and the check bits keep of a card's memory.
fn reserved_bytes(sheet: &Datasheet) -> f64 {
    let memory = sheet.memory_bytes.value as f64;
    let check_bits = memory * sheet.ecc_share.as_ref().map_or(0.0, |share| share.value);
    RESERVED_MIB * MIB + RESERVED_MIB_PER_GIB * MIB * memory / GIB + check_bits
}

pub(crate) fn map(q: &Quantiles, f: impl Fn(f64) -> f64) -> Quantiles {
    Quantiles { p10: f(q.p10), p50: f(q.p50), p90: f(q.p90) }
}

fn zip(a: &Quantiles, b: &Quantiles, f: impl Fn(f64, f64) -> f64) -> Quantiles {
    Quantiles { p10: f(a.p10, b.p10), p50: f(a.p50, b.p50), p90: f(a.p90, b.p90) }
}

impl Reference {
    /// A recorded profile of a card whose data sheet is known. Peaks that the recording lacks are
    /// the data sheet's.
    #[must_use]
    pub fn recorded(profile: &Profile, sheet: &Datasheet) -> Self {
        let device = &profile.device;
        let mut flops: BTreeMap<_, _> = sheet.flops_per_s.iter().map(|(dtype, peak)| (*dtype, peak.value)).collect();
        flops.extend(device.peak_flops_per_s.iter().map(|(dtype, peak)| (*dtype, peak.value)));
        let bytes = device.peak_bytes_per_s.as_ref().unwrap_or(&sheet.bytes_per_s).value;
        Self {
            name: profile.name.clone(),
            lineage: sheet.lineage,
            card: sheet.name.clone(),
            recording: Some(profile.hash()),
            kernel_set: device.kernel_set.clone(),
            granularity_bytes: device.granularity_bytes.clone(),
            launch_ns: device.launch_ns.clone(),
            overhead: Overhead::Recorded {
                figure: device.fixed_overhead_bytes.clone(),
                reserved_bytes: reserved_bytes(sheet),
            },
            bytes_per_s: Some(bytes),
            flops_per_s: flops,
            ops: device.ops.clone(),
        }
    }
}

impl FromNode for Overhead {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding> {
        Ok(Self::Assumed {
            context: node.at("context_mib")?,
            per_multiprocessor: node.at("context_mib_per_multiprocessor")?,
            source: node.at("source")?,
        })
    }
}

/// A set of assumptions; the kernels of all data-sheet cards are CUDA's.
impl FromNode for Reference {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding> {
        Ok(Self {
            name: node.at("name")?,
            lineage: node.read()?,
            card: node.at("card")?,
            recording: None,
            kernel_set: "cuda".to_owned(),
            granularity_bytes: node.at("granularity_bytes")?,
            launch_ns: node.at("launch_ns")?,
            overhead: node.at("overhead")?,
            bytes_per_s: None,
            flops_per_s: BTreeMap::new(),
            ops: node.at("ops")?,
        })
    }
}

//! What a maker publishes about a card, and how near two cards are to each other.

use std::collections::BTreeMap;
use std::fmt;

use loadline_core::{DType, Provenance, Quantiles};
use serde::{Deserialize, Serialize};

use crate::error::Finding;
use crate::read::{FromNode, Node, one_of};
use crate::schema::{Known, Pcie};

/// A generation of multiprocessors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// Compute capability 7.5.
    Turing,
    /// 8.0 to 8.7.
    Ampere,
    /// 8.9.
    Ada,
    /// 9.0.
    Hopper,
    /// 10.0 to 12.1.
    Blackwell,
}

impl Architecture {
    /// The place in time; Ada and Hopper are two designs of the same years.
    const fn generation(self) -> u8 {
        match self {
            Self::Turing => 0,
            Self::Ampere => 1,
            Self::Ada | Self::Hopper => 2,
            Self::Blackwell => 3,
        }
    }

    /// The name used in files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Turing => "turing",
            Self::Ampere => "ampere",
            Self::Ada => "ada",
            Self::Hopper => "hopper",
            Self::Blackwell => "blackwell",
        }
    }
}

/// What feeds the tensor units, and so how much of their peak can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Units {
    /// The rate with f32 accumulation is held at half of what the units could do, or less, as on GeForce.
    Half,
    /// The full rate, with graphics memory.
    Full,
    /// The full rate, with stacked memory.
    Hbm,
}

impl Units {
    /// The name used in files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Half => "half",
            Self::Full => "full",
            Self::Hbm => "hbm",
        }
    }
}

/// What decides whether two cards use alike shares of their peaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Lineage {
    /// The generation.
    pub architecture: Architecture,
    /// What feeds the tensor units.
    pub units: Units,
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.architecture.name(), self.units.name())
    }
}

/// How far a figure is carried, nearest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Distance {
    /// The figure was made for this card.
    Card,
    /// Another card of the same architecture with the same kind of units.
    Architecture,
    /// The same architecture with other units, or the same units one generation away.
    Neighbour,
    /// Anything further.
    Far,
}

impl Distance {
    /// Between two lineages; [`Self::Card`] is for the caller to know.
    #[must_use]
    pub fn between(a: Lineage, b: Lineage) -> Self {
        if a == b {
            return Self::Architecture;
        }
        let steps = a.architecture.generation().abs_diff(b.architecture.generation());
        let near = a.architecture == b.architecture || (a.units == b.units && steps <= 1);
        if near { Self::Neighbour } else { Self::Far }
    }

    /// By how much the interval grows on each side, as a share.
    ///
    /// Assumed: nobody has recorded enough cards to measure it. [`crate::leave_one_out`] measures it
    /// once there are recordings, and these numbers then give way to its errors.
    #[must_use]
    pub const fn widening(self) -> f64 {
        match self {
            Self::Card => 0.0,
            Self::Architecture => 0.05,
            Self::Neighbour => 0.15,
            Self::Far => 0.4,
        }
    }

    /// The interval with its ends moved apart; the median stays, since a distance has no direction.
    pub(crate) fn widened(self, q: &Quantiles) -> Quantiles {
        let factor = 1.0 + self.widening();
        Quantiles { p10: q.p10 / factor, p50: q.p50, p90: q.p90 * factor }
    }

    /// In words that end a sentence about a transfer.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Card => "the card itself",
            Self::Architecture => "another card of the same architecture",
            Self::Neighbour => "a card of a neighbouring architecture",
            Self::Far => "a card of a distant architecture",
        }
    }
}

/// A card as its maker describes it. Every figure has the text that it was taken from; none is measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Datasheet {
    /// The name for command lines, with the memory only where a name is sold with several sizes.
    pub name: String,
    /// The name for people.
    pub title: String,
    /// What the driver calls it.
    pub device: String,
    /// What it is near to.
    #[serde(flatten)]
    pub lineage: Lineage,
    /// CUDA's compute capability, such as `8.6`.
    pub compute_capability: Known<String>,
    /// Streaming multiprocessors.
    pub multiprocessors: Known<u64>,
    /// Memory of the whole device.
    pub memory_bytes: Known<u64>,
    /// The share of memory that holds check bits and is never handed out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ecc_share: Option<Known<f64>>,
    /// Memory bandwidth.
    pub bytes_per_s: Known<f64>,
    /// Dense peaks with f32 accumulation.
    pub flops_per_s: BTreeMap<DType, Known<f64>>,
    /// The most that the card's connector can do.
    pub pcie: Known<Pcie>,
    /// The host part that such a card is usually found with.
    pub host: String,
    /// An assumed amount of RAM of that host.
    pub ram_bytes: u64,
    /// The disk part that such a host is usually found with.
    pub disk: String,
}

impl Datasheet {
    /// True where the type has no unit of its own on this card and runs at the rate of f32.
    #[must_use]
    pub fn emulates(&self, dtype: DType) -> bool {
        self.flops_per_s.get(&dtype).is_some_and(|known| is_assumption(&known.source))
    }
}

/// The word that begins the source of every figure that nobody published.
pub(crate) fn is_assumption(source: &str) -> bool {
    source.starts_with("assumption")
}

/// A figure of a data sheet: a value and its source.
struct Published<T>(Known<T>);

impl<T: FromNode> FromNode for Published<T> {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding> {
        let (value, source) = (node.at("value")?, node.at("source")?);
        Ok(Self(Known { value, provenance: Provenance::Datasheet, source }))
    }
}

impl FromNode for Architecture {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding> {
        one_of(node, "turing, ampere, ada, hopper or blackwell")
    }
}

impl FromNode for Units {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding> {
        one_of(node, "half, full or hbm")
    }
}

impl FromNode for Lineage {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding> {
        Ok(Self { architecture: node.at("architecture")?, units: node.at("units")? })
    }
}

impl FromNode for Datasheet {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding> {
        let peaks: BTreeMap<DType, Published<f64>> = node.at("flops_per_s")?;
        let pcie = node.child("pcie")?;
        Ok(Self {
            name: node.at("name")?,
            title: node.at("title")?,
            device: node.at("device")?,
            lineage: node.read()?,
            compute_capability: node.at::<Published<_>>("compute_capability")?.0,
            multiprocessors: node.at::<Published<_>>("multiprocessors")?.0,
            memory_bytes: node.at::<Published<_>>("memory_bytes")?.0,
            ecc_share: node.optional::<Published<_>>("ecc_share")?.map(|p| p.0),
            bytes_per_s: node.at::<Published<_>>("bytes_per_s")?.0,
            flops_per_s: peaks.into_iter().map(|(dtype, p)| (dtype, p.0)).collect(),
            pcie: Known { value: pcie.read()?, provenance: Provenance::Datasheet, source: pcie.at("source")? },
            host: node.at("host")?,
            ram_bytes: node.at("ram_bytes")?,
            disk: node.at("disk")?,
        })
    }
}

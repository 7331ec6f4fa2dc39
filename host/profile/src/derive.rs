//! A card that was not recorded: its own peaks, and another's shares of them.
//!
//! The rule, `share-of-peak`: an operation that would take equally long on both cards reaches the
//! same share of the peak, since launches, waves and tails are then the same part of it. So a
//! recorded point moves by the ratio of the peaks in both its amount and its rate; a share that was
//! assumed has no amount and stays. The interval grows with the distance ([`Distance::widening`]).

use loadline_core::{DType, OpKind, Provenance, Quantiles};

use crate::datasheet::{Datasheet, Distance};
use crate::lint::CACHE_BYTES_MOST;
use crate::reference::{Reference, map};
use crate::schema::{Basis, DevicePart, Figure, Known, OpPart, Point, Rate};

/// Why figures cannot be carried over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeriveError {
    /// No reference is given.
    #[error("'{card}' cannot be derived: there is no reference with kernels for it; give one with --from")]
    NoReference {
        /// The card.
        card: String,
    },
    /// A recorded rate has no peak to be a share of.
    #[error(
        "'{card}' cannot be derived from '{reference}': one of them has no peak for {dtype}; \
         derive from a card that computes {dtype}"
    )]
    NoPeak {
        /// The card.
        card: String,
        /// The reference.
        reference: String,
        /// The type.
        dtype: DType,
    },
    /// The reference is not among the cards whose peaks are known.
    #[error(
        "profile '{profile}' is of '{device}', which the catalog does not have, so its peaks are unknown: \
         derive from a card of `loadline profile list`"
    )]
    UnknownDevice {
        /// The reference's profile.
        profile: String,
        /// Its device.
        device: String,
    },
    /// The reference was recorded with other kernels.
    #[error(
        "'{card}' cannot be derived from '{reference}', which was recorded with the kernel set '{kernel_set}': \
         shares hold for one kernel set, so choose a profile of a GPU"
    )]
    KernelSet {
        /// The card.
        card: String,
        /// The reference.
        reference: String,
        /// The reference's kernels.
        kernel_set: String,
    },
}

/// How far a reference is from a card.
#[must_use]
pub fn distance(sheet: &Datasheet, reference: &Reference) -> Distance {
    if reference.card == sheet.name {
        return Distance::Card;
    }
    Distance::between(sheet.lineage, reference.lineage)
}

/// The reference to take: a recording of the same or of a neighbouring architecture before any
/// assumption, then the nearest assumption. Nearer comes first; of equals one with the same kind of
/// units, since what feeds them decides more than their age; then the first by name.
#[must_use]
pub fn nearest<'a>(sheet: &Datasheet, references: impl IntoIterator<Item = &'a Reference>) -> Option<&'a Reference> {
    references.into_iter().min_by_key(|reference| {
        let distance = distance(sheet, reference);
        let assumed = reference.recording.is_none();
        let other_units = reference.lineage.units != sheet.lineage.units;
        (assumed || distance == Distance::Far, distance, other_units, assumed, reference.name.clone())
    })
}

/// The device part of a card, with the shares of the reference. What is carried over from a
/// recording is `derived`, what rests on assumptions is `datasheet`; nothing is `measured`.
///
/// # Errors
/// If a recorded rate lacks a peak on either side, or the reference's kernels are not CUDA's.
pub fn derive(sheet: &Datasheet, reference: &Reference) -> Result<DevicePart, DeriveError> {
    if !reference.kernel_set.starts_with("cuda") {
        return Err(DeriveError::KernelSet {
            card: sheet.name.clone(),
            reference: reference.name.clone(),
            kernel_set: reference.kernel_set.clone(),
        });
    }
    let transfer = Transfer { sheet, reference, distance: distance(sheet, reference) };
    Ok(DevicePart {
        name: sheet.device.clone(),
        kernel_set: reference.kernel_set.clone(),
        unified: false,
        memory_bytes: sheet.memory_bytes.clone(),
        granularity_bytes: transfer.known(&reference.granularity_bytes),
        fixed_overhead_bytes: transfer.overhead(),
        launch_ns: transfer.known(&reference.launch_ns),
        peak_bytes_per_s: Some(sheet.bytes_per_s.clone()),
        peak_flops_per_s: sheet.flops_per_s.clone(),
        ops: transfer.ops()?,
        recorded: None,
        measurements: Vec::new(),
    })
}

struct Transfer<'a> {
    sheet: &'a Datasheet,
    reference: &'a Reference,
    distance: Distance,
}

impl Transfer<'_> {
    fn provenance(&self, own: Provenance) -> Provenance {
        own.max(Provenance::Derived)
    }

    /// What to add to a source, so that it says how far the figure came.
    fn source(&self, own: &str) -> String {
        let Reference { name, recording, card, .. } = self.reference;
        let percent = 100.0 * self.distance.widening();
        match (recording, self.distance) {
            (None, Distance::Card) => own.to_owned(),
            (None, _) => {
                format!(
                    "{own}; set '{name}' for {card}, carried to {}: interval {percent} % wider",
                    self.distance.words()
                )
            }
            (Some(hash), _) => {
                format!(
                    "share of peak of '{name}' ({hash}), carried to {}: interval {percent} % wider; there: {own}",
                    self.distance.words()
                )
            }
        }
    }

    fn known<T: Clone>(&self, known: &Known<T>) -> Known<T> {
        // A constant of the driver or an assumption for every card is not carried, it simply holds.
        let carried = self.reference.recording.is_some();
        let source = if carried { self.source(&known.source) } else { known.source.clone() };
        Known { value: known.value.clone(), provenance: self.provenance(known.provenance), source }
    }

    fn overhead(&self) -> Figure {
        let Figure { spread, provenance, source } = self.reference.overhead.of(self.sheet, self.distance);
        Figure { spread, provenance: self.provenance(provenance), source: self.source(&source) }
    }

    fn ops(&self) -> Result<Vec<OpPart>, DeriveError> {
        let parts = self.reference.ops.iter().map(|op| self.op(op)).collect::<Result<Vec<_>, _>>()?;
        Ok(parts.into_iter().flatten().collect())
    }

    /// Points of one entry move by another ratio for each type, so they become entries of their own.
    fn op(&self, op: &OpPart) -> Result<Vec<OpPart>, DeriveError> {
        let groups: Vec<Vec<DType>> = match &op.flops.basis {
            Basis::Utilisation(_) => vec![op.dtypes.clone()],
            Basis::Points(_) => op.dtypes.iter().map(|dtype| vec![*dtype]).collect(),
        };
        groups.into_iter().map(|dtypes| self.group(op, dtypes)).collect()
    }

    fn group(&self, op: &OpPart, dtypes: Vec<DType>) -> Result<OpPart, DeriveError> {
        let flops = match &op.flops.basis {
            Basis::Utilisation(_) => 1.0,
            Basis::Points(_) => self.flops_ratio(op.kind, dtypes[0])?,
        };
        let bytes = self.reference.bytes_per_s.map_or(1.0, |peak| self.sheet.bytes_per_s.value / peak);
        let flops = self.rate(&op.flops, flops, (0.0, self.flops_peak(op.kind, &dtypes)));
        let bytes = self.rate(&op.bytes, bytes, (CACHE_BYTES_MOST, self.sheet.bytes_per_s.value));
        Ok(OpPart { kind: op.kind, dtypes, flops, bytes })
    }

    /// The least peak of an entry's types, above which no rate of it can be.
    fn flops_peak(&self, kind: OpKind, dtypes: &[DType]) -> f64 {
        let peak = |dtype: &DType| self.sheet.flops_per_s.get(&DevicePart::peak_dtype(kind, *dtype));
        dtypes.iter().filter_map(peak).map(|known| known.value).fold(f64::INFINITY, f64::min)
    }

    fn flops_ratio(&self, kind: OpKind, dtype: DType) -> Result<f64, DeriveError> {
        let dtype = DevicePart::peak_dtype(kind, dtype);
        let there = self.reference.flops_per_s.get(&dtype);
        match (self.sheet.flops_per_s.get(&dtype), there) {
            (Some(here), Some(there)) => Ok(here.value / there),
            _ => Err(DeriveError::NoPeak {
                card: self.sheet.name.clone(),
                reference: self.reference.name.clone(),
                dtype,
            }),
        }
    }

    /// `peak` holds from an amount on.
    fn rate(&self, rate: &Rate, ratio: f64, (from, peak): (f64, f64)) -> Rate {
        let basis = match &rate.basis {
            // Four places are more than an assumption means, and keep files short.
            Basis::Utilisation(share) => {
                let rounded = map(&self.distance.widened(share), |value| (value * 1e4).round() / 1e4);
                Basis::Utilisation(at_most(rounded, 1.0))
            }
            Basis::Points(points) => {
                let point = |point: &Point| {
                    let amount = (point.amount * ratio).max(1.0);
                    let rate = self.distance.widened(&map(&point.rate, |r| r * ratio));
                    Point { amount, rate: at_most(rate, if amount < from { f64::INFINITY } else { peak }) }
                };
                Basis::Points(points.iter().map(point).collect())
            }
        };
        Rate { basis, provenance: self.provenance(rate.provenance), source: self.source(&rate.source) }
    }
}

fn at_most(q: Quantiles, most: f64) -> Quantiles {
    map(&q, |value| value.min(most))
}

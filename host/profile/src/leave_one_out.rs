//! How wrong a derived card is: each recorded card, derived from the others and compared with itself.

use loadline_core::{DType, OpKind, Quantiles};

use crate::catalog::datasheet_of;
use crate::datasheet::{Datasheet, Distance};
use crate::derive::{DeriveError, derive, distance, nearest};
use crate::figures::kind_name;
use crate::reference::Reference;
use crate::schema::{Basis, DevicePart, OpPart, Point, Profile, Rate};

/// The errors of one rate of one card.
#[derive(Clone, Debug, PartialEq)]
pub struct LeftOut {
    /// The card that was left out.
    pub card: String,
    /// The recording that it was derived from.
    pub reference: String,
    /// How far that is.
    pub distance: Distance,
    /// The operation.
    pub kind: OpKind,
    /// Its type.
    pub dtype: DType,
    /// Derived median over recorded median, less 1, at each recorded amount of the arithmetic rate
    /// and then of the memory rate.
    pub errors: Vec<f64>,
    /// The share of those amounts whose recorded median lies in the derived interval.
    pub covered: f64,
}

impl LeftOut {
    /// The quantiles of the sizes of the errors.
    #[must_use]
    pub fn spread(&self) -> Quantiles {
        spread(self.errors.iter().copied())
    }

    /// `linear bf16`.
    #[must_use]
    pub fn what(&self) -> String {
        format!("{} {}", kind_name(self.kind), self.dtype)
    }
}

/// The quantiles of the sizes of errors, by the nearest rank; zero for none.
#[must_use]
pub fn spread(errors: impl Iterator<Item = f64>) -> Quantiles {
    let mut sizes: Vec<_> = errors.map(f64::abs).collect();
    sizes.sort_by(f64::total_cmp);
    let rank = |share: f64| {
        let place = (share * sizes.len() as f64).ceil() as usize;
        sizes.get(place.saturating_sub(1)).copied().unwrap_or(0.0)
    };
    Quantiles { p10: rank(0.1), p50: rank(0.5), p90: rank(0.9) }
}

/// Leaves each profile out in turn, derives its card from the nearest other with the same kernel
/// set, and compares the rates. A card without any such other is passed over, and so is one with no
/// rates in points.
///
/// # Errors
/// If a device is not in the catalog, or a peak is missing.
pub fn leave_one_out(profiles: &[Profile]) -> Result<Vec<LeftOut>, DeriveError> {
    let references: Vec<_> = profiles.iter().map(recording).collect::<Result<_, _>>()?;
    let mut all = Vec::new();
    for (i, (profile, (sheet, _))) in profiles.iter().zip(&references).enumerate() {
        let same_kernels = |r: &&Reference| r.kernel_set == profile.device.kernel_set;
        let others = references.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, (_, r))| r);
        let Some(reference) = nearest(sheet, others.filter(same_kernels)) else { continue };
        all.extend(compare(profile, sheet, reference)?);
    }
    Ok(all)
}

fn recording(profile: &Profile) -> Result<(&'static Datasheet, Reference), DeriveError> {
    let sheet = datasheet_of(&profile.name, &profile.device).ok_or_else(|| DeriveError::UnknownDevice {
        profile: profile.name.clone(),
        device: profile.device.name.clone(),
    })?;
    Ok((sheet, Reference::recorded(profile, sheet)))
}

fn compare(profile: &Profile, sheet: &Datasheet, reference: &Reference) -> Result<Vec<LeftOut>, DeriveError> {
    let derived = derive(sheet, reference)?;
    let mut all = Vec::new();
    for op in &profile.device.ops {
        for dtype in &op.dtypes {
            let Some(other) = find(&derived, op.kind, *dtype) else { continue };
            let mut cells = cells(&op.flops, &other.flops);
            cells.extend(self::cells(&op.bytes, &other.bytes));
            if cells.is_empty() {
                continue;
            }
            all.push(LeftOut {
                card: sheet.name.clone(),
                reference: reference.name.clone(),
                distance: distance(sheet, reference),
                kind: op.kind,
                dtype: *dtype,
                covered: cells.iter().filter(|cell| cell.1).count() as f64 / cells.len() as f64,
                errors: cells.into_iter().map(|cell| cell.0).collect(),
            });
        }
    }
    Ok(all)
}

fn find(device: &DevicePart, kind: OpKind, dtype: DType) -> Option<&OpPart> {
    device.ops.iter().find(|op| op.kind == kind && op.dtypes.contains(&dtype))
}

/// At each recorded amount: the error, and whether the interval holds what was recorded.
fn cells(recorded: &Rate, derived: &Rate) -> Vec<(f64, bool)> {
    let (Basis::Points(recorded), Basis::Points(derived)) = (&recorded.basis, &derived.basis) else {
        return Vec::new();
    };
    let cell = |point: &Point| {
        let there = at(derived, point.amount);
        let held = (there.p10..=there.p90).contains(&point.rate.p50);
        (there.p50 / point.rate.p50 - 1.0, held)
    };
    recorded.iter().map(cell).collect()
}

/// The rates at an amount, interpolated in its logarithm and held flat beyond the ends, as forecasts do.
fn at(points: &[Point], amount: f64) -> Quantiles {
    let after = points.partition_point(|point| point.amount <= amount);
    let (Some(low), Some(high)) =
        (points.get(after.saturating_sub(1)), points.get(after.min(points.len().saturating_sub(1))))
    else {
        return Quantiles::exactly(0.0);
    };
    if high.amount <= low.amount || amount <= low.amount {
        return low.rate;
    }
    let share = (amount / low.amount).ln() / (high.amount / low.amount).ln();
    let mix = |a: f64, b: f64| a + (b - a) * share;
    let (a, b) = (&low.rate, &high.rate);
    Quantiles { p10: mix(a.p10, b.p10), p50: mix(a.p50, b.p50), p90: mix(a.p90, b.p90) }
}

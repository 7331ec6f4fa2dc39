//! What a recording adds to a part: tables of shapes, and figures that people and other tools read.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use loadline_core::{DType, Op, Provenance, Quantiles, SitePoint, StageKind};
use serde::{Serialize, Serializer};

use super::{Figure, Known, Rate};

/// What was measured on a device itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Recorded {
    /// Times of operations by shape.
    pub sites: Vec<SiteRows>,
    /// Bytes per second of allocating a device buffer, its pages included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocation: Option<Rate>,
    /// What computing and loading do to each other, if they share anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contention: Option<ContentionPart>,
    /// How whole stages compare with the sum of their operations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub calibration: Vec<LevelPart>,
}

/// The times of one operation in one type.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SiteRows {
    /// The operation.
    pub op: Op,
    /// The type of its arithmetic.
    pub dtype: DType,
    /// The type of its weights; that of its operands where it has none.
    pub weight: DType,
    /// How they were obtained.
    pub provenance: Provenance,
    /// As for [`Known::source`](super::Known::source).
    pub source: String,
    /// A row for each shape, see [`SiteRow`].
    pub rows: Vec<SiteRow>,
}

/// One shape and its time, written as a line such as `64x1536x1536 91000 93000 99000`: the dimensions of
/// [`Op::dimensions`], then the nanoseconds of one call at p10, p50 and p90, p10 being the fast end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SiteRow(pub SitePoint);

impl fmt::Display for SiteRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SitePoint { dims, time_ns } = &self.0;
        let last = dims.iter().rposition(|d| *d != 0).unwrap_or(0);
        let text: Vec<String> = dims[..=last].iter().map(u64::to_string).collect();
        write!(f, "{} {} {} {}", text.join("x"), time_ns.p10, time_ns.p50, time_ns.p90)
    }
}

impl FromStr for SiteRow {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut words = text.split(' ');
        let mut dims = [0; 4];
        for (i, word) in words.next().ok_or(())?.split('x').enumerate() {
            *dims.get_mut(i).ok_or(())? = word.parse().map_err(|_| ())?;
        }
        let mut figure = || words.next().and_then(|w| w.parse().ok()).ok_or(());
        let time_ns = Quantiles { p10: figure()?, p50: figure()?, p90: figure()? };
        if words.next().is_some() { Err(()) } else { Ok(Self(SitePoint { dims, time_ns })) }
    }
}

impl Serialize for SiteRow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Speeds while both go on, as shares of the speeds alone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ContentionPart {
    /// Of computing while a load is in flight.
    pub compute: Figure,
    /// Of loading while the device computes.
    pub load: Figure,
}

/// What runs of a kind of stage took, beside the sum of their operations' times: `factor x (start + operations)`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LevelPart {
    /// The kind of stage.
    pub stage: StageKind,
    /// The type of its matrix products.
    pub dtype: DType,
    /// How many runs showed it.
    pub runs: u64,
    /// What every stage takes on top of its operations, in nanoseconds; absent where runs were not asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_ns: Option<Known<f64>>,
    /// The multiple; p10 is the fast end.
    pub factor: Figure,
}

impl LevelPart {
    /// The factors that are believed: a stage that took less than a hundredth of its operations, or more than a hundred
    /// times as long, was something else.
    pub const FACTORS: RangeInclusive<f64> = 0.01..=100.0;
}

/// Figures that the time model does not use: they are there for people, for `doctor`, and for later models.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measurement {
    /// What was measured, such as `copy-both-ways`.
    pub name: String,
    /// The unit of the figures: `bytes/s`, `flops/s`, `ns` or `share`.
    pub unit: String,
    /// How they were obtained.
    pub provenance: Provenance,
    /// As for [`Known::source`](super::Known::source).
    pub source: String,
    /// A row for each setting, see [`MeasurementRow`].
    pub rows: Vec<MeasurementRow>,
}

/// A setting and its figure, written as a line such as `4096 bytes, 2 threads: 1.2e9 1.3e9 1.4e9`.
#[derive(Clone, Debug, PartialEq)]
pub struct MeasurementRow {
    /// The setting.
    pub setting: String,
    /// The figure; the smaller quantile is p10.
    pub figure: Quantiles,
}

impl MeasurementRow {
    /// A figure rounded to five digits, which is more than a measurement is worth and less than would blur a diff.
    #[must_use]
    pub fn rounded(setting: String, figure: Quantiles) -> Self {
        let round = |value: f64| digits(value).parse().unwrap_or(value);
        Self { setting, figure: Quantiles { p10: round(figure.p10), p50: round(figure.p50), p90: round(figure.p90) } }
    }
}

fn digits(value: f64) -> String {
    format!("{value:.4e}")
}

impl fmt::Display for MeasurementRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What was not rounded is written out: it must read back as the same.
        let text = |value: f64| Some(digits(value)).filter(|d| d.parse() == Ok(value)).unwrap_or(format!("{value:e}"));
        let Quantiles { p10, p50, p90 } = self.figure;
        write!(f, "{}: {} {} {}", self.setting, text(p10), text(p50), text(p90))
    }
}

impl FromStr for MeasurementRow {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (setting, figures) = text.rsplit_once(": ").ok_or(())?;
        let figures: Vec<f64> = figures.split(' ').map(str::parse).collect::<Result<_, _>>().map_err(|_| ())?;
        let [p10, p50, p90] = *figures.as_slice() else { return Err(()) };
        Ok(Self { setting: setting.to_owned(), figure: Quantiles { p10, p50, p90 } })
    }
}

impl Serialize for MeasurementRow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rows_read_back_as_they_were_written() {
        for text in ["64x1536x1536 91000 93000 99000", "4096 1 2 3", "4x8x16x27 5 6 7", "8 0.001 0.25 1.5"] {
            assert_eq!(text.parse::<SiteRow>().unwrap().to_string(), text);
        }
        for text in ["", "64", "64 1 2", "64 1 2 3 4", "ax2 1 2 3", "1x2x3x4x5 1 2 3"] {
            assert!(text.parse::<SiteRow>().is_err(), "{text}");
        }
        for row in ["4096 bytes, 2 threads: 1.2000e9 1.3000e9 1.4000e9", "a: b: 1.2345678e9 0.0000e0 1.0000e21"] {
            assert_eq!(row.parse::<MeasurementRow>().unwrap().to_string(), row);
        }
        let exact = Quantiles::exactly(123_456_789.0);
        assert_eq!(MeasurementRow::rounded("a".to_owned(), exact).to_string(), "a: 1.2346e8 1.2346e8 1.2346e8");
    }
}

//! One figure: a value with its origin.

use loadline_core::{Provenance, Quantiles};
use serde::Serialize;

/// A value without spread.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Known<T> {
    /// The value.
    pub value: T,
    /// How it was obtained.
    pub provenance: Provenance,
    /// From where: a document and its table, a tool and its conditions, or the reason for assuming it.
    pub source: String,
}

/// A value with its spread.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// The value.
    #[serde(flatten)]
    pub spread: Quantiles,
    /// How it was obtained.
    pub provenance: Provenance,
    /// As for [`Known::source`].
    pub source: String,
}

/// How much is done in a second, the smaller quantile being the slower one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rate {
    /// What is known about it.
    #[serde(flatten)]
    pub basis: Basis,
    /// How it was obtained.
    pub provenance: Provenance,
    /// As for [`Known::source`].
    pub source: String,
}

/// The two ways to know a rate.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// A share of the part's peak, above 0 and at most 1.
    Utilisation(Quantiles),
    /// Rates of calls that do different amounts, amounts rising.
    Points(Vec<Point>),
}

/// The rate of calls that do one amount.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Bytes or floating-point operations of one call.
    pub amount: f64,
    /// Bytes or floating-point operations per second.
    #[serde(flatten)]
    pub rate: Quantiles,
}

//! Quantities that carry their unit in the type.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Mul, Sub};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! quantity {
    ($name:ident, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// Nothing at all.
            pub const ZERO: Self = Self(0);
            /// As much as can be written down; used where "no limit" is meant.
            pub const MAX: Self = Self(u64::MAX);

            /// The difference, or zero where `other` is larger.
            #[must_use]
            pub fn saturating_sub(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }

            /// The value as a float, for ratios and drawing only.
            #[must_use]
            pub fn as_f64(self) -> f64 {
                self.0 as f64
            }
        }

        // Sums saturate instead of wrapping: a quantity too large to hold is above every limit,
        // which is the safe way to be wrong.
        impl Add for $name {
            type Output = Self;
            fn add(self, other: Self) -> Self {
                Self(self.0.saturating_add(other.0))
            }
        }
        impl AddAssign for $name {
            fn add_assign(&mut self, other: Self) {
                *self = *self + other;
            }
        }
        impl Sub for $name {
            type Output = Self;
            fn sub(self, other: Self) -> Self {
                self.saturating_sub(other)
            }
        }
        impl Mul<u64> for $name {
            type Output = Self;
            fn mul(self, times: u64) -> Self {
                Self(self.0.saturating_mul(times))
            }
        }
        impl Sum for $name {
            fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
                iter.fold(Self::ZERO, Add::add)
            }
        }
    };
}

quantity!(Bytes, "A number of bytes.");
quantity!(Nanos, "A duration in nanoseconds.");

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

impl Bytes {
    /// `n` times 2^20 bytes.
    #[must_use]
    pub const fn mib(n: u64) -> Self {
        Self(n * MIB)
    }

    /// `n` times 2^30 bytes.
    #[must_use]
    pub const fn gib(n: u64) -> Self {
        Self(n * GIB)
    }

    /// The smallest multiple of `granule` that is not below this size; a granule of 0 means 1.
    #[must_use]
    pub fn round_up(self, granule: u64) -> Self {
        let granule = granule.max(1);
        Self(self.0.div_ceil(granule).saturating_mul(granule))
    }

    /// The largest multiple of `granule` that is not above this size; a granule of 0 means 1.
    #[must_use]
    pub fn round_down(self, granule: u64) -> Self {
        let granule = granule.max(1);
        Self(self.0 / granule * granule)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (divisor, unit) = match self.0 {
            n if n >= GIB => (GIB, "GiB"),
            n if n >= MIB => (MIB, "MiB"),
            n if n >= KIB => (KIB, "KiB"),
            n => return f.pad(&format!("{n} B")),
        };
        let value = self.0 as f64 / divisor as f64;
        let digits = if value >= 100.0 {
            0
        } else if value >= 10.0 {
            1
        } else {
            2
        };
        f.pad(&format!("{value:.digits$} {unit}"))
    }
}

impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 as f64 / 1e9;
        let text = match self.0 {
            n if n >= 3_600_000_000_000 => {
                let minutes = n / 60_000_000_000;
                format!("{} h {:02} min", minutes / 60, minutes % 60)
            }
            n if n >= 60_000_000_000 => {
                let whole = n / 1_000_000_000;
                format!("{} min {:02} s", whole / 60, whole % 60)
            }
            n if n >= 10_000_000_000 => format!("{seconds:.1} s"),
            n if n >= 1_000_000_000 => format!("{seconds:.2} s"),
            n if n >= 1_000_000 => format!("{:.1} ms", seconds * 1e3),
            n if n >= 1_000 => format!("{:.1} us", seconds * 1e6),
            n => format!("{n} ns"),
        };
        f.pad(&text)
    }
}

/// Why a size such as `10GiB` could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseBytesError {
    /// The text is not a number followed by a unit.
    #[error("'{0}' is not a size: write a number and a unit, such as 10GiB, 512MiB or 1.5GiB")]
    Syntax(String),
    /// The unit is none of B, KiB, MiB, GiB, TiB and their short and decimal forms.
    #[error("'{unit}' in '{text}' is not a unit of size: use B, KiB, MiB, GiB or TiB (KB, MB, GB, TB are decimal)")]
    Unit {
        /// The whole text.
        text: String,
        /// The part that was not understood.
        unit: String,
    },
    /// The value is negative, not finite or does not fit 64 bits.
    #[error("'{0}' is out of range: a size is between 0 and 8191 PiB")]
    Range(String),
}

impl FromStr for Bytes {
    type Err = ParseBytesError;

    /// Reads `10GiB`, `1.5 GiB`, `512M`, `10GB` (decimal) or a plain number of bytes. `K`, `M`, `G`
    /// and `T` alone are binary, as people who size memory mean them.
    fn from_str(text: &str) -> Result<Self, ParseBytesError> {
        let trimmed = text.trim();
        let split = trimmed.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(split);
        let value: f64 = number.parse().map_err(|_| ParseBytesError::Syntax(text.to_owned()))?;
        let scale = unit_scale(unit.trim())
            .ok_or_else(|| ParseBytesError::Unit { text: text.to_owned(), unit: unit.trim().to_owned() })?;
        if let (Ok(whole), true) = (number.parse::<u64>(), scale.fract() == 0.0) {
            // Whole numbers stay exact where a float would round above 2^53.
            return whole.checked_mul(scale as u64).map(Self).ok_or_else(|| ParseBytesError::Range(text.to_owned()));
        }
        let bytes = value * scale;
        if !bytes.is_finite() || bytes >= u64::MAX as f64 {
            return Err(ParseBytesError::Range(text.to_owned()));
        }
        Ok(Self(bytes.round() as u64))
    }
}

fn unit_scale(unit: &str) -> Option<f64> {
    let lower = unit.to_ascii_lowercase();
    let power = match lower.chars().next() {
        None | Some('b') => 0,
        Some('k') => 1,
        Some('m') => 2,
        Some('g') => 3,
        Some('t') => 4,
        Some(_) => return None,
    };
    match (power, lower.get(1..).unwrap_or("")) {
        (0, "") => Some(1.0),
        (1.., "" | "i" | "ib") => Some(1024f64.powi(power)),
        (1.., "b") => Some(1000f64.powi(power)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(text: &str, expected: Option<u64>) {
        assert_eq!(text.parse::<Bytes>().ok().map(|b| b.0), expected, "{text}");
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        check("0", Some(0));
        check("10GiB", Some(10 << 30));
        check("1.5 GiB", Some(3 << 29));
        check("512M", Some(512 << 20));
        check("10GB", Some(10_000_000_000));
        check("9223372036854775808", Some(1 << 63));
        check("9223372036854775808GiB", None);
        check("-1GiB", None);
        check("ten", None);
        check("1.2.3", None);
        check("3 furlongs", None);
        check("NaN", None);
    }

    #[test]
    fn sizes_are_shown_with_three_digits() {
        assert_eq!(Bytes(512).to_string(), "512 B");
        assert_eq!(Bytes::mib(1536).to_string(), "1.50 GiB");
        assert_eq!(Bytes::mib(670).to_string(), "670 MiB");
        assert_eq!(Nanos(1_500_000).to_string(), "1.5 ms");
        assert_eq!(Nanos(92_000_000_000).to_string(), "1 min 32 s");
    }

    #[test]
    fn rounding_never_panics() {
        assert_eq!(Bytes(5).round_up(4), Bytes(8));
        assert_eq!(Bytes(5).round_down(4), Bytes(4));
        assert_eq!(Bytes::MAX.round_up(4096), Bytes::MAX);
        assert_eq!(Bytes(7).round_up(0), Bytes(7));
    }
}

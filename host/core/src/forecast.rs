//! What a plan is expected to take, and how sure we are.

use serde::{Deserialize, Serialize};

use crate::bound::Bound;
use crate::units::{Bytes, Nanos};

/// Which end of a profile's intervals an estimate uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Estimate {
    /// Every rate at its fast end.
    Fast,
    /// Every rate at its median.
    Median,
    /// Every rate at its slow end.
    Slow,
}

/// How a figure was obtained, most certain first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provenance {
    /// Recorded on the machine itself.
    Measured,
    /// Carried over from a measured machine.
    Derived,
    /// Computed from a published data sheet and an assumed utilisation.
    Datasheet,
}

/// A named share of a budget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// The name, such as `residents` or `activations`.
    pub name: String,
    /// Its size.
    pub bytes: Bytes,
}

/// How long a lane was busy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneUse {
    /// Computing.
    pub compute: Nanos,
    /// Copying to the device.
    pub h2d: Nanos,
    /// Copying to the host.
    pub d2h: Nanos,
    /// Reading from disk.
    pub disk: Nanos,
}

/// One stage of a forecast.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageForecast {
    /// The stage's name.
    pub name: String,
    /// Time with weights on disk at the start.
    pub cold: Nanos,
    /// Time with the host tier already filled, as in the second run of a process.
    pub warm: Nanos,
    /// The fast end of the cold time.
    pub p10: Nanos,
    /// The slow end of the cold time.
    pub p90: Nanos,
    /// Time that the device waited for weights.
    pub stall: Nanos,
    /// Time that each lane was busy.
    pub busy: LaneUse,
    /// Device bytes at the stage's peak, fixed overhead included.
    pub peak: Bytes,
    /// The peak by reservation.
    pub reservations: Vec<Reservation>,
    /// The lower bound that no schedule can beat.
    pub bound: Bound,
    /// Blocks that stay on the device for the whole stage.
    pub resident_blocks: u32,
    /// Blocks that pass through slots.
    pub streamed_blocks: u32,
}

/// What a plan is expected to take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// The stages, in order.
    pub stages: Vec<StageForecast>,
    /// Host bytes at the peak, by reservation.
    pub host: Vec<Reservation>,
    /// Bytes read from disk.
    pub disk_read: Bytes,
    /// The certainty of the machine's figures.
    pub provenance: Provenance,
}

impl Forecast {
    /// The most device bytes of any stage.
    #[must_use]
    pub fn device_peak(&self) -> Bytes {
        self.stages.iter().map(|s| s.peak).max().unwrap_or(Bytes::ZERO)
    }

    /// The stage with the largest device peak.
    #[must_use]
    pub fn peak_stage(&self) -> Option<&StageForecast> {
        self.stages.iter().rev().max_by_key(|s| s.peak)
    }

    /// Host bytes at the peak.
    #[must_use]
    pub fn host_peak(&self) -> Bytes {
        self.host.iter().map(|r| r.bytes).sum()
    }

    /// The sum of one figure over all stages.
    pub fn total(&self, figure: impl Fn(&StageForecast) -> Nanos) -> Nanos {
        self.stages.iter().map(figure).sum()
    }
}

//! Memory that a run finds as fast as on a machine of one's own.

use loadline::core::{Bytes, Forecast};
use loadline::memory::{Domain, within};

/// Large enough to come in large pages, and to be the system's at once when it is freed.
const PIECE: usize = 32 << 20;

/// Memory that was touched, and is given back as the stages of a run begin.
///
/// A virtual machine such as this project's gives memory that is free to its host, at once where it is more than 1 GiB
/// and within two seconds otherwise. To touch it again takes twenty times as long as elsewhere, so that a run's time
/// would tell what ran before it.
pub(crate) struct Ballast<'a> {
    forecast: &'a Forecast,
    pieces: Vec<Vec<u8>>,
}

impl<'a> Ballast<'a> {
    /// Touches as much memory as a run will take.
    pub(crate) fn of(forecast: &'a Forecast) -> Self {
        let pieces = whole(forecast.device_peak() + forecast.host_peak());
        // It is the host's memory, so that no stage's peak has it.
        let touched = |_| within(Domain::Host, || vec![1; PIECE]);
        Self { forecast, pieces: (0..pieces).map(touched).collect() }
    }

    /// Keeps only what later stages take and this one does not.
    pub(crate) fn stage_starts(&mut self, name: &str) {
        let stages = self.forecast.stages.iter();
        let mut stages = stages.skip_while(|stage| stage.name != name).map(|stage| stage.peak.0).peekable();
        let now = stages.peek().copied().unwrap_or(0);
        self.pieces.truncate(whole(Bytes(stages.max().unwrap_or(0) - now)));
    }
}

fn whole(bytes: Bytes) -> usize {
    bytes.0.div_ceil(PIECE as u64) as usize
}

//! What cannot be true about the tables that a recording adds.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use crate::schema::{LevelPart, Measurement, Profile, Recorded, SiteRows};

use super::{Lint, Scale};

/// Up to an hour for one call.
const TIME_NS: RangeInclusive<f64> = 1e-3..=3.6e12;
/// A share of the speed alone.
const SHARE: RangeInclusive<f64> = 1e-3..=1.0;
/// Up to ten minutes before a stage gets going.
const START_NS: RangeInclusive<f64> = 0.0..=6e11;
/// Whatever a measurement counts.
const MEASURED: RangeInclusive<f64> = 0.0..=1e21;

impl Lint {
    pub(super) fn recorded(&mut self, profile: &Profile) {
        if let Some(recorded) = &profile.device.recorded {
            self.tables(recorded);
        }
        let parts = [
            ("device", &profile.device.measurements),
            ("link", &profile.link.measurements),
            ("host", &profile.host.measurements),
            ("disk", &profile.disk.measurements),
        ];
        for (part, measurements) in parts {
            for (i, measurement) in measurements.iter().enumerate() {
                self.measurement(&format!("{part}.measurements[{i}]"), measurement);
            }
        }
    }

    fn tables(&mut self, recorded: &Recorded) {
        for (i, table) in recorded.sites.iter().enumerate() {
            self.site(&format!("device.recorded.sites[{i}]"), table);
        }
        if let Some(allocation) = &recorded.allocation {
            self.rate("device.recorded.allocation", allocation, &Scale::bytes(None));
        }
        if let Some(contention) = &recorded.contention {
            self.figure("device.recorded.contention.compute", &contention.compute, &SHARE);
            self.figure("device.recorded.contention.load", &contention.load, &SHARE);
        }
        let mut seen = BTreeSet::new();
        for (i, level) in recorded.calibration.iter().enumerate() {
            self.level(&format!("device.recorded.calibration[{i}]"), level, &mut seen);
        }
    }

    fn level(&mut self, at: &str, level: &LevelPart, seen: &mut BTreeSet<String>) {
        if !seen.insert(format!("{:?} {}", level.stage, level.dtype)) {
            self.add(format!("{at}.stage"), format!("{:?}", level.stage), "named once for each type");
        }
        if level.runs == 0 {
            self.add(format!("{at}.runs"), "0", "at least 1");
        }
        if let Some(start) = &level.start_ns {
            self.known(&format!("{at}.start_ns"), start, &START_NS);
        }
        self.figure(&format!("{at}.factor"), &level.factor, &LevelPart::FACTORS);
    }

    fn site(&mut self, at: &str, table: &SiteRows) {
        self.text(format!("{at}.source"), &table.source);
        if table.rows.is_empty() {
            self.add(format!("{at}.rows"), "an empty list", "at least one row");
        }
        for (i, row) in table.rows.iter().enumerate() {
            self.spread(&format!("{at}.rows[{i}]"), &row.0.time_ns, &TIME_NS);
            if row.0.dims[0] == 0 {
                self.add(format!("{at}.rows[{i}]"), "without a size", "a row that begins with sizes from 1");
            }
        }
        for (i, after) in table.rows.iter().enumerate() {
            for before in &table.rows[..i] {
                let Some((small, large)) = before.0.contradiction(&after.0) else { continue };
                let (short, long) = (small.time_ns.p50, large.time_ns.p50);
                let expected = format!("such that the larger shape takes at least about {short:.0} ns");
                self.add(format!("{at}.rows[{i}].p50"), format!("{long:.0} ns for the larger of two shapes"), expected);
            }
        }
    }

    fn measurement(&mut self, at: &str, measurement: &Measurement) {
        self.text(format!("{at}.name"), &measurement.name);
        self.text(format!("{at}.unit"), &measurement.unit);
        self.text(format!("{at}.source"), &measurement.source);
        for (i, row) in measurement.rows.iter().enumerate() {
            self.spread(&format!("{at}.rows[{i}]"), &row.figure, &MEASURED);
        }
    }
}

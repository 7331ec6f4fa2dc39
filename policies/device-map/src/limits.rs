//! The most of each tier.

use loadline_policy_sdk::{Budget, Situation};

/// Bytes of each tier that may be used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) device: u64,
    pub(crate) host: u64,
    pub(crate) pinned: u64,
    /// Absent for no limit.
    pub(crate) disk: Option<u64>,
}

impl Limits {
    /// The settings, never more than the budgets.
    pub(crate) fn of(s: &Situation) -> Self {
        let within = |key: &str, budget: u64| limit(s, key).map_or(budget, |most| most.min(budget));
        let host = within("max_memory_host", s.budget.host);
        Self {
            device: within("max_memory_device", s.budget.device),
            host,
            pinned: within("max_memory_pinned", s.budget.pinned).min(host),
            disk: limit(s, "max_memory_disk"),
        }
    }

    /// The situation's budget with these limits.
    pub(crate) fn budget(&self, s: &Situation) -> Budget {
        Budget { device: self.device, host: self.host, pinned: self.pinned, ..s.budget }
    }
}

/// A number of GiB in bytes; nothing where it is negative.
fn limit(s: &Situation, key: &str) -> Option<u64> {
    s.number(key).filter(|gib| *gib >= 0.0).map(|gib| (gib * (1u64 << 30) as f64) as u64)
}

//! The proof that nothing fits, and what would.

use std::fmt;

use loadline_core::{Bytes, Request};
use serde::Serialize;

/// Why nothing fits, with numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Certificate {
    /// The reason in words.
    pub reason: String,
    /// The budget that was given.
    pub budget_bytes: Bytes,
    /// What the device has.
    pub device_bytes: Bytes,
    /// The smallest budget with which the same command makes a plan; absent if none was found.
    pub min_budget_bytes: Option<Bytes>,
    /// The stage that needs the most: the smallest budget is what it needs.
    pub stage: String,
    /// What breaks the budget: the block or the task, with what it needs.
    pub tensor: String,
    /// The nearest request that fits the budget, if fewer frames are enough.
    pub nearest_request: Option<Request>,
}

impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "it does not fit: {}", self.reason)?;
        writeln!(f, "  budget    {}", self.budget_bytes)?;
        writeln!(f, "  breaks it {} in stage '{}'", self.tensor, self.stage)?;
        match self.min_budget_bytes {
            Some(least) if least > self.device_bytes => {
                writeln!(
                    f,
                    "  smallest budget that works: {}, more than this device has ({})",
                    exact(least),
                    self.device_bytes
                )?;
            }
            Some(least) => writeln!(f, "  smallest budget that works: --vram {}", exact(least))?,
            None => writeln!(f, "  no budget of this device works with these settings")?,
        }
        match &self.nearest_request {
            Some(r) => write!(f, "  nearest request that fits: --size {} --frames {}", r.size, r.frames),
            None => write!(f, "  fewer frames of this size do not help"),
        }
    }
}

/// A size as it can be typed, without rounding.
pub(crate) fn exact(bytes: Bytes) -> String {
    const MIB: u64 = 1 << 20;
    if bytes.0.is_multiple_of(MIB) { format!("{}MiB", bytes.0 / MIB) } else { format!("{}B", bytes.0) }
}

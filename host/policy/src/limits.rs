//! What a policy may use.

use std::time::Duration;

use loadline_core::Job;

use crate::{PolicyError, price};

/// The limits of a policy. All but the watchdog are deterministic: a policy that stays within them
/// on one machine does so on every machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a component.
    pub component_bytes: usize,
    /// A component of more bytes than these carries an interpreter, such as those of Python and JavaScript.
    pub light_bytes: usize,
    /// How many times the fuel a component with an interpreter has: it burns that much more for the same work.
    pub interpreter_fuel: u64,
    /// Bytes of the guest's memory.
    pub memory_bytes: usize,
    /// Entries of each of the guest's tables, of which it may have four.
    pub table_entries: usize,
    /// Bytes of the guest's stack. One figure for all policies of an engine.
    pub stack_bytes: usize,
    /// Bytes that the guest may hand over in one call, its answer included.
    pub result_bytes: usize,
    /// Fuel for `describe`; about one unit an instruction.
    pub describe_fuel: u64,
    /// Fuel for `decide`.
    pub decide_fuel: u64,
    /// More fuel for `decide` for each block of the job.
    pub decide_fuel_per_block: u64,
    /// Fuel that a call of `forecast` or `probe` burns for each task of the job, so that searching
    /// is paid for where the time goes.
    pub call_fuel_per_task: u64,
    /// Calls of `forecast` in one decision.
    pub forecast_calls: u32,
    /// Calls of `probe` in one decision.
    pub probe_calls: u32,
    /// Bytes of a line of the log.
    pub log_line_bytes: usize,
    /// Bytes of all lines of the log in one decision.
    pub log_bytes: usize,
    /// The longest that the guest may run in one decision, the host's answers not counted. For real
    /// runs only: a wall clock makes equal inputs give different outcomes, and fuel alone stops
    /// every guest.
    pub watchdog: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            component_bytes: 32 << 20,
            light_bytes: 1 << 20,
            interpreter_fuel: 50,
            memory_bytes: 64 << 20,
            table_entries: 100_000,
            stack_bytes: 256 << 10,
            result_bytes: 1 << 20,
            describe_fuel: 50_000_000,
            decide_fuel: 50_000_000,
            decide_fuel_per_block: 50_000,
            call_fuel_per_task: 10,
            forecast_calls: 1024,
            probe_calls: 32,
            log_line_bytes: 4 << 10,
            log_bytes: 64 << 10,
            watchdog: None,
        }
    }
}

impl Limits {
    /// The limits of a component of that many bytes.
    #[must_use]
    pub const fn of(self, bytes: usize) -> Self {
        let times = if bytes > self.light_bytes { self.interpreter_fuel } else { 1 };
        Self {
            describe_fuel: self.describe_fuel.saturating_mul(times),
            decide_fuel: self.decide_fuel.saturating_mul(times),
            decide_fuel_per_block: self.decide_fuel_per_block.saturating_mul(times),
            ..self
        }
    }

    /// # Errors
    /// [`PolicyError::Limit`] names the first limit that no guest could live with, or that the machinery underneath has
    /// no room for.
    pub(crate) fn check(&self) -> Result<(), PolicyError> {
        const PAGE: u64 = 64 << 10;
        let ranges = [
            ("size", self.component_bytes as u64, 1, 1 << 30),
            ("memory", self.memory_bytes as u64, PAGE, 4 << 30),
            ("tables", self.table_entries as u64, 1, 10_000_000),
            ("stack", self.stack_bytes as u64, 16 << 10, 64 << 20),
            ("answer", self.result_bytes as u64, 4 << 10, 1 << 30),
            ("fuel", self.decide_fuel, 1, u64::MAX),
            ("log", self.log_bytes as u64, 0, 1 << 30),
        ];
        match ranges.into_iter().find(|(_, got, least, most)| got < least || got > most) {
            Some((name, got, least, most)) => Err(PolicyError::Limit { name, got, least, most }),
            None => Ok(()),
        }
    }

    /// The fuel for a decision about a job.
    pub(crate) fn fuel(&self, job: &Job) -> u64 {
        let blocks = self.decide_fuel_per_block.saturating_mul(job.blocks.len() as u64);
        self.decide_fuel.saturating_add(blocks)
    }

    /// The fuel that a forecast of a job burns.
    pub(crate) fn call_fuel(&self, job: &Job) -> u64 {
        price::call(job, self.call_fuel_per_task)
    }
}

//! What a policy may use.

use std::time::Duration;

use loadline_core::Job;

/// The limits of a policy. All but the watchdog are deterministic: a policy that stays within them
/// on one machine does so on every machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a component.
    pub component_bytes: usize,
    /// Bytes of the guest's memory.
    pub memory_bytes: usize,
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
    /// The longest that the guest may run without a word to the host. For real runs only: a wall
    /// clock makes equal inputs give different outcomes, and fuel alone stops every guest.
    pub watchdog: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            component_bytes: 1 << 20,
            memory_bytes: 64 << 20,
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
    /// The limits for components that carry an interpreter, such as those of Python and JavaScript:
    /// 32 MiB instead of 1 MiB. They compile in 14 to 19 seconds.
    #[must_use]
    pub fn heavy() -> Self {
        Self { component_bytes: 32 << 20, ..Self::default() }
    }

    /// The fuel for a decision about a job.
    pub(crate) fn fuel(&self, job: &Job) -> u64 {
        let blocks = self.decide_fuel_per_block.saturating_mul(job.blocks.len() as u64);
        self.decide_fuel.saturating_add(blocks)
    }

    /// The fuel that a forecast of a job burns.
    pub(crate) fn call_fuel(&self, job: &Job) -> u64 {
        let tasks = job.stages.iter().map(|s| s.pass_count().saturating_mul(s.tasks_per_pass() as u64));
        self.call_fuel_per_task.saturating_mul(tasks.fold(0, u64::saturating_add))
    }
}

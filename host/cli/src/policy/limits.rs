//! The limits of policies, as the person who runs sets them: one choice for all policies of a process.

use std::sync::OnceLock;
use std::time::Duration;

use clap::Args as ClapArgs;
use loadline::PolicyLimits;
use loadline::core::Bytes;

/// What was chosen when the process started.
static CHOSEN: OnceLock<PolicyLimits> = OnceLock::new();

/// In a real run somebody waits for a video. Fuel stops every policy long before, unless the machine is busy.
const USUAL_TIME: Duration = Duration::from_secs(30);

/// What a policy may use. A policy cannot change any of it.
#[derive(ClapArgs, Clone, Debug, Default)]
#[command(next_help_heading = "Limits of policies")]
pub(crate) struct LimitArgs {
    /// Fuel of one decision, about one unit an instruction; by default 50 million and 50000 more for each block, and
    /// fifty times that for a component that carries an interpreter
    #[arg(long, global = true, hide_short_help = true, value_name = "UNITS")]
    policy_fuel: Option<u64>,
    /// Memory of a policy; 64MiB by default
    #[arg(long, global = true, hide_short_help = true, value_name = "SIZE")]
    policy_memory: Option<Bytes>,
    /// Stack of a policy; 256KiB by default
    #[arg(long, global = true, hide_short_help = true, value_name = "SIZE")]
    policy_stack: Option<Bytes>,
    /// Entries of each of a policy's four tables; 100000 by default
    #[arg(long, global = true, hide_short_help = true, value_name = "N")]
    policy_tables: Option<usize>,
    /// What a policy may hand over in one call; 1MiB by default
    #[arg(long, global = true, hide_short_help = true, value_name = "SIZE")]
    policy_answer: Option<Bytes>,
    /// What a policy may write to the log in one decision; 64KiB by default
    #[arg(long, global = true, hide_short_help = true, value_name = "SIZE")]
    policy_log: Option<Bytes>,
    /// Forecasts that a policy may ask for in one decision; 1024 by default
    #[arg(long, global = true, hide_short_help = true, value_name = "N")]
    policy_forecasts: Option<u32>,
    /// Probes that a policy may ask for in one decision; 32 by default
    #[arg(long, global = true, hide_short_help = true, value_name = "N")]
    policy_probes: Option<u32>,
    /// The largest component that is loaded; 32MiB by default
    #[arg(long, global = true, hide_short_help = true, value_name = "SIZE")]
    policy_size: Option<Bytes>,
    /// Time of one decision, such as 500ms or 10s, in which forecasts do not count; 30s by default in a real run, and
    /// no limit in a forecast, whose outcome must not depend on a clock
    #[arg(long, global = true, hide_short_help = true, value_name = "TIME", value_parser = time)]
    policy_time: Option<Duration>,
}

impl LimitArgs {
    /// The usual limits with those that were chosen.
    fn limits(&self, real_run: bool) -> PolicyLimits {
        let usual = PolicyLimits::default();
        let bytes = |chosen: Option<Bytes>, usual: usize| {
            chosen.map_or(usual, |chosen| usize::try_from(chosen.0).unwrap_or(usize::MAX))
        };
        let watchdog = self.policy_time.or_else(|| real_run.then_some(USUAL_TIME));
        let limits = PolicyLimits {
            component_bytes: bytes(self.policy_size, usual.component_bytes),
            memory_bytes: bytes(self.policy_memory, usual.memory_bytes),
            stack_bytes: bytes(self.policy_stack, usual.stack_bytes),
            table_entries: self.policy_tables.unwrap_or(usual.table_entries),
            result_bytes: bytes(self.policy_answer, usual.result_bytes),
            log_bytes: bytes(self.policy_log, usual.log_bytes),
            forecast_calls: self.policy_forecasts.unwrap_or(usual.forecast_calls),
            probe_calls: self.policy_probes.unwrap_or(usual.probe_calls),
            watchdog,
            ..usual
        };
        match self.policy_fuel {
            // Who names a figure means it, for every job and every component.
            Some(fuel) => PolicyLimits { decide_fuel: fuel, decide_fuel_per_block: 0, interpreter_fuel: 1, ..limits },
            None => limits,
        }
    }
}

/// Makes the choice for the rest of the process. In a real run somebody waits, so that a policy has so much time and no
/// more.
pub(crate) fn choose(args: &LimitArgs, real_run: bool) {
    // Nobody chooses twice; if somebody did, the first choice would stay.
    let _ = CHOSEN.set(args.limits(real_run));
}

/// The limits that every policy of this process has.
pub(crate) fn limits() -> PolicyLimits {
    CHOSEN.get().copied().unwrap_or_default()
}

fn time(text: &str) -> Result<Duration, String> {
    let bad = || format!("'{text}' is no time: write a whole number and ms, s or min, such as 500ms or 10s");
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| bad())?;
    let milliseconds = match unit.trim() {
        "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" | "min" => number.checked_mul(60_000),
        _ => None,
    };
    // A day is more than anybody waits for a plan.
    let fits = milliseconds.filter(|ms| (1..=86_400_000).contains(ms));
    fits.map(Duration::from_millis).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(time(text).ok().map(|t| t.as_millis() as u64), expected, "{text}");
        };
        check("500ms", Some(500));
        check("10s", Some(10_000));
        check("2min", Some(120_000));
        check("10", None);
        check("0s", None);
        check("-1s", None);
        check("99999999999999999999s", None);
        check("18446744073709551615min", None);
    }

    #[test]
    fn only_a_real_run_has_a_clock_unless_somebody_asks_for_one() {
        let args = LimitArgs::default();
        assert_eq!(args.limits(false), PolicyLimits::default());
        assert_eq!(args.limits(true).watchdog, Some(USUAL_TIME));
        let args = LimitArgs { policy_time: Some(Duration::from_secs(1)), ..args };
        assert_eq!(args.limits(false).watchdog, Some(Duration::from_secs(1)));
    }

    #[test]
    fn fuel_is_what_was_said_for_every_component() {
        let args = LimitArgs { policy_fuel: Some(7), policy_memory: Some(Bytes::mib(1)), ..LimitArgs::default() };
        for bytes in [1, 20 << 20] {
            let limits = args.limits(false).of(bytes);
            assert_eq!((limits.decide_fuel, limits.decide_fuel_per_block), (7, 0));
            assert_eq!(limits.memory_bytes, 1 << 20);
        }
    }
}

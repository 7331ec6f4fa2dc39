//! The trait that a policy implements, and what turns it into a component.

use crate::bindings::loadline::policy::host as imports;
use crate::{Decision, Description, Entry, ForecastReply, Job, Plan, Refusal, Situation};

/// A memory policy.
pub trait Policy {
    /// What the policy is.
    fn describe(&self) -> Description;

    /// What to do.
    ///
    /// # Errors
    /// A refusal where the policy makes no plan. It is shown to the user, so its message says what
    /// to change.
    fn decide(&self, situation: &Situation, host: &mut dyn Host) -> Result<Decision, Refusal>;
}

/// What a policy may call. A trait, so that policies are tested natively against a host of the
/// test's making.
pub trait Host {
    /// Writes a line to the report.
    fn log(&mut self, level: Level, text: &str);

    /// What the job would be with other knobs.
    ///
    /// # Errors
    /// If a knob is unknown or may not be changed, and when this was called too often.
    fn probe(&mut self, knobs: &[Entry]) -> Result<Job, String>;

    /// What a plan would take.
    ///
    /// # Errors
    /// If the plan may not run, and when this was called too often.
    fn forecast(&mut self, plan: &Plan) -> Result<ForecastReply, String>;
}

/// How much a line of the report matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something is broken.
    Error = 0,
    /// Something is not as the user meant it.
    Warning = 1,
    /// What the policy did.
    Information = 2,
    /// What the policy tried.
    Detail = 3,
}

/// The host that a component runs in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Imports;

impl Host for Imports {
    fn log(&mut self, level: Level, text: &str) {
        imports::log(level as u8, text);
    }

    fn probe(&mut self, knobs: &[Entry]) -> Result<Job, String> {
        imports::probe(knobs)
    }

    fn forecast(&mut self, plan: &Plan) -> Result<ForecastReply, String> {
        imports::forecast(plan)
    }
}

/// Sends panic messages to the report: without this a panic is only a trap without words.
pub fn report_panics() {
    std::panic::set_hook(Box::new(|panic| imports::log(Level::Error as u8, &panic.to_string())));
}

/// Makes the crate a component of the given policy, an expression of a type that implements
/// [`Policy`].
#[macro_export]
macro_rules! export_policy {
    ($policy:expr) => {
        #[cfg(target_arch = "wasm32")]
        mod component {
            use super::*;
            use $crate::bindings::exports::loadline::policy::policy::Guest;

            struct Component;

            impl Guest for Component {
                fn describe() -> $crate::Description {
                    $crate::report_panics();
                    $crate::Policy::describe(&$policy)
                }

                fn decide(
                    situation: $crate::Situation,
                ) -> Result<$crate::Decision, $crate::Refusal> {
                    $crate::report_panics();
                    $crate::Policy::decide(&$policy, &situation, &mut $crate::Imports)
                }
            }

            $crate::bindings::export_component!(Component with_types_in $crate::bindings);
        }
    };
}

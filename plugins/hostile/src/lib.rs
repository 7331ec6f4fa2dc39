//! A policy that does whatever harm it is told to, for the tests of the sandbox: each value of its setting `attack` is
//! one way to hurt its host. What Rust cannot express is WebAssembly text in `host/policy/tests`.

mod floods;
mod plans;
mod sources;

use loadline_policy_sdk::{Decision, Description, Host, Plan, Policy, Refusal, Situation, StagePlan, cause, describe};

/// The policy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hostile;

/// What an attack makes of a plan that would have been fine.
pub type Attack = fn(&Situation, &mut dyn Host, &mut Plan);

/// Every attack that ends in a plan, if it ends. The others are in [`Hostile::decide`].
pub const ATTACKS: &[(&str, Attack)] = &[
    ("none", |_, _, _| ()),
    ("over-budget", plans::over_budget),
    ("overflowing-sizes", plans::overflowing_sizes),
    ("keep-everything", plans::keep_everything),
    ("no-activations", plans::no_activations),
    ("all-activations", plans::all_activations),
    ("unknown-block", plans::unknown_block),
    ("unknown-slot", plans::unknown_slot),
    ("unknown-home", plans::unknown_home),
    ("home-on-device", plans::home_on_device),
    ("all-pinned", plans::all_pinned),
    ("slot-too-small", plans::slot_too_small),
    ("slot-in-use", plans::slot_in_use),
    ("never-loaded", plans::never_loaded),
    ("not-cyclic", plans::not_cyclic),
    ("out-of-order", plans::out_of_order),
    ("ragged-columns", plans::ragged_columns),
    ("endless-cycle", plans::endless_cycle),
    ("no-cycle", plans::no_cycle),
    ("many-slots", plans::many_slots),
    ("many-loads", plans::many_loads),
    ("few-stages", plans::few_stages),
    ("many-stages", plans::many_stages),
    ("few-homes", plans::few_homes),
    ("forbidden-knob", plans::forbidden_knob),
    ("unknown-knob", plans::unknown_knob),
    ("nan-knob", plans::nan_knob),
    ("long-memo", plans::long_memo),
    ("retain-unknown", plans::retain_unknown),
    ("retain-flood", plans::retain_flood),
    ("trigger-flood", plans::trigger_flood),
    ("unknown-trigger", plans::unknown_trigger),
    ("largest-trigger", plans::largest_trigger),
    ("empty-ladder", plans::empty_ladder),
    ("ladder-up", plans::ladder_up),
    ("reason-flood", floods::reason_flood),
    ("megabyte-reason", floods::megabyte_reason),
    ("giant-answer", floods::giant_answer),
    ("escapes", floods::escapes),
    ("log-flood", floods::log_flood),
    ("log-giants", floods::log_giants),
    ("forecast-flood", floods::forecast_flood),
    ("forecast-nonsense", floods::forecast_nonsense),
    ("forecast-giants", floods::forecast_giants),
    ("probe-flood", floods::probe_flood),
    ("probe-nonsense", floods::probe_nonsense),
    ("endless-loop", floods::endless_loop),
    ("deep-recursion", floods::deep_recursion),
    ("memory-bomb", floods::memory_bomb),
    ("panic", floods::panic),
    ("addresses", sources::addresses),
    ("hash-order", sources::hash_order),
    ("nan-bits", sources::nan_bits),
];

/// Attacks that end in another answer than a plan.
const ANSWERS: [&str; 3] = ["keep", "refusal", "refusal-escapes"];

impl Policy for Hostile {
    fn describe(&self) -> Description {
        let names = ATTACKS.iter().map(|(name, _)| *name).chain(ANSWERS);
        let names = names.map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(",");
        let settings = format!(
            "{{\"type\": \"object\", \"properties\": {{\"attack\": {{\"type\": \"string\", \"enum\": [{names}], \
             \"default\": \"none\", \"description\": \"What to do to the host.\"}}, \
             \"when\": {{\"type\": \"string\", \"enum\": [\"always\", \"later\"], \"default\": \"always\", \
             \"description\": \"Whether to be honest until a run does not go as planned.\"}}}}}}"
        );
        describe("hostile", "1.0.0", "Does whatever harm it is told to.", &settings)
    }

    fn decide(&self, s: &Situation, host: &mut dyn Host) -> Result<Decision, Refusal> {
        if s.text("when") == "later" && matches!(s.cause, cause::START | cause::NEXT_JOB) {
            return honest(s).map(Decision::Plan);
        }
        match s.text("attack") {
            "keep" => return Ok(Decision::Keep),
            "refusal" => return Err(refusal("No.")),
            "refusal-escapes" => return Err(refusal(floods::ESCAPES)),
            _ => {}
        }
        let mut plan = honest(s)?;
        if let Some((_, attack)) = ATTACKS.iter().find(|(name, _)| *name == s.text("attack")) {
            attack(s, host, &mut plan);
        }
        Ok(Decision::Plan(plan))
    }
}

/// Names a stage that does not exist and more bytes than there are.
fn refusal(message: &str) -> Refusal {
    Refusal { stage: Some(u32::MAX), needs_bytes: Some(u64::MAX), message: message.to_owned() }
}

/// A plan that may run: two slots, and as many residents as fit beside them.
fn honest(s: &Situation) -> Result<Plan, Refusal> {
    let mut stages = Vec::new();
    for (i, view) in s.stages().enumerate() {
        let plan = s.room(&view, s.budget.device).and_then(|room| StagePlan::within(&view, room, 2));
        stages.push(plan.ok_or_else(|| s.too_small(i, s.budget.device))?);
    }
    Ok(s.plan(stages))
}

loadline_policy_sdk::export_policy!(Hostile);

//! Each setting at both of its ends.

use loadline_core::{SettingValue, Settings};
use loadline_policy::Policy;
use loadline_policy::settings::{Kind, Setting};

use super::answers::{Asked, difference};

/// The most ends that are tried: a policy may have 64 settings, and one of them thousands of words.
const ENDS: usize = 256;

/// Settings with one of them at an end of its range, as `key=value` and all of them.
pub(super) fn ends(policy: &Policy, usual: &Settings) -> Vec<(String, Settings)> {
    let with = |setting: &Setting, value: SettingValue| {
        let mut settings = usual.clone();
        let given = format!("{}={}", setting.key, text(&value));
        settings.insert(setting.key.clone(), value);
        (given, settings)
    };
    let all = policy.schema().settings().iter();
    all.flat_map(|setting| values(setting).into_iter().map(move |value| with(setting, value))).take(ENDS).collect()
}

fn values(setting: &Setting) -> Vec<SettingValue> {
    match &setting.kind {
        Kind::Boolean => [false, true].map(SettingValue::Boolean).to_vec(),
        Kind::Integer { minimum, maximum } => [*minimum, *maximum].map(SettingValue::Integer).to_vec(),
        Kind::Number { minimum, maximum } => [*minimum, *maximum].map(SettingValue::Number).to_vec(),
        Kind::Text { choices, max_length } if choices.is_empty() => {
            [0, *max_length].map(|n| SettingValue::Text("x".repeat(n))).to_vec()
        }
        Kind::Text { choices, .. } => choices.iter().cloned().map(SettingValue::Text).collect(),
    }
}

/// A value as it is typed; long ones are cut.
fn text(value: &SettingValue) -> String {
    match value {
        SettingValue::Boolean(b) => b.to_string(),
        SettingValue::Integer(i) => i.to_string(),
        SettingValue::Number(n) => n.to_string(),
        SettingValue::Text(t) if t.chars().count() > 32 => format!("({} bytes)", t.len()),
        SettingValue::Text(t) => t.clone(),
    }
}

/// What the ends say. A refusal is an answer; a fault or a plan that must not run is not.
pub(super) fn verdict(policy: &Policy, ends: &[(String, Asked)]) -> Result<String, String> {
    for (given, asked) in ends {
        if let Some(fault) = asked.fault() {
            return Err(format!("--set {given}: {fault}; give the setting a range that the policy can bear"));
        }
        if let Some(finding) = super::verdicts::error(&asked.findings) {
            return Err(format!("--set {given}: the plan must not run: {finding}"));
        }
        if let Some(what) = difference(&asked.answers[0], &asked.answers[1]) {
            return Err(format!("--set {given}: asked twice the same, it answers {what}"));
        }
    }
    Ok(match policy.schema().settings().len() {
        0 => "none".to_owned(),
        1 => format!("1 setting, tried with {} values", ends.len()),
        count => format!("{count} settings, tried with {} values at their ends", ends.len()),
    })
}

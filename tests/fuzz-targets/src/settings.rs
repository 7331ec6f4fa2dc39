//! Settings: a policy's schema, and what a user gives.

use loadline_core::{SettingValue, Settings};
use loadline_policy::settings::{Kind, Schema, Setting, SettingsError, resolve, resolve_json};
use serde_json::{Map, Value};

use crate::{check_message, refused};

/// An input has up to three parts, split at zero bytes: a schema, lines of `key=value` as on a command line, and a JSON
/// object as in a configuration file.
///
/// What settings come of is every key of the schema and no other, each value one that its schema allows; defaults are
/// among those; giving all of them again changes nothing; resolving twice gives the same; and a schema that was read
/// is read again as the same.
///
/// # Panics
/// Where one of these does not hold.
pub fn settings(data: &[u8]) -> bool {
    let mut parts = data.splitn(3, |byte| *byte == 0).map(|part| std::str::from_utf8(part).unwrap_or_default());
    let mut part = || parts.next().unwrap_or_default();
    let schema = match Schema::parse(part()) {
        Ok(schema) => schema,
        Err(error) => return refused(&error),
    };
    assert_eq!(Schema::parse(schema.json()).as_ref(), Ok(&schema));
    let texts: Vec<_> = part().lines().filter_map(|line| line.split_once('=')).collect();
    let texts: Vec<_> = texts.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    check(&schema, || resolve(&schema, &texts));
    let values: Map<String, Value> = serde_json::from_str(part()).unwrap_or_default();
    check(&schema, || resolve_json(&schema, &values));
    check(&schema, || resolve(&schema, &[]));
    true
}

fn check(schema: &Schema, resolve: impl Fn() -> Result<Settings, SettingsError>) {
    let settings = match resolve() {
        Ok(settings) => settings,
        Err(error) => return check_message(&error),
    };
    assert_eq!(resolve().as_ref(), Ok(&settings), "other settings at the second time");
    assert_eq!(settings.len(), schema.settings().len(), "a key is missing, or there are two of one");
    for setting in schema.settings() {
        check_value(setting, &settings[&setting.key]);
    }
    let given: Map<String, Value> = settings.iter().map(|(key, value)| (key.clone(), json(value))).collect();
    assert_eq!(resolve_json(schema, &given), Ok(settings), "given back, they are others");
}

fn check_value(setting: &Setting, value: &SettingValue) {
    let fits = match (&setting.kind, value) {
        (Kind::Boolean, SettingValue::Boolean(_)) => true,
        (Kind::Integer { minimum, maximum }, SettingValue::Integer(n)) => minimum <= n && n <= maximum,
        (Kind::Number { minimum, maximum }, SettingValue::Number(x)) => x.is_finite() && minimum <= x && x <= maximum,
        (Kind::Text { choices, max_length }, SettingValue::Text(text)) => {
            text.len() <= *max_length && (choices.is_empty() || choices.contains(text))
        }
        _ => false,
    };
    assert!(fits, "{value:?} for {setting:?}");
    let shown = [&setting.title, &setting.description];
    assert!(shown.iter().all(|text| !text.contains(char::is_control)), "a control character reaches the terminal");
}

fn json(value: &SettingValue) -> Value {
    match value {
        SettingValue::Boolean(b) => Value::Bool(*b),
        SettingValue::Integer(i) => Value::from(*i),
        SettingValue::Number(n) => Value::from(*n),
        SettingValue::Text(t) => Value::from(t.clone()),
    }
}

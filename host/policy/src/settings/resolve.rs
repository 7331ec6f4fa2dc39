//! From what a user gave to the settings that a policy sees.

use loadline_core::{SettingValue, Settings};
use serde_json::{Map, Value};

use super::{Kind, Schema, Setting, SettingsError};
use crate::text::line;

/// Settings from texts, as they stand on a command line. What is not given has its default.
///
/// # Errors
/// The first key that is unknown or given twice, or whose value does not fit.
pub fn resolve(schema: &Schema, given: &[(String, String)]) -> Result<Settings, SettingsError> {
    let mut settings = defaults(schema);
    for (i, (key, text)) in given.iter().enumerate() {
        let setting = find(schema, key)?;
        if given[..i].iter().any(|(earlier, _)| earlier == key) {
            return Err(SettingsError::Twice { key: key.clone() });
        }
        let value = setting.kind.take(&read(&setting.kind, text)).ok_or_else(|| unfit(setting, text))?;
        settings.insert(key.clone(), value);
    }
    Ok(settings)
}

/// Settings from JSON values, as they stand in a configuration file or a web request. What is not
/// given has its default.
///
/// # Errors
/// The first key that is unknown or whose value does not fit.
pub fn resolve_json(schema: &Schema, given: &Map<String, Value>) -> Result<Settings, SettingsError> {
    let mut settings = defaults(schema);
    for (key, value) in given {
        let setting = find(schema, key)?;
        let word = match (&setting.kind, value) {
            // A choice such as `auto`, `true`, `false` may be given as a switch.
            (Kind::Text { .. }, Value::Bool(b)) => Value::String(b.to_string()),
            _ => value.clone(),
        };
        let got = || value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        settings.insert(key.clone(), setting.kind.take(&word).ok_or_else(|| unfit(setting, &got()))?);
    }
    Ok(settings)
}

fn defaults(schema: &Schema) -> Settings {
    schema.settings().iter().map(|s| (s.key.clone(), s.default.clone())).collect()
}

fn find<'a>(schema: &'a Schema, key: &str) -> Result<&'a Setting, SettingsError> {
    schema.get(key).ok_or_else(|| SettingsError::Unknown {
        key: line(key),
        nearest: nearest(schema.settings().iter().map(|s| s.key.as_str()), key).map(str::to_owned),
        known: schema.settings().iter().map(|s| s.key.clone()).collect(),
    })
}

/// A text as the JSON value that it stands for; null where it stands for none.
fn read(kind: &Kind, text: &str) -> Value {
    match kind {
        Kind::Boolean => match text {
            "true" | "on" | "yes" => Value::Bool(true),
            "false" | "off" | "no" => Value::Bool(false),
            _ => Value::Null,
        },
        Kind::Integer { .. } => text.parse::<i64>().map_or(Value::Null, Value::from),
        Kind::Number { .. } => text.parse::<f64>().map_or(Value::Null, Value::from),
        Kind::Text { .. } => Value::from(text),
    }
}

fn unfit(setting: &Setting, got: &str) -> SettingsError {
    let default = match &setting.default {
        SettingValue::Boolean(b) => b.to_string(),
        SettingValue::Integer(i) => i.to_string(),
        SettingValue::Number(n) => n.to_string(),
        SettingValue::Text(t) => t.clone(),
    };
    let (expected, default) = (line(&setting.kind.to_string()), line(&default));
    SettingsError::Value { key: setting.key.clone(), got: line(got), expected, default }
}

/// The name that is most like what was given, if any is much like it.
#[must_use]
pub fn nearest<'a>(known: impl IntoIterator<Item = &'a str>, given: &str) -> Option<&'a str> {
    let names = known.into_iter().map(|name| (distance(name, given), name));
    names.filter(|(d, name)| *d <= name.len().max(3) / 3).min().map(|(_, name)| name)
}

/// The number of characters to add, drop or change (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

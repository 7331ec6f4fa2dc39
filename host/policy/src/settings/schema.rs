//! The schema of a policy's settings: a flat JSON Schema, read into declarations.

use std::fmt;

use loadline_core::SettingValue;
use serde_json::{Map, Value};

use super::SchemaError;
use crate::text;

const SCHEMA_BYTES: usize = 64 << 10;
const SETTINGS: usize = 64;

/// What a policy can be told by its user.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schema {
    settings: Vec<Setting>,
    json: String,
}

/// One setting.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// The key, such as `prefetch`.
    pub key: String,
    /// A short name for people; the key where the schema has none.
    pub title: String,
    /// What it does, in a sentence or two.
    pub description: String,
    /// What values it takes.
    pub kind: Kind,
    /// The value where none is given.
    pub default: SettingValue,
}

/// What values a setting takes. Bounds are inclusive.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// True or false.
    Boolean,
    /// A whole number.
    Integer {
        /// The least.
        minimum: i64,
        /// The most.
        maximum: i64,
    },
    /// A number.
    Number {
        /// The least.
        minimum: f64,
        /// The most.
        maximum: f64,
    },
    /// A text, one of a list if the list is not empty.
    Text {
        /// What it may be.
        choices: Vec<String>,
        /// The most bytes.
        max_length: usize,
    },
}

/// `a whole number from 0 to 64`.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean => f.write_str("true or false"),
            Self::Integer { minimum: i64::MIN, maximum: i64::MAX } => f.write_str("a whole number"),
            Self::Integer { minimum, maximum: i64::MAX } => write!(f, "a whole number of at least {minimum}"),
            Self::Integer { minimum, maximum } => write!(f, "a whole number from {minimum} to {maximum}"),
            Self::Number { minimum: f64::MIN, maximum: f64::MAX } => f.write_str("a number"),
            Self::Number { minimum, maximum: f64::MAX } => write!(f, "a number of at least {minimum}"),
            Self::Number { minimum, maximum } => write!(f, "a number from {minimum} to {maximum}"),
            Self::Text { choices, max_length } if choices.is_empty() => {
                write!(f, "a text of at most {max_length} bytes")
            }
            Self::Text { choices, .. } => write!(f, "one of {}", choices.join(", ")),
        }
    }
}

impl Kind {
    /// The value, if JSON holds one of this kind.
    pub(super) fn take(&self, value: &Value) -> Option<SettingValue> {
        match (self, value) {
            (Self::Boolean, Value::Bool(b)) => Some(SettingValue::Boolean(*b)),
            (Self::Integer { minimum, maximum }, Value::Number(n)) => {
                n.as_i64().filter(|i| (minimum..=maximum).contains(&i)).map(SettingValue::Integer)
            }
            (Self::Number { minimum, maximum }, Value::Number(n)) => {
                n.as_f64().filter(|x| x.is_finite() && (minimum..=maximum).contains(&x)).map(SettingValue::Number)
            }
            (Self::Text { choices, max_length }, Value::String(text)) => {
                let fits = text.len() <= *max_length && (choices.is_empty() || choices.contains(text));
                fits.then(|| SettingValue::Text(text.clone()))
            }
            _ => None,
        }
    }
}

impl Schema {
    /// Reads a schema. An empty text declares no settings.
    ///
    /// # Errors
    /// What is not a flat object of settings with defaults, and every keyword that is not known: a
    /// mistyped `minimun` would otherwise be a limit that nobody enforces.
    pub fn parse(text: &str) -> Result<Self, SchemaError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        if text.len() > SCHEMA_BYTES {
            return Err(SchemaError::TooLong { bytes: text.len(), limit: SCHEMA_BYTES });
        }
        let value: Value = serde_json::from_str(text).map_err(|error| SchemaError::Json(error.to_string()))?;
        let properties = properties(&value).ok_or(SchemaError::NotFlat)?;
        if properties.len() > SETTINGS {
            return Err(SchemaError::TooMany { count: properties.len(), limit: SETTINGS });
        }
        let settings = properties.iter().map(|(key, value)| setting(key, value)).collect::<Result<_, _>>()?;
        Ok(Self { settings, json: text::json(text) })
    }

    /// The settings, in the order in which the policy declares them.
    #[must_use]
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    /// The schema as it was given, with what a terminal would act on written as JSON escapes; empty where the policy
    /// has no settings.
    #[must_use]
    pub fn json(&self) -> &str {
        &self.json
    }

    /// The setting of that key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Setting> {
        self.settings.iter().find(|s| s.key == key)
    }
}

fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    const KNOWN: [&str; 7] = ["$schema", "$id", "title", "description", "type", "properties", "additionalProperties"];
    let object = schema.as_object()?;
    let flat = object.keys().all(|k| KNOWN.contains(&k.as_str()) || k.starts_with("x-"));
    let typed = object.get("type")?.as_str()? == "object";
    let closed = object.get("additionalProperties").is_none_or(|v| *v == Value::Bool(false));
    if flat && typed && closed { object.get("properties")?.as_object() } else { None }
}

fn setting(key: &str, value: &Value) -> Result<Setting, SchemaError> {
    let named: String = key.chars().take(64).collect();
    let wrong = |reason: String| SchemaError::Setting { key: text::line(&named), reason: text::line(&reason) };
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if key.is_empty() || key.len() > 64 || !key.chars().all(letter) {
        return Err(wrong("a key is made of 1 to 64 lower-case letters, digits and '_'".to_owned()));
    }
    let object = value.as_object().ok_or_else(|| wrong("it is not an object".to_owned()))?;
    let kind = kind(object).map_err(wrong)?;
    let default = object.get("default").ok_or_else(|| wrong("it has no 'default'".to_owned()))?;
    let default = kind.take(default).ok_or_else(|| wrong(format!("its default {default} is not {kind}")))?;
    if let SettingValue::Text(text) = &default
        && !text.chars().all(text::is_shown)
    {
        return Err(wrong("its default has characters that cannot be shown".to_owned()));
    }
    let text = |name: &str| object.get(name).and_then(Value::as_str);
    Ok(Setting {
        key: key.to_owned(),
        title: text::line(text("title").unwrap_or(key)),
        description: text::line(text("description").unwrap_or_default()),
        kind,
        default,
    })
}

fn kind(object: &Map<String, Value>) -> Result<Kind, String> {
    let name = object.get("type").and_then(Value::as_str).unwrap_or("nothing");
    let (kind, keywords): (Kind, &[&str]) = match name {
        "boolean" => (Kind::Boolean, &[]),
        "integer" => (integer(object)?, &["minimum", "maximum"]),
        "number" => (number(object)?, &["minimum", "maximum"]),
        "string" => (word(object)?, &["enum", "maxLength"]),
        other => return Err(format!("its type is '{other}', not boolean, integer, number or string")),
    };
    let common = ["type", "title", "description", "default"];
    let known = |k: &&String| common.contains(&k.as_str()) || keywords.contains(&k.as_str()) || k.starts_with("x-");
    match object.keys().find(|k| !known(k)) {
        Some(keyword) => Err(format!("the keyword '{keyword}' is not known for a setting of type {name}")),
        None => Ok(kind),
    }
}

fn integer(object: &Map<String, Value>) -> Result<Kind, String> {
    let bound = |name: &str, open: i64| match object.get(name) {
        None => Ok(open),
        Some(value) => value.as_i64().ok_or_else(|| format!("its {name} {value} is not a whole number")),
    };
    let (minimum, maximum) = (bound("minimum", i64::MIN)?, bound("maximum", i64::MAX)?);
    if minimum > maximum {
        Err("its minimum is above its maximum".to_owned())
    } else {
        Ok(Kind::Integer { minimum, maximum })
    }
}

fn number(object: &Map<String, Value>) -> Result<Kind, String> {
    let bound = |name: &str, open: f64| match object.get(name) {
        None => Ok(open),
        Some(value) => value.as_f64().ok_or_else(|| format!("its {name} {value} is not a number")),
    };
    let (minimum, maximum) = (bound("minimum", f64::MIN)?, bound("maximum", f64::MAX)?);
    if minimum > maximum {
        Err("its minimum is above its maximum".to_owned())
    } else {
        Ok(Kind::Number { minimum, maximum })
    }
}

fn word(object: &Map<String, Value>) -> Result<Kind, String> {
    const LENGTH: u64 = 4096;
    let choices = match object.get("enum") {
        None => Vec::new(),
        Some(list) => {
            let words: Option<Vec<String>> =
                list.as_array().map(|l| l.iter().map(|v| v.as_str().map(str::to_owned)).collect()).unwrap_or_default();
            let words = words.filter(|w| !w.is_empty()).ok_or("its enum is not a list of texts")?;
            let shown = words.iter().all(|word| word.chars().all(text::is_shown));
            if shown { words } else { return Err("its enum has characters that cannot be shown".to_owned()) }
        }
    };
    let max_length = match object.get("maxLength") {
        None => LENGTH,
        Some(value) => value.as_u64().filter(|n| *n <= LENGTH).ok_or("its maxLength is not a number up to 4096")?,
    };
    Ok(Kind::Text { choices, max_length: max_length as usize })
}

//! Reading settings. The host has checked them against the schema and filled in the defaults, so a
//! key that is missing here is missing in the schema too.

use crate::{Entry, Situation, Value};

/// Finds the value of a key.
#[must_use]
pub fn value<'a>(entries: &'a [Entry], key: &str) -> Option<&'a Value> {
    entries.iter().find(|e| e.key == key).map(|e| &e.value)
}

impl Situation {
    /// A switch; off where there is none.
    #[must_use]
    pub fn switch(&self, key: &str) -> bool {
        matches!(value(&self.settings, key), Some(Value::Boolean(true)))
    }

    /// A whole number.
    #[must_use]
    pub fn integer(&self, key: &str) -> Option<i64> {
        match value(&self.settings, key) {
            Some(Value::Integer(n)) => Some(*n),
            _ => None,
        }
    }

    /// A whole number that counts something: 0 where it is missing or negative.
    #[must_use]
    pub fn count(&self, key: &str) -> u64 {
        self.integer(key).and_then(|n| u64::try_from(n).ok()).unwrap_or(0)
    }

    /// A fraction.
    #[must_use]
    pub fn number(&self, key: &str) -> Option<f64> {
        match value(&self.settings, key) {
            Some(Value::Number(n)) => Some(*n),
            Some(Value::Integer(n)) => Some(*n as f64),
            _ => None,
        }
    }

    /// A word; empty where there is none.
    #[must_use]
    pub fn text(&self, key: &str) -> &str {
        match value(&self.settings, key) {
            Some(Value::Text(text)) => text,
            _ => "",
        }
    }

    /// A whole number among the facts, such as `forecast-calls`; 0 where the host says nothing.
    #[must_use]
    pub fn fact(&self, key: &str) -> u64 {
        match value(&self.facts, key) {
            Some(Value::Integer(n)) => u64::try_from(*n).unwrap_or(0),
            _ => 0,
        }
    }

    /// Whether the plan may change a knob.
    #[must_use]
    pub fn may_change(&self, knob: &str) -> bool {
        self.may_change.iter().any(|k| k == knob)
    }
}

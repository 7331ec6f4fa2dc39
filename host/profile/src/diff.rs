//! What is different between two profiles, in words.

use std::collections::BTreeSet;
use std::fmt;

use loadline_core::{Curve, Estimate, Quantiles};
use serde_json::Value;

use crate::figures::Entry;
use crate::schema::Profile;

/// What of a file is neither in [`Profile::figures`] nor a text.
const REST: [&str; 6] = [
    "/device/unified",
    "/device/recorded",
    "/device/measurements",
    "/link/measurements",
    "/host/measurements",
    "/disk/measurements",
];

/// A figure or a text that is not the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Where, as in [`Entry::field`], or a path of the file.
    pub field: String,
    /// What stands in the first; `None` if it is not there.
    pub before: Option<String>,
    /// What stands in the second; `None` if it is not there.
    pub after: Option<String>,
    /// The relative change of the median that is furthest from none, where both are numbers: 0.1 is a tenth more.
    pub relative: Option<f64>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, before, after, relative } = self;
        match (before, after) {
            (Some(before), Some(after)) => write!(f, "{field}: {before} -> {after}")?,
            (None, Some(after)) => write!(f, "{field}: new, {after}")?,
            (Some(before), None) => write!(f, "{field}: gone, was {before}")?,
            (None, None) => write!(f, "{field}: different")?,
        }
        match relative {
            Some(share) if *share != 0.0 => write!(f, " ({:+.1} %)", 100.0 * share),
            _ => Ok(()),
        }
    }
}

impl Profile {
    /// What is different in `other`, figures first and then everything else. Empty exactly if both
    /// have the same hash.
    #[must_use]
    pub fn diff(&self, other: &Self) -> Vec<Change> {
        let (before, after) = (self.figures(), other.figures());
        let mut changes: Vec<_> = before.iter().filter_map(|entry| changed(entry, &after)).collect();
        let gone = |entry: &&Entry| !before.iter().any(|b| b.field == entry.field);
        changes.extend(after.iter().filter(gone).map(|entry| Change {
            field: entry.field.clone(),
            before: None,
            after: Some(entry.show()),
            relative: None,
        }));
        changes.extend(texts(self, other));
        changes.extend(rest(self, other, &REST));
        if changes.is_empty() && self.hash() != other.hash() {
            // Only an order is different, as of operations.
            changes.extend(rest(self, other, &[""]));
        }
        changes
    }
}

fn changed(before: &Entry, after: &[Entry]) -> Option<Change> {
    let Some(after) = after.iter().find(|entry| entry.field == before.field) else {
        return Some(change(before, None, None));
    };
    if before.values != after.values {
        return Some(change(before, Some(after.show()), Some(furthest(before, after))));
    }
    if before.provenance != after.provenance || before.source != after.source {
        let origin = |entry: &Entry| format!("{} [{}: {}]", entry.show(), provenance(entry), entry.source);
        let field = before.field.clone();
        return Some(Change { field, before: Some(origin(before)), after: Some(origin(after)), relative: None });
    }
    None
}

fn provenance(entry: &Entry) -> String {
    format!("{:?}", entry.provenance).to_lowercase()
}

fn change(before: &Entry, after: Option<String>, relative: Option<f64>) -> Change {
    Change { field: before.field.clone(), before: Some(before.show()), after, relative }
}

/// The relative change of the median that is furthest from none, at all amounts of both.
fn furthest(before: &Entry, after: &Entry) -> f64 {
    let amounts = before.values.iter().chain(&after.values).map(|(amount, _)| amount.max(1.0));
    let share = |amount: f64| median(&after.values, amount) / median(&before.values, amount) - 1.0;
    amounts.map(share).filter(|s| s.is_finite()).fold(0.0, |most: f64, s| if s.abs() > most.abs() { s } else { most })
}

/// The median at an amount, as forecasts interpolate it.
fn median(values: &[(f64, Quantiles)], amount: f64) -> f64 {
    if let [(_, only)] = values {
        return only.p50;
    }
    let curve = Curve { latency_ns: 0.0, points: values.to_vec() };
    amount / curve.time_ns(amount, Estimate::Median) * 1e9
}

fn texts(before: &Profile, after: &Profile) -> Vec<Change> {
    let rows = [
        ("name", &before.name, &after.name),
        ("title", &before.title, &after.title),
        ("device.name", &before.device.name, &after.device.name),
        ("device.kernel_set", &before.device.kernel_set, &after.device.kernel_set),
        ("link.name", &before.link.name, &after.link.name),
        ("host.name", &before.host.name, &after.host.name),
        ("disk.name", &before.disk.name, &after.disk.name),
    ];
    let different = rows.into_iter().filter(|(_, before, after)| before != after);
    different
        .map(|(field, before, after)| Change {
            field: field.to_owned(),
            before: Some(format!("'{before}'")),
            after: Some(format!("'{after}'")),
            relative: None,
        })
        .collect()
}

/// Fields of the file that differ and are neither figures nor texts, such as tables of a recording.
fn rest(before: &Profile, after: &Profile, pointers: &[&str]) -> Vec<Change> {
    let value = |profile| serde_json::to_value(profile).unwrap_or(Value::Null);
    let (before, after) = (value(before), value(after));
    let mut fields = BTreeSet::new();
    for pointer in pointers {
        let path = pointer.trim_start_matches('/').replace('/', ".");
        let at = |value: &Value| value.pointer(pointer).cloned().unwrap_or(Value::Null);
        walk(&path, &at(&before), &at(&after), &mut fields);
    }
    fields.into_iter().map(|field| Change { field, before: None, after: None, relative: None }).collect()
}

fn walk(path: &str, before: &Value, after: &Value, found: &mut BTreeSet<String>) {
    if before == after {
        return;
    }
    let (Value::Object(a), Value::Object(b)) = (before, after) else {
        found.insert(path.to_owned());
        return;
    };
    let keys: BTreeSet<_> = a.keys().chain(b.keys()).collect();
    for key in keys {
        let child = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        walk(&child, a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null), found);
    }
}

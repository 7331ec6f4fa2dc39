//! Fields of a file that mean nothing to this version.

use serde_json::Value;

use crate::error::ProfileError;
use crate::read;
use crate::schema::Profile;

/// The paths of all fields of a sound profile that were passed over: notes, misspelt optional
/// fields, and what a later version added. They have no part in a forecast, a hash or a file that is
/// written anew.
///
/// # Errors
/// As for [`Profile::parse`].
pub fn unknown_fields(text: &str, origin: &str) -> Result<Vec<String>, ProfileError> {
    let profile = Profile::parse(text, origin)?;
    let given = read::json(text, origin)?;
    let known = serde_json::to_value(&profile).unwrap_or(Value::Null);
    let mut found = Vec::new();
    compare("", &given, &known, &mut found);
    Ok(found)
}

/// A field is known if writing the profile brings it back.
fn compare(path: &str, given: &Value, known: &Value, found: &mut Vec<String>) {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            for (key, value) in given {
                let child = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match known.get(key) {
                    Some(known) => compare(&child, value, known, found),
                    // An empty list or table is left out when writing.
                    None if is_empty(value) => {}
                    None => found.push(child),
                }
            }
        }
        (Value::Array(given), Value::Array(known)) => {
            for (i, (value, known)) in given.iter().zip(known).enumerate() {
                compare(&format!("{path}[{i}]"), value, known, found);
            }
        }
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(serde_json::Map::is_empty)
}

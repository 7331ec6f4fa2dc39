//! `loadline profile lint` and `diff`.

use std::process::ExitCode;

use loadline::Error;
use loadline::profile::{Change, Finding, Profile, ProfileError, unknown_fields};
use serde_json::{Value, json};

use super::{DIFFERENT, open, text};
use crate::model::print_json;

/// What is to be said about one profile.
struct Verdict {
    name: String,
    errors: Vec<String>,
    findings: Vec<Finding>,
    unknown: Vec<String>,
    hash: Option<String>,
}

pub(super) fn lint(names: &[String], as_json: bool) -> Result<(), Error> {
    let verdicts: Vec<_> = names.iter().map(|name| verdict(name)).collect();
    if as_json {
        print_json(&Value::Array(verdicts.iter().map(verdict_json).collect()));
    } else {
        verdicts.iter().for_each(print);
    }
    let unsound: Vec<_> = verdicts.iter().filter(|v| !v.errors.is_empty()).map(|v| v.name.as_str()).collect();
    if unsound.is_empty() {
        return Ok(());
    }
    Err(Error::Profile(format!("not sound: {}; mend the fields named above, or record again", unsound.join(", "))))
}

fn verdict(name: &str) -> Verdict {
    let mut verdict =
        Verdict { name: name.to_owned(), errors: Vec::new(), findings: Vec::new(), unknown: Vec::new(), hash: None };
    let text = match text(name) {
        Ok(text) => text,
        Err(error) => {
            verdict.errors.push(error.to_string());
            return verdict;
        }
    };
    match Profile::read(text.as_bytes(), name) {
        Ok(profile) => {
            verdict.hash = Some(profile.hash().to_string());
            verdict.unknown = unknown_fields(&text, name).unwrap_or_default();
        }
        Err(ProfileError::Lint { findings, .. }) => {
            verdict.errors = findings.iter().map(ToString::to_string).collect();
            verdict.findings = findings;
        }
        Err(ProfileError::Field { finding, .. }) => {
            verdict.errors.push(finding.to_string());
            verdict.findings.push(finding);
        }
        Err(error @ ProfileError::Json { .. }) => {
            let detail = std::error::Error::source(&error).map(|e| format!(": {e}")).unwrap_or_default();
            verdict.errors.push(format!("{error}{detail}"));
        }
        Err(error) => verdict.errors.push(error.to_string()),
    }
    verdict
}

fn print(verdict: &Verdict) {
    let Verdict { name, errors, unknown, hash, .. } = verdict;
    if let Some(hash) = hash {
        say!("{name}: sound ({hash})");
    }
    for error in errors {
        say!("{name}: {error}");
    }
    for field in unknown {
        say!("{name}: note: field '{field}' means nothing to this version and is not used: a note, or misspelt?");
    }
}

fn verdict_json(verdict: &Verdict) -> Value {
    let finding = |f: &Finding| json!({ "field": f.field, "found": f.found, "expected": f.expected });
    json!({
        "profile": verdict.name,
        "sound": verdict.errors.is_empty(),
        "hash": verdict.hash,
        "errors": verdict.errors,
        "findings": verdict.findings.iter().map(finding).collect::<Vec<_>>(),
        "unknown_fields": verdict.unknown,
    })
}

pub(super) fn diff(before: &str, after: &str, as_json: bool) -> Result<ExitCode, Error> {
    let (a, b) = (open(before)?, open(after)?);
    let changes = a.diff(&b);
    if as_json {
        let change =
            |c: &Change| json!({ "field": c.field, "before": c.before, "after": c.after, "relative": c.relative });
        print_json(&json!({
            "same": changes.is_empty(),
            "before": { "name": a.name, "hash": a.hash() },
            "after": { "name": b.name, "hash": b.hash() },
            "changes": changes.iter().map(change).collect::<Vec<_>>(),
        }));
    } else if changes.is_empty() {
        say!("the same: {} ({})", a.name, a.hash());
    } else {
        say!("{} ({}) -> {} ({})", a.name, a.hash(), b.name, b.hash());
        changes.iter().for_each(|change| say!("  {change}"));
    }
    Ok(if changes.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(DIFFERENT) })
}

//! Policies with settings, expanded from lists and ranges.

use loadline_core::Settings;
use loadline_policy::{Policy, settings};

use crate::Error;

/// A policy with its settings.
#[derive(Clone, Debug)]
pub struct Contender {
    /// The policy.
    pub policy: Policy,
    /// Its settings, filled up with defaults.
    pub settings: Settings,
    /// The settings that were given, as `key` and `value`.
    pub given: Vec<(String, String)>,
}

impl Contender {
    /// The policy's name with the settings that were given, such as `manual-swap blocks_to_swap=20`.
    #[must_use]
    pub fn name(&self) -> String {
        let given = self.given.iter().map(|(k, v)| format!(" {k}={v}"));
        format!("{}{}", self.policy.id().name, given.collect::<String>())
    }
}

/// The most policies with settings in one comparison.
pub const CONTENDERS_MOST: usize = 10_000;

/// Every policy with every combination of the settings given. A value may be a list (`0,8,16`), a range that includes
/// both ends (`0..40`), or a range with a step (`0..40/4`). A setting goes to the policies that have it.
///
/// # Errors
/// If no policy has a setting, a value is not one that it takes, or there are more combinations than
/// [`CONTENDERS_MOST`].
pub fn contenders(policies: &[Policy], given: &[(String, String)]) -> Result<Vec<Contender>, Error> {
    for (key, _) in given {
        if !policies.iter().any(|p| knows(p, key)) {
            return Err(nobody_has(policies, key));
        }
    }
    let mut all = Vec::new();
    for policy in policies {
        let own: Vec<_> = given.iter().filter(|(key, _)| knows(policy, key)).collect();
        let mut combinations: Vec<Vec<(String, String)>> = vec![Vec::new()];
        for (key, text) in own {
            let values = values(policy, key, text)?;
            check_count(combinations.len().saturating_mul(values.len()))?;
            let with = |base: &Vec<(String, String)>, value: &String| {
                base.iter().cloned().chain([(key.clone(), value.clone())]).collect()
            };
            combinations = combinations.iter().flat_map(|base| values.iter().map(move |v| with(base, v))).collect();
        }
        check_count(all.len() + combinations.len())?;
        for given in combinations {
            let settings = settings::resolve(policy.schema(), &given).map_err(|e| Error::Settings(e.to_string()))?;
            all.push(Contender { policy: policy.clone(), settings, given });
        }
    }
    Ok(all)
}

fn knows(policy: &Policy, key: &str) -> bool {
    settings::resolve(policy.schema(), &[]).is_ok_and(|defaults| defaults.contains_key(key))
}

/// One policy gives the better message: it knows the settings that come close.
fn nobody_has(policies: &[Policy], key: &str) -> Error {
    let message = match policies {
        [only] => settings::resolve(only.schema(), &[(key.to_owned(), String::new())]).err().map(|e| e.to_string()),
        _ => None,
    };
    let names = || policies.iter().map(|p| p.id().name.as_str()).collect::<Vec<_>>().join(", ");
    Error::Settings(
        message.unwrap_or_else(|| format!("--set {key}: none of {} has it; see `loadline policy show NAME`", names())),
    )
}

fn check_count(count: usize) -> Result<(), Error> {
    if count > CONTENDERS_MOST {
        return Err(Error::Request(format!(
            "--set: these lists make {count} combinations, at most {CONTENDERS_MOST} are compared; shorten a list"
        )));
    }
    Ok(())
}

/// The values of a list or range. What the policy takes as it stands is one value, commas or not.
fn values(policy: &Policy, key: &str, text: &str) -> Result<Vec<String>, Error> {
    if settings::resolve(policy.schema(), &[(key.to_owned(), text.to_owned())]).is_ok() {
        return Ok(vec![text.to_owned()]);
    }
    let mut values: Vec<String> = Vec::new();
    for part in text.split(',').map(str::trim) {
        match part.split_once("..") {
            Some((from, to)) => values.extend(range(key, part, from, to)?),
            None => values.push(part.to_owned()),
        }
        check_count(values.len())?;
    }
    for (i, value) in values.iter().enumerate() {
        if values[..i].contains(value) {
            return Err(Error::Settings(format!("--set {key}={text}: {value} is there twice; leave one out")));
        }
    }
    Ok(values)
}

fn range(key: &str, part: &str, from: &str, to: &str) -> Result<Vec<String>, Error> {
    let bad = || {
        Error::Settings(format!(
            "--set {key}={part}: this is no range; write FROM..TO or FROM..TO/STEP with whole numbers, such as 0..40/4"
        ))
    };
    let (to, step) = to.split_once('/').unwrap_or((to, "1"));
    let number = |text: &str| text.trim().parse::<i64>().map_err(|_| bad());
    let (from, to, step) = (number(from)?, number(to)?, number(step)?);
    if step < 1 || from > to {
        return Err(bad());
    }
    check_count(usize::try_from((to - from) / step).unwrap_or(usize::MAX))?;
    let count = (to - from) / step;
    Ok((0..=count).map(|n| (from + n * step).to_string()).collect())
}

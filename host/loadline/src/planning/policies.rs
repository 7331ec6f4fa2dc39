//! Finding a policy by name or path.

use std::path::Path;

use loadline_policy::{Limits, Policy, PolicyEngine, builtin};

use crate::Error;

/// The names of the built-in policies.
pub fn names() -> impl Iterator<Item = &'static str> {
    builtin().iter().map(|b| b.name)
}

/// A built-in policy by name, or a component by path.
///
/// # Errors
/// If there is neither, or the component is not one that may be asked.
pub fn load(name: &str) -> Result<Policy, Error> {
    open(name, None)
}

/// Like [`load`], with compiled code kept in a folder that only the user can enter: the second process that asks for
/// a policy does not compile it. A folder that cannot be used only costs the time; see
/// [`Policy::code`].
///
/// # Errors
/// Those of [`load`].
pub fn load_cached(name: &str, folder: &Path) -> Result<Policy, Error> {
    open(name, Some(folder))
}

fn open(name: &str, cache: Option<&Path>) -> Result<Policy, Error> {
    let failed = |source| Error::Policy { name: name.to_owned(), source };
    let builtin = builtin().iter().find(|b| b.name == name);
    let component = builtin.map_or_else(|| read(name), |b| Ok(b.component.to_vec()))?;
    let mut engine = PolicyEngine::new(Limits::default()).map_err(failed)?;
    if let Some(folder) = cache {
        engine = engine.with_cache(folder);
    }
    engine.load(&component).map_err(failed)
}

fn read(name: &str) -> Result<Vec<u8>, Error> {
    let path = Path::new(name);
    let failed = |error: &std::io::Error| Error::Settings(format!("--policy {name}: {error}"));
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_file() => std::fs::read(path).map_err(|error| failed(&error)),
        Ok(_) => {
            Err(Error::Settings(format!("--policy {name}: this is no ordinary file; give the path of a component")))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::Settings(unknown(name))),
        Err(error) => Err(failed(&error)),
    }
}

fn unknown(name: &str) -> String {
    let known = names().collect::<Vec<_>>().join(", ");
    if looks_like_a_path(name) {
        return format!("--policy {name}: there is no such file; built in are {known}");
    }
    let hint = nearest(name).map(|n| format!(" (did you mean '{n}'?)")).unwrap_or_default();
    format!("there is no policy '{name}'{hint}: use one of {known}, or the path of a component")
}

fn looks_like_a_path(name: &str) -> bool {
    let path = Path::new(name);
    path.components().count() > 1 || path.extension().is_some()
}

fn nearest(name: &str) -> Option<&'static str> {
    loadline_policy::settings::nearest(names(), &name.to_ascii_lowercase().replace('_', "-"))
}

/// A policy's settings from `key=value` pairs, checked and filled up with defaults.
///
/// # Errors
/// The first key that is unknown or whose value does not fit.
pub fn settings(policy: &Policy, given: &[(String, String)]) -> Result<loadline_core::Settings, Error> {
    loadline_policy::settings::resolve(policy.schema(), given).map_err(|e| Error::Settings(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_is_understood() {
        let check = |name: &str, expected: Option<&str>| assert_eq!(nearest(name), expected, "{name}");
        check("auto-tun", Some("auto-tune"));
        check("AutoTune", Some("auto-tune"));
        check("lazy_load", Some("lazy-load"));
        check("treshold", Some("threshold"));
        check("manualswap", Some("manual-swap"));
        check("mine", None);
        check("", None);
    }
}

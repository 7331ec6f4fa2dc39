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
    let failed = |source| Error::Policy { name: name.to_owned(), source };
    let engine = PolicyEngine::new(Limits::default()).map_err(failed)?;
    if let Some(builtin) = builtin().iter().find(|b| b.name == name) {
        return engine.load(builtin.component).map_err(failed);
    }
    let path = Path::new(name);
    if !path.exists() {
        let known = names().collect::<Vec<_>>().join(", ");
        return Err(Error::Settings(format!(
            "'{name}' is neither a policy nor a file: use one of {known}, or the path of a component"
        )));
    }
    if !path.is_file() {
        return Err(Error::Settings(format!(
            "--policy {name}: this is no ordinary file; give the path of a component"
        )));
    }
    let bytes = std::fs::read(path).map_err(|e| Error::output(path, &e))?;
    engine.load(&bytes).map_err(failed)
}

/// A policy's settings from `key=value` pairs, checked and filled up with defaults.
///
/// # Errors
/// The first key that is unknown or whose value does not fit.
pub fn settings(policy: &Policy, given: &[(String, String)]) -> Result<loadline_core::Settings, Error> {
    loadline_policy::settings::resolve(policy.schema(), given).map_err(|e| Error::Settings(e.to_string()))
}

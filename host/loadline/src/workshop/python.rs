//! Building a policy that is written in Python, with the componentizer that its makers publish on PyPI.

use std::path::{Path, PathBuf};
use std::process::Command;

use loadline_policy::Limits;
use toml::{Table, Value};

use super::WorkshopError;
use super::tool::{self, OUTPUT, WIT};

/// The version that the SDK was tried with.
const VERSION: &str = "0.25.1";
/// The module that holds the policy where the project names none.
const MODULE: &str = "app";

/// Builds the project in `folder` to a component.
pub(super) fn build(folder: &Path, limits: &Limits, says: &mut dyn FnMut(&str)) -> Result<Vec<u8>, WorkshopError> {
    let module = module(&folder.join("pyproject.toml"))?;
    let mut componentize = Command::new(program(folder));
    componentize.args(["-d", WIT, "-w", "memory-policy", "componentize", "--stub-wasi"]);
    componentize.args(["-p", "sdk/python", "-p", ".", &module, "-o", OUTPUT]);
    // Compiled modules would lie about in the project.
    componentize.env("PYTHONDONTWRITEBYTECODE", "1");
    tool::output(folder, &mut componentize, limits, says, || missing(folder))
}

/// The project's own, or the one on the path.
fn program(folder: &Path) -> PathBuf {
    // A relative program is looked for from where this process is, not from the project.
    let own = folder.canonicalize().map(|folder| folder.join(".venv/bin/componentize-py"));
    own.ok().filter(|own| own.is_file()).unwrap_or_else(|| "componentize-py".into())
}

fn missing(folder: &Path) -> WorkshopError {
    let venv = folder.join(".venv");
    let venv = venv.display();
    WorkshopError::NoTool {
        tool: "componentize-py, which is neither in the project's .venv nor on the path".to_owned(),
        way_out: format!("run `python3 -m venv {venv} && {venv}/bin/pip install componentize-py=={VERSION}`"),
    }
}

/// The name of the module that holds the policy.
fn module(manifest: &Path) -> Result<String, WorkshopError> {
    let wrong = |reason: String| WorkshopError::Project { path: manifest.to_owned(), reason };
    let text = std::fs::read_to_string(manifest).map_err(|error| WorkshopError::io(manifest, &error))?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| wrong(error.to_string()))?;
    let named = table.get("tool").and_then(|tool| tool.get("loadline")).and_then(|ours| ours.get("module"));
    match named {
        None => Ok(MODULE.to_owned()),
        Some(Value::String(name)) if is_module(name) => Ok(name.clone()),
        Some(other) => {
            Err(wrong(format!("tool.loadline.module is {other}: write the name of a module, such as \"app\"")))
        }
    }
}

fn is_module(name: &str) -> bool {
    let letter = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit() || c == '.') && name.chars().all(letter)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_module_is_the_one_that_the_project_names() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = dir.path().join("pyproject.toml");
        let check = |text: &str, expected: Option<&str>| {
            std::fs::write(&manifest, text).unwrap();
            assert_eq!(module(&manifest).ok().as_deref(), expected, "{text}");
        };
        check("", Some("app"));
        check("[tool.loadline]\nmodule = \"mine\"\n", Some("mine"));
        check("[tool.loadline]\nmodule = \"--stub\"\n", None);
        check("[tool.loadline]\nmodule = 1\n", None);
        check("[tool", None);
    }
}

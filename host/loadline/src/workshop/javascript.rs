//! Building a policy that is written in JavaScript, with the componentizer that its makers publish on npm.

use std::path::Path;
use std::process::Command;

use loadline_policy::Limits;
use serde_json::Value;

use super::WorkshopError;
use super::tool::{self, OUTPUT, WIT};

/// Where npm puts the componentizer.
const PROGRAM: &str = "node_modules/@bytecodealliance/componentize-js/src/cli.js";
/// What of the engine is left out, so that nothing of WASI is imported.
const DISABLED: [&str; 5] = ["stdio", "random", "clocks", "http", "fetch-event"];

/// Builds the project in `folder` to a component.
pub(super) fn build(folder: &Path, limits: &Limits, says: &mut dyn FnMut(&str)) -> Result<Vec<u8>, WorkshopError> {
    let entry = entry(&folder.join("package.json"))?;
    if !folder.join(PROGRAM).is_file() {
        let tool = "componentize-js, which is not in the project's node_modules".to_owned();
        return Err(WorkshopError::NoTool {
            tool,
            way_out: format!("run `npm install --prefix {}`", folder.display()),
        });
    }
    let mut componentize = Command::new("node");
    componentize.args([PROGRAM, &entry, "-w", WIT, "-n", "memory-policy", "-d"]).args(DISABLED).args(["-o", OUTPUT]);
    tool::output(folder, &mut componentize, limits, says, || WorkshopError::NoTool {
        tool: "Node.js, which is not on the path".to_owned(),
        way_out: "install version 20 or later from https://nodejs.org, or on Debian run `apt-get install nodejs npm`"
            .to_owned(),
    })
}

/// The file that holds the policy.
fn entry(manifest: &Path) -> Result<String, WorkshopError> {
    let wrong = |reason: String| WorkshopError::Project { path: manifest.to_owned(), reason };
    let text = std::fs::read_to_string(manifest).map_err(|error| WorkshopError::io(manifest, &error))?;
    let json: Value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    match json["main"].as_str() {
        Some(main) if !main.is_empty() && !main.starts_with('-') => Ok(main.to_owned()),
        _ => Err(wrong("it names no file that holds the policy: write `\"main\": \"policy.js\"`".to_owned())),
    }
}

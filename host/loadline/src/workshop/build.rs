//! From a project to a component that may be asked.

use std::path::Path;

use loadline_policy::{Limits, Policy};

use super::{Language, javascript, python, rust};
use crate::Error;
use crate::planning::policies::{self, Places};

/// A component that was built, and has said what it is.
#[derive(Clone, Debug)]
pub struct Built {
    /// The language of its project.
    pub language: Language,
    /// Its bytes; equal sources and tools give equal bytes.
    pub component: Vec<u8>,
    /// The policy.
    pub policy: Policy,
}

/// Builds the project in `folder`. `cargo_home` is where cargo keeps what it downloads, so that its path does not end
/// up in the bytes; `limits` are those of the policy that comes out; `says` is given each line that the tools print for
/// people.
///
/// # Errors
/// If a tool is missing or fails, or what comes out is no policy.
pub fn build(
    folder: &Path,
    cargo_home: Option<&Path>,
    places: &Places,
    limits: Limits,
    says: &mut dyn FnMut(&str),
) -> Result<Built, Error> {
    let language = Language::of_project(folder)?;
    let component = match language {
        Language::Rust => rust::build(folder, cargo_home, says)?,
        Language::Python => python::build(folder, &limits, says)?,
        Language::JavaScript => javascript::build(folder, &limits, says)?,
    };
    let policy = policies::load_bytes(&folder.display().to_string(), &component, places, limits)?;
    Ok(Built { language, component, policy })
}

//! The workshop of policies: a new project, the tools that it needs, its component, and what is installed.
//!
//! Building runs the compilers and packagers of others, in the project's folder and with the user's rights, as `cargo
//! build` does; only what comes out of it is in a sandbox. What a policy is worth is found elsewhere: nothing is asked
//! here beyond what it calls itself.

mod build;
mod command;
mod component;
mod error;
mod files;
mod installed;
mod javascript;
mod language;
mod python;
mod reference;
mod rust;
mod template;
mod tool;

pub use build::{Built, build};
pub use component::{imports, read as read_component};
pub use error::WorkshopError;
pub use installed::{Added, Installed, InstalledPolicy};
pub use language::Language;
pub use reference::Reference;
pub use template::{check_name, create};

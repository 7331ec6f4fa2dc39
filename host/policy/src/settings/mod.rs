//! A policy's settings: what it declares, and what a user gave.

mod error;
mod resolve;
mod schema;

pub use error::{SchemaError, SettingsError};
pub use resolve::{nearest, resolve, resolve_json};
pub use schema::{Kind, Schema, Setting};

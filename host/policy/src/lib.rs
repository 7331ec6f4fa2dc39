//! The host of policies: loads a component, asks it for a decision, and takes no harm.
//!
//! A policy is a WebAssembly component of the world `loadline:policy/memory-policy` (see
//! `wit/policy@0.1.0`). This crate is the only one that knows wasmtime; what goes in and comes out are
//! the types of `loadline-core`, whatever version of the contract a component was built for. It does not check plans
//! (`loadline_core::check`) nor make forecasts: it asks an [`Oracle`] for them.

// The tests' synthetic jobs name this crate as any other user of it does.
#[cfg(test)]
extern crate self as loadline_policy;

mod admission;
mod builtin;
mod cache;
mod engine;
mod error;
mod guest;
mod limits;
mod oracle;
mod policy;
mod pool;
mod price;
mod quarantine;
mod scan;
pub mod settings;
mod text;
mod transcript;
mod versions;
mod watch;
mod wave;

pub use builtin::{Builtin, builtin};
pub use cache::Code;
pub use engine::{CONTRACT, PolicyEngine, contracts};
pub use error::PolicyError;
pub use limits::Limits;
pub use oracle::{Oracle, Outlook, Silent};
pub use policy::{Decided, LogLine, Policy};
pub use quarantine::{Fault, FaultClass, Quarantine};
pub use transcript::Transcript;

//! What is fuzzed: for each way into Loadline a function of bytes, which panics where something that must hold does
//! not. `tests/fuzz` gives them to libFuzzer; the tests of this crate replay the kept inputs.
//!
//! A target asserts more than that nothing panics: what it asserts is said beside each. It is no place for inputs
//! that are known to be wrong; those belong to the tests of the crate that refuses them.
#![allow(clippy::unwrap_used, reason = "here a panic is the finding")]

#[cfg(feature = "policies")]
mod component;
mod draft;
#[cfg(feature = "policies")]
mod guest;
mod headers;
#[cfg(feature = "policies")]
mod image;
#[cfg(feature = "policies")]
mod parrot;
mod plan;
mod profile;
#[cfg(feature = "policies")]
mod settings;
mod supply;
mod watched;
mod world;

#[cfg(feature = "policies")]
pub use component::component;
pub use headers::{gguf, safetensors};
#[cfg(feature = "policies")]
pub use parrot::parrot;
pub use plan::plan;
pub use profile::profile;
#[cfg(feature = "policies")]
pub use settings::settings;

/// A target's name, and the target. It says whether the input was taken for what it should be, rather than refused:
/// inputs that are all refused would prove little.
pub type Target = (&'static str, fn(&[u8]) -> bool);

/// Every target of this build, by the name of its corpus.
pub const TARGETS: &[Target] = &[
    #[cfg(feature = "policies")]
    ("component", component),
    ("gguf", gguf),
    #[cfg(feature = "policies")]
    ("parrot", parrot),
    ("plan", plan),
    ("profile", profile),
    ("safetensors", safetensors),
    #[cfg(feature = "policies")]
    ("settings", settings),
];

/// A message is a line that a terminal shows as it is: what it quotes may come from a stranger.
fn check_message(error: &dyn std::error::Error) {
    let message = error.to_string();
    assert!(!message.is_empty(), "an error without a word");
    let odd = message.chars().find(|c| c.is_control() && *c != '\n');
    assert!(odd.is_none(), "a control character reaches the terminal: {message:?}");
}

/// The end of an input that is none: what is wrong with it can be shown.
fn refused(error: &dyn std::error::Error) -> bool {
    check_message(error);
    false
}

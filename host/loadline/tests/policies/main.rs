//! What is said about policies: whether they may be asked, how fast their plans are, why, and what their scenarios
//! show.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod admission;
mod board;
mod explain;
#[path = "../../../policy/tests/common/guest.rs"]
mod guest;
mod scenarios;

use loadline::{Policy, PolicyLimits, policies};

/// The names of all policies that ship.
fn builtin() -> Vec<&'static str> {
    policies::names().collect()
}

/// A guest of WebAssembly text as a policy.
fn policy_of(body: &str) -> Policy {
    let component = guest::encode(guest::WIT, &guest::module(body, ""));
    policies::load_bytes("guest", &component, &policies::Places::default(), PolicyLimits::default()).unwrap()
}

/// Instructions that store words from an address on.
fn store(address: u32, words: &[u32]) -> String {
    let one =
        |(word, i): (&u32, u32)| format!("(i32.store (i32.const {}) (i32.const {}))", address + i * 4, *word as i32);
    words.iter().zip(0..).map(one).collect()
}

//! The versions of the contract that this host speaks, each behind an adapter.
//!
//! A version is a folder here and one in `wit/`: what wasmtime generates from its WIT, and the conversion between its
//! types and those of `loadline-core`. Everything else in this crate knows only [`Adapter`]. A version that was
//! published stays here unchanged for as long as the host speaks it.

mod number;
#[cfg(test)]
mod tests;
mod v0_1_0;

use std::future::Future;
use std::pin::Pin;

use loadline_core::{Decision, PolicyId, Situation};
use wasmtime::Store;
use wasmtime::component::{InstancePre, Linker};

use crate::guest::State;
use crate::{Limits, PolicyError};
pub(crate) use number::Number;

/// A version of the contract.
pub(crate) struct Version {
    /// Such as `0.1.0`.
    pub(crate) number: &'static str,
    /// The functions that a guest may import from its interface `host`.
    pub(crate) imports: &'static [&'static str],
    /// The functions that a guest exports in its interface `policy`.
    pub(crate) exports: &'static [&'static str],
    /// Gives the linker the interface `host` of this version.
    pub(crate) link: fn(&mut Linker<State>) -> wasmtime::Result<()>,
    /// Puts the adapter in front of a component that exports the interface `policy` of this version.
    pub(crate) adapt: fn(InstancePre<State>) -> wasmtime::Result<Box<dyn Adapter>>,
}

/// Every version that is spoken, oldest first.
pub(crate) const SPOKEN: &[Version] = &[
    #[cfg(test)]
    tests::v0_0_9::VERSION,
    v0_1_0::VERSION,
];

/// The newest version that is spoken.
pub(crate) const NEWEST: &Version = &SPOKEN[SPOKEN.len() - 1];

/// What a policy says that it is, whatever its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Description {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) summary: String,
    /// A JSON Schema, or empty.
    pub(crate) settings: String,
}

/// What a policy is asked.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) id: &'a PolicyId,
    pub(crate) situation: &'a Situation<'a>,
    pub(crate) limits: &'a Limits,
}

/// A call of a guest. The outer error is a call that failed; the inner one is what the guest did well but wrongly.
pub(crate) type Call<'a, T> = Pin<Box<dyn Future<Output = wasmtime::Result<Result<T, PolicyError>>> + 'a>>;

/// A compiled component, asked in the host's own words.
pub(crate) trait Adapter: Send + Sync {
    /// Starts an instance and asks what it is.
    fn describe<'a>(&'a self, store: &'a mut Store<State>) -> Call<'a, Description>;

    /// Starts an instance and asks what to do.
    fn decide<'a>(&'a self, store: &'a mut Store<State>, asked: Asked<'a>) -> Call<'a, Decision>;
}

impl Version {
    /// The version that speaks with components built for `number`.
    pub(crate) fn of(number: Number) -> Option<&'static Self> {
        SPOKEN.iter().find(|version| version.number.parse().is_ok_and(|spoken| number.same_contract(spoken)))
    }

    /// The error for components whose types are not those of the version that they name.
    pub(crate) fn mismatch(&self, error: &wasmtime::Error) -> PolicyError {
        let reason = format!(
            "it names contract {number}, but its functions have other types than that ({error:#}); rebuild it with an SDK \
             of version {number}",
            number = self.number
        );
        PolicyError::malformed(crate::text::line(&reason))
    }
}

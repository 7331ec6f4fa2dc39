//! Profiles: what a machine can do, as reviewable data with its origin, and the way to a
//! [`Machine`](loadline_core::Machine).
//!
//! A [`Profile`] is made of four parts that know nothing of each other (device, link, host, disk),
//! so that a card can be put into another slot or read from another disk. Every figure says how it
//! was obtained. [`Profile::parse`] reads one, [`Profile::lint`] says what cannot be true about it,
//! [`Profile::to_machine`] makes it the input of a forecast, and [`catalog`] holds those that ship.
//!
//! This crate opens no file and measures nothing: texts and readers come from the caller, and a
//! recorder fills in a [`Profile`] and serialises it.

pub mod catalog;
mod convert;
mod error;
mod lint;
mod read;
mod schema;

pub use error::{Finding, ProfileError};
pub use schema::{
    Basis, DevicePart, DiskPart, Figure, HostPart, Known, LinkPart, OpPart, Pcie, Point, Profile, Rate, SCHEMA,
};

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
mod datasheet;
mod derive;
mod diff;
mod error;
mod figures;
mod leave_one_out;
mod library;
mod lint;
mod nearest;
pub mod parts;
mod read;
mod reference;
mod schema;
mod unknown;

pub use datasheet::{Architecture, Datasheet, Distance, Lineage, Units};
pub use derive::{DeriveError, derive, distance, nearest};
pub use diff::Change;
pub use error::{Finding, ProfileError};
pub use figures::{Entry, Unit};
pub use leave_one_out::{LeftOut, leave_one_out, spread};
pub use library::HostKind;
pub use parts::{ComposeError, plain_name};
pub use reference::Reference;
pub use schema::{
    Basis, ContentionPart, ConversionPart, DevicePart, DiskPart, FILE_BYTES_MOST, Figure, HostPart, Known, LevelPart,
    LinkPart, Measurement, MeasurementRow, OpPart, Pcie, Point, Profile, Rate, Recorded, SCHEMA, SiteRow, SiteRows,
};
pub use unknown::unknown_fields;

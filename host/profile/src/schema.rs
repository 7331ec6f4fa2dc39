//! The profile file, version 1. Units are bytes, nanoseconds, and amounts per second throughout.

mod device;
mod figure;
mod host;
mod link;
mod recorded;

use std::io::Read;

use loadline_core::{Bytes, ContentHash, Provenance};
use serde::Serialize;

pub use device::{DevicePart, OpPart};
pub use figure::{Basis, Figure, Known, Point, Rate};
pub use host::{ConversionPart, DiskPart, HostPart};
pub use link::{LinkPart, Pcie};
pub use recorded::{ContentionPart, LevelPart, Measurement, MeasurementRow, Recorded, SiteRow, SiteRows};

use crate::error::ProfileError;
use crate::read;

/// The name and version of the format, the value of every profile's `schema` field. A change that
/// this crate could misread gets a new number.
pub const SCHEMA: &str = "loadline-profile/1";

/// The bytes that a profile's file may have. It is to be reviewed in a diff; a file beyond this is something else.
pub const FILE_BYTES_MOST: u64 = 1 << 20;

/// A machine, measured or described.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Profile {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// The name for command lines: lower-case letters, digits and hyphens.
    pub name: String,
    /// The name for people.
    pub title: String,
    /// The device and how fast it computes.
    pub device: DevicePart,
    /// The way between host and device.
    pub link: LinkPart,
    /// The host.
    pub host: HostPart,
    /// The disk.
    pub disk: DiskPart,
}

impl Profile {
    /// Reads a profile from JSON and checks its figures; `origin` is the file or name that errors give.
    ///
    /// # Errors
    /// If the text is not JSON, is of another version, lacks a field, or has figures that cannot be
    /// true; each error names the field and what it may hold.
    pub fn parse(text: &str, origin: &str) -> Result<Self, ProfileError> {
        let profile = read::profile(text, origin)?;
        profile.sound(origin)?;
        Ok(profile)
    }

    /// As [`Self::parse`], from a reader; at most 1 MiB is taken from it.
    ///
    /// # Errors
    /// As for [`Self::parse`], and if reading fails or there is more to read.
    pub fn read(from: impl Read, origin: &str) -> Result<Self, ProfileError> {
        let mut text = String::new();
        from.take(FILE_BYTES_MOST + 1)
            .read_to_string(&mut text)
            .map_err(|source| ProfileError::Io { origin: origin.to_owned(), source })?;
        if text.len() as u64 > FILE_BYTES_MOST {
            return Err(ProfileError::TooLong { origin: origin.to_owned(), limit: FILE_BYTES_MOST });
        }
        Self::parse(&text, origin)
    }

    /// The profile as a file: indented JSON that [`Self::parse`] reads back as the same value.
    ///
    /// # Errors
    /// If a figure cannot be true; a figure that is not finite could not even be written.
    pub fn to_json(&self) -> Result<String, ProfileError> {
        self.sound(&self.name)?;
        let text = serde_json::to_string_pretty(self).map_err(|source| ProfileError::Json {
            origin: self.name.clone(),
            line: source.line(),
            column: source.column(),
            source,
        })?;
        Ok(text + "\n")
    }

    /// The same machine with another amount of host RAM, as the owner of the machine gives it; where
    /// device memory is host memory, of both.
    #[must_use]
    pub fn with_host_memory(mut self, memory: Bytes) -> Self {
        let given = Known { value: memory.0, provenance: Provenance::Measured, source: "given by the user".to_owned() };
        if self.device.unified {
            self.device.memory_bytes = given.clone();
        }
        self.host.memory_bytes = given;
        self
    }

    /// The hash of what the profile says, whatever the layout of its file.
    #[must_use]
    pub fn hash(&self) -> ContentHash {
        ContentHash::of(self)
    }

    pub(crate) fn sound(&self, origin: &str) -> Result<(), ProfileError> {
        let findings = self.lint();
        if findings.is_empty() { Ok(()) } else { Err(ProfileError::Lint { origin: origin.to_owned(), findings }) }
    }
}

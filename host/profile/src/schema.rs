//! The profile file, version 1. Units are bytes, nanoseconds, and amounts per second throughout.

use std::collections::BTreeMap;
use std::io::Read;

use loadline_core::{Bytes, ContentHash, DType, OpKind, Provenance, Quantiles};
use serde::Serialize;

use crate::error::ProfileError;
use crate::read;

/// The name and version of the format, the value of every profile's `schema` field. A change that
/// this crate could misread gets a new number.
pub const SCHEMA: &str = "loadline-profile/1";

/// A profile is to be reviewed in a diff; a file beyond this is something else.
const FILE_BYTES_MOST: u64 = 1 << 20;

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

/// A value without spread.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Known<T> {
    /// The value.
    pub value: T,
    /// How it was obtained.
    pub provenance: Provenance,
    /// From where: a document and its table, a tool and its conditions, or the reason for assuming it.
    pub source: String,
}

/// A value with its spread.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// The value.
    #[serde(flatten)]
    pub spread: Quantiles,
    /// How it was obtained.
    pub provenance: Provenance,
    /// As for [`Known::source`].
    pub source: String,
}

/// How much is done in a second, the smaller quantile being the slower one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rate {
    /// What is known about it.
    #[serde(flatten)]
    pub basis: Basis,
    /// How it was obtained.
    pub provenance: Provenance,
    /// As for [`Known::source`].
    pub source: String,
}

/// The two ways to know a rate.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// A share of the part's peak, above 0 and at most 1.
    Utilisation(Quantiles),
    /// Rates of calls that do different amounts, amounts rising.
    Points(Vec<Point>),
}

/// The rate of calls that do one amount.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Bytes or floating-point operations of one call.
    pub amount: f64,
    /// Bytes or floating-point operations per second.
    #[serde(flatten)]
    pub rate: Quantiles,
}

/// A device: a GPU, or the CPU's own accounting domain of RAM.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DevicePart {
    /// The product.
    pub name: String,
    /// Whose scratch declarations hold: `cuda`, or one of the CPU's sets such as `avx512`.
    pub kernel_set: String,
    /// True where device memory is host memory.
    pub unified: bool,
    /// Memory of the whole device.
    pub memory_bytes: Known<u64>,
    /// Allocations are rounded up to a multiple of this power of two.
    pub granularity_bytes: Known<u64>,
    /// What is taken before the first tensor, whoever takes it: the driver's own share, context,
    /// modules, libraries.
    pub fixed_overhead_bytes: Figure,
    /// The cost of starting one operation.
    pub launch_ns: Known<f64>,
    /// The memory's peak bandwidth; needed where a rate is a utilisation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_bytes_per_s: Option<Known<f64>>,
    /// Dense peaks of floating-point operations per second, by type of the arithmetic, with the
    /// accumulation that the kernels use; needed where a rate is a utilisation.
    pub peak_flops_per_s: BTreeMap<DType, Known<f64>>,
    /// How fast operations run. A kind or type that is absent is an error where it is needed, never
    /// a guess.
    pub ops: Vec<OpPart>,
}

impl DevicePart {
    /// The type whose peak bounds this arithmetic: elementwise work never reaches the tensor units,
    /// it is done in f32 whatever the tensors' type.
    pub(crate) const fn peak_dtype(kind: OpKind, dtype: DType) -> DType {
        match kind {
            OpKind::Elementwise => DType::F32,
            OpKind::Linear | OpKind::Attention | OpKind::Conv => dtype,
        }
    }
}

/// How fast one kind of operation runs in some types.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OpPart {
    /// What is done.
    pub kind: OpKind,
    /// The types of the arithmetic that the rates hold for.
    pub dtypes: Vec<DType>,
    /// Floating-point operations per second against those of one call.
    pub flops: Rate,
    /// Bytes of device memory per second against those of one call.
    pub bytes: Rate,
}

/// The way between host and device.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LinkPart {
    /// What it is.
    pub name: String,
    /// The PCI Express link, where it is one; needed where a rate is a utilisation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pcie: Option<Known<Pcie>>,
    /// The cost of starting one copy.
    pub latency_ns: Known<f64>,
    /// Pinned host memory to the device.
    pub h2d_pinned: Rate,
    /// Pageable host memory to the device.
    pub h2d_pageable: Rate,
    /// Device to host.
    pub d2h: Rate,
}

/// A PCI Express link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Pcie {
    /// The generation, 1 to 6.
    pub generation: u64,
    /// The lanes, a power of two up to 16.
    pub width: u64,
}

impl Pcie {
    /// Bytes per second in one direction after line coding and before packet headers; zero for a
    /// generation that does not exist.
    ///
    /// Transfers per second double with each generation from 2.5 GT/s on, but for 5 to 8 GT/s.
    /// Generations 1 and 2 send 8 bits as 10, 3 to 5 send 128 as 130, and 6 sends 236 of 256 bytes
    /// of payload (PCI Express Base Specification 6.0, physical layer).
    #[must_use]
    pub fn peak_bytes_per_s(self) -> f64 {
        let (transfers, coding) = match self.generation {
            1 => (2.5e9, 8.0 / 10.0),
            2 => (5e9, 8.0 / 10.0),
            3 => (8e9, 128.0 / 130.0),
            4 => (16e9, 128.0 / 130.0),
            5 => (32e9, 128.0 / 130.0),
            6 => (64e9, 236.0 / 256.0),
            _ => return 0.0,
        };
        transfers * coding / 8.0 * self.width as f64
    }
}

/// The host.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HostPart {
    /// What it is.
    pub name: String,
    /// RAM of the whole machine.
    pub memory_bytes: Known<u64>,
    /// Bytes of file per second that are converted to another element type while loading.
    pub convert: Rate,
}

/// The disk that weights are read from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DiskPart {
    /// What it is.
    pub name: String,
    /// The cost of starting one read.
    pub latency_ns: Known<f64>,
    /// Bytes per second of sequential reads.
    pub read: Rate,
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

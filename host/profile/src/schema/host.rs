//! The host and its disk.

use loadline_core::DType;
use serde::Serialize;

use super::{Known, Measurement, Rate};

/// The host.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HostPart {
    /// What it is.
    pub name: String,
    /// RAM of the whole machine.
    pub memory_bytes: Known<u64>,
    /// Bytes of file per second that are converted to another element type while loading.
    pub convert: Rate,
    /// The same from one type to another, where that was measured.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conversions: Vec<ConversionPart>,
    /// Further figures, see [`Measurement`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub measurements: Vec<Measurement>,
}

/// Conversion from one type to another.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConversionPart {
    /// The type in the file.
    pub from: DType,
    /// The type on the device.
    pub to: DType,
    /// Bytes of file per second.
    pub rate: Rate,
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
    /// Bytes per second of files that the operating system holds in its page cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached: Option<Rate>,
    /// Further figures, see [`Measurement`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub measurements: Vec<Measurement>,
}

//! The way between host and device.

use serde::Serialize;

use super::{Known, Measurement, Rate};

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
    /// Further figures, see [`Measurement`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub measurements: Vec<Measurement>,
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

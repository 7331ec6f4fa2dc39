//! Named links, hosts and disks, and profiles put together from parts.

use crate::catalog;
use crate::error::ProfileError;
use crate::library::{HostKind, Library, Named, library};
use crate::nearest::{hint, normalised, suggestions};
use crate::schema::{DevicePart, DiskPart, HostPart, LinkPart, Pcie, Profile, SCHEMA};

/// No part has the name that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no {kind} is called '{name}'{}: choose from {}", hint(.suggestions), .known.join(", "))]
pub struct UnknownPart {
    /// `link`, `host` or `disk`.
    pub kind: &'static str,
    /// What was asked for.
    pub name: String,
    /// Names that come close, closest first; at most three.
    pub suggestions: Vec<&'static str>,
    /// All names.
    pub known: Vec<&'static str>,
}

/// Parts that do not go together.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// The card's connector is slower than the link.
    #[error(
        "{device} has PCI Express {}.0 x{} and cannot use {link}: choose --link {} or a slower one",
        card.generation, card.width, link_name(*card)
    )]
    Connector {
        /// The card.
        device: String,
        /// The link.
        link: String,
        /// What the card has.
        card: Pcie,
    },
    /// A link within RAM for a card, or a slot for a processor.
    #[error("'{link}' is no link of {device}: {}", way_out(.unified))]
    Link {
        /// The device.
        device: String,
        /// The link.
        link: String,
        /// True where device memory is host memory.
        unified: bool,
    },
    /// The result is not sound.
    #[error(transparent)]
    Profile(#[from] ProfileError),
}

fn way_out(unified: &bool) -> &'static str {
    if *unified {
        "its memory is host memory, so leave --link out"
    } else {
        "it needs a slot, such as --link pcie-4.0-x16"
    }
}

/// The names of the links that ship, in the order of their speed.
pub fn links() -> impl Iterator<Item = &'static str> {
    names_of(|library| &library.links)
}

/// The names of the hosts that ship, sorted.
pub fn hosts() -> impl Iterator<Item = &'static str> {
    names_of(|library| &library.hosts)
}

/// The names of the disks that ship, sorted.
pub fn disks() -> impl Iterator<Item = &'static str> {
    names_of(|library| &library.disks)
}

/// The link of that name.
///
/// # Errors
/// If there is none, with the names that come close.
pub fn link(name: &str) -> Result<LinkPart, UnknownPart> {
    part("link", name, |library| &library.links)
}

/// The kind of host of that name.
///
/// # Errors
/// If there is none, with the names that come close.
pub fn host(name: &str) -> Result<HostKind, UnknownPart> {
    part("host", name, |library| &library.hosts)
}

/// The disk of that name.
///
/// # Errors
/// If there is none, with the names that come close.
pub fn disk(name: &str) -> Result<DiskPart, UnknownPart> {
    part("disk", name, |library| &library.disks)
}

/// The name of a PCI Express link among [`links`].
#[must_use]
pub fn link_name(pcie: Pcie) -> String {
    format!("pcie-{}.0-x{}", pcie.generation, pcie.width)
}

type Field<T> = fn(&'static Library) -> &'static Vec<Named<T>>;

fn names_of<T: 'static>(field: Field<T>) -> impl Iterator<Item = &'static str> {
    library().into_iter().flat_map(move |library| field(library).iter().map(|named| named.name.as_str()))
}

fn part<T: Clone + 'static>(kind: &'static str, name: &str, field: Field<T>) -> Result<T, UnknownPart> {
    let wanted = normalised(name);
    let mut all = library().into_iter().flat_map(field);
    let found = all.find(|named| normalised(&named.name) == wanted).map(|named| named.part.clone());
    found.ok_or_else(|| UnknownPart {
        kind,
        name: name.to_owned(),
        suggestions: suggestions(name, names_of(field)),
        known: names_of(field).collect(),
    })
}

impl HostKind {
    /// The part with the RAM of another.
    #[must_use]
    pub fn with_memory_of(self, other: &HostPart) -> HostPart {
        HostPart {
            name: self.name,
            memory_bytes: other.memory_bytes.clone(),
            convert: self.convert,
            conversions: Vec::new(),
            measurements: Vec::new(),
        }
    }
}

impl Profile {
    /// A machine put together from parts, each figure with its own provenance and source. `name` is
    /// for command lines; other characters than those that names may have become hyphens.
    ///
    /// # Errors
    /// If the link is faster than a known card's connector, or joins nothing that the device has, or
    /// if the result does not pass [`Profile::lint`].
    pub fn compose(
        name: &str,
        device: DevicePart,
        link: LinkPart,
        host: HostPart,
        disk: DiskPart,
    ) -> Result<Self, ComposeError> {
        fits(&device, &link)?;
        let profile = Self {
            schema: SCHEMA.to_owned(),
            name: plain_name(name),
            title: format!("{}, {}, {}, {}", device.name, link.name, host.name, disk.name),
            device,
            link,
            host,
            disk,
        };
        profile.sound(name)?;
        Ok(profile)
    }
}

/// A name that a profile may have, from any text: lower-case letters, digits and single hyphens. Everything that makes
/// profiles names them by it: [`Profile::compose`], and whoever derives or records one and calls it after its file.
#[must_use]
pub fn plain_name(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    let words = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-")
}

fn fits(device: &DevicePart, link: &LinkPart) -> Result<(), ComposeError> {
    let Some(pcie) = &link.pcie else {
        if device.unified {
            return Ok(());
        }
        return Err(wrong_link(device, link));
    };
    if device.unified {
        return Err(wrong_link(device, link));
    }
    match catalog::datasheet_of("", device).map(|sheet| sheet.pcie.value) {
        Some(card) if pcie.value.generation > card.generation || pcie.value.width > card.width => {
            Err(ComposeError::Connector { device: device.name.clone(), link: link.name.clone(), card })
        }
        _ => Ok(()),
    }
}

fn wrong_link(device: &DevicePart, link: &LinkPart) -> ComposeError {
    ComposeError::Link { device: device.name.clone(), link: link.name.clone(), unified: device.unified }
}

//! The profiles that ship, by name, and the way to one in a file.
//!
//! A name is either a recording or a card that is made from its data sheet and the nearest reference.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use loadline_core::Provenance;

use crate::datasheet::Datasheet;
use crate::derive::{DeriveError, derive, nearest};
use crate::error::ProfileError;
use crate::library::{Library, library};
use crate::nearest::{hint, normalised, suggestions};
use crate::parts::{self, UnknownPart};
use crate::reference::Reference;
use crate::schema::{DevicePart, HostPart, Known, LinkPart, Profile, SCHEMA};

/// The names of the profiles that ship, sorted.
pub fn names() -> impl Iterator<Item = &'static str> {
    library().into_iter().flat_map(|library| library.names.iter().map(String::as_str))
}

/// The data sheets of all cards, in the order of their files.
pub fn datasheets() -> impl Iterator<Item = &'static Datasheet> {
    library().into_iter().flat_map(|library| &library.cards)
}

/// What cards can be derived from: recordings of cards, and the sets of assumptions.
#[must_use]
pub fn references() -> Vec<Reference> {
    library().map(references_of).unwrap_or_default()
}

fn references_of(library: &Library) -> Vec<Reference> {
    let recorded = library.recorded.iter().filter_map(|profile| {
        let sheet = datasheet_of(&profile.name, &profile.device)?;
        Some(Reference::recorded(profile, sheet))
    });
    recorded.chain(library.assumed.iter().cloned()).collect()
}

/// No profile has the name that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no profile is called '{name}'{}: choose from `loadline profile list`, or give the path of a profile file, \
     such as ./{name}.json",
    hint(.suggestions)
)]
pub struct UnknownProfile {
    /// What was asked for.
    pub name: String,
    /// Names that come close, closest first; at most three.
    pub suggestions: Vec<&'static str>,
}

/// Why a profile could not be had.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// No profile has this name.
    #[error(transparent)]
    Unknown(#[from] UnknownProfile),
    /// The file could not be opened.
    #[error("profile '{}' cannot be opened: {source}; check the path", .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The profile is not sound.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The card cannot be made from its reference.
    #[error(transparent)]
    Derive(#[from] DeriveError),
    /// No part has this name.
    #[error(transparent)]
    Part(#[from] UnknownPart),
    /// The data that ships is damaged, a bug of this crate.
    #[error("the catalog that ships is damaged: {0}")]
    Shipped(&'static ProfileError),
}

/// The profile of that name. Case, punctuation and the maker's name do not matter (`RTX 3060 12GB` is
/// `rtx-3060-12gb`), but a part of a name only leads to a suggestion: another card may have it too.
///
/// # Errors
/// If there is none of that name, with the names that come close.
pub fn find(name: &str) -> Result<Profile, CatalogError> {
    let library = library().map_err(CatalogError::Shipped)?;
    let wanted = normalised(name);
    if let Some(profile) = library.recorded.iter().find(|profile| normalised(&profile.name) == wanted) {
        return Ok(profile.clone());
    }
    let sheet = datasheet(name)?;
    let references = references_of(library);
    let none = || DeriveError::NoReference { card: sheet.name.clone() };
    profile_of(sheet, nearest(sheet, &references).ok_or_else(none)?)
}

/// The data sheet of that name, spelled as for [`find`].
///
/// # Errors
/// As for [`find`].
pub fn datasheet(name: &str) -> Result<&'static Datasheet, UnknownProfile> {
    let wanted = normalised(name);
    let unknown = || UnknownProfile { name: name.to_owned(), suggestions: suggestions(name, names()) };
    datasheets().find(|sheet| normalised(&sheet.name) == wanted).ok_or_else(unknown)
}

/// The data sheet of a device: of the profile's name, or else of the driver's name with the memory
/// that comes nearest.
#[must_use]
pub fn datasheet_of(name: &str, device: &DevicePart) -> Option<&'static Datasheet> {
    let driver = normalised(&device.name);
    let alike = |sheet: &&Datasheet| normalised(&sheet.device) == driver;
    let by_name = datasheets().filter(alike).find(|sheet| sheet.name == name);
    let apart = |sheet: &&Datasheet| sheet.memory_bytes.value.abs_diff(device.memory_bytes.value);
    by_name.or_else(|| datasheets().filter(alike).min_by_key(apart))
}

/// The whole profile of a card: its device part from the reference, its own link, and the host and
/// disk that it is usually found with.
///
/// # Errors
/// As for [`derive`].
pub fn profile_of(sheet: &Datasheet, reference: &Reference) -> Result<Profile, CatalogError> {
    let kind = parts::host(&sheet.host)?;
    let memory_bytes = Known {
        value: sheet.ram_bytes,
        provenance: Provenance::Datasheet,
        source: "assumption: a common companion of this card; give the real amount".to_owned(),
    };
    let profile = Profile {
        schema: SCHEMA.to_owned(),
        name: sheet.name.clone(),
        title: title(sheet, reference),
        device: derive(sheet, reference)?,
        link: own_link(sheet)?,
        host: HostPart {
            name: kind.name,
            memory_bytes,
            convert: kind.convert,
            conversions: Vec::new(),
            measurements: Vec::new(),
        },
        disk: parts::disk(&sheet.disk)?,
    };
    profile.sound(&sheet.name)?;
    Ok(profile)
}

fn title(sheet: &Datasheet, reference: &Reference) -> String {
    match reference.recording {
        Some(_) => format!("{} (derived from {})", sheet.title, reference.name),
        None => format!("{} (data sheet)", sheet.title),
    }
}

/// The link that the card's connector allows.
fn own_link(sheet: &Datasheet) -> Result<LinkPart, UnknownPart> {
    let mut link = parts::link(&parts::link_name(sheet.pcie.value))?;
    link.pcie = Some(sheet.pcie.clone());
    Ok(link)
}

/// The profile of that name, or from the file if `name` looks like a path: it has a separator or
/// ends in `.json`. `open` opens the file, since this crate does not.
///
/// # Errors
/// As for [`find`] and [`Profile::read`], and if the file cannot be opened.
pub fn find_or_open<R: Read>(name: &str, open: impl FnOnce(&Path) -> io::Result<R>) -> Result<Profile, CatalogError> {
    if !is_path(name) {
        return find(name);
    }
    let path = Path::new(name);
    let file = open(path).map_err(|source| CatalogError::Open { path: path.to_owned(), source })?;
    Ok(Profile::read(file, name)?)
}

/// True for what [`find_or_open`] takes for a path.
#[must_use]
pub fn is_path(name: &str) -> bool {
    let json = Path::new(name).extension().is_some_and(|e| e.eq_ignore_ascii_case("json"));
    json || name.contains(['/', '\\'])
}

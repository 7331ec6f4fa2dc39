//! The profiles that ship, by name, and the way to one in a file.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::error::ProfileError;
use crate::schema::Profile;

/// Sorted by name.
const EMBEDDED: [(&str, &str); 4] = [
    ("cpu", include_str!("../profiles/cpu.json")),
    ("h100-80gb", include_str!("../profiles/h100-80gb.json")),
    ("rtx-3060-12gb", include_str!("../profiles/rtx-3060-12gb.json")),
    ("rtx-4090", include_str!("../profiles/rtx-4090.json")),
];

/// Words that people put before or after a product's name.
const FILLERS: [&str; 3] = ["nvidia", "geforce", "profile"];
/// More than this would be a list and not a hint.
const SUGGESTIONS_MOST: usize = 3;

/// The names of the profiles that ship, sorted.
pub fn names() -> impl Iterator<Item = &'static str> {
    EMBEDDED.iter().map(|(name, _)| *name)
}

/// No profile has the name that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no profile is called '{name}'{}: choose from {}, or give the path of a profile file, such as ./{name}.json",
    hint(.suggestions),
    names().collect::<Vec<_>>().join(", ")
)]
pub struct UnknownProfile {
    /// What was asked for.
    pub name: String,
    /// Names that come close, closest first; at most three.
    pub suggestions: Vec<&'static str>,
}

fn hint(suggestions: &[&str]) -> String {
    if suggestions.is_empty() {
        return String::new();
    }
    let quoted: Vec<_> = suggestions.iter().map(|name| format!("'{name}'")).collect();
    format!(" (did you mean {}?)", quoted.join(" or "))
}

/// Why a profile could not be had.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// No profile has this name.
    #[error(transparent)]
    Unknown(#[from] UnknownProfile),
    /// The file could not be opened.
    #[error("profile '{}' cannot be opened", .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The profile is not sound.
    #[error(transparent)]
    Profile(#[from] ProfileError),
}

/// The profile of that name. Case, punctuation and the maker's name do not matter (`RTX 3060 12GB` is
/// `rtx-3060-12gb`), but a part of a name only leads to a suggestion: another card may have it too.
///
/// # Errors
/// If there is none of that name, with the names that come close.
pub fn find(name: &str) -> Result<Profile, CatalogError> {
    let wanted = normalised(name);
    match EMBEDDED.iter().find(|(known, _)| normalised(known) == wanted) {
        Some((known, text)) => Ok(Profile::parse(text, known)?),
        None => Err(UnknownProfile { name: name.to_owned(), suggestions: suggestions(&wanted) }.into()),
    }
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

fn is_path(name: &str) -> bool {
    let json = Path::new(name).extension().is_some_and(|e| e.eq_ignore_ascii_case("json"));
    json || name.contains(['/', '\\'])
}

fn normalised(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    let words = lower.split(|c: char| !c.is_ascii_alphanumeric());
    words.filter(|word| !FILLERS.contains(word)).collect()
}

fn suggestions(wanted: &str) -> Vec<&'static str> {
    let mut close: Vec<_> = names().filter_map(|name| Some((strangeness(wanted, &normalised(name))?, name))).collect();
    close.sort_unstable();
    // Where a part of a name was given, a card whose name is merely alike is not what was meant.
    let is_part = close.first().is_some_and(|(first, _)| *first == 0);
    let kept = close.into_iter().filter(|(distance, _)| !is_part || *distance == 0);
    kept.map(|(_, name)| name).take(SUGGESTIONS_MOST).collect()
}

/// How far two normalised names are apart: a part of a name is closer than any misspelling.
/// `None` if they have too little in common for a hint to help.
fn strangeness(wanted: &str, known: &str) -> Option<usize> {
    // A single character is a part of almost every name.
    if wanted.len() >= 2 && (known.contains(wanted) || wanted.contains(known)) {
        return Some(0);
    }
    let distance = edits(wanted.as_bytes(), known.as_bytes());
    (distance * 3 <= known.len()).then_some(distance)
}

/// The least number of insertions, deletions and replacements between two texts (Levenshtein, one row at a time).
fn edits(from: &[u8], to: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

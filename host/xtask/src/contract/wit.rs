//! The versions of the contract as they are written.

use std::fmt;
use std::path::Path;

use wit_parser::{PackageId, Resolve, WorldId};

use super::{names, read};
use crate::{Outcome, Stop};

/// The folder of all versions.
const WIT: &str = "wit";
/// The world that every version has.
const WORLD: &str = "memory-policy";

/// The number of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Number(pub(super) u64, pub(super) u64, pub(super) u64);

impl Number {
    fn parse(text: &str) -> Option<Self> {
        let parts: Vec<u64> = text.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
        let [major, minor, patch] = parts[..] else { return None };
        Some(Self(major, minor, patch))
    }

    /// Whether a guest of the older of the two must load where the newer is spoken.
    pub(super) fn promises(self, newer: Self) -> bool {
        match self {
            Self(0, 0, _) => self == newer,
            Self(0, minor, _) => (newer.0, newer.1) == (0, minor),
            Self(major, ..) => newer.0 == major,
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// A version: its files and what they mean.
pub(super) struct Version {
    pub(super) number: Number,
    /// The paths of its files, relative to the workspace.
    pub(super) files: Vec<String>,
    /// The text of all its files, one after the other.
    pub(super) text: String,
    pub(super) resolve: Resolve,
    pub(super) package: PackageId,
    pub(super) world: WorldId,
}

impl Version {
    /// A version from its text.
    ///
    /// # Errors
    /// When the text is no WIT, its package is not `loadline:policy` of this number, or has no world `memory-policy`.
    pub(super) fn parse(number: Number, files: Vec<String>, text: String) -> Outcome<Self> {
        let folder = format!("{WIT}/policy@{number}");
        let failed = |error: &dyn fmt::Display| Stop::failed(format!("{folder}: {error}"));
        let mut resolve = Resolve::default();
        let package = resolve.push_source(&folder, &text).map_err(|error| failed(&format!("{error:#}")))?;
        let world = resolve.select_world(&[package], Some(WORLD)).map_err(|error| failed(&format!("{error:#}")))?;
        let (is, should) = (resolve.packages[package].name.to_string(), format!("loadline:policy@{number}"));
        if is != should {
            return Err(failed(&format!("its package is {is}, not {should}")));
        }
        Ok(Self { number, files, text, resolve, package, world })
    }
}

/// Every version, oldest first.
///
/// # Errors
/// When a folder in `wit/` is no version, or its files cannot be read.
pub(super) fn versions(root: &Path) -> Outcome<Vec<Version>> {
    let mut versions = Vec::new();
    for name in names(&root.join(WIT))?.iter().filter(|name| root.join(WIT).join(name).is_dir()) {
        let number = name.strip_prefix("policy@").and_then(Number::parse);
        let number = number.ok_or_else(|| Stop::failed(format!("{WIT}/{name}: a version's folder is policy@X.Y.Z")))?;
        let folder = format!("{WIT}/{name}");
        let files: Vec<String> = names(&root.join(&folder))?.iter().map(|file| format!("{folder}/{file}")).collect();
        let texts = files.iter().map(|file| read(root, file)).collect::<Outcome<Vec<_>>>()?;
        let text = String::from_utf8(texts.concat())
            .map_err(|_| Stop::failed(format!("{folder}: holds something that is not UTF-8 text")))?;
        versions.push(Version::parse(number, files, text)?);
    }
    versions.sort_by_key(|version| version.number);
    Ok(versions)
}

#[cfg(test)]
pub(super) fn version(number: Number, text: &str) -> Version {
    let full = format!("/// Words.\npackage loadline:policy@{number};\n{text}");
    match Version::parse(number, vec![format!("wit/policy@{number}/policy.wit")], full) {
        Ok(version) => version,
        Err(stop) => panic!("{stop}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_and_promise_what_semantic_versioning_says() {
        assert_eq!(Number::parse("0.10.2"), Some(Number(0, 10, 2)));
        for broken in ["", "1", "1.2", "1.2.3.4", "0.1.0-draft"] {
            assert_eq!(Number::parse(broken), None, "{broken}");
        }
        let check = |older: Number, newer: Number, expected: bool| {
            assert_eq!(older.promises(newer), expected, "{older} {newer}");
        };
        check(Number(0, 1, 0), Number(0, 1, 1), true);
        check(Number(0, 1, 9), Number(0, 2, 0), false);
        check(Number(0, 0, 1), Number(0, 0, 2), false);
        check(Number(1, 0, 0), Number(1, 7, 0), true);
        check(Number(1, 0, 0), Number(2, 0, 0), false);
    }

    #[test]
    fn the_package_must_be_what_the_folder_says() {
        let text = "package loadline:policy@0.2.0;\nworld memory-policy {}\n".to_owned();
        let stop = Version::parse(Number(0, 1, 0), Vec::new(), text).err().map(|stop| stop.to_string());
        let expected = "wit/policy@0.1.0: its package is loadline:policy@0.2.0, not loadline:policy@0.1.0";
        assert_eq!(stop.as_deref(), Some(expected));
    }
}

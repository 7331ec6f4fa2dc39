//! The list of what was published, with a hash for each file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use toml::{Table, Value};

use super::wit::Version;
use super::{guests, read, write};
use crate::{Outcome, Stop};

/// Where the list is committed.
pub(super) const FROZEN: &str = "wit/FROZEN.toml";

const HEAD: &str = "\
# The versions of the contract that were published, with the BLAKE3 hash of each file. None of these files ever changes.
# Written by `cargo xtask contract --freeze VERSION`.
";

/// The hash of each file by path, by version.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Frozen(BTreeMap<String, BTreeMap<String, String>>);

impl Frozen {
    /// The list as it is committed.
    ///
    /// # Errors
    /// When there is none, or it is not what [`Frozen::write`] writes.
    pub(super) fn read(root: &Path) -> Outcome<Self> {
        let text = String::from_utf8_lossy(&read(root, FROZEN)?).into_owned();
        Self::parse(&text).ok_or_else(|| Stop::failed(format!("{FROZEN}: is no list of versions with hashes of files")))
    }

    fn parse(text: &str) -> Option<Self> {
        let table: Table = text.parse().ok()?;
        let hashes = |files: &Value| -> Option<BTreeMap<String, String>> {
            files.as_table()?.iter().map(|(path, hash)| Some((path.clone(), hash.as_str()?.to_owned()))).collect()
        };
        table.iter().map(|(version, files)| Some((version.clone(), hashes(files)?))).collect::<Option<_>>().map(Self)
    }

    fn text(&self) -> String {
        let mut text = HEAD.to_owned();
        for (version, files) in &self.0 {
            let _ = write!(text, "\n[\"{version}\"]\n");
            for (path, hash) in files {
                let _ = writeln!(text, "\"{path}\" = \"{hash}\"");
            }
        }
        text
    }

    pub(super) fn write(&self, root: &Path) -> Outcome {
        write(root, FROZEN, &self.text())
    }

    pub(super) fn holds(&self, number: &str) -> bool {
        self.0.contains_key(number)
    }

    /// Lists a version with its files as they are now.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(super) fn add(&mut self, root: &Path, version: &Version) -> Outcome {
        self.0.insert(version.number.to_string(), hashes(root, version)?);
        Ok(())
    }

    /// A line for each file of a published version that changed, is gone, or is new.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(super) fn problems(&self, root: &Path, versions: &[Version]) -> Outcome<Vec<String>> {
        let mut problems = Vec::new();
        for (number, published) in &self.0 {
            let version = versions.iter().find(|version| version.number.to_string() == *number);
            let now = version.map_or_else(|| Ok(BTreeMap::new()), |version| hashes(root, version))?;
            problems.extend(differences(number, published, &now));
        }
        problems.extend(self.late(versions));
        Ok(problems)
    }

    /// A version that comes before a published one of the same promise could only have been forgotten.
    fn late(&self, versions: &[Version]) -> Vec<String> {
        let published = |version: &&Version| self.holds(&version.number.to_string());
        let overtaken = |open: &Version| {
            let mut later = versions.iter().filter(|version| version.number > open.number).filter(published);
            later.any(|version| open.number.promises(version.number))
        };
        let open = versions.iter().filter(|version| !published(version) && overtaken(version));
        open.map(|version| {
            let number = version.number;
            format!("wit/policy@{number}: a later version is published; give this one a number after it, or remove it")
        })
        .collect()
    }
}

fn hashes(root: &Path, version: &Version) -> Outcome<BTreeMap<String, String>> {
    let guests = guests::files(root, &version.number.to_string())?;
    let paths = version.files.iter().cloned().chain(guests);
    paths.map(|path| Ok((path.clone(), blake3::hash(&read(root, &path)?).to_string()))).collect()
}

fn differences(number: &str, published: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Vec<String> {
    let paths: std::collections::BTreeSet<&String> = published.keys().chain(now.keys()).collect();
    let word = |path: &String| match (published.get(path), now.get(path)) {
        (Some(before), Some(now)) if before == now => None,
        (Some(_), Some(_)) => Some("changed"),
        (Some(_), None) => Some("is gone"),
        _ => Some("is new"),
    };
    let advice = format!("version {number} is published: put it back, and make the change in a new version");
    paths.into_iter().filter_map(|path| Some(format!("{path}: {}, but {advice}", word(path)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::wit::{Number, version};
    use super::*;

    fn files(files: &[(&str, &str)]) -> BTreeMap<String, String> {
        files.iter().map(|(path, hash)| ((*path).to_owned(), (*hash).to_owned())).collect()
    }

    #[test]
    fn the_list_is_read_as_it_was_written() {
        let list = Frozen([("0.1.0".to_owned(), files(&[("wit/policy@0.1.0/policy.wit", "ab")]))].into());
        let text = format!("{HEAD}\n[\"0.1.0\"]\n\"wit/policy@0.1.0/policy.wit\" = \"ab\"\n");
        assert_eq!(list.text(), text);
        assert_eq!(Frozen::parse(&text), Some(list));
        assert_eq!(Frozen::parse(HEAD), Some(Frozen::default()));
        assert_eq!(Frozen::parse("\"0.1.0\" = 7"), None);
    }

    #[test]
    fn no_byte_of_a_published_version_changes() {
        let check = |now: &[(&str, &str)], expected: &[&str]| {
            let published = files(&[("a.wit", "1"), ("b.wasm", "2")]);
            let found = differences("0.1.0", &published, &files(now));
            let starts: Vec<&str> = found.iter().filter_map(|line| line.split(',').next()).collect();
            assert_eq!(starts, expected, "{now:?}");
        };
        check(&[("a.wit", "1"), ("b.wasm", "2")], &[]);
        check(&[("a.wit", "9"), ("b.wasm", "2")], &["a.wit: changed"]);
        check(&[("a.wit", "1"), ("c.wasm", "2")], &["b.wasm: is gone", "c.wasm: is new"]);
        check(&[], &["a.wit: is gone", "b.wasm: is gone"]);
    }

    #[test]
    fn nothing_is_slipped_in_before_a_published_version() {
        let list = Frozen([("0.2.1".to_owned(), BTreeMap::new())].into());
        let versions = |numbers: &[Number]| -> Vec<Version> {
            numbers.iter().map(|number| version(*number, "world memory-policy {}")).collect()
        };
        assert_eq!(list.late(&versions(&[Number(0, 1, 4), Number(0, 2, 1), Number(0, 2, 2)])), [""; 0]);
        let found = list.late(&versions(&[Number(0, 2, 0), Number(0, 2, 1), Number(0, 3, 0)]));
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("wit/policy@0.2.0: a later version is published"), "{found:?}");
    }
}

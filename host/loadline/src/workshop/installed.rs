//! The policies that a user has installed: one folder, one file for each component, named by what the policy calls
//! itself and by the hash of its bytes. Nothing is ever overwritten by something else, and a file whose bytes are not
//! those of its name is never loaded.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use loadline_core::{ContentHash, PolicyId};
use loadline_policy::Limits;

use super::{Reference, WorkshopError};
use crate::write_whole;

/// A folder of installed policies. It need not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed(PathBuf);

/// An installed policy, as its file's name tells it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InstalledPolicy {
    /// The name that the policy gave itself when it was installed.
    pub name: String,
    /// The hash of its bytes.
    pub hash: String,
    /// The file.
    pub path: PathBuf,
}

/// What installing did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is there now.
    New,
    /// It was there, byte for byte.
    Already,
    /// A damaged file had its place; it is whole now.
    Mended,
}

impl Installed {
    /// The policies in a folder.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.0
    }

    /// Every installed policy, by name and hash. Files that no `install` writes are passed over.
    ///
    /// # Errors
    /// If the folder cannot be read; one that is not there holds nothing.
    pub fn list(&self) -> Result<Vec<InstalledPolicy>, WorkshopError> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries,
        };
        let paths = entries.and_then(|all| all.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>());
        let paths = paths.map_err(|error| WorkshopError::io(&self.0, &error))?;
        let mut found: Vec<_> = paths.into_iter().filter_map(parsed).collect();
        found.sort();
        Ok(found)
    }

    /// The installed policies that a reference means.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn matching(&self, wanted: &Reference) -> Result<Vec<InstalledPolicy>, WorkshopError> {
        let mut found = self.list()?;
        found.retain(|policy| wanted.means(&policy.name, &policy.hash));
        Ok(found)
    }

    /// The one installed policy that a reference means.
    ///
    /// # Errors
    /// If there is none, or more than one.
    pub fn only(&self, wanted: &Reference) -> Result<InstalledPolicy, WorkshopError> {
        let mut found = self.matching(wanted)?;
        match found.len() {
            0 => Err(self.unknown(wanted)),
            1 => Ok(found.remove(0)),
            _ => {
                let choices = found.iter().map(InstalledPolicy::reference).collect::<Vec<_>>().join(" or ");
                Err(WorkshopError::Ambiguous { name: wanted.to_string(), choices })
            }
        }
    }

    fn unknown(&self, wanted: &Reference) -> WorkshopError {
        let installed = self.list().unwrap_or_default().iter().map(InstalledPolicy::reference).collect();
        WorkshopError::NotInstalled { name: wanted.to_string(), installed }
    }

    /// Puts a component there.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add(&self, id: &PolicyId, component: &[u8]) -> Result<(InstalledPolicy, Added), WorkshopError> {
        fs::create_dir_all(&self.0).map_err(|error| WorkshopError::io(&self.0, &error))?;
        let hash = ContentHash::of_bytes(component).to_string();
        let path = self.0.join(format!("{}@{hash}.wasm", id.name));
        let added = match fs::read(&path) {
            Ok(there) if there == component => Added::Already,
            Ok(_) => Added::Mended,
            Err(_) => Added::New,
        };
        if added != Added::Already {
            write_whole(&path, |file| file.write_all(component)).map_err(WorkshopError::written)?;
        }
        Ok((InstalledPolicy { name: id.name.clone(), hash, path }, added))
    }

    /// Takes the one policy that a reference means away.
    ///
    /// # Errors
    /// If there is none or more than one, or the file cannot be removed.
    pub fn remove(&self, wanted: &Reference) -> Result<InstalledPolicy, WorkshopError> {
        let policy = self.only(wanted)?;
        fs::remove_file(&policy.path).map_err(|error| WorkshopError::io(&policy.path, &error))?;
        Ok(policy)
    }
}

impl InstalledPolicy {
    /// Such as `mine@0123456789abcdef`.
    #[must_use]
    pub fn reference(&self) -> String {
        format!("{}@{}", self.name, self.hash)
    }

    /// Its bytes, which are those of its hash.
    ///
    /// # Errors
    /// If the file cannot be read or is larger than the limits allow, or its bytes are others.
    pub fn read(&self, limits: &Limits) -> Result<Vec<u8>, WorkshopError> {
        let bytes = super::component::read(&self.path, limits)?;
        let found = ContentHash::of_bytes(&bytes);
        if found.as_str() == self.hash {
            return Ok(bytes);
        }
        Err(WorkshopError::Damaged { name: self.reference(), path: self.path.clone(), found: found.to_string() })
    }
}

/// What a file's name says; none for files of others.
fn parsed(path: PathBuf) -> Option<InstalledPolicy> {
    let (name, hash) = path.file_name()?.to_str()?.strip_suffix(".wasm")?.rsplit_once('@')?;
    let digits = hash.len() == ContentHash::of_bytes(b"").as_str().len() && hash.bytes().all(is_digit);
    let (name, hash) = (name.to_owned(), hash.to_owned());
    (digits && super::template::check_name(&name).is_ok()).then_some(InstalledPolicy { name, hash, path })
}

fn is_digit(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn id(name: &str) -> PolicyId {
        PolicyId { name: name.to_owned(), version: "1.0.0".to_owned(), hash: ContentHash::of_bytes(b"") }
    }

    fn wanted(text: &str) -> Reference {
        Reference::parse(text).unwrap().unwrap()
    }

    #[test]
    fn what_was_put_there_is_found_read_and_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let installed = Installed::new(&dir.path().join("not/yet"));
        assert_eq!(installed.list().unwrap(), []);
        let (one, added) = installed.add(&id("mine"), b"one").unwrap();
        assert_eq!(added, Added::New);
        assert_eq!(installed.add(&id("mine"), b"one").unwrap(), (one.clone(), Added::Already));
        assert_eq!(one.read(&Limits::default()).unwrap(), b"one");
        let (two, _) = installed.add(&id("mine"), b"two").unwrap();
        assert_eq!(installed.list().unwrap().len(), 2);
        let ambiguous = installed.remove(&wanted("mine")).unwrap_err().to_string();
        assert!(ambiguous.contains(&one.reference()) && ambiguous.contains(&two.reference()), "{ambiguous}");
        assert_eq!(installed.remove(&wanted(&one.reference())).unwrap(), one);
        assert_eq!(installed.only(&wanted("mine")).unwrap(), two);
        assert_eq!(installed.only(&wanted(&two.reference()[..13])).unwrap(), two);
        let unknown = installed.only(&wanted(&one.reference())).unwrap_err().to_string();
        assert!(unknown.contains(&two.reference()), "{unknown}");
    }

    #[test]
    fn a_damaged_file_is_told_never_read_and_mended_by_installing_again() {
        let dir = tempfile::tempdir().unwrap();
        let installed = Installed::new(dir.path());
        let (mine, _) = installed.add(&id("mine"), b"bytes").unwrap();
        fs::write(&mine.path, b"bytez").unwrap();
        let damaged = mine.read(&Limits::default()).unwrap_err();
        assert!(matches!(damaged, WorkshopError::Damaged { .. }), "{damaged}");
        assert_eq!(installed.add(&id("mine"), b"bytes").unwrap().1, Added::Mended);
        assert_eq!(mine.read(&Limits::default()).unwrap(), b"bytes");
    }

    #[test]
    fn only_files_with_a_name_and_a_hash_count() {
        let check = |file: &str, expected: Option<(&str, &str)>| {
            let found = parsed(PathBuf::from(file)).map(|p| (p.name, p.hash));
            assert_eq!(found, expected.map(|(n, h)| (n.to_owned(), h.to_owned())), "{file}");
        };
        check("a/mine@0123456789abcdef.wasm", Some(("mine", "0123456789abcdef")));
        check("mine@0123456789ABCDEF.wasm", None);
        check("mine@0123.wasm", None);
        check("mine.wasm", None);
        check("@0123456789abcdef.wasm", None);
        check("my mine@0123456789abcdef.wasm", None);
        check(".mine@0123456789abcdef.wasm.part", None);
    }
}

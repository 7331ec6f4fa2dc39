//! Finding a policy by name, by name and hash, or by path.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use loadline_core::ContentHash;
use loadline_policy::{Limits, Policy, PolicyEngine, builtin};

use crate::Error;
use crate::workshop::{Installed, InstalledPolicy, Reference, WorkshopError, read_component};

/// Where policies and their compiled code are kept, besides in the program itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// The folder of installed policies; without it none is known.
    pub installed: Option<PathBuf>,
    /// A folder that only the user can enter, for compiled code; without it every process compiles. A folder that
    /// cannot be used only costs the time; see [`Policy::code`].
    pub compiled: Option<PathBuf>,
}

/// Where a policy was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In the program.
    BuiltIn,
    /// Among the installed ones: the file.
    Installed(PathBuf),
    /// In the file that was named.
    File(PathBuf),
}

/// The bytes of a policy that has not been looked at yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it was found.
    pub origin: Origin,
    /// The component.
    pub component: Cow<'static, [u8]>,
}

/// The names of the built-in policies.
pub fn names() -> impl Iterator<Item = &'static str> {
    builtin().iter().map(|b| b.name)
}

/// A built-in policy by name, or a component by path.
///
/// # Errors
/// Those of [`open`].
pub fn load(name: &str) -> Result<Policy, Error> {
    open(name, &Places::default())
}

/// A policy that can be asked: see [`find`] for what its name may be.
///
/// # Errors
/// If there is no such policy, or the component is not one that may be asked.
pub fn open(name: &str, places: &Places) -> Result<Policy, Error> {
    open_within(name, places, Limits::default())
}

/// Like [`open`], with the limits that the person who runs gives a policy.
///
/// # Errors
/// Those of [`open`].
pub fn open_within(name: &str, places: &Places, limits: Limits) -> Result<Policy, Error> {
    load_bytes(name, &find(name, places, &limits)?.component, places, limits)
}

/// A policy from the bytes of its component; `name` is what an error calls it.
///
/// # Errors
/// If the component is not one that may be asked.
pub fn load_bytes(name: &str, component: &[u8], places: &Places, limits: Limits) -> Result<Policy, Error> {
    let failed = |source| Error::Policy { name: name.to_owned(), source };
    let mut engine = PolicyEngine::new(limits).map_err(failed)?;
    if let Some(folder) = &places.compiled {
        engine = engine.with_cache(folder);
    }
    engine.load(component).map_err(failed)
}

/// The component of a policy. A name is that of a built-in policy or else of an installed one; with `@` and at least
/// eight digits of its hash it is exactly that one, so that a built-in name can be had by another, too. Everything else
/// is the path of a component.
///
/// # Errors
/// If nothing or more than one policy has the name, the hash is that of other bytes, or a file cannot be read or is
/// larger than the limits allow.
pub fn find(name: &str, places: &Places, limits: &Limits) -> Result<Found, Error> {
    let Some(wanted) = Reference::parse(name)? else { return file(name, places, limits) };
    if let Some(found) = built_in(&wanted) {
        return Ok(found);
    }
    match installed(&wanted, places, limits)? {
        Some(found) => Ok(found),
        None if wanted.hash.is_some() => Err(Error::Settings(no_such_hash(&wanted, places))),
        None => file(name, places, limits),
    }
}

fn installed(wanted: &Reference, places: &Places, limits: &Limits) -> Result<Option<Found>, WorkshopError> {
    let Some(folder) = &places.installed else { return Ok(None) };
    let installed = Installed::new(folder);
    if installed.matching(wanted)?.is_empty() {
        return Ok(None);
    }
    let policy = installed.only(wanted)?;
    Ok(Some(Found { component: policy.read(limits)?.into(), origin: Origin::Installed(policy.path) }))
}

fn built_in(wanted: &Reference) -> Option<Found> {
    let named = |b: &&loadline_policy::Builtin| wanted.means(b.name, ContentHash::of_bytes(b.component).as_str());
    let component = builtin().iter().find(named)?.component;
    Some(Found { origin: Origin::BuiltIn, component: Cow::Borrowed(component) })
}

fn file(name: &str, places: &Places, limits: &Limits) -> Result<Found, Error> {
    let path = Path::new(name);
    match std::fs::metadata(path) {
        Ok(meta) if !meta.is_file() => {
            Err(Error::Settings(format!("--policy {name}: this is no ordinary file; give the path of a component")))
        }
        Ok(_) => Ok(Found { component: read_component(path, limits)?.into(), origin: Origin::File(path.to_owned()) }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::Settings(unknown(name, places))),
        Err(error) => Err(Error::Settings(format!("--policy {name}: {error}"))),
    }
}

/// The built-in names, then the installed ones, each once.
fn known(places: &Places) -> Vec<String> {
    let mut all: Vec<String> = names().map(str::to_owned).collect();
    let installed = places.installed.as_deref().map(|folder| Installed::new(folder).list().unwrap_or_default());
    for policy in installed.unwrap_or_default() {
        if !all.contains(&policy.name) {
            all.push(policy.name);
        }
    }
    all
}

fn unknown(name: &str, places: &Places) -> String {
    let known = known(places);
    let listed = known.join(", ");
    if looks_like_a_path(name) {
        let kind = if known.len() == builtin().len() { "built in" } else { "known by name" };
        return format!("--policy {name}: there is no such file; {kind} are {listed}");
    }
    let hint = nearest(&known, name).map(|n| format!(" (did you mean '{n}'?)")).unwrap_or_default();
    format!("there is no policy '{name}'{hint}: use one of {listed}, or the path of a component")
}

/// The name may be right and the hash that of another build: then say which there are.
fn no_such_hash(wanted: &Reference, places: &Places) -> String {
    let installed = places.installed.as_deref().map(|folder| Installed::new(folder).list().unwrap_or_default());
    let mut there: Vec<String> = installed.unwrap_or_default().iter().map(InstalledPolicy::reference).collect();
    there.extend(builtin().iter().map(|b| format!("{}@{}", b.name, ContentHash::of_bytes(b.component))));
    there.retain(|reference| reference.split_once('@').is_some_and(|(name, _)| name == wanted.name));
    if there.is_empty() {
        let name = &wanted.name;
        let hint = nearest(&known(places), name).map(|n| format!(" (did you mean '{n}'?)")).unwrap_or_default();
        return format!("there is no policy '{name}'{hint}; `loadline policy list` shows all");
    }
    let there = there.join(" or ");
    format!("there is no policy {wanted}: the one of that name is {there}; say so, or install the other one")
}

fn looks_like_a_path(name: &str) -> bool {
    let path = Path::new(name);
    path.components().count() > 1 || path.extension().is_some()
}

fn nearest<'a>(known: &'a [String], name: &str) -> Option<&'a str> {
    let wanted = name.to_ascii_lowercase().replace('_', "-");
    loadline_policy::settings::nearest(known.iter().map(String::as_str), &wanted)
}

/// A policy's settings from `key=value` pairs, checked and filled up with defaults.
///
/// # Errors
/// The first key that is unknown or whose value does not fit.
pub fn settings(policy: &Policy, given: &[(String, String)]) -> Result<loadline_core::Settings, Error> {
    loadline_policy::settings::resolve(policy.schema(), given).map_err(|e| Error::Settings(e.to_string()))
}

impl From<WorkshopError> for Error {
    fn from(error: WorkshopError) -> Self {
        Self::Workshop(error)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use loadline_core::PolicyId;

    use super::*;

    #[test]
    fn a_slip_of_the_pen_is_understood() {
        let known: Vec<String> = names().map(str::to_owned).collect();
        let check = |name: &str, expected: Option<&str>| assert_eq!(nearest(&known, name), expected, "{name}");
        check("auto-tun", Some("auto-tune"));
        check("AutoTune", Some("auto-tune"));
        check("lazy_load", Some("lazy-load"));
        check("treshold", Some("threshold"));
        check("manualswap", Some("manual-swap"));
        check("mine", None);
        check("", None);
    }

    /// A folder with one policy called `mine` and one that has the name of a built-in one.
    fn places(folder: &Path) -> (Places, [String; 2]) {
        let installed = Installed::new(folder);
        let add = |name: &str, bytes: &[u8]| {
            let hash = ContentHash::of_bytes(bytes);
            let id = PolicyId { name: name.to_owned(), version: "1.0.0".to_owned(), hash };
            installed.add(&id, bytes).unwrap().0.reference()
        };
        let references = [add("mine", b"mine"), add("threshold", b"another")];
        (Places { installed: Some(folder.to_owned()), compiled: None }, references)
    }

    #[test]
    fn a_name_is_built_in_or_installed_and_with_a_hash_it_is_that_one() {
        let dir = tempfile::tempdir().unwrap();
        let (places, [mine, other]) = places(dir.path());
        let component = |name: &str| find(name, &places, &Limits::default()).map(|found| found.component.into_owned());
        assert_eq!(component("mine").unwrap(), b"mine");
        assert_eq!(component(&mine).unwrap(), b"mine");
        assert_eq!(component(&mine[..13]).unwrap(), b"mine");
        assert_eq!(component(&other).unwrap(), b"another");
        let ours = builtin().iter().find(|b| b.name == "threshold").unwrap().component;
        assert_eq!(component("threshold").unwrap(), ours);
        assert_eq!(component(&format!("threshold@{}", ContentHash::of_bytes(ours))).unwrap(), ours);
        assert_eq!(find("threshold", &places, &Limits::default()).unwrap().origin, Origin::BuiltIn);
    }

    #[test]
    fn what_is_not_there_is_told_with_what_is() {
        let dir = tempfile::tempdir().unwrap();
        let (places, [mine, other]) = places(dir.path());
        let check = |name: &str, parts: &[&str]| {
            let message = find(name, &places, &Limits::default()).unwrap_err().to_string();
            parts.iter().for_each(|part| assert!(message.contains(part), "{name}: no '{part}' in: {message}"));
        };
        check("mime", &["did you mean 'mine'?", ", mine, or the path"]);
        check("mine@00000000", &["there is no policy mine@00000000", &mine]);
        check("threshold@00000000", &[&other, " or threshold@"]);
        check("mime@00000000", &["did you mean 'mine'?", "policy list"]);
        check("mine@0000", &["at least 8 hexadecimal digits"]);
        check("./mine.wasm", &["there is no such file", "known by name are"]);
        std::fs::write(dir.path().join(format!("{mine}.wasm")), "other bytes").unwrap();
        check("mine", &["is damaged", "policy uninstall"]);
    }
}

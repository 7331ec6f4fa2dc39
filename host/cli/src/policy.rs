//! Opening policies, with compiled code kept in the user's cache folder.

use std::ffi::OsString;
use std::path::PathBuf;

use loadline::{Error, Policy, policies};

/// Says where kept files lie instead of the usual place, or `off`.
const CACHE: &str = "LOADLINE_CACHE";

/// A policy by name or path.
pub(crate) fn open(name: &str) -> Result<Policy, Error> {
    match folder(variable) {
        Some(folder) => policies::load_cached(name, &folder.join("compiled")),
        None => policies::load(name),
    }
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The folder of kept files; none if it is switched off or the user has no home. A path that is not absolute would
/// mean another folder for each place that the program is started in, so it counts as missing.
fn folder(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if variable(CACHE).is_some_and(|value| value == "off") {
        return None;
    }
    absolute(CACHE).or_else(|| {
        let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
        base.map(|base| base.join("loadline"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_where_the_user_says() {
        let check = |set: &[(&str, &str)], expected: Option<&str>| {
            let variable = |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(value));
            assert_eq!(folder(variable), expected.map(PathBuf::from), "{set:?}");
        };
        check(&[], None);
        check(&[("HOME", "/home/me")], Some("/home/me/.cache/loadline"));
        check(&[("HOME", "/home/me"), ("XDG_CACHE_HOME", "/big")], Some("/big/loadline"));
        check(&[("HOME", "/home/me"), ("XDG_CACHE_HOME", "here")], Some("/home/me/.cache/loadline"));
        check(&[("HOME", "/home/me"), (CACHE, "/mine")], Some("/mine"));
        check(&[("HOME", "/home/me"), (CACHE, "off")], None);
    }
}

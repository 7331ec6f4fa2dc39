//! Opening policies: where installed ones and their compiled code lie on this machine.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use loadline::policies::{self, Places};
use loadline::{Code, Error, Policy};

/// Says where kept files lie instead of the usual place, or `off`.
const CACHE: &str = "LOADLINE_CACHE";
/// Says where installed policies lie instead of the usual place.
const POLICIES: &str = "LOADLINE_POLICIES";

/// How long somebody waits without asking what for.
const PATIENCE: Duration = Duration::from_secs(1);

/// A policy by name, by name and hash, or by path.
pub(crate) fn open(name: &str) -> Result<Policy, Error> {
    let (policy, was_long) = noting(name, || policies::open_within(name, &places(), super::limits()));
    let policy = policy?;
    if let (true, Code::NotKept { reason }) = (was_long, policy.code()) {
        note!("the compiled code of '{name}' is not kept, so each start compiles it again: {reason}");
    }
    Ok(policy)
}

/// Does `work`, and says what is going on if it takes long: compiling a component with an interpreter in it takes some
/// ten seconds, once. The second value is whether it was said.
fn noting<T>(name: &str, work: impl FnOnce() -> T) -> (T, bool) {
    let (done, waits) = channel::<()>();
    let said = AtomicBool::new(false);
    let result = std::thread::scope(|scope| {
        let seen = &said;
        scope.spawn(move || {
            if waits.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                seen.store(true, Ordering::Relaxed);
                note!("compiling policy '{name}'; one that brings an interpreter takes half a minute");
            }
        });
        let result = work();
        drop(done);
        result
    });
    (result, said.load(Ordering::Relaxed))
}

/// Where this user's policies and their compiled code lie.
pub(crate) fn places() -> Places {
    Places { installed: installed(variable), compiled: cache(variable).map(|folder| folder.join("compiled")) }
}

/// Where cargo keeps what it downloads.
pub(super) fn cargo_home() -> Option<PathBuf> {
    base(&variable, "CARGO_HOME", ".cargo")
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The folder of kept files; none if it is switched off or the user has no home.
fn cache(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if variable(CACHE).is_some_and(|value| value == "off") {
        return None;
    }
    absolute(&variable, CACHE).or_else(|| Some(base(&variable, "XDG_CACHE_HOME", ".cache")?.join("loadline")))
}

/// The folder of installed policies; none if the user has no home.
fn installed(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let usual = || Some(base(&variable, "XDG_DATA_HOME", ".local/share")?.join("loadline/policies"));
    absolute(&variable, POLICIES).or_else(usual)
}

/// A folder of the user that a variable may place elsewhere.
fn base(variable: &impl Fn(&str) -> Option<OsString>, name: &str, usual: &str) -> Option<PathBuf> {
    absolute(variable, name).or_else(|| Some(absolute(variable, "HOME")?.join(usual)))
}

/// A path that is not absolute would mean another folder for each place that the program is started in, so it counts
/// as missing.
fn absolute(variable: &impl Fn(&str) -> Option<OsString>, name: &str) -> Option<PathBuf> {
    variable(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Folder = fn(&dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf>;

    #[track_caller]
    fn check(folder: Folder, set: &[(&str, &str)], expected: Option<&str>) {
        let variable = |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(value));
        assert_eq!(folder(&variable), expected.map(PathBuf::from), "{set:?}");
    }

    #[test]
    fn the_cache_is_where_the_user_says() {
        let check = |set: &[(&str, &str)], expected| check(|variable| cache(variable), set, expected);
        check(&[], None);
        check(&[("HOME", "/home/me")], Some("/home/me/.cache/loadline"));
        check(&[("HOME", "/home/me"), ("XDG_CACHE_HOME", "/big")], Some("/big/loadline"));
        check(&[("HOME", "/home/me"), ("XDG_CACHE_HOME", "here")], Some("/home/me/.cache/loadline"));
        check(&[("HOME", "/home/me"), (CACHE, "/mine")], Some("/mine"));
        check(&[("HOME", "/home/me"), (CACHE, "off")], None);
    }

    #[test]
    fn installed_policies_are_where_the_user_says() {
        let check = |set: &[(&str, &str)], expected| check(|variable| installed(variable), set, expected);
        check(&[], None);
        check(&[("HOME", "/home/me")], Some("/home/me/.local/share/loadline/policies"));
        check(&[("HOME", "/home/me"), ("XDG_DATA_HOME", "/big")], Some("/big/loadline/policies"));
        check(&[("HOME", "/home/me"), (POLICIES, "/mine")], Some("/mine"));
        check(&[("HOME", "/home/me"), (POLICIES, "mine")], Some("/home/me/.local/share/loadline/policies"));
    }
}

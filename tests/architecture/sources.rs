//! What the sources of a crate may say. Comments, strings and test modules do not count.

use std::path::{Path, PathBuf};

use cargo_metadata::{Metadata, Package};
use xtask::rust;

use crate::rules::{LEAKS, NO_LIBRARIES, UNSAFE, UNSAFE_FILES};

/// Each use of `unsafe` outside of the crates and files that may; in their tests too.
pub(crate) fn unsafe_uses(workspace: &Metadata) -> Vec<String> {
    let bound = workspace.packages.iter().filter(|package| !UNSAFE.iter().any(|(name, _)| *name == *package.name));
    let files = bound.flat_map(|package| {
        let files = rust_files(folder(package)).into_iter();
        let own = files.filter(|path| !belongs_to_another(workspace, package, path));
        own.filter(|path| !may_be_unsafe(&package.name, path.strip_prefix(folder(package)).unwrap()))
    });
    files.flat_map(|path| locate(&path, &rust::code_only(&read(&path)), &[("unsafe", "see UNSAFE")])).collect()
}

/// Each place where a library prints, reads the environment or ends the process.
pub(crate) fn leaks(workspace: &Metadata) -> Vec<String> {
    let libraries = workspace.packages.iter().filter(|package| !NO_LIBRARIES.contains(&package.name.as_str()));
    let sources = libraries.map(|package| folder(package).join("src"));
    let shipped = sources.flat_map(|src| rust_files(&src).into_iter().filter(move |path| !is_test(path, &src)));
    shipped.flat_map(|path| locate(&path, &shipped_code(&read(&path)), LEAKS)).collect()
}

/// Whether a file in a package's folder lies in that of a package inside it.
fn belongs_to_another(workspace: &Metadata, package: &Package, path: &Path) -> bool {
    let inner = workspace.packages.iter().map(folder).filter(|inner| *inner != folder(package));
    inner.filter(|inner| inner.starts_with(folder(package))).any(|inner| path.starts_with(inner))
}

fn may_be_unsafe(package: &str, file: &Path) -> bool {
    UNSAFE_FILES.iter().any(|(name, path, _)| *name == package && Path::new(path) == file)
}

fn folder(package: &Package) -> &Path {
    package.manifest_path.parent().unwrap().as_std_path()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    // The order of a listing is the file system's; that of a report should not be.
    paths.sort();
    let (folders, files): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| path.is_dir());
    let nested = folders.iter().flat_map(|folder| rust_files(folder));
    files.into_iter().filter(|path| path.extension().is_some_and(|end| end == "rs")).chain(nested).collect()
}

/// A module that its parent includes for tests only, by the names that are used for those.
fn is_test(path: &Path, src: &Path) -> bool {
    let inside = path.strip_prefix(src).unwrap();
    inside.with_extension("").iter().any(|part| part == "tests")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn shipped_code(source: &str) -> String {
    rust::without_tests(&rust::code_only(source))
}

fn locate(path: &Path, code: &str, banned: &[(&str, &str)]) -> Vec<String> {
    let hits = banned.iter().flat_map(|(word, why)| {
        rust::lines_with(code, word).into_iter().map(move |line| format!("{}:{line}: `{word}`: {why}", path.display()))
    });
    hits.collect()
}

#[test]
fn a_leak_is_found_where_it_ships() {
    let check = |source: &str, expected: usize| {
        let found = locate(Path::new("a.rs"), &shipped_code(source), LEAKS);
        assert_eq!(found.len(), expected, "{source}: {found:?}");
    };
    check("fn a() { println!() }", 1);
    check("fn a() { std::env::var(b); std::process::exit(1) }", 2);
    check("// println!()\nfn a() { b(\"println!\") }", 0);
    check("#[cfg(test)]\nmod tests { fn a() { println!() } }", 0);
    check("fn a() { env!(b); format!(c) }", 0);
}

#[test]
fn unsafe_is_a_word() {
    let check = |source: &str, expected: usize| {
        assert_eq!(locate(Path::new("a.rs"), &rust::code_only(source), &[("unsafe", "")]).len(), expected, "{source}");
    };
    check("fn a() { unsafe { b() } }", 1);
    check("#[cfg(test)] mod tests { unsafe impl A for B {} }", 1);
    check("#![forbid(unsafe_code)] // unsafe", 0);
}

#[test]
fn single_files_may_be_unsafe() {
    assert!(may_be_unsafe("loadline-policy", Path::new("src/cache.rs")));
    assert!(!may_be_unsafe("loadline-policy", Path::new("src/cache/folder.rs")));
    assert!(!may_be_unsafe("loadline-engine", Path::new("src/cache.rs")));
}

#[test]
fn test_modules_are_known_by_name() {
    let check = |path: &str, expected: bool| {
        assert_eq!(is_test(Path::new(path), Path::new("tests/a/src")), expected, "{path}");
    };
    check("tests/a/src/tests.rs", true);
    check("tests/a/src/b/tests/c.rs", true);
    check("tests/a/src/b.rs", false);
    check("tests/a/src/contests.rs", false);
}

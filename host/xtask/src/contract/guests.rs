//! The guests of each version: components that were built for it, kept so that every later host can be tried on them.

use std::path::Path;

use toml::{Table, Value};

use super::{names, read, write};
use crate::{Outcome, Stop};

/// Where the guests of all versions are committed.
const FOLDER: &str = "tests/guests";
/// Where the guests come from.
const COMPONENTS: &str = "policies/components";
const MANIFEST: &str = "MANIFEST.toml";

/// The paths of a version's guests and their manifest, sorted.
///
/// # Errors
/// When the folder cannot be read.
pub(super) fn files(root: &Path, number: &str) -> Outcome<Vec<String>> {
    let folder = format!("{FOLDER}/{number}");
    let ours = |name: &String| *name == MANIFEST || is_guest(name);
    Ok(names(&root.join(&folder))?.iter().filter(|name| ours(name)).map(|name| format!("{folder}/{name}")).collect())
}

fn is_guest(name: &str) -> bool {
    name.ends_with(".wasm")
}

/// Copies the shipped components and writes where they are from; says what was taken.
///
/// # Errors
/// When a component or its manifest cannot be read, or a file not be written.
pub(super) fn take(root: &Path, number: &str, source: &str) -> Outcome<String> {
    let folder = format!("{FOLDER}/{number}");
    let shipped = text(root, &format!("{COMPONENTS}/{MANIFEST}"))?;
    let gone = files(root, number)?;
    gone.iter().try_for_each(|path| {
        std::fs::remove_file(root.join(path)).map_err(|error| Stop::failed(format!("cannot replace {path}: {error}")))
    })?;
    write(root, &format!("{folder}/{MANIFEST}"), &manifest(number, source, &shipped)?)?;
    let guests: Vec<String> = names(&root.join(COMPONENTS))?.into_iter().filter(|name| is_guest(name)).collect();
    for guest in &guests {
        let (from, to) = (format!("{COMPONENTS}/{guest}"), root.join(&folder).join(guest));
        std::fs::write(&to, read(root, &from)?)
            .map_err(|error| Stop::failed(format!("cannot write {guest}: {error}")))?;
    }
    Ok(format!("{folder}: {}", guests.join(", ")))
}

/// What the components were built by, with the source in front.
fn manifest(number: &str, source: &str, shipped: &str) -> Outcome<String> {
    let body = shipped.find("[toolchain]").map(|at| &shipped[at..]);
    let body = body.ok_or_else(|| Stop::failed(format!("{COMPONENTS}/{MANIFEST}: names no toolchain")))?;
    Ok(format!(
        "# Components built for version {number} of the contract: every later host must load them and get the same plans.\n\
         # Written by `cargo xtask contract --guests {number}`.\n\
         source-commit = \"{source}\"\n\n{body}"
    ))
}

/// A line for each guest that is not the one its manifest lists.
///
/// # Errors
/// When a manifest or a guest cannot be read.
pub(super) fn problems(root: &Path) -> Outcome<Vec<String>> {
    let mut problems = Vec::new();
    for number in names(&root.join(FOLDER))?.iter().filter(|name| root.join(FOLDER).join(name).is_dir()) {
        let path = format!("{FOLDER}/{number}/{MANIFEST}");
        let table: Option<Table> = text(root, &path)?.parse().ok();
        let Some(table) = table else {
            problems.push(format!("{path}: is no TOML; run `cargo xtask contract --guests {number}`"));
            continue;
        };
        let listed = |name: &str| table.get("component")?.as_table()?.get(name)?.as_table()?.get("blake3")?.as_str();
        for path in files(root, number)?.iter().filter(|path| is_guest(path)) {
            let name = Path::new(path).file_stem().unwrap_or_default().to_string_lossy();
            let hash = blake3::hash(&read(root, path)?).to_string();
            if listed(&name) != Some(hash.as_str()) {
                problems.push(format!("{path}: is not what {MANIFEST} lists; put it back"));
            }
        }
        problems.extend(missing(root, number, &table));
    }
    Ok(problems)
}

fn missing(root: &Path, number: &str, table: &Table) -> Vec<String> {
    let listed = table.get("component").and_then(Value::as_table).into_iter().flat_map(Table::keys);
    let paths = listed.map(|name| format!("{FOLDER}/{number}/{name}.wasm"));
    paths.filter(|path| !root.join(path).is_file()).map(|path| format!("{path}: is gone; put it back")).collect()
}

fn text(root: &Path, path: &str) -> Outcome<String> {
    Ok(String::from_utf8_lossy(&read(root, path)?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> Outcome<tempfile::TempDir> {
        let root = tempfile::tempdir().map_err(|error| Stop::failed(error.to_string()))?;
        let hash = blake3::hash(b"one");
        let shipped = format!("# Shipped.\n[toolchain]\nrelease = \"1.0.0\"\n\n[component.a]\nblake3 = \"{hash}\"\n");
        write(root.path(), "policies/components/MANIFEST.toml", &shipped)?;
        write(root.path(), "policies/components/a.wasm", "one")?;
        Ok(root)
    }

    #[test]
    fn guests_are_kept_with_their_source_and_may_not_change() -> Outcome {
        let root = root()?;
        write(root.path(), "tests/guests/0.1.0/gone.wasm", "old")?;
        assert_eq!(take(root.path(), "0.1.0", "abc")?, "tests/guests/0.1.0: a.wasm");
        assert_eq!(files(root.path(), "0.1.0")?, ["tests/guests/0.1.0/MANIFEST.toml", "tests/guests/0.1.0/a.wasm"]);
        let manifest = text(root.path(), "tests/guests/0.1.0/MANIFEST.toml")?;
        assert!(manifest.contains("\nsource-commit = \"abc\"\n\n[toolchain]\nrelease = \"1.0.0\"\n"), "{manifest}");
        assert_eq!(problems(root.path())?, [""; 0]);
        write(root.path(), "tests/guests/0.1.0/a.wasm", "two")?;
        assert_eq!(problems(root.path())?, ["tests/guests/0.1.0/a.wasm: is not what MANIFEST.toml lists; put it back"]);
        let _ = std::fs::remove_file(root.path().join("tests/guests/0.1.0/a.wasm"));
        assert_eq!(problems(root.path())?, ["tests/guests/0.1.0/a.wasm: is gone; put it back"]);
        Ok(())
    }
}

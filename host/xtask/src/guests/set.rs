//! A set of built components beside its manifest: written, or compared with a folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use super::compile::Toolchain;
use crate::{Outcome, Stop};

const MANIFEST: &str = "MANIFEST.toml";

/// Built components by policy name, with the toolchain that built them.
pub(super) struct ComponentSet {
    toolchain: Toolchain,
    components: BTreeMap<String, Vec<u8>>,
}

impl ComponentSet {
    pub(super) fn new(toolchain: Toolchain) -> Self {
        Self { toolchain, components: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, name: &str, component: Vec<u8>) {
        self.components.insert(name.to_owned(), component);
    }

    /// Such as `auto-tune 15873 bytes, threshold 15010 bytes`.
    pub(super) fn summary(&self) -> String {
        let sizes = self.components.iter().map(|(name, bytes)| format!("{name} {} bytes", bytes.len()));
        sizes.collect::<Vec<_>>().join(", ")
    }

    /// The manifest: for each component its size and hash, so that a diff of a binary says something.
    fn manifest(&self) -> String {
        let Toolchain { release, commit_hash } = &self.toolchain;
        let mut text = format!(
            "# Written by `cargo xtask guests`. Only this compiler gives these bytes.\n\
             [toolchain]\nrelease = \"{release}\"\ncommit-hash = \"{commit_hash}\"\n"
        );
        for (name, component) in &self.components {
            let (bytes, hash) = (component.len(), blake3::hash(component));
            let _ = write!(text, "\n[component.{name}]\nbytes = {bytes}\nblake3 = \"{hash}\"\n");
        }
        text
    }

    /// Every file of the folder: the components and the manifest.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let components = self.components.iter().map(|(name, bytes)| (format!("{name}.wasm"), bytes.clone()));
        components.chain([(MANIFEST.to_owned(), self.manifest().into_bytes())]).collect()
    }

    /// Makes `folder` hold these files, and no component of a policy that is gone.
    pub(super) fn write(&self, folder: &Path) -> Outcome {
        self.try_write(folder).map_err(|error| Stop::failed(format!("cannot write {}: {error}", folder.display())))
    }

    fn try_write(&self, folder: &Path) -> io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let files = self.files();
        for gone in names(folder)?.iter().filter(|name| is_ours(name) && !files.contains_key(*name)) {
            std::fs::remove_file(folder.join(gone))?;
        }
        files.iter().try_for_each(|(name, bytes)| std::fs::write(folder.join(name), bytes))
    }

    /// One line for each file of `folder` that is missing, left over or different.
    pub(super) fn differences(&self, folder: &Path) -> Outcome<Vec<String>> {
        self.try_differences(folder).map_err(|error| Stop::failed(format!("cannot read {}: {error}", folder.display())))
    }

    fn try_differences(&self, folder: &Path) -> io::Result<Vec<String>> {
        let built = self.files();
        let there = if folder.is_dir() { names(folder)? } else { BTreeSet::new() };
        let mut lines = Vec::new();
        for (name, bytes) in &built {
            if !there.contains(name) {
                lines.push(format!("{name}: is missing"));
                continue;
            }
            let committed = std::fs::read(folder.join(name))?;
            if committed != *bytes {
                lines.push(difference(name, &committed, bytes));
            }
        }
        let left_over = there.iter().filter(|name| is_ours(name) && !built.contains_key(*name));
        lines.extend(left_over.map(|name| format!("{name}: no policy builds to it")));
        Ok(lines)
    }
}

fn is_ours(name: &str) -> bool {
    name.ends_with(".wasm") || name == MANIFEST
}

fn names(folder: &Path) -> io::Result<BTreeSet<String>> {
    std::fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// For text the first line that differs, for a component where and by how much.
fn difference(name: &str, committed: &[u8], built: &[u8]) -> String {
    if let (Ok(committed), Ok(built)) = (str::from_utf8(committed), str::from_utf8(built)) {
        let pair = committed.lines().zip(built.lines()).find(|(committed, built)| committed != built);
        let (committed, built) = pair.unwrap_or(("its end", "more lines or fewer"));
        return format!("{name}: has `{committed}`, built `{built}`");
    }
    let first = committed.iter().zip(built).take_while(|(committed, built)| committed == built).count();
    format!("{name}: differs from byte {first} on ({} bytes, built {})", committed.len(), built.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(components: &[(&str, &[u8])]) -> ComponentSet {
        let mut set = ComponentSet::new(Toolchain { release: "1.0.0".to_owned(), commit_hash: "abc".to_owned() });
        components.iter().for_each(|(name, bytes)| set.add(name, bytes.to_vec()));
        set
    }

    #[test]
    fn a_written_set_has_no_differences_and_a_changed_one_names_them() -> Outcome {
        let folder = tempfile::tempdir().map_err(|error| Stop::failed(error.to_string()))?;
        set(&[("kept", b"\0same"), ("changed", b"\0old"), ("gone", b"\0x")]).write(folder.path())?;
        let built = set(&[("kept", b"\0same"), ("changed", b"\0odd!"), ("new", b"\0y")]);
        let found = built.differences(folder.path())?;
        assert!(found[0].starts_with("MANIFEST.toml: has `bytes = 4`, built `bytes = 5`"), "{found:?}");
        assert_eq!(
            found[1..],
            ["changed.wasm: has `\0old`, built `\0odd!`", "new.wasm: is missing", "gone.wasm: no policy builds to it"]
        );
        built.write(folder.path())?;
        assert_eq!(built.differences(folder.path())?, [""; 0]);
        Ok(())
    }

    #[test]
    fn nothing_committed_is_everything_missing() -> Outcome {
        let found = set(&[("a", b"x")]).differences(Path::new("no/such/folder"))?;
        assert_eq!(found, ["MANIFEST.toml: is missing", "a.wasm: is missing"]);
        Ok(())
    }

    #[test]
    fn a_component_differs_at_a_byte() {
        assert_eq!(difference("a", b"\xff12", b"\xff1345"), "a: differs from byte 2 on (3 bytes, built 5)");
    }

    #[test]
    fn the_manifest_is_stable() {
        let expected = "\
# Written by `cargo xtask guests`. Only this compiler gives these bytes.
[toolchain]
release = \"1.0.0\"
commit-hash = \"abc\"

[component.a]
bytes = 0
blake3 = \"af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262\"
";
        assert_eq!(set(&[("a", b"")]).manifest(), expected);
    }
}

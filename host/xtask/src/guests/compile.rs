//! Compiling the policies so that equal sources give equal bytes on any machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::{MetadataCommand, Package, TargetKind};

use super::{Sources, TARGET, rustc};
use crate::{Outcome, Stop, shell};

/// The compiler that built the components. Another one gives other bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Toolchain {
    /// Such as `1.95.0`.
    pub(super) release: String,
    /// The commit of rustc that it was built from.
    pub(super) commit_hash: String,
}

/// Compiles the workspace of the policies.
pub(super) struct Compiler {
    root: PathBuf,
    manifest: &'static str,
    package: Option<&'static str>,
    sysroot: PathBuf,
    toolchain: Toolchain,
}

impl Compiler {
    pub(super) fn new(root: &Path, sources: &Sources) -> Outcome<Self> {
        let Sources { manifest, package, .. } = *sources;
        Ok(Self { root: root.to_owned(), manifest, package, sysroot: sysroot()?, toolchain: toolchain()? })
    }

    pub(super) fn toolchain(&self) -> &Toolchain {
        &self.toolchain
    }

    /// The core module of every policy, by the name of the policy's folder.
    pub(super) fn modules(&self, locked: bool) -> Outcome<BTreeMap<String, Vec<u8>>> {
        let packages = self.packages()?;
        let target_dir = self.root.join("target/guests");
        shell::run(&mut self.cargo_build(&target_dir, locked)?)?;
        let release = target_dir.join(TARGET).join("release");
        packages
            .iter()
            .filter(|package| self.is_wanted(package))
            .filter_map(policy)
            .map(|(name, file)| Ok((name, read(&release.join(file))?)))
            .collect()
    }

    fn is_wanted(&self, package: &Package) -> bool {
        self.package.is_none_or(|wanted| package.name.as_str() == wanted)
    }

    fn packages(&self) -> Outcome<Vec<Package>> {
        let manifest = self.root.join(self.manifest);
        let metadata = MetadataCommand::new().manifest_path(manifest).no_deps().exec();
        Ok(metadata.map_err(|error| Stop::failed(format!("cannot read {}: {error}", self.manifest)))?.packages)
    }

    fn cargo_build(&self, target_dir: &Path, locked: bool) -> Outcome<Command> {
        let mut cargo = Command::new("cargo");
        cargo.current_dir(&self.root).args(["build", "--release", "--target", TARGET]);
        cargo.arg("--manifest-path").arg(self.manifest).arg("--target-dir").arg(target_dir);
        if let Some(package) = self.package {
            cargo.args(["--package", package]);
        }
        if locked {
            cargo.arg("--locked");
        }
        // Flags of the caller would end up in the bytes.
        for name in ["RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "RUSTC_WRAPPER", "CARGO_INCREMENTAL"] {
            cargo.env_remove(name);
        }
        // Cargo's own separator, because paths may hold spaces.
        cargo.env("CARGO_ENCODED_RUSTFLAGS", self.remaps().join("\u{1f}"));
        let this = std::env::current_exe().map_err(|error| Stop::failed(format!("who am I? {error}")))?;
        cargo.env("RUSTC_WRAPPER", this).env(rustc::ROOT, &self.root);
        Ok(cargo)
    }

    /// Panic messages hold the paths of sources; these give them the same names everywhere.
    fn remaps(&self) -> Vec<String> {
        let sources = self.sysroot.join("lib/rustlib/src/rust");
        // The standard library is compiled under this name, which is resolved only where `rust-src` is installed.
        let std_name = format!("/rustc/{}", self.toolchain.commit_hash);
        let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
        // The last one that matches wins, so the longest comes last.
        vec![remap(&cargo_home(), "/cargo"), remap(&self.root, "/loadline"), remap(&sources, &std_name)]
    }
}

/// Where rustc keeps the standard library of [`TARGET`], if it is installed.
pub(super) fn target_libraries() -> Outcome<PathBuf> {
    Ok(sysroot()?.join("lib/rustlib").join(TARGET).join("lib"))
}

/// A package that makes a module: the name of its folder and of the module's file.
fn policy(package: &Package) -> Option<(String, String)> {
    let library = package.targets.iter().find(|target| target.kind.contains(&TargetKind::CDyLib))?;
    let folder = package.manifest_path.parent()?.file_name()?;
    Some((folder.to_owned(), format!("{}.wasm", library.name.replace('-', "_"))))
}

fn read(path: &Path) -> Outcome<Vec<u8>> {
    std::fs::read(path).map_err(|error| Stop::failed(format!("cannot read {}: {error}", path.display())))
}

fn sysroot() -> Outcome<PathBuf> {
    Ok(shell::output(Command::new("rustc").args(["--print", "sysroot"]))?.trim_end().into())
}

fn cargo_home() -> PathBuf {
    let home = std::env::home_dir().unwrap_or_default();
    std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from)
}

fn toolchain() -> Outcome<Toolchain> {
    parse_version(&shell::output(Command::new("rustc").arg("-vV"))?)
        .ok_or_else(|| Stop::failed("`rustc -vV` names no release and commit-hash"))
}

fn parse_version(text: &str) -> Option<Toolchain> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned());
    Some(Toolchain { release: field("release:")?, commit_hash: field("commit-hash:")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_toolchain_is_read_from_rustc() {
        let text = "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\ncommit-hash: 59807616e1fa\nrelease: 1.95.0\n";
        let expected = Toolchain { release: "1.95.0".to_owned(), commit_hash: "59807616e1fa".to_owned() };
        assert_eq!(parse_version(text), Some(expected));
        assert_eq!(parse_version("rustc 1.95.0\n"), None);
    }
}

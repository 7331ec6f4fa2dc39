//! Building a policy that is written in Rust: equal sources give equal bytes, wherever the project lies.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::command::{self, Failed};
use super::{WorkshopError, component, tool};

/// What a policy is compiled for: no WASI, so no clock, files, network or randomness.
const TARGET: &str = "wasm32-unknown-unknown";

/// Brings a compiler, and the sources of the target's standard library, where rustup does not.
const DEBIAN: &str = "apt-get install cargo-web rustc-web rust-web-src";

/// How the standard library of [`TARGET`] is come by.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Library {
    /// It is installed beside the compiler.
    Installed,
    /// It is compiled with the policy, as where Linux distributions ship only its sources; the linker goes with it.
    Sources {
        /// A WebAssembly linker that knows the object format of the compiler.
        linker: PathBuf,
    },
}

/// A compiler that can build policies.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Compiler {
    /// The programs; `cargo` and `rustc` as the user's path finds them, or a distribution's own.
    cargo: PathBuf,
    rustc: PathBuf,
    sysroot: PathBuf,
    /// The commit of rustc that it was built from, part of the standard library's paths.
    commit: String,
    library: Library,
}

/// Builds the project in `folder` to a component.
pub(super) fn build(
    folder: &Path,
    cargo_home: Option<&Path>,
    says: &mut dyn FnMut(&str),
) -> Result<Vec<u8>, WorkshopError> {
    let compiler = Compiler::find(folder)?;
    let root = workspace(&compiler, folder)?;
    let mut cargo = compiler.cargo_build(folder, &root, cargo_home);
    let messages = command::run(&mut cargo, says).map_err(|failed| told(&cargo, folder, failed))?;
    let module = module(&messages, &folder.join("Cargo.toml"))?;
    let bytes = std::fs::read(&module).map_err(|error| WorkshopError::io(&module, &error))?;
    component::encode(&bytes)
}

fn told(cargo: &Command, folder: &Path, failed: Failed) -> WorkshopError {
    match failed {
        Failed::NotStarted(error) => no_rust(&format!("cargo ({error})")),
        Failed::Status(status) => tool::failure(folder, cargo, status),
    }
}

fn no_rust(what: &str) -> WorkshopError {
    let way_out = format!(
        "install Rust from https://rustup.rs, then run `rustup target add {TARGET}`; or on Debian run `{DEBIAN}`"
    );
    WorkshopError::NoTool { tool: what.to_owned(), way_out }
}

/// The folder of the workspace that a project belongs to: the paths of everything in it are relative to this one.
fn workspace(compiler: &Compiler, folder: &Path) -> Result<PathBuf, WorkshopError> {
    let mut cargo = Command::new(&compiler.cargo);
    cargo.current_dir(folder).args(["locate-project", "--workspace", "--message-format", "plain"]);
    let mut words = String::new();
    let found = command::run(&mut cargo, &mut |line| words = line.trim().to_owned());
    let manifest = found.map_err(|_| WorkshopError::Project { path: folder.join("Cargo.toml"), reason: words })?;
    Ok(Path::new(manifest.trim_end()).parent().unwrap_or(folder).to_owned())
}

/// The core module among what cargo says that it has made for the package of `manifest`.
fn module(messages: &str, manifest: &Path) -> Result<PathBuf, WorkshopError> {
    let canonical = |path: &str| Path::new(path).canonicalize().ok();
    let ours = manifest.canonicalize().ok();
    let made = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let file = made.filter(|message| message["reason"] == "compiler-artifact").find_map(|message| {
        let of_ours = ours.is_some() && message["manifest_path"].as_str().and_then(canonical) == ours;
        let files = message["filenames"].as_array().filter(|_| of_ours)?.iter().filter_map(Value::as_str);
        files.into_iter().find(|file| file.ends_with(".wasm")).map(PathBuf::from)
    });
    let reason = "it makes no module: write `[lib]` with `crate-type = [\"cdylib\", \"rlib\"]`".to_owned();
    file.ok_or_else(|| WorkshopError::Project { path: manifest.to_owned(), reason })
}

impl Compiler {
    /// The user's own compiler if it has the target, or else a distribution's that can compile it.
    fn find(folder: &Path) -> Result<Self, WorkshopError> {
        match Self::ask(folder, "cargo".into(), "rustc".into()) {
            Some(own) if own.has_target() => Ok(own),
            Some(own) => Self::debian(folder)?.ok_or_else(|| no_target(&own.sysroot)),
            None => Self::debian(folder)?.ok_or_else(|| no_rust("Rust, which is not on the path")),
        }
    }

    /// Debian ships the target's standard library as sources, for a compiler of its own in a fixed place. The linker
    /// has to know the object format of the compiler's own LLVM.
    fn debian(folder: &Path) -> Result<Option<Self>, WorkshopError> {
        let own = Self::ask(folder, "/usr/bin/cargo".into(), "/usr/bin/rustc".into());
        let Some(own) = own.filter(|own| own.has_target() || own.has_sources()) else { return Ok(None) };
        if own.has_target() {
            return Ok(Some(own));
        }
        let version = command::answer(Command::new(&own.rustc).arg("-vV")).unwrap_or_default();
        let llvm = field(&version, "LLVM version:").and_then(|version| version.split('.').next()).unwrap_or_default();
        let linker = PathBuf::from(format!("/usr/lib/llvm-{llvm}/bin/wasm-ld"));
        if linker.is_file() {
            return Ok(Some(Self { library: Library::Sources { linker }, ..own }));
        }
        let tool = format!("a linker for LLVM {llvm}, which is not in {}", linker.display());
        Err(WorkshopError::NoTool { tool, way_out: format!("run `apt-get install lld-{llvm}`") })
    }

    fn ask(folder: &Path, cargo: PathBuf, rustc: PathBuf) -> Option<Self> {
        let ask = |words: &[&str]| command::answer(Command::new(&rustc).current_dir(folder).args(words));
        let sysroot = PathBuf::from(ask(&["--print", "sysroot"])?);
        let commit = field(&ask(&["-vV"])?, "commit-hash:")?.to_owned();
        command::answer(Command::new(&cargo).current_dir(folder).arg("-V"))?;
        Some(Self { cargo, rustc, sysroot, commit, library: Library::Installed })
    }

    fn has_target(&self) -> bool {
        self.sysroot.join("lib/rustlib").join(TARGET).join("lib").is_dir()
    }

    fn has_sources(&self) -> bool {
        self.sysroot.join("lib/rustlib/src/rust/library").is_dir()
    }

    fn cargo_build(&self, folder: &Path, root: &Path, cargo_home: Option<&Path>) -> Command {
        let mut cargo = Command::new(&self.cargo);
        cargo.current_dir(folder).args(["build", "--lib", "--release", "--target", TARGET]);
        // Messages for people go to standard error, the names of the files that are made to standard output.
        cargo.arg("--message-format=json-render-diagnostics");
        // Flags of the caller would end up in the bytes.
        for name in ["RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"] {
            cargo.env_remove(name);
        }
        // Cargo's own separator, because paths may hold spaces.
        cargo.env("CARGO_ENCODED_RUSTFLAGS", self.remaps(root, cargo_home).join("\u{1f}"));
        if let Library::Sources { linker } = &self.library {
            cargo.args(["-Z", "build-std=std,panic_abort"]).env("RUSTC", &self.rustc).env("RUSTC_BOOTSTRAP", "1");
            cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
        }
        cargo
    }

    /// Panic messages hold the paths of sources; these give them the same names everywhere. The last one that matches
    /// wins, so the longest comes last.
    fn remaps(&self, root: &Path, cargo_home: Option<&Path>) -> Vec<String> {
        // The standard library is compiled under this name, which is resolved only where its sources are installed.
        let sources = (self.sysroot.join("lib/rustlib/src/rust"), format!("/rustc/{}", self.commit));
        let mut names = vec![(root.to_owned(), "/policy".to_owned()), sources];
        names.extend(cargo_home.map(|home| (home.to_owned(), "/cargo".to_owned())));
        names.sort_by_key(|(from, _)| from.as_os_str().len());
        names.into_iter().map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display())).collect()
    }
}

fn no_target(sysroot: &Path) -> WorkshopError {
    let tool = format!("the target {TARGET}, which the compiler in {} does not have", sysroot.display());
    let way_out = format!("run `rustup target add {TARGET}`; where rustup cannot have it, on Debian, run `{DEBIAN}`");
    WorkshopError::NoTool { tool, way_out }
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

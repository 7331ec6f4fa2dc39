//! The shipped policies, and the hostile one of the tests: from their sources to the components that are committed.
//!
//! The components are committed so that building the host needs no WebAssembly
//! target. In return `check` has to prove that they are what the sources build
//! to, byte for byte, wherever the checkout and cargo's home lie.

mod compile;
mod rustc;
mod set;

use std::path::Path;

use crate::{Outcome, Stop, shell};
use compile::Compiler;
pub use rustc::stand_in;
use set::ComponentSet;

/// Guests that are built together.
struct Sources {
    /// The workspace of their sources.
    manifest: &'static str,
    /// The one package of the workspace that is a guest; all of them where none is named.
    package: Option<&'static str>,
    /// Where the built components and their manifest are committed.
    components: &'static str,
}

const ALL: [Sources; 2] = [
    Sources { manifest: "policies/Cargo.toml", package: None, components: "policies/components" },
    Sources { manifest: "plugins/Cargo.toml", package: Some("hostile"), components: "plugins/hostile/components" },
];
/// What a policy is compiled for: no WASI, so no clock, files, network or randomness.
const TARGET: &str = "wasm32-unknown-unknown";
/// Set to 1 by a caller that has shown in another way that the sources compile.
const ALLOW_SKIP: &str = "LOADLINE_ALLOW_SKIP_GUESTS";

/// Builds every policy and replaces the committed components.
///
/// # Errors
/// When the target cannot be installed, a policy does not compile, or its module is no component of the contract.
pub fn build(root: &Path) -> Outcome {
    install_target()?;
    for sources in &ALL {
        let built = components(root, sources, false)?;
        built.write(&root.join(sources.components))?;
        println!("{}: {}", sources.components, built.summary());
    }
    Ok(())
}

/// Builds every policy aside and compares it with what is committed.
///
/// # Errors
/// [`Stop::Failed`] names every file that differs. [`Stop::Skipped`] when the target cannot be installed; success
/// then only if `LOADLINE_ALLOW_SKIP_GUESTS=1` says that the caller knows.
pub fn check(root: &Path) -> Outcome {
    if let Err(stop) = install_target() {
        return skip(&stop);
    }
    ALL.iter().try_for_each(|sources| check_one(root, sources))
}

fn check_one(root: &Path, sources: &Sources) -> Outcome {
    let Sources { manifest, components: folder, .. } = sources;
    let built = components(root, sources, true)?;
    let differences = built.differences(&root.join(folder))?;
    if differences.is_empty() {
        println!("{folder} is what {manifest} builds to: {}", built.summary());
        return Ok(());
    }
    Err(Stop::failed(format!(
        "{folder} is not what {manifest} builds to; run `cargo xtask guests` and commit the result\n  {}",
        differences.join("\n  ")
    )))
}

fn components(root: &Path, sources: &Sources, locked: bool) -> Outcome<ComponentSet> {
    let compiler = Compiler::new(root, sources)?;
    let mut set = ComponentSet::new(compiler.toolchain().clone());
    for (name, module) in compiler.modules(locked)? {
        set.add(&name, encode(&name, &module)?);
    }
    Ok(set)
}

/// Turns a core module, whose custom section holds its WIT types, into a component.
fn encode(name: &str, module: &[u8]) -> Outcome<Vec<u8>> {
    wit_component::ComponentEncoder::default()
        .validate(true)
        .module(module)
        .and_then(|encoder| encoder.encode())
        .map_err(|error| Stop::failed(format!("{name}: its module makes no component: {error:?}")))
}

fn install_target() -> Outcome {
    if compile::target_libraries()?.is_dir() {
        return Ok(());
    }
    let mut add = std::process::Command::new("rustup");
    shell::run(add.args(["target", "add", TARGET]))
}

fn skip(why: &Stop) -> Outcome {
    let text = format!(
        "SKIPPED: nothing proves that the committed components are what their sources build to: the target {TARGET} \
         is not installed and cannot be added ({why})"
    );
    if std::env::var(ALLOW_SKIP).is_ok_and(|value| value == "1") {
        println!("{text}; {ALLOW_SKIP}=1 lets it pass");
        return Ok(());
    }
    Err(Stop::Skipped(text))
}

//! Policies in Rust as ordinary libraries: the SDK's own tests, and that each component says the same as its source.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::path::Path;
use std::process::Command;

/// Runs tests of another workspace, whose target is another.
fn cargo_test(folder: &str, arguments: &[&str]) {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder));
    cargo.env("LOADLINE", env!("CARGO_BIN_EXE_loadline")).env_remove("RUSTFLAGS");
    let out = cargo.args(["test", "--locked", "--quiet"]).args(arguments).output().unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(out.status.success(), "{folder}: {}{}", said(&out.stdout), said(&out.stderr));
}

#[test]
fn the_sdk_in_rust() {
    cargo_test("plugins", &["--package", "loadline-policy-sdk"]);
}

/// Their scenarios, and the words of the committed components against those of their sources.
#[test]
fn the_policies_that_ship() {
    cargo_test("policies", &[]);
}

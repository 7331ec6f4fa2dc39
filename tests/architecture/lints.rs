//! The lint tables of the manifests.
//!
//! Cargo lets a crate either inherit the workspace's table or have one of its
//! own; a crate that needs `unsafe` therefore repeats the rest, and could forget some.

use std::path::Path;

use cargo_metadata::Metadata;
use toml::{Table, Value};

use crate::rules::UNSAFE;

/// The crates that neither inherit the workspace's lints nor have a right to repeat them.
pub(crate) fn violations(workspace: &Metadata) -> Vec<String> {
    let root = manifest(workspace.workspace_root.join("Cargo.toml").as_std_path());
    let shared = root["workspace"]["lints"].as_table().unwrap();
    let packages = workspace.packages.iter();
    packages
        .flat_map(|package| {
            let own = manifest(package.manifest_path.as_std_path());
            check(&package.name, own.get("lints").and_then(Value::as_table), shared)
        })
        .collect()
}

fn manifest(path: &Path) -> Table {
    std::fs::read_to_string(path).unwrap().parse().unwrap()
}

fn check(name: &str, own: Option<&Table>, shared: &Table) -> Vec<String> {
    let Some(own) = own else { return vec![format!("{name}: has no lints; write `[lints] workspace = true`")] };
    if own.get("workspace").and_then(Value::as_bool) == Some(true) {
        return Vec::new();
    }
    if !UNSAFE.iter().any(|(allowed, _)| *allowed == name) {
        return vec![format!("{name}: has lints of its own; write `[lints] workspace = true`")];
    }
    repeated(name, own, shared)
}

fn repeated(name: &str, own: &Table, shared: &Table) -> Vec<String> {
    let mut found = Vec::new();
    for (tool, lints) in shared {
        for (lint, level) in lints.as_table().unwrap() {
            let same = own.get(tool).and_then(|lints| lints.get(lint)) == Some(level);
            // Who does not repeat a permission is only stricter.
            let matters = lint != "unsafe_code" && level.as_str() != Some("allow");
            if !same && matters {
                found.push(format!("{name}: does not repeat the workspace's lint `{tool}.{lint} = {level}`"));
            }
        }
    }
    found
}

#[test]
fn a_manifest_that_loses_lints_is_found() {
    let shared: Table = "rust = { missing_docs = 'warn', unsafe_code = 'deny' }".parse().unwrap();
    let check = |name: &str, own: &str, expected: usize| {
        let own: Table = own.parse().unwrap();
        let found = check(name, own.get("lints").and_then(Value::as_table), &shared);
        assert_eq!(found.len(), expected, "{name} {own}: {found:?}");
    };
    check("loadline-core", "lints.workspace = true", 0);
    check("loadline-core", "", 1);
    check("loadline-core", "lints.rust = { missing_docs = 'warn', unsafe_code = 'allow' }", 1);
    check("loadline-device", "lints.rust = { missing_docs = 'warn', unsafe_code = 'allow' }", 0);
    check("loadline-device", "lints.rust = { unsafe_code = 'allow' }", 1);
    check("loadline-device", "lints.rust = { missing_docs = 'allow' }", 1);
}

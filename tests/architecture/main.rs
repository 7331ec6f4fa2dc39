//! The architecture, asserted: which crate may use which, and what no library may do.
//!
//! The manifests are the drawing and `rules.rs` is the intention; this test keeps
//! the two together. A change of a rule is a design decision, so its line there
//! carries the reason.
#![allow(clippy::unwrap_used, reason = "a test that cannot read the workspace has failed")]

mod graph;
mod lints;
mod rules;
mod sources;

use cargo_metadata::{Metadata, MetadataCommand};

fn workspace() -> Metadata {
    let manifest = loadline_tests::workspace_root().join("Cargo.toml");
    MetadataCommand::new().manifest_path(manifest).no_deps().exec().unwrap()
}

#[track_caller]
fn assert_none(violations: &[String]) {
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

#[test]
fn crates_use_what_their_layer_may() {
    assert_none(&graph::violations(&graph::edges(&workspace())));
}

#[test]
fn every_crate_has_a_layer() {
    assert_none(&graph::unplaced(&graph::names(&workspace())));
}

#[test]
fn core_depends_on_exactly_what_is_listed() {
    assert_none(&graph::core_externals(&graph::edges(&workspace())));
}

#[test]
fn lints_are_the_workspaces() {
    assert_none(&lints::violations(&workspace()));
}

#[test]
fn only_the_listed_crates_are_unsafe() {
    assert_none(&sources::unsafe_uses(&workspace()));
}

#[test]
fn libraries_neither_print_nor_read_the_environment_nor_exit() {
    assert_none(&sources::leaks(&workspace()));
}

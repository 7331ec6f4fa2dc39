//! The edges of the dependency graph against the rules.

use std::collections::BTreeSet;

use cargo_metadata::{DependencyKind, Metadata};

use crate::rules::{CORE, CORE_USES, FENCED, LAYERS, NOBODY_USES};

/// A dependency as a manifest declares it.
pub(crate) struct Edge {
    from: String,
    to: String,
    /// Whether `to` is a crate of this workspace.
    ours: bool,
    /// Whether it is part of what is built, rather than of tests alone.
    ships: bool,
}

pub(crate) fn names(workspace: &Metadata) -> Vec<String> {
    workspace.packages.iter().map(|package| package.name.to_string()).collect()
}

pub(crate) fn edges(workspace: &Metadata) -> Vec<Edge> {
    let declared = workspace.packages.iter().flat_map(|package| {
        package.dependencies.iter().map(move |dependency| Edge {
            from: package.name.to_string(),
            to: dependency.name.clone(),
            ours: dependency.path.is_some(),
            ships: dependency.kind != DependencyKind::Development,
        })
    });
    declared.collect()
}

/// The edges that no rule allows.
pub(crate) fn violations(edges: &[Edge]) -> Vec<String> {
    edges.iter().flat_map(|edge| [upward(edge), to_a_leaf(edge), through_the_fence(edge)]).flatten().collect()
}

/// The crates that the rules do not know.
pub(crate) fn unplaced(names: &[String]) -> Vec<String> {
    let unknown = names.iter().filter(|name| !LAYERS.iter().any(|layer| layer.name == **name));
    unknown.map(|name| format!("{name}: has no line in LAYERS; say what it may use, and why")).collect()
}

/// Where core's dependencies on others' crates and the list of them differ.
pub(crate) fn core_externals(edges: &[Edge]) -> Vec<String> {
    let core = edges.iter().filter(|edge| edge.from == CORE && edge.ships && !edge.ours);
    let used: BTreeSet<&str> = core.map(|edge| edge.to.as_str()).collect();
    let listed: BTreeSet<&str> = CORE_USES.iter().map(|(name, _)| *name).collect();
    let extra = used.difference(&listed).map(|name| format!("{CORE} uses {name}, which is not in CORE_USES"));
    let unused = listed.difference(&used).map(|name| format!("{CORE} does not use {name}; remove it from CORE_USES"));
    extra.chain(unused).collect()
}

fn upward(edge: &Edge) -> Option<String> {
    let layer = LAYERS.iter().find(|layer| layer.name == edge.from)?;
    let allowed = !edge.ours || !edge.ships || layer.may_use.contains(&edge.to.as_str());
    (!allowed).then(|| format!("{} must not use {}: {}", edge.from, edge.to, layer.reason))
}

fn to_a_leaf(edge: &Edge) -> Option<String> {
    let (_, reason) = NOBODY_USES.iter().find(|(leaf, _)| *leaf == edge.to)?;
    Some(format!("{} must not use {}: {reason}", edge.from, edge.to))
}

fn through_the_fence(edge: &Edge) -> Option<String> {
    let (_, users, reason) = FENCED.iter().find(|(fenced, ..)| *fenced == edge.to)?;
    let allowed = users.contains(&edge.from.as_str());
    (!allowed).then(|| format!("{} must not use {}: {reason}", edge.from, edge.to))
}

#[test]
fn an_edge_that_no_rule_allows_is_found() {
    let check = |from: &str, to: &str, ships: bool, expected: &[&str]| {
        let ours = to.starts_with("loadline");
        let found = violations(&[Edge { from: from.to_owned(), to: to.to_owned(), ours, ships }]);
        let starts: Vec<&str> = found.iter().map(|text| text.split(": ").next().unwrap()).collect();
        assert_eq!(starts, expected, "{from} -> {to}");
    };
    check("loadline-sim", "loadline-engine", true, &[]);
    check("loadline-engine", "loadline-sim", true, &["loadline-engine must not use loadline-sim"]);
    check("loadline-engine", "loadline-sim", false, &[]);
    check("loadline-core", "loadline-models", true, &["loadline-core must not use loadline-models"]);
    check("loadline-server", "loadline-nn", true, &["loadline-server must not use loadline-nn"]);
    check("loadline-cli", "loadline-core", true, &[]);
    check("loadline-sim", "loadline-cli", false, &["loadline-sim must not use loadline-cli"]);
    check("loadline-policy", "wasmtime", true, &[]);
    check("loadline", "wasmtime", false, &["loadline must not use wasmtime"]);
    check("loadline-models", "candle-core", true, &["loadline-models must not use candle-core"]);
    check("loadline-core", "rand", true, &[]);
}

#[test]
fn what_core_uses_is_listed_and_what_is_listed_is_used() {
    let edge = |to: &str, ships| Edge { from: CORE.to_owned(), to: to.to_owned(), ours: false, ships };
    let mut edges: Vec<Edge> = CORE_USES.iter().map(|(name, _)| edge(name, true)).collect();
    assert_eq!(core_externals(&edges), [""; 0]);
    edges.push(edge("proptest", false));
    assert_eq!(core_externals(&edges), [""; 0]);
    edges.push(edge("rand", true));
    assert_eq!(core_externals(&edges), ["loadline-core uses rand, which is not in CORE_USES"]);
    edges.retain(|edge| edge.to == "serde");
    assert_eq!(core_externals(&edges).len(), CORE_USES.len() - 1);
}

#[test]
fn a_crate_without_a_layer_is_found() {
    assert_eq!(unplaced(&["loadline-core".to_owned()]), [""; 0]);
    assert_eq!(unplaced(&["loadline-new".to_owned()]).len(), 1);
}

//! The examples in Python and JavaScript, from their sources to plans. `.ci/run` puts the tools that make components of
//! them into `target/ci`; where they are not to be had, a line says what was left out.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::disallowed_methods)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// A program in a folder that `.ci/run` filled, or that an environment variable names.
fn tool(variable: &str, usual: &str, program: &str) -> Option<PathBuf> {
    let folder = std::env::var_os(variable).map_or_else(|| root().join("target/ci").join(usual), PathBuf::from);
    let path = folder.join(program);
    let there = path.is_file();
    if !there {
        eprintln!("left out: there is no {}; .ci/run fetches it, or {variable} names its folder", path.display());
    }
    there.then_some(path)
}

/// Runs a tool to a good end.
fn done(command: &mut Command) -> Output {
    let out = command.env("PYTHONDONTWRITEBYTECODE", "1").output().unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(out.status.success(), "{command:?}: {}{}", said(&out.stdout), said(&out.stderr));
    out
}

fn loadline(dir: &Path, args: &[&str]) -> Vec<u8> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadline"));
    done(command.current_dir(dir).env("LOADLINE_CACHE", dir.join("cache")).args(args)).stdout
}

/// A component that imports nothing but the contract, is admitted (which asks everything twice and compares plans and
/// fuel, and checks each plan), and plans two models.
fn works(dir: &Path, name: &str) {
    let shown: Value = serde_json::from_slice(&loadline(dir, &["policy", "show", "it.wasm", "--json"])).unwrap();
    assert_eq!(shown["name"], name);
    let imports: Vec<&str> = shown["imports"].as_array().unwrap().iter().map(|i| i.as_str().unwrap()).collect();
    assert!(imports.iter().all(|import| import.starts_with("loadline:policy/")), "{imports:?}");
    loadline(dir, &["policy", "check", "it.wasm"]);
    for model in ["wan2.1-t2v-14b", "flux.1-dev"] {
        let plan = ["plan", model, "--gpu", "rtx-3060-12gb", "--policy", "it.wasm", "--json"];
        assert_eq!(loadline(dir, &plan), loadline(dir, &plan), "{model}");
    }
}

#[test]
fn the_example_in_python() {
    let Some(componentize) = tool("LOADLINE_PYTHON_VENV", "python", "bin/componentize-py") else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut build = Command::new(componentize);
    build.current_dir(root().join("plugins/python"));
    build.args(["-d", "../../wit/policy@0.1.0", "-w", "memory-policy", "componentize", "--stub-wasi"]);
    done(build.args(["-p", ".", "-p", "examples/frugal", "frugal", "-o"]).arg(dir.path().join("it.wasm")));
    works(dir.path(), "frugal");
}

#[test]
fn the_example_in_javascript() {
    let cli = "@bytecodealliance/componentize-js/src/cli.js";
    let Some(componentize) = tool("LOADLINE_NODE_MODULES", "js/node_modules", cli) else { return };
    let dir = tempfile::tempdir().unwrap();
    let sdk = root().join("plugins/js");
    let mut build = Command::new("node");
    build.current_dir(&sdk).arg(componentize).arg(sdk.join("examples/stall-guided/component.js"));
    build.args(["-w", "../../wit/policy@0.1.0", "-n", "memory-policy"]);
    build.args(["-d", "stdio", "random", "clocks", "http", "fetch-event", "-o"]).arg(dir.path().join("it.wasm"));
    done(&mut build);
    works(dir.path(), "stall-guided");
}

/// The tests of an SDK, in the language's own interpreter.
fn natively(program: &str, folder: &str, args: &[&str]) {
    if Command::new(program).arg("--version").output().is_err() {
        eprintln!("left out: there is no {program} on the path");
        return;
    }
    done(Command::new(program).current_dir(root().join(folder)).args(args));
}

#[test]
fn the_sdk_in_python() {
    natively("python3", "plugins/python", &["-m", "unittest", "discover", "-s", "tests"]);
}

#[test]
fn the_sdk_in_javascript() {
    natively("node", "plugins/js", &["--test", "tests/sdk.test.js"]);
}

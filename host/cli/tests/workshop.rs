//! A policy from `policy new` to a plan: projects, builds, and what is installed.
#![allow(clippy::print_stderr, clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{expect, files, names};

/// A folder to work in, with a place for installed policies and for compiled code of its own.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Runs a command in a folder of this place.
    fn run_in(&self, folder: &str, args: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadline"));
        command
            .env("LOADLINE_POLICIES", self.path().join("installed"))
            .env("LOADLINE_CACHE", self.path().join("cache"));
        command.current_dir(self.path().join(folder)).args(args.split_whitespace()).output().unwrap()
    }

    fn run(&self, args: &str) -> Output {
        self.run_in("", args)
    }

    /// Runs a command where no program is on the path.
    fn without_tools(&self, args: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadline"));
        command.current_dir(self.path()).env("PATH", "").args(args.split_whitespace()).output().unwrap()
    }

    /// Runs a command that succeeds, and returns what it printed.
    #[track_caller]
    fn done(&self, args: &str) -> String {
        let out = self.run(args);
        expect(&out, 0, &[]);
        String::from_utf8(out.stdout).unwrap()
    }

    /// The hash of what is installed under a name.
    fn hashes(&self, name: &str) -> Vec<String> {
        let files = names(&self.path().join("installed"));
        let hash = |file: &String| Some(file.strip_prefix(name)?.strip_prefix('@')?.strip_suffix(".wasm")?.to_owned());
        files.iter().filter_map(hash).collect()
    }
}

/// A component that ships, as a file of somebody.
fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../policies/components/{name}.wasm"))
}

/// Whether this machine can compile to WebAssembly. Where it cannot, a test of building proves nothing and says so.
fn can_build() -> bool {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output();
    let sysroot = sysroot.map(|out| String::from_utf8_lossy(&out.stdout).trim_end().to_owned()).unwrap_or_default();
    let there = Path::new(&sysroot).join("lib/rustlib/wasm32-unknown-unknown/lib").is_dir();
    if !there {
        eprintln!("SKIPPED: rustup target add wasm32-unknown-unknown");
    }
    there
}

#[test]
fn a_project_is_built_from_anywhere_to_the_same_bytes_and_plans() {
    if !can_build() {
        return;
    }
    let place = Place::new();
    place.done("policy new frugal --lang rust");
    place.done("policy new frugal --lang rust --dir deep/er/project");
    let said = place.done("policy build frugal");
    for part in ["frugal 0.1.0", "frugal/frugal.wasm", "loadline:policy/host@0.1.0", "no WASI", "policy check"] {
        assert!(said.contains(part), "no '{part}' in: {said}");
    }
    expect(&place.run_in("deep/er/project", "policy build"), 0, &["Compiling"]);
    let built = fs::read(place.path().join("frugal/frugal.wasm")).unwrap();
    assert!(built == fs::read(place.path().join("deep/er/project/frugal.wasm")).unwrap(), "the folder is in the bytes");
    assert!(built.len() < 100_000, "{} bytes", built.len());
    let lock = |project: &str| fs::read_to_string(place.path().join(project).join("Cargo.lock")).unwrap();
    assert!(lock("frugal").contains("name = \"frugal\""), "{}", lock("frugal"));

    let plan = "plan wan2.1-t2v-14b --gpu rtx-3060-12gb --frames 17 --steps 4 --set slots=3 --policy";
    let by_path = place.done(&format!("{plan} ./frugal/frugal.wasm"));
    assert!(by_path.contains("with frugal 0.1.0") && by_path.contains("through 3 slots"), "{by_path}");
    place.done("policy install frugal/frugal.wasm");
    assert_eq!(place.done(&format!("{plan} frugal")), by_path);
}

/// A new project in the folder `frugal`, with its source and the path of that; nothing where it could not be built.
fn project() -> Option<(Place, PathBuf, String)> {
    if !can_build() {
        return None;
    }
    let place = Place::new();
    place.done("policy new frugal --lang rust");
    let path = place.path().join("frugal/src/lib.rs");
    let source = fs::read_to_string(&path).unwrap();
    Some((place, path, source))
}

/// The tests of a project that run a program of this path.
fn cargo_test(place: &Place, program: &Path) -> Output {
    let mut cargo = Command::new("cargo");
    cargo.env("LOADLINE", program).env("LOADLINE_CACHE", place.path().join("cache"));
    cargo.current_dir(place.path().join("frugal")).args(["test", "--release", "--quiet", "--no-fail-fast"]);
    cargo.env_remove("RUSTFLAGS").output().unwrap()
}

fn this_program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_loadline"))
}

#[test]
fn a_project_passes_its_own_tests() {
    let Some((place, ..)) = project() else { return };
    let out = cargo_test(&place, this_program());
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// What only the component does is nothing that a native test of the source alone could find.
#[test]
fn a_component_that_differs_from_its_source_fails_the_projects_tests() {
    let Some((place, source, good)) = project() else { return };
    let slots = "u32::try_from(s.count(\"slots\")).unwrap_or(1)";
    assert!(good.contains(slots), "{good}");
    // As many slots natively as tests expect, and one more elsewhere.
    fs::write(&source, good.replace(slots, &format!("{slots} + u32::from(cfg!(target_arch = \"wasm32\"))"))).unwrap();
    let out = cargo_test(&place, this_program());
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(!out.status.success(), "{said}");
    // The library's own tests pass; what is compared is shown up to where it differs.
    for part in ["test result: ok. 2 passed", "scenario refused, decision ", "  decision 1: homes["] {
        assert!(said.contains(part), "no '{part}' in: {said}");
    }
    assert!(said.contains("in the component") && said.contains("in the library"), "{said}");
}

#[test]
fn a_project_without_the_program_says_which_it_lacks() {
    let Some((place, ..)) = project() else { return };
    let out = cargo_test(&place, &place.path().join("gone"));
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(said.contains("cannot start '") && said.contains("set LOADLINE to the path"), "{said}");
}

#[test]
fn what_a_policy_says_is_written_down_word_for_word() {
    let place = Place::new();
    place.done("policy new frugal --lang python");
    let record = "policy record frugal --policy";
    let said = place.done(&format!("{record} auto-tune --set most_slots=2"));
    assert_eq!(said, place.done(&format!("{record} auto-tune --set most_slots=2")));
    let words: Vec<&str> = said.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(words[..3], ["loadline-transcript/1", "scenario", "description"]);
    for word in ["situation", "probe", "forecast", "reply", "decision", "fuel"] {
        assert!(words.contains(&word), "no {word}");
    }
    assert!(said.contains("{key: \"most_slots\", value: integer(2)}"), "the setting is not in the situation");
    assert_eq!(words.iter().filter(|word| **word == "scenario").count(), 3);
    expect(&place.run(&format!("{record} nobody")), 6, &["there is no policy 'nobody'"]);
    expect(&place.run("policy record frugal"), 6, &["run `loadline policy build`"]);
    expect(&place.run(&format!("{record} auto-tune --set most_slot=2")), 6, &["did you mean 'most_slots'?"]);
}

#[test]
fn a_build_that_fails_shows_why_and_what_to_type() {
    let Some((place, source, good)) = project() else { return };
    let manifest = place.path().join("frugal/Cargo.toml");
    let good_manifest = fs::read_to_string(&manifest).unwrap();
    fs::write(&source, good.replace("Decision::Plan(plan)", "Decision::Plam(plan)")).unwrap();
    expect(&place.run("policy build frugal"), 6, &["error[E0599]", "Plam", "run `loadline policy build frugal`"]);
    fs::write(&source, good.replace("export_policy!(MyPolicy);", "")).unwrap();
    expect(&place.run("policy build frugal"), 6, &["export_policy!"]);
    fs::write(&manifest, good_manifest.replace("\"cdylib\", ", "")).unwrap();
    expect(&place.run("policy build frugal"), 6, &["Cargo.toml", "crate-type"]);
    fs::write(&manifest, "[package\n").unwrap();
    expect(&place.run("policy build frugal"), 6, &["Cargo.toml"]);
    assert!(!place.path().join("frugal/frugal.wasm").exists());
}

#[test]
fn a_missing_tool_is_named_with_the_way_to_get_it() {
    let place = Place::new();
    place.done("policy new frugal --lang rust");
    let out = place.without_tools("policy build frugal");
    // Debian's own compiler lies in a fixed place, and does where it is installed.
    if !Path::new("/usr/bin/rustc").exists() {
        expect(&out, 6, &["needs Rust", "https://rustup.rs", "rustup target add wasm32-unknown-unknown", "apt-get"]);
    }
    expect(&place.run("policy build ."), 6, &["holds no policy's project", "loadline policy new"]);
}

#[test]
fn names_that_no_policy_may_have_are_refused() {
    let place = Place::new();
    let check = |name: &str, reason: &str| {
        expect(&place.run(&format!("policy new {name} --lang rust")), 2, &[reason]);
    };
    check("a/b", "use 1 to 64 letters, digits, '-' and '_'");
    check("..", "use 1 to 64 letters");
    check(&"x".repeat(65), "use 1 to 64 letters");
    check("threshold", "a built-in policy has this name");
    expect(&place.run("policy new mine --lang cobol"), 2, &["rust, python or js"]);
    assert_eq!(names(place.path()), [""; 0]);
}

#[test]
fn nothing_is_overwritten() {
    let place = Place::new();
    fs::create_dir(place.path().join("mine")).unwrap();
    fs::write(place.path().join("mine/notes.txt"), "dear diary").unwrap();
    let before = files(place.path());
    expect(&place.run("policy new mine --lang rust"), 10, &["mine is not empty", "--dir"]);
    expect(&place.run("policy new mine --lang rust --dir mine/notes.txt"), 10, &["mine/notes.txt"]);
    assert_eq!(files(place.path()), before);
    place.done("policy new mine --lang rust --dir other");
    expect(&place.run("policy new mine --lang rust --dir other"), 10, &["other is not empty"]);
}

#[test]
fn policies_are_installed_listed_shown_and_taken_away() {
    let place = Place::new();
    assert!(place.done("policy list").contains("none is installed"));
    let file = shipped("lazy-load");
    let said = place.done(&format!("policy install {}", file.display()));
    assert!(said.contains("a built-in policy is called lazy-load, too"), "{said}");
    let [hash] = &place.hashes("lazy-load")[..] else { panic!("{said}") };
    let reference = format!("lazy-load@{hash}");
    assert!(said.contains(&format!("--policy {reference}")), "{said}");
    assert!(place.done(&format!("policy install {}", file.display())).contains("is installed already"));

    let listed = place.done("policy list");
    assert!(
        listed.lines().any(|line| line.starts_with(&reference) && line.ends_with("compiled, installed")),
        "{listed}"
    );
    let shown = place.done(&format!("policy show lazy-load@{}", &hash[..8]));
    for part in ["granularity", "component", "one of component, block", "64.0 MiB", "taken from the cache", hash] {
        assert!(shown.contains(part), "no '{part}' in: {shown}");
    }
    let json = place.done("policy show lazy-load --json");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((json["name"].as_str(), json["cached"].as_bool()), (Some("lazy-load"), Some(true)));
    assert_eq!(json["settings"]["properties"]["prefetch"]["default"], 1);

    let fails = |args: &str, parts: &[&str]| expect(&place.run(args), 6, parts);
    fails("policy uninstall threshold", &["'threshold' is built into the program"]);
    fails("policy uninstall mine", &["no policy 'mine' is installed", &reference]);
    fails("policy uninstall lazy-load@00000000", &["no policy 'lazy-load@00000000' is installed"]);
    fails("policy show lazy-load@00000000", &["there is no policy lazy-load@00000000", &reference]);
    fails("policy show lazy-load@0000", &["at least 8 hexadecimal digits"]);
    assert!(place.done(&format!("policy uninstall {reference}")).contains("uninstalled"));
    fails(&format!("policy uninstall {reference}"), &["no policy", "none is; `loadline policy install FILE`"]);
    fails("policy uninstall lazy-load", &["is built into the program"]);
}

#[test]
fn a_damaged_install_is_told_and_never_loaded() {
    let place = Place::new();
    let file = shipped("lazy-load");
    place.done(&format!("policy install {}", file.display()));
    let [hash] = &place.hashes("lazy-load")[..] else { panic!("nothing is installed") };
    let reference = format!("lazy-load@{hash}");
    let installed = place.path().join(format!("installed/{reference}.wasm"));
    // Another policy, whole but not the one of that hash.
    fs::copy(shipped("threshold"), &installed).unwrap();
    // The built-in policy of that name and hash is still there; nothing asks the file.
    assert!(place.done(&format!("policy show {reference}")).contains("built in"));
    let renamed = place.path().join(format!("installed/other@{hash}.wasm"));
    fs::rename(&installed, &renamed).unwrap();
    expect(&place.run("policy show other"), 6, &["is damaged", "policy uninstall"]);
    assert!(place.done("policy list").contains("cannot be used: the installed policy other@"));
    place.done("policy uninstall other");
    assert_eq!(place.hashes("other"), [""; 0]);
}

#[test]
fn what_is_no_policy_is_not_installed() {
    let place = Place::new();
    let check = |name: &str, bytes: &[u8], reason: &str| {
        fs::write(place.path().join(name), bytes).unwrap();
        expect(&place.run(&format!("policy install {name}")), 6, &[name, reason]);
    };
    check("text.wasm", b"#!/bin/sh\n", "this is no policy");
    check("core.wasm", b"\0asm\x01\0\0\0", "it is a core module");
    expect(&place.run("policy install ."), 6, &["this is no ordinary file"]);
    expect(&place.run("policy install gone.wasm"), 10, &["gone.wasm"]);
    assert!(!place.path().join("installed").exists());
}

/// The texts beside the scenarios of new projects are what the program says today.
///
/// `LOADLINE_BLESS=1 cargo test --release -p loadline-cli --test workshop` writes them anew.
#[test]
fn a_project_passes_its_own_scenarios() {
    if !can_build() {
        return;
    }
    let place = Place::new();
    place.done("policy new my-policy --lang rust --dir project");
    place.done("policy build project");
    if std::env::var_os("LOADLINE_BLESS").is_some() {
        expect(&place.run_in("project", "policy test --bless"), 0, &[]);
        let texts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/scenarios");
        for name in names(&place.path().join("project/scenarios")).iter().filter(|name| name.ends_with(".snap.txt")) {
            fs::copy(place.path().join("project/scenarios").join(name), texts.join(name)).unwrap();
        }
        return;
    }
    expect(&place.run_in("project", "policy test"), 0, &[]);
}

/// A project in a language whose tools may not be here: its own tests run with `interpreter`; it is built, and passes
/// the scenarios of the one in Rust, if `tools` names a folder that is put into the project as `link`.
fn project_in(language: &str, interpreter: &[&str], tools: &str, link: &str) {
    let place = Place::new();
    place.done(&format!("policy new my-policy --lang {language} --dir project"));
    let project = place.path().join("project");
    let mut tests = Command::new(interpreter[0]);
    match tests.args(&interpreter[1..]).current_dir(&project).env("PYTHONDONTWRITEBYTECODE", "1").output() {
        Ok(out) => assert!(out.status.success(), "{language}: {}", String::from_utf8_lossy(&out.stderr)),
        Err(error) => eprintln!("SKIPPED: the tests of the template: {}: {error}", interpreter[0]),
    }
    let Some(tools) = std::env::var_os(tools) else {
        expect(&place.without_tools("policy build project"), 6, &["building this policy needs"]);
        return eprintln!("SKIPPED: building it: {tools} names no folder");
    };
    std::os::unix::fs::symlink(tools, project.join(link)).unwrap();
    place.done("policy build project");
    expect(&place.run_in("project", "policy test"), 0, &[]);
    expect(&place.run_in("project", "policy check my-policy.wasm"), 0, &[]);
}

#[test]
fn a_project_in_python_passes_its_own_tests() {
    let tests = ["python3", "-m", "unittest", "discover", "-s", "tests"];
    project_in("python", &tests, "LOADLINE_PYTHON_VENV", ".venv");
}

#[test]
fn a_project_in_javascript_passes_its_own_tests() {
    project_in("js", &["node", "--test"], "LOADLINE_NODE_MODULES", "node_modules");
}

/// The score of a component on the quick corpus, with one digit.
fn score(place: &Place, component: &str) -> String {
    let board = place.done(&format!("policy bench ./{component} --json"));
    let board: serde_json::Value = serde_json::from_str(&board).unwrap();
    let rows = board["policies"].as_array().unwrap();
    let row = rows.iter().find(|row| row["policy"] == "widest").unwrap_or_else(|| panic!("{board}"));
    format!("{:.1}", 100.0 * row["score"].as_f64().unwrap())
}

/// The blocks of Rust in the tutorial: `decide` and `plan` of its second step, and all of its third.
fn listings() -> Vec<String> {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/writing-a-policy.md")).unwrap();
    text.split("```rust\n").skip(1).map(|part| part.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn the_tutorial_ends_in_the_rows_that_it_says() {
    if !can_build() {
        return;
    }
    let place = Place::new();
    place.done("policy new widest --lang rust");
    let source = place.path().join("widest/src/lib.rs");
    let settings = place.path().join("widest/src/settings.json");
    let [decide, plan, whole] = &listings()[..] else { panic!("the tutorial has three listings") };
    let template = fs::read_to_string(&source).unwrap();
    let (head, rest) = template.split_once("    fn decide").unwrap();
    let end = "\nexport_policy!(MyPolicy);\n";
    assert!(rest.ends_with(end));
    let names = "Refusal, Situation, StagePlan, StageView,";
    assert!(head.contains(names), "{head}");
    let head = head.replace(names, "Plan, Refusal, Situation, StagePlan,");
    let mut scores = Vec::new();
    for step in [template.clone(), format!("{head}{decide}}}\n\n{plan}{end}"), whole.clone()] {
        fs::write(&source, step).unwrap();
        place.done("policy build widest");
        scores.push(score(&place, "widest/widest.wasm"));
        let wide = fs::read_to_string(&settings).unwrap().replace("\"default\": 2", "\"default\": 8");
        fs::write(&settings, wide).unwrap();
    }
    let tutorial = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/writing-a-policy.md"));
    let tutorial = tutorial.unwrap();
    let said = [format!("a score of {}", scores[0]), format!("says {}", scores[1]), format!("That is {}", scores[2])];
    said.iter().for_each(|words| assert!(tutorial.contains(words), "the tutorial does not say '{words}': {scores:?}"));
    place.done("policy check widest/widest.wasm");
}

//! The page for people who come from other tools is true: every command on it plans or runs, every example is what is
//! printed, and every preset has its place there.
//!
//! `LOADLINE_BLESS=1 cargo test --release -p loadline-cli --test migration` writes the examples anew.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::fixture;

const BEGIN: &str = "```console\n";
const END: &str = "```";

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/migration.md")
}

/// The words of a command; quotes hold some together.
fn words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for letter in command.chars() {
        match letter {
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            other => words.last_mut().unwrap().push(other),
        }
    }
    words.into_iter().skip(1).filter(|word| !word.is_empty()).collect()
}

fn play(command: &str, dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadline")).current_dir(dir).args(words(command)).output().unwrap()
}

/// The commands between single backquotes, outside of examples.
fn commands(text: &str) -> Vec<&str> {
    let prose =
        text.split(BEGIN).enumerate().map(|(n, part)| if n == 0 { part } else { part.split_once(END).unwrap().1 });
    let spans = prose.flat_map(|part| part.split('`').skip(1).step_by(2));
    spans.filter(|span| span.starts_with("loadline ") && span.len() > "loadline plan ".len()).collect()
}

/// A command as it can be run here: with a tiny model, and little to do.
fn concrete(command: &str) -> String {
    let tiny = command.replace("FOLDER", fixture().to_str().unwrap()).replace("FILE", "jobs.jsonl");
    match command.starts_with("loadline run") {
        true => format!("{tiny} --size 64x48 --frames 5 --steps 1"),
        false => tiny,
    }
}

#[test]
fn every_command_works() {
    let text = fs::read_to_string(page()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("jobs.jsonl"), "{\"prompt\": \"cat\", \"output\": \"a.png\", \"frames\": 1}\n").unwrap();
    let commands = commands(&text);
    assert!(commands.len() > 40, "{}", commands.len());
    for command in commands {
        let out = play(&concrete(command), dir.path());
        assert_eq!(out.status.code(), Some(0), "{command}: {}", String::from_utf8_lossy(&out.stderr));
        assert!(!out.stdout.is_empty(), "{command}");
    }
}

#[test]
fn examples_are_what_is_printed() {
    let text = fs::read_to_string(page()).unwrap();
    let mut parts = text.split(BEGIN);
    let mut new = parts.next().unwrap().to_owned();
    for part in parts {
        let (example, rest) = part.split_once(END).unwrap();
        let command = example.lines().next().unwrap();
        let out = play(command.strip_prefix("$ ").unwrap(), Path::new("."));
        let printed = String::from_utf8(out.stdout).unwrap();
        let lines: Vec<_> = printed.trim_end().lines().map(str::trim_end).collect();
        new.extend([BEGIN, command, "\n", &lines.join("\n"), "\n", END, rest]);
    }
    if std::env::var_os("LOADLINE_BLESS").is_some() {
        fs::write(page(), new).unwrap();
        return;
    }
    assert!(new == text, "docs/migration.md differs from what is printed now:\n{new}");
}

#[test]
fn every_preset_is_on_the_page() {
    let text = fs::read_to_string(page()).unwrap();
    for name in loadline::presets::names() {
        let typed = [format!("--preset {name}"), format!("--preset {}", name.replace('-', "_"))];
        assert!(typed.iter().any(|typed| text.contains(typed)), "'{name}' is not on the page");
    }
}

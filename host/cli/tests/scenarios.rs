//! What people see, word for word: each file in `tests/scenarios` holds a command and everything that it prints.
//!
//! `LOADLINE_BLESS=1 cargo test --release -p loadline-cli --test scenarios` writes the files anew; read the difference
//! before you commit it. Scenarios name GPUs, whose forecasts are the same on every machine.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn scenarios() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/scenarios");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files
}

/// The command, what it prints, and how it ends.
fn play(command: &str) -> String {
    let words = command.strip_prefix("$ loadline ").unwrap_or_else(|| panic!("'{command}' is no command"));
    let output = Command::new(env!("CARGO_BIN_EXE_loadline")).args(words.split_whitespace()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    let printed = [text(&output.stdout), text(&output.stderr)].into_iter().filter(|t| !t.is_empty());
    let printed: Vec<_> = printed.collect();
    format!("{command}\n{}\nexit {}\n", printed.join("\n"), output.status.code().unwrap_or(-1))
}

#[test]
fn programs_say_what_the_scenarios_say() {
    let bless = std::env::var_os("LOADLINE_BLESS").is_some();
    let files = scenarios();
    assert!(files.len() >= 8, "the scenarios are gone");
    for file in files {
        let expected = fs::read_to_string(&file).unwrap();
        let got = play(expected.lines().next().unwrap());
        if bless {
            fs::write(&file, got).unwrap();
        } else {
            assert!(got == expected, "{} differs; it prints now:\n{got}", file.display());
        }
    }
}

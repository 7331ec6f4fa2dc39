//! The examples of the README are what the program prints: every block of ```` ```console ```` that begins with
//! `$ loadline` is run, and compared line by line.
//!
//! `LOADLINE_BLESS=1 cargo test --release -p loadline-cli --test readme` writes the README anew; read the difference
//! before you commit it. Examples name GPUs, whose forecasts are the same on every machine.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::fs;
use std::path::Path;
use std::process::Command;

const BEGIN: &str = "```console\n";
const END: &str = "```";

/// What a command prints on both streams. A remark after `#` is for people.
fn play(command: &str) -> String {
    let words = command.strip_prefix("$ loadline ").unwrap_or_else(|| panic!("'{command}' is no command"));
    let words = words.split('#').next().unwrap().split_whitespace();
    let output = Command::new(env!("CARGO_BIN_EXE_loadline")).args(words).output().unwrap();
    let printed = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    let lines: Vec<_> = printed.iter().flat_map(|text| text.trim_end().lines()).map(str::trim_end).collect();
    format!("{command}\n{}\n", lines.join("\n"))
}

/// The text with every example as it is printed now, and how many there are.
fn played(text: &str) -> (String, usize) {
    let mut parts = text.split(BEGIN);
    let mut new = parts.next().unwrap().to_owned();
    let mut count = 0;
    for part in parts {
        let (example, rest) = part.split_once(END).expect("a block of code ends");
        let command = example.lines().next().unwrap();
        new.extend([BEGIN, &play(command), END, rest]);
        count += 1;
    }
    (new, count)
}

#[test]
fn examples_are_what_the_program_prints() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let text = fs::read_to_string(&file).unwrap();
    let (new, count) = played(&text);
    assert!(count >= 2, "the examples are gone");
    if std::env::var_os("LOADLINE_BLESS").is_some() {
        fs::write(&file, new).unwrap();
        return;
    }
    let differs = text.lines().zip(new.lines()).position(|(a, b)| a != b);
    let place = differs.map(|n| (n + 1, new.lines().nth(n).unwrap()));
    assert!(text == new, "README.md differs from what is printed, first at line {place:?}");
}

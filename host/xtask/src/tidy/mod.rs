//! What neither rustfmt nor clippy looks at: white space, lengths, leftovers, and the files a reader counts on.
//!
//! A rule takes files as text and answers with problems, so each is tested on a few lines.

mod file;
pub(crate) mod lists;
mod tree;

use std::fmt;
use std::path::Path;
use std::process::Command;

use crate::{Outcome, Stop, shell};

/// A file that git tracks, or would track.
struct File {
    /// Relative to the workspace, with `/`.
    path: String,
    bytes: u64,
    /// None for a binary file.
    text: Option<String>,
}

impl File {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

/// One thing to put right.
#[derive(Debug, PartialEq, Eq)]
struct Problem {
    path: String,
    line: Option<usize>,
    text: String,
}

impl Problem {
    fn new(path: &str, line: Option<usize>, text: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, text: text.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.path, self.text),
            None => write!(f, "{}: {}", self.path, self.text),
        }
    }
}

/// Checks every file that git tracks, and every new one that it does not ignore.
///
/// # Errors
/// When a rule finds something (each finding is in the text, one a line), or git cannot be asked.
pub fn run(root: &Path) -> Outcome {
    let files = files(root)?;
    let mut problems: Vec<Problem> = files.iter().flat_map(file::problems).collect();
    problems.extend(tree::problems(&files));
    if problems.is_empty() {
        println!("tidy: {} files", files.len());
        return Ok(());
    }
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    Err(Stop::failed(format!("{}\ntidy: {} problems", lines.join("\n"), lines.len())))
}

fn files(root: &Path) -> Outcome<Vec<File>> {
    let mut git = Command::new("git");
    git.current_dir(root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"]);
    let listing = shell::output(&mut git)?;
    let paths = listing.split('\0').filter(|path| !path.is_empty() && root.join(path).is_file());
    paths.map(|path| read(root, path)).collect()
}

fn read(root: &Path, path: &str) -> Outcome<File> {
    let bytes = std::fs::read(root.join(path)).map_err(|error| Stop::failed(format!("cannot read {path}: {error}")))?;
    let size = bytes.len() as u64;
    let text = String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
    Ok(File { path: path.to_owned(), bytes: size, text })
}

#[cfg(test)]
fn text_file(path: &str, text: &str) -> File {
    File { path: path.to_owned(), bytes: text.len() as u64, text: Some(text.to_owned()) }
}

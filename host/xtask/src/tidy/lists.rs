//! What `tidy` forbids and what it lets pass, each with its reason.
//!
//! The two lists of long files and functions are ratchets: an entry that has
//! become shorter must be lowered or removed, so they can only shrink.

/// A line of Rust is at most this long, in characters. A line with a string is exempt: the formatter does not break
/// strings, and a message reads best in one piece.
pub(super) const LINE_CHARS: usize = 120;
/// A Rust file that needs more lines is two modules.
pub(super) const FILE_LINES: usize = 500;
/// A function that needs more lines is two functions.
pub(super) const FUNCTION_LINES: usize = 70;
/// A file larger than this makes every clone slow for ever.
pub(super) const FILE_BYTES: u64 = 1 << 20;

/// Something that may exceed its limit, up to `size`.
pub(super) struct Exception {
    /// A path, or `path::function`.
    pub(super) what: &'static str,
    /// Its present size; it may not grow.
    pub(super) size: u64,
    /// Why it is better long than split.
    pub(super) reason: &'static str,
}

/// Rust files longer than [`FILE_LINES`].
pub(super) const LONG_FILES: &[Exception] = &[];
/// Functions longer than [`FUNCTION_LINES`].
pub(super) const LONG_FUNCTIONS: &[Exception] = &[];
/// Files larger than [`FILE_BYTES`].
pub(super) const LARGE_FILES: &[Exception] = &[Exception {
    what: "tests/fixtures/wan_t2v/golden.safetensors",
    size: 2_309_588,
    reason: "every intermediate tensor of the reference, which parity is proven against",
}];

/// Macros that mark unfinished work or a forgotten look.
pub(super) const MACROS: &[&str] = &["todo!", "unimplemented!", "dbg!"];

/// Texts that mean something only to whoever typed them, with what is wrong about each.
pub(super) const WORDS: &[(&str, &str)] = &[
    ("/work/", "a path of one machine"),
    ("/tmp/", "a path of one machine; ask the system for its temporary folder"),
    ("/root/", "a path of one machine"),
    ("helper agent", "how the text came about is not the reader's business"),
    ("subagent", "how the text came about is not the reader's business"),
    ("TODO", "unfinished work belongs to the issue tracker"),
    ("FIXME", "unfinished work belongs to the issue tracker"),
];

/// The one file that has to spell [`WORDS`] out.
pub(super) const WORDS_EXEMPT: &str = "host/xtask/src/tidy/lists.rs";

/// Published data in folders of such names keeps its own white space.
pub(super) const FIXTURES: [&str; 2] = ["/fixtures/", "/data/"];

/// The command that the README gives for the tests. CI runs this one and no other, so the README cannot rot.
pub(crate) const TEST_COMMAND: &str = "cargo test --release --workspace";

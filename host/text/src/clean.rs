//! Wan's prompt cleaning: ftfy, HTML unescaped twice, white space collapsed.
//!
//! The reference calls ftfy 6 with its defaults (where it is installed). Done here: terminal escapes, C1 controls,
//! Latin ligatures, character width, straight quotes, line breaks, control characters, NFC, and HTML references in text
//! without a `<`. **Not done: mojibake repair** (`fix_encoding`), which guesses from statistics of wrongly decoded text
//! (as `cafÃ©` for `café`). Such a prompt is encoded as it stands, and so gives other ids than the reference.

use unicode_normalization::UnicodeNormalization;

use crate::entities::{Entities, windows_1252};

/// Cleans a prompt as Wan's pipelines do before they encode it.
///
/// The result has no control characters, no line breaks, and single spaces between words.
pub fn clean_prompt(text: &str) -> String {
    let entities = Entities::new();
    let fixed = fix_text(text, &entities);
    let plain = entities.unescape(&entities.unescape(&fixed));
    let words: Vec<&str> = plain.split(is_python_space).filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

/// White space of Python's `\s`, which also counts the four information separators.
fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// ftfy's fixes line by line. A `<` switches unescaping off for the rest of the text.
fn fix_text(text: &str, entities: &Entities) -> String {
    let mut unescape = true;
    let fix = |line: &str| {
        unescape &= !line.contains('<');
        fix_line(line, unescape, entities)
    };
    text.split_inclusive('\n').map(fix).collect()
}

/// Repeats the fixes until they change nothing: one may reveal work for another.
fn fix_line(line: &str, unescape: bool, entities: &Entities) -> String {
    let mut text = line.to_owned();
    loop {
        let unescaped = if unescape { unescape_strictly(&text, entities) } else { text.clone() };
        let mapped: String = unescaped.chars().flat_map(fix_char).collect();
        let lines = mapped.replace("\r\n", "\n").replace(['\r', '\u{2028}', '\u{2029}', '\u{85}'], "\n");
        let printable: String = remove_terminal_escapes(&lines).chars().filter(|c| !is_control(*c)).collect();
        let fixed: String = printable.nfc().collect();
        if fixed == text {
            return fixed;
        }
        text = fixed;
    }
}

/// The fixes that look at one character: C1 controls, ligatures, width, quotes.
fn fix_char(c: char) -> Vec<char> {
    match c {
        '\u{80}'..='\u{9f}' => windows_1252(c.into()).map_or_else(|| vec![c], fix_quote),
        '\u{132}' => vec!['I', 'J'],
        '\u{133}' => vec!['i', 'j'],
        '\u{149}' => vec!['\'', 'n'],
        '\u{1c4}'..='\u{1cc}' | '\u{1f1}'..='\u{1f3}' => compatible(c).nfc().collect(),
        '\u{fb05}' => vec!['\u{17f}', 't'],
        '\u{fb00}'..='\u{fb06}' | '\u{3000}' | '\u{ff01}'..='\u{ffef}' => compatible(c).flat_map(fix_quote).collect(),
        _ => fix_quote(c),
    }
}

fn compatible(c: char) -> impl Iterator<Item = char> + Clone {
    let decomposed: Vec<char> = std::iter::once(c).nfkc().collect();
    decomposed.into_iter()
}

fn fix_quote(c: char) -> Vec<char> {
    match c {
        '\u{2bc}' | '\u{2018}'..='\u{201b}' => vec!['\''],
        '\u{201c}'..='\u{201f}' => vec!['"'],
        _ => vec![c],
    }
}

/// ftfy's list of characters that are never meant.
fn is_control(c: char) -> bool {
    matches!(c,
        '\0'..='\x08' | '\x0b' | '\x0e'..='\x1f' | '\x7f'
            | '\u{206a}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffc}')
}

/// Removes `ESC [ digits and semicolons letter`.
fn remove_terminal_escapes(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let after = part.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        match after.strip_prefix(|c: char| c.is_ascii_alphabetic()) {
            Some(rest) => result.push_str(rest),
            None => result.extend(["\x1b[", part]),
        }
    }
    result
}

/// Most letters of a reference that ftfy considers.
const STRICT_NAME_MAX: usize = 24;

/// Replaces references that end in a semicolon, and names of lower-case letters that someone wrote in capitals.
fn unescape_strictly(text: &str, entities: &Entities) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        result.push_str(&rest[..at]);
        rest = &rest[at..];
        let length = strict_length(rest).unwrap_or(1);
        let (reference, after) = rest.split_at(length);
        result.push_str(&strict_replacement(reference, entities));
        rest = after;
    }
    result.push_str(rest);
    result
}

/// Bytes of `&name;` or `&#number;` at the start of `text`.
fn strict_length(text: &str) -> Option<usize> {
    let body = text.strip_prefix("&#").or_else(|| text.strip_prefix('&'))?;
    let letters = body.bytes().take_while(u8::is_ascii_alphanumeric).count();
    let whole = (1..=STRICT_NAME_MAX).contains(&letters) && body[letters..].starts_with(';');
    whole.then(|| text.len() - body.len() + letters + 1)
}

fn strict_replacement(reference: &str, entities: &Entities) -> String {
    let name = &reference[1..];
    if name.starts_with('#') {
        // Prefixes of digits, as in &#12ab;, are ambiguous and stay.
        let plain = entities.unescape(reference);
        return if plain.contains(';') { reference.to_owned() } else { plain };
    }
    let capitals = || {
        let unknown = entities.unescape(reference) == reference && !name.contains(|c: char| c.is_ascii_lowercase());
        unknown.then(|| entities.named(&name.to_ascii_lowercase()).map(|text| text.to_uppercase())).flatten()
    };
    entities.named(name).or_else(capitals).unwrap_or_else(|| reference.to_owned())
}

//! Names that come close to one that is not there.

/// Words that people put before or after a product's name.
const FILLERS: [&str; 5] = ["nvidia", "geforce", "profile", "tesla", "quadro"];
/// More than this would be a list and not a hint.
const SUGGESTIONS_MOST: usize = 3;
/// A part of more names than this says nothing about which was meant.
const CANDIDATES_MOST: usize = 6;

/// A name without case, punctuation and maker.
pub(crate) fn normalised(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    let words = lower.split(|c: char| !c.is_ascii_alphanumeric());
    words.filter(|word| !FILLERS.contains(word)).collect()
}

/// The known names that come close, closest first; at most three, and none where a part of a name
/// is a part of too many.
pub(crate) fn suggestions(wanted: &str, known: impl Iterator<Item = &'static str>) -> Vec<&'static str> {
    let known: Vec<_> = known.collect();
    let mut close = ranked(&normalised(wanted), &known);
    // A size of memory that is not there hides a card that is.
    if close.first().is_none_or(|(first, _)| matches!(first, Strangeness::Misspelt(_)))
        && let Some(stem) = without_memory(wanted)
    {
        let other = ranked(&normalised(stem), &known);
        close = if other.is_empty() { close } else { other };
    }
    if close.len() > CANDIDATES_MOST {
        Vec::new()
    } else {
        close.into_iter().map(|c| c.1).take(SUGGESTIONS_MOST).collect()
    }
}

/// The names that come closest in the same way: where a part of a name was given, a name that is
/// merely alike is not what was meant.
fn ranked(wanted: &str, known: &[&'static str]) -> Vec<(Strangeness, &'static str)> {
    let mut close: Vec<_> =
        known.iter().filter_map(|name| Some((strangeness(wanted, &normalised(name))?, *name))).collect();
    close.sort_unstable();
    let Some(&(first, _)) = close.first() else { return close };
    let holds = |distance: &Strangeness| matches!(distance, Strangeness::Holds { .. });
    close.retain(|(distance, _)| *distance == first || (holds(&first) && holds(distance)));
    close
}

/// `rtx-3060` of `rtx-3060-8gb`.
fn without_memory(name: &str) -> Option<&str> {
    let (stem, last) = name.trim().rsplit_once(|c: char| !c.is_ascii_alphanumeric())?;
    let size = last.to_ascii_lowercase();
    let digits = size.strip_suffix("gb")?;
    digits.bytes().all(|b| b.is_ascii_digit()).then_some(stem)
}

/// How far a normalised name is from what was asked for, closest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Strangeness {
    /// It holds what was asked for; a size of memory is less of a difference than another word, and
    /// then fewer characters are.
    Holds { beside_memory: usize, length: usize },
    /// It is held by what was asked for, which has so many characters more.
    IsHeld(usize),
    /// So many edits are between them.
    Misspelt(usize),
}

/// `None` if the names have too little in common for a hint to help.
fn strangeness(wanted: &str, known: &str) -> Option<Strangeness> {
    // A single character is a part of almost every name.
    if wanted.len() >= 2
        && let Some((before, after)) = known.split_once(wanted)
    {
        let after = after.strip_suffix("gb").map_or(after, |size| size.trim_end_matches(|c: char| c.is_ascii_digit()));
        return Some(Strangeness::Holds { beside_memory: before.len() + after.len(), length: known.len() });
    }
    if wanted.contains(known) {
        // The longest name that is a part says most.
        return Some(Strangeness::IsHeld(wanted.len() - known.len()));
    }
    let distance = edits(wanted.as_bytes(), known.as_bytes());
    (distance * 3 <= known.len()).then_some(Strangeness::Misspelt(distance))
}

/// The least number of insertions, deletions, replacements and exchanges of two neighbours that
/// turn one text into the other (optimal string alignment, three rows at a time).
fn edits(from: &[u8], to: &[u8]) -> usize {
    let mut older: Vec<usize> = Vec::new();
    let mut before: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in to.iter().enumerate() {
            let mut least = (before[j] + usize::from(a != b)).min(before[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == to[j - 1] && from[i - 1] == *b {
                least = least.min(older[j - 1] + 1);
            }
            row.push(least);
        }
        older = std::mem::replace(&mut before, row);
    }
    before[to.len()]
}

/// `(did you mean 'a' or 'b'?)` with a space before it, or nothing.
pub(crate) fn hint(suggestions: &[&str]) -> String {
    if suggestions.is_empty() {
        return String::new();
    }
    let quoted: Vec<_> = suggestions.iter().map(|name| format!("'{name}'")).collect();
    format!(" (did you mean {}?)", quoted.join(" or "))
}

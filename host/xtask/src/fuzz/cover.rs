//! Which inputs to keep: libFuzzer's notes of a merge, and a greedy choice among them.

use std::collections::BTreeSet;
use std::path::PathBuf;

/// An input and the edges of the code that it reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Input {
    pub(super) file: PathBuf,
    edges: BTreeSet<u64>,
}

/// Reads the control file of a merge: the number of inputs, how many of them come first, their names, then lines such
/// as `FT 3 17 256` with an input's number and what it reaches. What has no such line failed or reaches nothing.
pub(super) fn reached(notes: &str) -> Vec<Input> {
    let mut lines = notes.lines();
    let count: usize = lines.next().and_then(|line| line.parse().ok()).unwrap_or(0);
    let names: Vec<&str> = lines.by_ref().skip(1).take(count).collect();
    lines.filter_map(|line| input(line, &names)).collect()
}

fn input(line: &str, names: &[&str]) -> Option<Input> {
    let mut words = line.strip_prefix("FT ")?.split_whitespace();
    let name = names.get(words.next()?.parse::<usize>().ok()?)?;
    Some(Input { file: PathBuf::from(name), edges: words.filter_map(|word| word.parse().ok()).collect() })
}

/// Up to `most` of the inputs found, each the one that adds most to those before it, the kept ones being the first.
pub(super) fn greedy(kept: &[Input], mut found: Vec<Input>, most: usize) -> Vec<PathBuf> {
    let mut covered: BTreeSet<u64> = kept.iter().flat_map(|input| &input.edges).copied().collect();
    let mut chosen = Vec::new();
    found.sort_by(|a, b| a.file.cmp(&b.file));
    while chosen.len() < most {
        let adds = |input: &Input| input.edges.difference(&covered).count();
        let Some(best) = found.iter().rev().max_by_key(|input| adds(input)).filter(|input| adds(input) > 0) else {
            break;
        };
        let best = best.clone();
        covered.extend(&best.edges);
        chosen.push(best.file);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTES: &str =
        "4\n1\nk/0\nf/b\nf/a\nf/c\nSTARTED 0 7\nFT 0 1 2\nSTARTED 1 3\nFT 1 2 3\nCOV 1 9\nFT 2 3 4 5\nSTARTED 3 4\n";

    #[test]
    fn what_adds_most_comes_first() {
        let (kept, found): (Vec<Input>, Vec<Input>) =
            reached(NOTES).into_iter().partition(|input| input.file.starts_with("k"));
        assert_eq!((kept.len(), found.len()), (1, 2));
        let check = |kept: &[Input], most: usize, expected: &[&str]| {
            let chosen = greedy(kept, found.clone(), most);
            assert_eq!(chosen, expected.iter().map(PathBuf::from).collect::<Vec<_>>());
        };
        check(&kept, 9, &["f/a"]);
        check(&[], 9, &["f/a", "f/b"]);
        check(&[], 1, &["f/a"]);
        check(&[], 0, &[]);
    }

    #[test]
    fn notes_without_inputs_are_no_inputs() {
        assert_eq!(reached(""), []);
        assert_eq!(reached("1\n0\na\nFT 7 1\nFT x 1\n"), []);
    }
}

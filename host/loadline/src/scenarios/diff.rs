//! Two texts, line by line.

/// Lines of context around a change.
const AROUND: usize = 1;

/// What has gone (`-`) and what has come (`+`), with a line of context; empty for equal texts.
#[must_use]
pub fn diff(before: &str, now: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (before.lines().collect(), now.lines().collect());
    let lines = merged(&a, &b);
    let changed: Vec<usize> = (0..lines.len()).filter(|i| lines[*i].0 != ' ').collect();
    let near = |i: usize| changed.iter().any(|c| c.abs_diff(i) <= AROUND);
    let mut text = String::new();
    let mut last = None;
    for (i, (mark, line)) in lines.iter().enumerate().filter(|(i, _)| near(*i)) {
        if last.is_some_and(|l| l + 1 < i) {
            text.push_str("  ...\n");
        }
        last = Some(i);
        text.push_str(&format!("{mark} {line}\n"));
    }
    text
}

/// Both texts in one, by their longest common subsequence of lines. Texts are plans of some dozen lines, so a table of
/// all pairs is small; where it is not, nothing counts as common.
fn merged<'a>(a: &[&'a str], b: &[&'a str]) -> Vec<(char, &'a str)> {
    const PAIRS: usize = 1 << 22;
    if a.len().saturating_mul(b.len()) > PAIRS {
        return a.iter().map(|l| ('-', *l)).chain(b.iter().map(|l| ('+', *l))).collect();
    }
    let width = b.len() + 1;
    let mut common = vec![0_usize; (a.len() + 1) * width];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            let skip = common[(i + 1) * width + j].max(common[i * width + j + 1]);
            common[i * width + j] = if a[i] == b[j] { common[(i + 1) * width + j + 1] + 1 } else { skip };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < a.len() || j < b.len() {
        let drop = i < a.len() && (j == b.len() || common[(i + 1) * width + j] >= common[i * width + j + 1]);
        if i < a.len() && j < b.len() && a[i] == b[j] {
            lines.push((' ', a[i]));
            (i, j) = (i + 1, j + 1);
        } else if drop {
            lines.push(('-', a[i]));
            i += 1;
        } else {
            lines.push(('+', b[j]));
            j += 1;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_shows_what_went_and_what_came() {
        let check = |a: &str, b: &str, expected: &str| assert_eq!(diff(a, b), expected);
        check("a\nb\n", "a\nb\n", "");
        check("", "a\n", "+ a\n");
        check("a\nb\nc\nd\n", "a\nx\nc\nd\n", "  a\n- b\n+ x\n  c\n");
        check("1\n2\n3\n4\n5\n6\n", "0\n2\n3\n4\n5\n6\n7\n", "- 1\n+ 0\n  2\n  ...\n  6\n+ 7\n");
    }
}

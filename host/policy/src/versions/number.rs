//! Numbers of versions, as semantic versioning orders them.

use std::str::FromStr;

/// Such as `0.1.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Number {
    major: u64,
    minor: u64,
    patch: u64,
    /// False for `0.1.0-draft`, which comes before `0.1.0` and promises nothing.
    released: bool,
}

impl Number {
    /// Whether a component built for one of the two may be linked with the other: after 1.0 within a major version,
    /// before within a minor version, and before 0.1 never.
    pub(crate) fn same_contract(self, other: Self) -> bool {
        let promised = match (self.major, self.minor) {
            (0, 0) => self == other,
            (0, minor) => (other.major, other.minor) == (0, minor),
            (major, _) => other.major == major,
        };
        self == other || promised && self.released && other.released
    }
}

impl FromStr for Number {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let core = text.split(['-', '+']).next().unwrap_or(text);
        let released = !text.split('+').next().is_some_and(|t| t.contains('-'));
        let parts: Vec<u64> = core.split('.').map(str::parse).collect::<Result<_, _>>().map_err(|_| ())?;
        let [major, minor, patch] = parts[..] else { return Err(()) };
        Ok(Self { major, minor, patch, released })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn number(text: &str) -> Number {
        text.parse().unwrap()
    }

    #[test]
    fn versions_are_ordered() {
        let ordered = ["0.0.9", "0.1.0-draft", "0.1.0", "0.1.7", "0.2.0", "0.10.0", "1.0.0"];
        assert!(ordered.windows(2).all(|pair| number(pair[0]) < number(pair[1])));
        for broken in ["", "1", "1.2", "1.2.3.4", "1.2.x", "-1.0.0", "99999999999999999999.0.0"] {
            assert_eq!(broken.parse::<Number>(), Err(()), "{broken}");
        }
    }

    #[test]
    fn what_may_be_linked_is_what_semantic_versioning_says() {
        let check = |a: &str, b: &str, expected: bool| {
            assert_eq!(number(a).same_contract(number(b)), expected, "{a} {b}");
            assert_eq!(number(b).same_contract(number(a)), expected, "{b} {a}");
        };
        check("0.1.0", "0.1.0", true);
        check("0.1.0", "0.1.7", true);
        check("0.1.0", "0.1.0+build", true);
        check("0.1.0", "0.1.0-draft", false);
        check("0.1.0", "0.2.0", false);
        check("0.0.8", "0.0.9", false);
        check("1.2.0", "1.9.3", true);
        check("1.2.0", "2.2.0", false);
        check("0.1.0", "1.1.0", false);
    }
}

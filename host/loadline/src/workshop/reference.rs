//! How a policy is named: by its name, or by its name and the hash of its bytes.

use std::fmt;

use super::WorkshopError;

/// The fewest digits of a hash that name something.
const DIGITS: usize = 8;

/// A name, and the first digits of a hash if there are any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The name.
    pub name: String,
    /// Digits that the hash of the component's bytes begins with: at least eight, lower case.
    pub hash: Option<String>,
}

impl Reference {
    /// Reads `name` or `name@hash`; none for what can only be a path.
    ///
    /// # Errors
    /// If what follows the `@` are not 8 to 64 hexadecimal digits.
    pub fn parse(text: &str) -> Result<Option<Self>, WorkshopError> {
        let (name, hash) = text.split_once('@').map_or((text, None), |(name, hash)| (name, Some(hash)));
        if super::template::check_name(name).is_err() || text.contains(['/', '\\', '.']) {
            return Ok(None);
        }
        let Some(hash) = hash else { return Ok(Some(Self { name: name.to_owned(), hash: None })) };
        let digits = (DIGITS..=64).contains(&hash.len()) && hash.bytes().all(|b| b.is_ascii_hexdigit());
        if !digits {
            return Err(WorkshopError::BadHash { text: text.to_owned() });
        }
        Ok(Some(Self { name: name.to_owned(), hash: Some(hash.to_ascii_lowercase()) }))
    }

    /// Whether a policy of that name and hash is meant. Digits beyond those of the hash count as a difference.
    #[must_use]
    pub fn means(&self, name: &str, hash: &str) -> bool {
        self.name == name && self.hash.as_ref().is_none_or(|digits| hash.starts_with(digits.as_str()))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.hash.as_ref().map_or(Ok(()), |hash| write!(f, "@{hash}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_hashes_are_told_from_paths() {
        let check = |text: &str, expected: Option<(&str, Option<&str>)>| {
            let found = Reference::parse(text).ok().flatten().map(|r| (r.name, r.hash));
            assert_eq!(found, expected.map(|(n, h)| (n.to_owned(), h.map(str::to_owned))), "{text}");
        };
        check("mine", Some(("mine", None)));
        check("my_Policy-2", Some(("my_Policy-2", None)));
        check("mine@01234567", Some(("mine", Some("01234567"))));
        check("mine@0123456789ABCDEF", Some(("mine", Some("0123456789abcdef"))));
        for path in ["./mine", "a/mine", "mine.wasm", "mine@01234567.wasm", ".", "", "@01234567", "my policy"] {
            check(path, None);
        }
    }

    #[test]
    fn a_hash_has_at_least_eight_digits() {
        for text in ["mine@", "mine@0123456", "mine@newest", "mine@01234567@01234567"] {
            assert!(matches!(Reference::parse(text), Err(WorkshopError::BadHash { .. })), "{text}");
        }
    }
}

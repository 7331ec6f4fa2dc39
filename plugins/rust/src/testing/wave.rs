//! Values as text, read back: WAVE, the notation that the component model has for its values.

use std::fmt;

/// A value whose type is not known yet.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Data {
    /// A number, a switch, or a case with nothing in it.
    Word(String),
    Text(String),
    List(Vec<Data>),
    Record(Vec<(String, Data)>),
    /// A case with what is in it.
    Case(String, Box<Data>),
}

/// A value of the contract.
pub(super) trait Wave: Sized {
    fn data(&self) -> Data;

    /// The value that was written; else what is wrong with it.
    fn read(data: &Data) -> Result<Self, String>;
}

impl Data {
    /// Reads a text that holds one value and nothing else.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut reader = Reader { rest: text };
        let data = reader.value()?;
        if reader.rest.is_empty() { Ok(data) } else { Err(reader.wrong("the end")) }
    }

    /// What is in a case of that name.
    pub(super) fn case(&self, wanted: &str) -> Option<&Self> {
        match self {
            Self::Case(name, value) if name == wanted => Some(value),
            _ => None,
        }
    }

    pub(super) fn field(&self, wanted: &str) -> Result<&Self, String> {
        let Self::Record(fields) = self else { return Err(format!("{self} is no record with {wanted}")) };
        let field = fields.iter().find(|(name, _)| name == wanted);
        field.map(|(_, value)| value).ok_or_else(|| format!("a record lacks {wanted}"))
    }
}

/// Long values are cut short: this is for messages.
impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => f.write_str(word),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::List(items) => write!(f, "a list of {}", items.len()),
            Self::Record(fields) => {
                let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
                write!(f, "a record of {}", names.join(", "))
            }
            Self::Case(name, value) => write!(f, "{name}({value})"),
        }
    }
}

/// Where two values first differ, with both; nothing where they are the same.
pub(super) fn difference(component: &Data, library: &Data) -> Option<String> {
    let mut path = String::new();
    let (a, b) = first_difference(component, library, &mut path)?;
    let place = if path.is_empty() { String::new() } else { format!("{}: ", path.trim_start_matches('.')) };
    Some(format!("{place}{a} in the component, {b} in the library"))
}

fn first_difference(a: &Data, b: &Data, path: &mut String) -> Option<(String, String)> {
    let length = path.len();
    match (a, b) {
        (Data::List(a), Data::List(b)) => {
            for (at, (a, b)) in a.iter().zip(b).enumerate() {
                path.push_str(&format!("[{at}]"));
                if let Some(found) = first_difference(a, b, path) {
                    return Some(found);
                }
                path.truncate(length);
            }
            let entries = |list: &[Data]| format!("{} entries", list.len());
            (a.len() != b.len()).then(|| (entries(a), entries(b)))
        }
        (Data::Record(a), Data::Record(b)) => {
            for ((name, a), (_, b)) in a.iter().zip(b) {
                path.push_str(&format!(".{name}"));
                if let Some(found) = first_difference(a, b, path) {
                    return Some(found);
                }
                path.truncate(length);
            }
            None
        }
        (Data::Case(name, a), Data::Case(other, b)) if name == other => first_difference(a, b, path),
        (a, b) => (a != b).then(|| (a.to_string(), b.to_string())),
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn value(&mut self) -> Result<Data, String> {
        match self.rest.as_bytes().first() {
            Some(b'"') => self.text().map(Data::Text),
            Some(b'[') => self.items('[', ']', Self::value).map(Data::List),
            Some(b'{') => self.items('{', '}', Self::pair).map(Data::Record),
            _ => self.word(),
        }
    }

    fn pair(&mut self) -> Result<(String, Data), String> {
        let name = self.name();
        self.expect(": ")?;
        Ok((name, self.value()?))
    }

    fn word(&mut self) -> Result<Data, String> {
        let word = self.name();
        if word.is_empty() {
            return Err(self.wrong("a value"));
        }
        if self.expect("(").is_err() {
            return Ok(Data::Word(word));
        }
        let value = self.value()?;
        self.expect(")")?;
        Ok(Data::Case(word, Box::new(value)))
    }

    fn name(&mut self) -> String {
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && !"-+._".contains(c));
        let (name, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        name.to_owned()
    }

    fn items<T>(
        &mut self,
        open: char,
        close: char,
        item: impl Fn(&mut Self) -> Result<T, String>,
    ) -> Result<Vec<T>, String> {
        let mut items = Vec::new();
        self.expect(open.encode_utf8(&mut [0; 4]))?;
        while self.expect(close.encode_utf8(&mut [0; 4])).is_err() {
            if !items.is_empty() {
                self.expect(", ")?;
            }
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn text(&mut self) -> Result<String, String> {
        let mut text = String::new();
        self.expect("\"")?;
        loop {
            let mut rest = self.rest.chars();
            let c = rest.next().ok_or_else(|| self.wrong("the end of a text"))?;
            self.rest = rest.as_str();
            match c {
                '"' => return Ok(text),
                '\\' => text.push(self.escaped()?),
                c => text.push(c),
            }
        }
    }

    fn escaped(&mut self) -> Result<char, String> {
        let mut rest = self.rest.chars();
        let c = rest.next();
        self.rest = rest.as_str();
        match c {
            Some(c @ ('"' | '\'' | '\\')) => Ok(c),
            Some('n') => Ok('\n'),
            Some('r') => Ok('\r'),
            Some('t') => Ok('\t'),
            Some('u') => {
                let code = self.rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
                let (code, rest) = code.ok_or_else(|| self.wrong("a character's number"))?;
                let c = u32::from_str_radix(code, 16).ok().and_then(char::from_u32);
                let c = c.ok_or_else(|| self.wrong("a character's number"))?;
                self.rest = rest;
                Ok(c)
            }
            _ => Err(self.wrong("an escaped character")),
        }
    }

    fn expect(&mut self, wanted: &str) -> Result<(), String> {
        self.rest = self.rest.strip_prefix(wanted).ok_or_else(|| self.wrong(wanted))?;
        Ok(())
    }

    fn wrong(&self, wanted: &str) -> String {
        let rest: String = self.rest.chars().take(40).collect();
        format!("expected {wanted}, found '{rest}'")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn word(text: &str) -> Data {
        Data::Word(text.to_owned())
    }

    #[test]
    fn values_are_read() {
        let check = |text: &str, expected: Data| assert_eq!(Data::parse(text), Ok(expected));
        check("-1.5e-3", word("-1.5e-3"));
        check("none", word("none"));
        check("[]", Data::List(Vec::new()));
        check("[1, 2]", Data::List(vec![word("1"), word("2")]));
        check(r#""a \"b\" \\\n\u{1b}ü""#, Data::Text("a \"b\" \\\n\u{1b}ü".to_owned()));
        check("some(ok(7))", Data::Case("some".into(), Box::new(Data::Case("ok".into(), Box::new(word("7"))))));
        let fields = vec![("copy-ns".to_owned(), word("1")), ("b".to_owned(), Data::List(vec![word("2")]))];
        check("{copy-ns: 1, b: [2]}", Data::Record(fields));
    }

    #[test]
    fn what_is_no_value_is_told() {
        for text in ["", "[1,2]", "[1", "{a 1}", "some(1", "\"a", r#""\x""#, r#""\u{d800}""#, "1 2", "{a: }"] {
            let error = Data::parse(text).unwrap_err();
            assert!(error.starts_with("expected "), "{text}: {error}");
        }
    }

    #[test]
    fn the_first_difference_is_named() {
        let check = |a: &str, b: &str, expected: Option<&str>| {
            let found = difference(&Data::parse(a).unwrap(), &Data::parse(b).unwrap());
            assert_eq!(found.as_deref(), expected);
        };
        check("{a: [1, 2]}", "{a: [1, 2]}", None);
        check("{a: [1, 2], b: 3}", "{a: [1, 7], b: 4}", Some("a[1]: 2 in the component, 7 in the library"));
        check("ok({a: [1]})", "ok({a: [1, 2]})", Some("a: 1 entries in the component, 2 entries in the library"));
        check("ok(keep)", "err({a: 1})", Some("ok(keep) in the component, err(a record of a) in the library"));
        check("\"x\"", "\"y\"", Some("\"x\" in the component, \"y\" in the library"));
    }
}

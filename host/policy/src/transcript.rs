//! What a policy is asked and what it says, written down word for word, so that it can be asked the same elsewhere.
//!
//! A line is a word and a value of the contract:
//!
//! ```text
//! description {name: "mine", …}
//! situation {cause: 0, …}
//! log {level: 2, text: "…"}
//! probe [{key: "cfg", value: text("pair")}]
//! reply ok({model: …})
//! forecast {knobs: […], …}
//! reply err("…")
//! decision ok(plan({…}))
//! fuel 1234567
//! ```

use std::mem::take;
use std::sync::{Arc, Mutex, PoisonError};

use crate::wave::{Wave, record};

/// The most bytes that are kept, of one call and of all that nobody has taken. A policy that asks on and on would fill
/// the memory of who writes it down.
const MOST: usize = 256 << 20;

/// Where calls of a policy are written down; see [`Policy::transcribed`](crate::Policy::transcribed). Clones write to
/// the same place, a whole call after the other.
#[derive(Clone, Debug, Default)]
pub struct Transcript(Arc<Mutex<Written>>);

#[derive(Debug, Default)]
struct Written {
    text: String,
    cut: bool,
}

impl Transcript {
    /// What was written since this was asked last, a line for each thing said; nothing if that was too much to be
    /// kept.
    #[must_use]
    pub fn take(&self) -> Option<String> {
        let Written { text, cut } = take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        (!cut).then_some(text)
    }

    pub(crate) fn add(&self, call: &Pen) {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        written.cut |= call.cut || written.text.len() + call.text.len() > MOST;
        if !written.cut {
            written.text.push_str(&call.text);
        }
    }
}

/// Writes one call down.
#[derive(Debug, Default)]
pub(crate) struct Pen {
    text: String,
    cut: bool,
}

impl Pen {
    pub(crate) fn write(&mut self, word: &str, value: &dyn Wave) {
        self.cut |= self.text.len() > MOST;
        if self.cut {
            return;
        }
        self.text.push_str(word);
        self.text.push(' ');
        value.wave(&mut self.text);
        self.text.push('\n');
    }
}

/// A line of the report as the policy gave it, before it is made safe to show.
pub(crate) struct Said<'a> {
    pub(crate) level: u8,
    pub(crate) text: &'a str,
}

impl Wave for Said<'_> {
    fn wave(&self, out: &mut String) {
        record(out, &[("level", &self.level), ("text", &self.text)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_follow_each_other_and_are_taken_once() {
        let transcript = Transcript::default();
        for fuel in [1_u64, 2] {
            let mut pen = Pen::default();
            pen.write("log", &Said { level: 2, text: "a\nb" });
            pen.write("fuel", &fuel);
            transcript.clone().add(&pen);
        }
        let said = "log {level: 2, text: \"a\\nb\"}\n";
        assert_eq!(transcript.take(), Some(format!("{said}fuel 1\n{said}fuel 2\n")));
        assert_eq!(transcript.take(), Some(String::new()));
    }

    #[test]
    fn what_is_too_long_is_not_kept() {
        let transcript = Transcript::default();
        transcript.add(&Pen { text: "x".repeat(8), cut: true });
        transcript.add(&Pen { text: "fuel 1\n".to_owned(), cut: false });
        assert_eq!(transcript.take(), None);
    }
}

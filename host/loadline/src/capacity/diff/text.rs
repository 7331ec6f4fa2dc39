//! A difference for people, for pull requests and for scripts.

use std::fmt::{self, Write};

use serde_json::{Value, json};

use super::{Difference, Effect, Kind, Verdict};
use crate::capacity::table::{Align, Table, markdown_cell};

/// The version of a difference's JSON.
const SCHEMA: &str = "loadline-diff/1";

impl Difference {
    /// The verdict in a sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let of = |what: &str| self.effects.iter().find(|e| e.stage.is_empty() && e.what == what);
        let grew = |what: &str| of(what).and_then(Effect::percent).unwrap_or(0.0);
        match self.verdict {
            Verdict::Same => "nothing changed".to_owned(),
            Verdict::Within => format!(
                "changed within limits: time {:+.1} % (allowed {:+.1} %), device memory {:+.1} % (allowed {:+.1} %)",
                grew("cold"),
                self.allowed.slower,
                grew("device peak"),
                self.allowed.more_memory
            ),
            Verdict::MoreMemory => format!(
                "more device memory: {:+.1} %, allowed are {:+.1} %",
                grew("device peak"),
                self.allowed.more_memory
            ),
            Verdict::Slower => {
                format!("slower: {:+.1} %, allowed are {:+.1} %", grew("cold"), self.allowed.slower)
            }
            Verdict::NoLongerFits => "no longer fits".to_owned(),
        }
    }

    /// What changed, in sentences.
    fn causes(&self) -> Vec<String> {
        match (self.inputs.is_empty(), self.plan_changed || !self.effects.is_empty()) {
            (false, _) => self.inputs.clone(),
            (true, true) => vec!["no input changed: this loadline plans or forecasts differently".to_owned()],
            (true, false) => Vec::new(),
        }
    }

    fn table(&self) -> Table {
        let (left, right) = (Align::Left, Align::Right);
        let mut table =
            Table::new(&[("stage", left), ("what", left), ("before", right), ("now", right), ("change", right)]);
        for e in &self.effects {
            let stage = if e.stage.is_empty() { "all" } else { &e.stage };
            table.push(vec![stage.to_owned(), e.what.clone(), e.shown(e.old), e.shown(e.new), e.change()]);
        }
        table
    }

    /// A report as GitHub shows it in a pull request.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mark = match self.verdict {
            Verdict::Same | Verdict::Within => "✅",
            _ => "❌",
        };
        let mut text = format!("### {mark} Loadline: {}\n\n{}\n", self.sentence(), markdown_cell(&self.title));
        let causes = self.causes();
        if !causes.is_empty() {
            text.push_str("\n**What changed**\n\n");
            for cause in causes {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "- {}", markdown_cell(&cause));
            }
        }
        if let Some(refusal) = &self.refusal {
            let _ = write!(text, "\n**Why it does not fit**\n\n```text\n{}\n```\n", refusal.replace("```", "'''"));
        }
        if !self.effects.is_empty() {
            let _ = write!(text, "\n**What it did**\n\n{}", self.table().markdown());
        }
        text
    }

    /// The difference for scripts.
    #[must_use]
    pub fn json(&self) -> Value {
        let unit = |e: &Effect| match e.kind {
            Kind::Memory => "bytes",
            Kind::Time => "ns",
            Kind::Blocks => "blocks",
        };
        let effect = |e: &Effect| {
            json!({ "stage": e.stage, "what": e.what, "unit": unit(e), "old": e.old, "new": e.new,
                    "percent": e.percent() })
        };
        json!({
            "schema": SCHEMA,
            "verdict": self.verdict.name(),
            "sentence": self.sentence(),
            "allowed": { "slower_percent": self.allowed.slower, "more_memory_percent": self.allowed.more_memory },
            "inputs": self.inputs,
            "plan_changed": self.plan_changed,
            "refusal": self.refusal,
            "effects": self.effects.iter().map(effect).collect::<Vec<_>>(),
        })
    }
}

impl Effect {
    fn change(&self) -> String {
        let difference = self.new.abs_diff(self.old);
        let sign = if self.new > self.old { '+' } else { '-' };
        let absolute = format!("{sign}{}", self.shown(difference));
        match self.percent() {
            Some(percent) if self.kind != Kind::Blocks => format!("{absolute} ({percent:+.1} %)"),
            _ => absolute,
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        let causes = self.causes();
        if !causes.is_empty() {
            writeln!(f, "\nwhat changed")?;
            for cause in causes {
                writeln!(f, "  {cause}")?;
            }
        }
        if let Some(refusal) = &self.refusal {
            writeln!(f, "\nwhy it does not fit\n  {}", refusal.replace('\n', "\n  "))?;
        }
        if !self.effects.is_empty() {
            writeln!(f, "\nwhat it did")?;
            for line in self.table().text().lines() {
                writeln!(f, "  {line}")?;
            }
        }
        write!(f, "\n{}", self.sentence())
    }
}

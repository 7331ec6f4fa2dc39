//! What a component was asked and said, and whether the library asks and says the same.

use std::any::Any;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::wave::{Data, Wave, difference};
use crate::{Entry, ForecastReply, Host, Job, Level, Plan, Policy, Situation};

/// What `loadline policy record` writes.
const FIRST: &str = "loadline-transcript/1";

/// A component's answers in scenarios, word for word.
#[derive(Clone, Debug)]
pub struct Transcript(Vec<Scenario>);

#[derive(Clone, Debug)]
struct Scenario {
    name: String,
    description: Option<Data>,
    calls: Vec<Call>,
}

#[derive(Clone, Debug)]
struct Call {
    situation: Data,
    said: Vec<Said>,
}

/// Something that the component said.
#[derive(Clone, Debug)]
struct Said {
    /// `log`, `probe`, `forecast` or `decision`.
    word: String,
    value: Data,
    /// What the host replied.
    reply: Option<Data>,
}

/// How much was the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Scenarios.
    pub scenarios: usize,
    /// Decisions.
    pub decisions: usize,
    /// Questions and lines of the log on the way to them.
    pub questions: usize,
}

impl Transcript {
    /// Reads what `loadline policy record` wrote.
    ///
    /// # Errors
    /// The line that cannot be read, and why.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines().zip(1..);
        if lines.next().is_none_or(|(line, _)| line != FIRST) {
            return Err(format!("this is no {FIRST}: record it with the loadline that the SDK is from"));
        }
        let mut scenarios = Vec::new();
        for (line, number) in lines {
            read_line(&mut scenarios, line).map_err(|error| format!("transcript, line {number}: {error}"))?;
        }
        Ok(Self(scenarios))
    }

    /// Asks a policy natively whatever the component was asked. The host's replies are those that the component got.
    ///
    /// # Errors
    /// What is the same up to the first difference, and the difference: in what the policy says that it is, in a
    /// question, a line of the log or a decision. Also if there is nothing to compare.
    pub fn compare(&self, policy: &impl Policy) -> Result<Compared, String> {
        let mut compared = Compared::default();
        for scenario in &self.0 {
            scenario.compare(policy, &mut compared).map_err(|error| format!("scenario {}{error}", scenario.name))?;
        }
        if compared.decisions == 0 {
            return Err("the component was asked nothing: write a scenario in scenarios/".to_owned());
        }
        Ok(compared)
    }
}

fn read_line(scenarios: &mut Vec<Scenario>, line: &str) -> Result<(), String> {
    let (word, rest) = line.split_once(' ').ok_or("a line is a word and a value")?;
    let value = Data::parse(rest)?;
    if word == "scenario" {
        let name = String::read(&value)?;
        scenarios.push(Scenario { name, description: None, calls: Vec::new() });
        return Ok(());
    }
    let scenario = scenarios.last_mut().ok_or("it is before the first scenario")?;
    match (word, scenario.calls.last_mut()) {
        ("description", _) => scenario.description = Some(value),
        ("situation", _) => scenario.calls.push(Call { situation: value, said: Vec::new() }),
        // What natively there is none of.
        ("fuel", _) => {}
        ("reply", Some(Call { said, .. })) => said.last_mut().ok_or("a reply to nothing")?.reply = Some(value),
        ("log" | "probe" | "forecast" | "decision", Some(call)) => {
            call.said.push(Said { word: word.to_owned(), value, reply: None });
        }
        _ => return Err(format!("'{word}' is out of place")),
    }
    Ok(())
}

impl Scenario {
    fn compare(&self, policy: &impl Policy, compared: &mut Compared) -> Result<(), String> {
        let described = self.description.as_ref();
        if let Some(found) = described.and_then(|described| difference(described, &policy.describe().data())) {
            return Err(format!(": description: {found}"));
        }
        for (call, number) in self.calls.iter().zip(1..) {
            call.compare(policy).map_err(|error| format!(", decision {number}:\n{error}"))?;
            compared.questions += call.said.len() - 1;
            compared.decisions += 1;
        }
        compared.scenarios += 1;
        Ok(())
    }
}

/// What ends a decision at the first difference.
struct Different(String);

impl Call {
    fn compare(&self, policy: &impl Policy) -> Result<(), String> {
        let situation = Situation::read(&self.situation).map_err(|error| format!("  situation: {error}"))?;
        let mut replay = Replay { said: &self.said, next: 0 };
        let decided = catch_unwind(AssertUnwindSafe(|| policy.decide(&situation, &mut replay)));
        let outcome = match decided {
            Ok(decided) => replay.says("decision", &decided.data()).map(drop),
            Err(payload) => Err(broken_off(payload)),
        };
        outcome.map_err(|found| replay.trail() + &found)
    }
}

/// Why a decision ended before its end.
fn broken_off(payload: Box<dyn Any + Send>) -> String {
    let text = match payload.downcast::<Different>() {
        Ok(different) => return different.0,
        Err(other) => match other.downcast::<String>() {
            Ok(text) => *text,
            Err(other) => other.downcast_ref::<&str>().copied().unwrap_or("without words").to_owned(),
        },
    };
    format!("  the library panics where the component goes on: {text}")
}

/// A host that says what it said to the component, as long as it is asked the same.
struct Replay<'a> {
    said: &'a [Said],
    next: usize,
}

impl<'a> Replay<'a> {
    /// Compares what the library says with what the component said.
    fn says(&mut self, word: &str, value: &Data) -> Result<&'a Said, String> {
        let Some(said) = self.said.get(self.next) else {
            return Err(format!("  the component has decided, the library goes on with a {word}"));
        };
        let number = self.said[..=self.next].iter().filter(|other| other.word == said.word).count();
        if said.word != word {
            return Err(format!("  the component goes on with {} {number}, the library with a {word}", said.word));
        }
        if let Some(found) = difference(&said.value, value) {
            return Err(format!("  {word} {number}: {found}"));
        }
        self.next += 1;
        Ok(said)
    }

    fn reply<T: Wave>(&mut self, word: &str, value: &Data) -> Result<T, String> {
        let reply = self.says(word, value).and_then(|said| match &said.reply {
            Some(reply) => <Result<T, String>>::read(reply).map_err(|error| format!("  reply to a {word}: {error}")),
            None => Err(format!("  the component got no reply to its {word}")),
        });
        reply.unwrap_or_else(|found| different(found))
    }

    /// What was the same, a line for each row of the same kind.
    fn trail(&self) -> String {
        let mut text = String::new();
        let mut counted: Vec<(&str, usize)> = Vec::new();
        for row in self.said[..self.next].chunk_by(|a, b| a.word == b.word) {
            let word = row[0].word.as_str();
            let before = counted.iter().find(|(other, _)| *other == word).map_or(0, |(_, count)| *count);
            counted.retain(|(other, _)| *other != word);
            counted.push((word, before + row.len()));
            // Writing to a string cannot fail.
            let _ = match row.len() {
                1 => writeln!(text, "  {word} {}: the same", before + 1),
                many => writeln!(text, "  {word} {} to {}: the same", before + 1, before + many),
            };
        }
        text
    }
}

/// Leaves the policy without a word: whatever it does after the first difference says nothing.
fn different(found: String) -> ! {
    resume_unwind(Box::new(Different(found)))
}

impl Host for Replay<'_> {
    fn log(&mut self, level: Level, text: &str) {
        let fields = vec![("level".to_owned(), (level as u8).data()), ("text".to_owned(), text.to_owned().data())];
        if let Err(found) = self.says("log", &Data::Record(fields)) {
            different(found);
        }
    }

    fn probe(&mut self, knobs: &[Entry]) -> Result<Job, String> {
        self.reply("probe", &knobs.to_vec().data())
    }

    fn forecast(&mut self, plan: &Plan) -> Result<ForecastReply, String> {
        self.reply("forecast", &plan.data())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Shape, situation};
    use super::*;
    use crate::{Decision, Description, Refusal, describe};

    /// Asks for a probe and as many forecasts as it is told, and refuses with what it learned.
    struct Curious {
        forecasts: u64,
        homes: Vec<u8>,
    }

    impl Policy for Curious {
        fn describe(&self) -> Description {
            describe("curious", "1.0.0", "Asks.", "")
        }

        fn decide(&self, s: &Situation, host: &mut dyn Host) -> Result<Decision, Refusal> {
            host.log(Level::Detail, "a \"line\"");
            assert!(self.forecasts < 9, "too many");
            let probed = host.probe(&[]).unwrap_err();
            assert_eq!(s.job.model, "test");
            let plan = plan(&self.homes);
            let times = (0..self.forecasts).map(|_| host.forecast(&plan).map_or(0, |reply| reply.cold_ns));
            let message = format!("{probed}: {}", times.sum::<u64>());
            Err(Refusal { stage: None, needs_bytes: None, message })
        }
    }

    fn plan(homes: &[u8]) -> Plan {
        Plan {
            knobs: Vec::new(),
            homes: homes.to_vec(),
            stages: Vec::new(),
            retain: Vec::new(),
            ladder: Vec::new(),
            triggers: Vec::new(),
            memo: Vec::new(),
            reasons: Vec::new(),
        }
    }

    /// What `Curious` with two forecasts and these homes says as a component.
    fn recorded() -> String {
        let s = situation(&[Shape::alike("denoise", 1, 100, 10, 5)], 400, &[]);
        let plan =
            "{knobs: [], homes: [3, 2], stages: [], retain: [], ladder: [], triggers: [], memo: [], reasons: []}";
        let mut lists = String::new();
        for name in ["stage-cold-ns", "stage-warm-ns", "stage-stall-ns", "stage-peak", "stage-bound-ns", "stalls"] {
            let _ = write!(lists, "{name}: [], ");
        }
        let reply = |cold: u64| {
            format!("ok({{cold-ns: {cold}, warm-ns: 1, host-peak: 0, disk-read: 0, {lists}findings: [], facts: []}})")
        };
        format!(
            "loadline-transcript/1\nscenario \"one\"\n\
             description {{name: \"curious\", version: \"1.0.0\", summary: \"Asks.\", settings: \"\"}}\n\
             situation {}\nlog {{level: 3, text: \"a \\\"line\\\"\"}}\nprobe []\nreply err(\"not here\")\n\
             forecast {plan}\nreply {}\nforecast {plan}\nreply {}\n\
             decision err({{stage: none, needs-bytes: none, message: \"not here: 12\"}})\nfuel 123\n",
            written(&s.data()),
            reply(5),
            reply(7),
        )
    }

    fn written(data: &Data) -> String {
        let join = |texts: Vec<String>| texts.join(", ");
        match data {
            Data::Word(word) => word.clone(),
            Data::Text(text) => format!("{text:?}"),
            Data::List(items) => format!("[{}]", join(items.iter().map(written).collect())),
            Data::Record(fields) => {
                format!("{{{}}}", join(fields.iter().map(|(n, v)| format!("{n}: {}", written(v))).collect()))
            }
            Data::Case(name, value) => format!("{name}({})", written(value)),
        }
    }

    fn compare(forecasts: u64, homes: &[u8], transcript: &str) -> Result<Compared, String> {
        Transcript::parse(transcript)?.compare(&Curious { forecasts, homes: homes.to_vec() })
    }

    #[test]
    fn a_library_that_says_the_same_passes() {
        let expected = Compared { scenarios: 1, decisions: 1, questions: 4 };
        assert_eq!(compare(2, &[3, 2], &recorded()), Ok(expected));
    }

    #[test]
    fn the_first_difference_is_shown_after_what_was_the_same() {
        let check = |forecasts: u64, homes: &[u8], change: (&str, &str), expected: &str| {
            let found = compare(forecasts, homes, &recorded().replace(change.0, change.1)).unwrap_err();
            assert_eq!(found, expected.replace("ONE", "scenario one, decision 1:"));
        };
        let before = "ONE\n  log 1: the same\n  probe 1: the same\n";
        let homes = "  forecast 1: homes[1]: 2 in the component, 1 in the library";
        check(2, &[3, 1], ("", ""), &format!("{before}{homes}"));
        let more = "  forecast 1 to 2: the same\n  the component goes on with decision 1, the library with a forecast";
        check(3, &[3, 2], ("", ""), &format!("{before}{more}"));
        let fewer = "  forecast 1: the same\n  the component goes on with forecast 2, the library with a decision";
        check(1, &[3, 2], ("", ""), &format!("{before}{fewer}"));
        let message = "  decision 1: message: \"not here: 13\" in the component, \"not here: 12\" in the library";
        check(2, &[3, 2], ("here: 12", "here: 13"), &format!("{before}  forecast 1 to 2: the same\n{message}"));
        let line = r#"  log 1: text: "b \"line\"" in the component, "a \"line\"" in the library"#;
        check(2, &[3, 2], ("text: \"a", "text: \"b"), &format!("ONE\n{line}"));
        let name = "scenario one: description: name: \"furious\" in the component, \"curious\" in the library";
        check(2, &[3, 2], ("\"curious\"", "\"furious\""), name);
        let panics = "  the library panics where the component goes on: too many";
        check(9, &[3, 2], ("", ""), &format!("ONE\n  log 1: the same\n{panics}"));
        let unanswered = "  the component got no reply to its probe";
        check(2, &[3, 2], ("reply err(\"not here\")\n", ""), &format!("{before}{unanswered}"));
    }

    #[test]
    fn what_is_no_transcript_is_told() {
        let fails = |text: &str, expected: &str| {
            let error = compare(2, &[3, 2], text).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        };
        fails("", "this is no loadline-transcript/1");
        fails("loadline-transcript/2\n", "this is no loadline-transcript/1");
        fails("loadline-transcript/1\n", "the component was asked nothing");
        fails("loadline-transcript/1\nscenario \"one\"\n", "the component was asked nothing");
        fails("loadline-transcript/1\nfuel 1\n", "transcript, line 2: it is before the first scenario");
        fails("loadline-transcript/1\nscenario \"one\"\nlog {}\n", "transcript, line 3: 'log' is out of place");
        fails(
            &recorded().replace("cause: 0", "cause: x"),
            "scenario one, decision 1:\n  situation: cause: x: invalid digit",
        );
    }
}

//! Something smaller in place of what does not fit: only where the user has said what may shrink, in which order, and
//! never without saying so.

mod search;

use std::fmt;
use std::str::FromStr;

use loadline_core::{Machine, Settings};
use loadline_policy::Policy;
use serde::Serialize;

use crate::Model;
use crate::capacity::Axis;
use crate::planning::{Asked, Certificate, Planned};

pub use search::descend;

/// What may shrink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The number of frames, or the picture in its shape, but not below a number: of frames, or of pixels of the
    /// shorter side.
    Shrink(Axis, Option<u32>),
    /// The model: a catalog name or a folder.
    Model(String),
}

/// One thing that is not as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SteppedDown {
    /// `frames`, `size` or `model`.
    pub what: &'static str,
    /// What was asked for.
    pub from: String,
    /// What is planned instead.
    pub to: String,
    /// Why.
    pub reason: String,
}

/// What was refused, and what may shrink.
pub struct Refusal<'a> {
    /// The model.
    pub model: &'a Model,
    /// The machine.
    pub machine: &'a Machine,
    /// The policy.
    pub policy: &'a Policy,
    /// Its settings.
    pub settings: &'a Settings,
    /// What was asked for.
    pub asked: &'a Asked,
    /// Why that does not fit.
    pub certificate: &'a Certificate,
    /// What may shrink, first choice first.
    pub steps: &'a [Step],
}

/// A smaller request that fits.
#[derive(Clone)]
pub struct Descent {
    /// The other model, if it is one.
    pub model: Option<(String, Model)>,
    /// What is planned in place of what was asked for.
    pub asked: Asked,
    /// Its plan.
    pub planned: Planned,
    /// What is different; at least one thing.
    pub steps: Vec<SteppedDown>,
}

impl FromStr for Step {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (what, value) = text.split_once(':').map_or((text, None), |(what, value)| (what, Some(value)));
        let least = || match value {
            None => Ok(None),
            Some(value) => {
                value.parse().map(Some).map_err(|_| format!("'{text}': write a whole number after the colon"))
            }
        };
        match what {
            "frames" => Ok(Self::Shrink(Axis::Frames, least()?)),
            "size" => Ok(Self::Shrink(Axis::Size, least()?)),
            "model" => match value {
                Some(name) if !name.is_empty() => Ok(Self::Model(name.to_owned())),
                _ => Err(format!("'{text}': name the smaller model, such as model:wan2.1-t2v-1.3b")),
            },
            "steps" => Err("steps take time and no memory: fewer of them never make a request fit".to_owned()),
            _ => Err(format!("'{text}' cannot shrink: use frames, frames:LEAST, size, size:LEAST or model:NAME")),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shrink(axis, None) => f.write_str(axis.name()),
            Self::Shrink(axis, Some(least)) => write!(f, "{}:{least}", axis.name()),
            Self::Model(name) => write!(f, "model:{name}"),
        }
    }
}

/// `frames 49 instead of 81: ...`.
impl fmt::Display for SteppedDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} instead of {}: {}", self.what, self.to, self.from, self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read_as_they_are_written() {
        let check = |text: &str, expected: Result<Step, &str>| match (text.parse::<Step>(), expected) {
            (Ok(step), Ok(expected)) => {
                assert_eq!(step, expected);
                assert_eq!(step.to_string(), text);
            }
            (Err(message), Err(part)) => assert!(message.contains(part), "{message}"),
            (got, _) => panic!("{text}: {got:?}"),
        };
        check("frames", Ok(Step::Shrink(Axis::Frames, None)));
        check("frames:25", Ok(Step::Shrink(Axis::Frames, Some(25))));
        check("size:320", Ok(Step::Shrink(Axis::Size, Some(320))));
        check("model:a:b", Ok(Step::Model("a:b".into())));
        check("frames:few", Err("write a whole number"));
        check("model", Err("name the smaller model"));
        check("steps", Err("time and no memory"));
        check("fps", Err("'fps' cannot shrink"));
    }
}

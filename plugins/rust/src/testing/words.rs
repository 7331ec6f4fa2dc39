//! The contract's types as written values and back. The host writes them with a list of its own, over the types of its
//! side; what the two make of a value is compared whenever a component is compared with its source.

use super::wave::{Data, Wave};
use crate::bindings::loadline::policy::types as wit;

/// A field that is not named here does not compile.
macro_rules! records {
    ($($name:ident { $($field:ident),* $(,)? })*) => {$(
        impl Wave for wit::$name {
            fn data(&self) -> Data {
                let Self { $($field),* } = self;
                Data::Record(vec![$((kebab(stringify!($field)), $field.data())),*])
            }

            fn read(data: &Data) -> Result<Self, String> {
                Ok(Self { $($field: field(data, stringify!($field))?),* })
            }
        }
    )*};
}

records! {
    Entry { key, value }
    Column { name, values }
    Blocks { component, index, slab, file, flags, copy_pinned_ns, copy_pageable_ns, read_ns, extra }
    Stage { kind, name, component, passes, blocks, compute_ns, activation_peak, extra }
    Job { model, request, knobs, components, blocks, stages, frames_host }
    Machine { name, kernel_set, memory, granularity, fixed_overhead, facts }
    Budget { device, host, pinned, disk }
    Loaded { block, tier, bytes, hash }
    Situation {
        cause, job, from_stage, machine, budget, settings, may_change, observed_device, loaded, upcoming, memo, facts,
    }
    Loads { block, slot, after }
    StagePlan { slot_bytes, slot_flags, prologue, cycle, cycle_passes, activations }
    StepDown { reason, slots }
    Trigger { kind, threshold, hysteresis }
    Plan { knobs, homes, stages, retain, ladder, triggers, memo, reasons }
    Refusal { stage, needs_bytes, message }
    ForecastReply {
        cold_ns, warm_ns, host_peak, disk_read, stage_cold_ns, stage_warm_ns, stage_stall_ns, stage_peak,
        stage_bound_ns, stalls, findings, facts,
    }
    Description { name, version, summary, settings }
}

/// The contract has `-` where names of Rust have `_`.
fn kebab(name: &str) -> String {
    name.replace('_', "-")
}

fn field<T: Wave>(record: &Data, name: &str) -> Result<T, String> {
    let name = kebab(name);
    T::read(record.field(&name)?).map_err(|error| format!("{name}: {error}"))
}

pub(super) fn case(name: &str, value: Data) -> Data {
    Data::Case(name.to_owned(), Box::new(value))
}

impl Wave for wit::Value {
    fn data(&self) -> Data {
        match self {
            Self::Boolean(value) => case("boolean", value.data()),
            Self::Integer(value) => case("integer", value.data()),
            Self::Number(value) => case("number", value.data()),
            Self::Text(value) => case("text", value.data()),
        }
    }

    fn read(data: &Data) -> Result<Self, String> {
        match data {
            Data::Case(name, value) if name == "boolean" => bool::read(value).map(Self::Boolean),
            Data::Case(name, value) if name == "integer" => i64::read(value).map(Self::Integer),
            Data::Case(name, value) if name == "number" => f64::read(value).map(Self::Number),
            Data::Case(name, value) if name == "text" => String::read(value).map(Self::Text),
            other => Err(format!("{other} is no value")),
        }
    }
}

impl Wave for wit::Decision {
    fn data(&self) -> Data {
        match self {
            Self::Keep => Data::Word("keep".to_owned()),
            Self::Plan(plan) => case("plan", plan.data()),
        }
    }

    fn read(data: &Data) -> Result<Self, String> {
        match data {
            Data::Word(word) if word == "keep" => Ok(Self::Keep),
            other => match other.case("plan") {
                Some(plan) => wit::Plan::read(plan).map(Self::Plan),
                None => Err(format!("{other} is no decision")),
            },
        }
    }
}

macro_rules! words {
    ($($word:ty),*) => {$(
        impl Wave for $word {
            fn data(&self) -> Data {
                // As the host writes it: `5.0` for a number, never `5`.
                Data::Word(format!("{self:?}"))
            }

            fn read(data: &Data) -> Result<Self, String> {
                let Data::Word(word) = data else { return Err(format!("{data} is no {}", stringify!($word))) };
                word.parse().map_err(|error| format!("{word}: {error}"))
            }
        }
    )*};
}
words!(bool, u8, u32, u64, i64, f64);

impl Wave for String {
    fn data(&self) -> Data {
        Data::Text(self.clone())
    }

    fn read(data: &Data) -> Result<Self, String> {
        match data {
            Data::Text(text) => Ok(text.clone()),
            other => Err(format!("{other} is no text")),
        }
    }
}

impl<T: Wave> Wave for Vec<T> {
    fn data(&self) -> Data {
        Data::List(self.iter().map(Wave::data).collect())
    }

    fn read(data: &Data) -> Result<Self, String> {
        match data {
            Data::List(items) => items.iter().map(T::read).collect(),
            other => Err(format!("{other} is no list")),
        }
    }
}

impl<T: Wave> Wave for Option<T> {
    fn data(&self) -> Data {
        self.as_ref().map_or_else(|| Data::Word("none".to_owned()), |value| case("some", value.data()))
    }

    fn read(data: &Data) -> Result<Self, String> {
        data.case("some").map(T::read).transpose()
    }
}

impl<T: Wave, E: Wave> Wave for Result<T, E> {
    fn data(&self) -> Data {
        match self {
            Ok(value) => case("ok", value.data()),
            Err(error) => case("err", error.data()),
        }
    }

    fn read(data: &Data) -> Result<Self, String> {
        match (data.case("ok"), data.case("err")) {
            (Some(value), _) => T::read(value).map(Ok),
            (None, Some(error)) => E::read(error).map(Err),
            (None, None) => Err(format!("{data} is no result")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Shape, situation};
    use super::*;

    #[test]
    fn what_is_written_is_read_as_it_was() {
        let shape = Shape { control: vec![1], ..Shape::alike("denoise", 3, 100, 10, 5) };
        let settings = [
            ("a", wit::Value::Boolean(true)),
            ("b", wit::Value::Integer(-7)),
            ("c", wit::Value::Number(5.0)),
            ("d", wit::Value::Text("x \"y\"".into())),
        ];
        let s = situation(&[shape], 400, &settings);
        assert_eq!(wit::Situation::read(&s.data()), Ok(s));
        let refusal = wit::Refusal { stage: Some(1), needs_bytes: None, message: "no".into() };
        let answer: Result<wit::Decision, wit::Refusal> = Err(refusal);
        assert_eq!(Wave::read(&answer.data()), Ok(answer));
        assert_eq!(5.0_f64.data(), Data::Word("5.0".into()));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let shape = Shape::alike("denoise", 1, 100, 10, 5);
        let Data::Record(mut fields) = situation(&[shape], 400, &[]).data() else { panic!("no record") };
        fields[2].1 = Data::Text("x".into());
        let error = wit::Situation::read(&Data::Record(fields.clone())).unwrap_err();
        assert_eq!(error, "from-stage: \"x\" is no u32");
        fields.remove(2);
        assert_eq!(wit::Situation::read(&Data::Record(fields)).unwrap_err(), "a record lacks from-stage");
    }
}

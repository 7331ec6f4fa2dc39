//! Typed access to `scheduler_config.json`, in which an absent or null field means the class's default.

use serde_json::Value;

use super::ScheduleError;

/// The fields of one scheduler configuration.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(&'a serde_json::Map<String, Value>);

impl<'a> Fields<'a> {
    /// Wraps a configuration, which must be a JSON object.
    pub(super) fn new(json: &'a Value) -> Result<Self, ScheduleError> {
        let object = json.as_object().ok_or_else(|| ScheduleError::NotAScheduler("it is not a JSON object".into()))?;
        Ok(Self(object))
    }

    /// The scheduler's class, from `_class_name`.
    pub(super) fn class(&self) -> Result<&'a str, ScheduleError> {
        let class = self.get("_class_name").and_then(Value::as_str);
        class.ok_or_else(|| ScheduleError::NotAScheduler("it has no \"_class_name\"".into()))
    }

    pub(super) fn get(&self, field: &str) -> Option<&'a Value> {
        self.0.get(field).filter(|v| !v.is_null())
    }

    /// A finite number.
    pub(super) fn number(&self, field: &'static str, default: f64) -> Result<f64, ScheduleError> {
        Ok(self.optional_number(field)?.unwrap_or(default))
    }

    /// A finite number above zero: shifts and scales divide or take logarithms.
    pub(super) fn positive(&self, field: &'static str, default: f64) -> Result<f64, ScheduleError> {
        let value = self.number(field, default)?;
        if value > 0.0 { Ok(value) } else { Err(bad(field, "a number above 0", &Value::from(value))) }
    }

    pub(super) fn optional_number(&self, field: &'static str) -> Result<Option<f64>, ScheduleError> {
        let Some(value) = self.get(field) else {
            return Ok(None);
        };
        let number = value.as_f64().filter(|x| x.is_finite());
        number.map(Some).ok_or_else(|| bad(field, "a finite number", value))
    }

    /// An integer from `least` to `most`.
    pub(super) fn integer(
        &self,
        field: &'static str,
        default: usize,
        least: usize,
        most: usize,
    ) -> Result<usize, ScheduleError> {
        let Some(value) = self.get(field) else {
            return Ok(default);
        };
        let whole = value.as_u64().and_then(|x| usize::try_from(x).ok());
        whole.filter(|x| (least..=most).contains(x)).ok_or_else(|| bad(field, "a whole number in its range", value))
    }

    pub(super) fn flag(&self, field: &'static str, default: bool) -> Result<bool, ScheduleError> {
        let Some(value) = self.get(field) else {
            return Ok(default);
        };
        value.as_bool().ok_or_else(|| bad(field, "true or false", value))
    }

    pub(super) fn text(&self, field: &'static str, default: &'a str) -> Result<&'a str, ScheduleError> {
        let Some(value) = self.get(field) else {
            return Ok(default);
        };
        value.as_str().ok_or_else(|| bad(field, "a string", value))
    }

    /// A list of step indices.
    pub(super) fn indices(&self, field: &'static str) -> Result<Vec<usize>, ScheduleError> {
        let Some(value) = self.get(field) else {
            return Ok(Vec::new());
        };
        let list = value.as_array().and_then(|items| items.iter().map(|i| Some(i.as_u64()? as usize)).collect());
        list.ok_or_else(|| bad(field, "a list of step numbers", value))
    }

    /// Refuses a flag that selects something not implemented.
    pub(super) fn refuse(&self, field: &'static str, way_out: &'static str) -> Result<(), ScheduleError> {
        if self.flag(field, false)? { Err(unsupported(field, &Value::Bool(true), way_out)) } else { Ok(()) }
    }

    /// Number of training steps that time steps are scaled by; at most a million, since tables of this length are
    /// built.
    pub(super) fn train_steps(&self) -> Result<usize, ScheduleError> {
        self.integer("num_train_timesteps", 1000, 2, 1_000_000)
    }
}

/// Steps must be at least one, and no more than the model was trained with.
pub(super) fn check_steps(steps: usize, most: usize) -> Result<(), ScheduleError> {
    if (1..=most).contains(&steps) { Ok(()) } else { Err(ScheduleError::Steps { steps, most }) }
}

pub(super) fn bad(field: &'static str, expected: &'static str, found: &Value) -> ScheduleError {
    ScheduleError::BadField { field, expected, found: found.to_string() }
}

pub(super) fn unsupported(field: &'static str, found: &Value, way_out: &'static str) -> ScheduleError {
    ScheduleError::Unsupported { field, found: found.to_string(), way_out }
}

//! A fit in words and as JSON.

use std::fmt::{self, Write};

use serde_json::{Value, json};

use super::{Beyond, Fit, Fitting, Reason, Target};
use crate::capacity::row::{figures_json, row_json};
use crate::capacity::{Axis, rows_table};

/// The version of a fit's JSON.
const SCHEMA: &str = "loadline-fit/1";

impl Target {
    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Most(axis) => axis.name(),
            Self::LeastVram => "vram",
            Self::Fastest => "fastest",
        }
    }
}

impl Fit {
    /// The answer for scripts.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "schema": SCHEMA,
            "target": self.target.name(),
            "model": self.model,
            "machine": self.gpu,
            "max_time_ns": self.max_time,
            "fits": self.answer.is_some(),
            "answer": self.answer.as_ref().map(fitting_json),
            "beyond": self.beyond.as_ref().map(beyond_json),
            "proof": {
                "plans": self.proof.plans,
                "scanned_to": self.proof.scanned_to,
                "impossible_from": self.proof.impossible_from,
                "complete": self.proof.complete,
            },
            "rows": self.rows.iter().map(row_json).collect::<Vec<_>>(),
        })
    }
}

fn fitting_json(fitting: &Fitting) -> Value {
    let given: serde_json::Map<String, Value> = fitting.given.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
    let mut value = json!({
        "value": fitting.value,
        "request": fitting.request,
        "budget_bytes": fitting.budget,
        "policy": fitting.policy,
        "settings": given,
        "plan_hash": fitting.plan_hash,
        "reservations": fitting.reservations,
    });
    if let (Some(value), Value::Object(more)) = (value.as_object_mut(), figures_json(&fitting.figures)) {
        value.extend(more);
    }
    value
}

fn beyond_json(beyond: &Beyond) -> Value {
    let mut value = json!({ "value": beyond.value, "budget_bytes": beyond.budget });
    let more = match &beyond.reason {
        Reason::Memory { message, stage, tensor, needs, reservation, grew } => json!({
            "kind": "memory", "reason": message, "stage": stage, "tensor": tensor, "needs": needs,
            "reservation": reservation, "grew_bytes": grew,
        }),
        Reason::Time(time) => json!({ "kind": "time", "time_ns": time }),
        Reason::Limit(message) => json!({ "kind": "limit", "reason": message }),
    };
    if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
        value.extend(more);
    }
    value
}

impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        if !self.rows.is_empty() {
            writeln!(text, "{}", rows_table(&self.rows).text())?;
        }
        match &self.answer {
            Some(answer) => self.says(answer, &mut text)?,
            None => writeln!(text, "nothing fits: {} on {}", self.model, self.gpu)?,
        }
        if let Some(beyond) = &self.beyond {
            self.says_beyond(beyond, &mut text)?;
        }
        self.says_proof(&mut text)?;
        f.write_str(text.trim_end())
    }
}

impl Fit {
    fn says(&self, answer: &Fitting, text: &mut String) -> fmt::Result {
        let flag = match self.target {
            Target::Most(Axis::Frames) => "--frames ",
            Target::Most(Axis::Size) => "--size ",
            Target::Most(Axis::Steps) => "--steps ",
            Target::LeastVram => "--vram ",
            Target::Fastest => "--policy ",
        };
        let what = match self.target {
            Target::Most(axis) => format!("most {}", axis.name()),
            Target::LeastVram => "least device memory".to_owned(),
            Target::Fastest => "fastest policy".to_owned(),
        };
        let (request, figures) = (&answer.request, &answer.figures);
        writeln!(text, "{what}: {flag}{}", answer.value)?;
        writeln!(
            text,
            "  fits       {} · {} · {} frames · {} steps on {} with {}",
            self.model, request.size, request.frames, request.steps, self.gpu, answer.policy.name
        )?;
        let shares: Vec<_> = answer.reservations.iter().map(|r| format!("{} {}", r.name, r.bytes)).collect();
        writeln!(
            text,
            "             {} of {} in stage '{}': {}",
            figures.peak,
            answer.budget,
            figures.peak_stage,
            shares.join(" · ")
        )?;
        writeln!(
            text,
            "             {} cold, likely between {} and {}, {} warm; plan {}",
            figures.cold, figures.p10, figures.p90, figures.warm, answer.plan_hash
        )?;
        if figures.tiled_to_fit {
            writeln!(text, "             the VAE is tiled: nothing else fits; tiles change the numbers slightly")?;
        }
        Ok(())
    }

    fn says_beyond(&self, beyond: &Beyond, text: &mut String) -> fmt::Result {
        let value = if beyond.value.is_empty() { "more" } else { &beyond.value };
        match &beyond.reason {
            Reason::Memory { message, stage, tensor, needs, reservation, grew } => {
                writeln!(text, "  does not   {value}: {message}")?;
                if !needs.is_empty() {
                    let sum: loadline_core::Bytes = needs.iter().map(|r| r.bytes).sum();
                    let shares: Vec<_> = needs.iter().map(|r| format!("{} {}", r.name, r.bytes)).collect();
                    writeln!(
                        text,
                        "             stage '{stage}' needs {sum}, {} more than {}: {}",
                        sum - beyond.budget,
                        beyond.budget,
                        shares.join(" · ")
                    )?;
                }
                match reservation {
                    Some(name) if grew.0 > 0 => {
                        writeln!(text, "  breaks it  reservation '{name}', which grows by {grew}: {tensor}")
                    }
                    Some(name) => writeln!(text, "  breaks it  reservation '{name}': {tensor}"),
                    None => writeln!(text, "  breaks it  {tensor}"),
                }
            }
            Reason::Time(time) => {
                let limit = self.max_time.unwrap_or_default();
                writeln!(text, "  does not   {value}: it takes {time}, {limit} are allowed")
            }
            Reason::Limit(message) => writeln!(text, "  does not   {value}: {message}"),
        }
    }

    fn says_proof(&self, text: &mut String) -> fmt::Result {
        let proof = &self.proof;
        if self.target == Target::Fastest {
            return Ok(());
        }
        let mut said = vec![format!("{} plans were asked for", proof.plans)];
        let (side, from) = if self.target == Target::LeastVram { ("down to", "below") } else { ("up to", "from") };
        if let Some(scanned) = &proof.scanned_to {
            said.push(format!("every value {side} {scanned} was planned and does not fit"));
        }
        if let Some(impossible) = &proof.impossible_from {
            let impossible =
                if from == "below" { format!("at {impossible} and below") } else { format!("from {impossible}") };
            said.push(format!("{impossible} no policy can do it"));
        }
        if !proof.complete {
            said.push("what lies between was not planned".to_owned());
        }
        writeln!(text, "  proof      {}", said.join("; "))
    }
}

//! `--step-down`: what was allowed to shrink, and saying loudly that it did.

use loadline::stepdown::{Descent, Refusal, Step, descend};
use loadline::{Asked, Error, Planned, Planner};
use serde_json::{Value, json};

use crate::args::RequestArgs;
use crate::setup;

/// What is different from what was typed, and where it comes from.
#[derive(Default)]
pub(crate) struct Said {
    /// Whether it is for scripts.
    pub(crate) json: bool,
    lines: Vec<String>,
    fields: Vec<(&'static str, Value)>,
}

impl Said {
    /// For people.
    pub(crate) fn lines(&self) -> &[String] {
        &self.lines
    }

    /// For scripts.
    pub(crate) fn extend(&self, value: &mut Value) {
        for (field, content) in &self.fields {
            value[*field] = content.clone();
        }
    }
}

/// What a preset filled in, and what shrank.
pub(crate) fn said(request: &RequestArgs, steps: &[Step], descent: Option<&Descent>) -> Result<Said, Error> {
    let mut said = Said { json: request.json, ..Said::default() };
    if let Some(origin) = &request.origin {
        let given = setup::given(request)?;
        said.lines.push(origin.text(&given));
        said.fields.push(("preset", origin.json(&given)));
    }
    let down = descent.map_or(&[][..], |d| &d.steps);
    if !down.is_empty() {
        said.lines.push("NOT WHAT WAS ASKED FOR: that does not fit; --step-down allows this instead".to_owned());
        said.lines.extend(down.iter().map(|step| format!("  {step}")));
    }
    if !steps.is_empty() {
        said.fields.push(("step_downs", json!(down)));
    }
    Ok(said)
}

/// Plans; where nothing fits and something may shrink, plans the first smaller thing that does.
pub(crate) fn plan(planner: &Planner<'_>, asked: &Asked, steps: &[Step]) -> Result<(Planned, Option<Descent>), Error> {
    let certificate = match planner.plan(asked) {
        Ok(planned) => return Ok((planned, None)),
        Err(Error::NeverFits(certificate)) if !steps.is_empty() => certificate,
        Err(other) => return Err(other),
    };
    let Planner { model, machine, policy, settings, .. } = *planner;
    let refusal = Refusal { model, machine, policy, settings, asked, certificate: &certificate, steps };
    match descend(&refusal)? {
        Some(descent) => Ok((descent.planned.clone(), Some(descent))),
        None => {
            let steps: Vec<_> = steps.iter().map(ToString::to_string).collect();
            note!("nothing smaller fits either: --step-down {}", steps.join(","));
            Err(Error::NeverFits(certificate))
        }
    }
}

/// What has to shrink before a run; where nothing may, the run itself will say what does not fit.
pub(crate) fn before(planner: &Planner<'_>, asked: &Asked, steps: &[Step]) -> Result<Option<Descent>, Error> {
    if steps.is_empty() {
        return Ok(None);
    }
    plan(planner, asked, steps).map(|(_, descent)| descent)
}

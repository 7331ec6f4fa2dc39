//! A forecast pinned to a file: small, for people to review, and useless when edited.

use std::collections::BTreeMap;

use loadline_core::{Bytes, Cfg, ContentHash, DType, Machine, Nanos, PolicyId, Provenance, Request, Size};
use serde::{Deserialize, Serialize};

use crate::{Asked, Error, KnobChoice, Planned, SamplerOptions, ScheduleKind};

/// The version of lock files.
const SCHEMA: &str = "loadline-lock/1";
/// The version of the plans that lock files hash.
const PLAN_SCHEMA: &str = "loadline-plan/1";
/// The first line of every lock file.
const HEADER: &str = "# Made by `loadline lock`, read by `loadline diff`. Do not edit: make it again instead.\n";

/// Why a lock file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// It cannot be read.
    #[error("{name}: {detail}; check the path, or make one with `loadline lock ... -o {name}`")]
    Unreadable {
        /// The file.
        name: String,
        /// What is wrong.
        detail: String,
    },
    /// It is no TOML, or lacks a field.
    #[error("{name}: this is no lock file: {detail}; make one with `loadline lock ... -o {name}`")]
    Syntax {
        /// The file.
        name: String,
        /// What is wrong.
        detail: String,
    },
    /// It was made by another version.
    #[error(
        "{name}: schema '{schema}' is not what this version reads ({SCHEMA}): use a newer loadline, or make it again"
    )]
    Version {
        /// The file.
        name: String,
        /// Its schema.
        schema: String,
    },
    /// Its content is not what its digest says.
    #[error(
        "{name}: digest {digest} does not match the content, whose digest is {found}: the file was edited or merged by \
         hand; make it again with `loadline lock ... -o {name}`"
    )]
    Edited {
        /// The file.
        name: String,
        /// The digest in the file.
        digest: ContentHash,
        /// The digest of its content.
        found: ContentHash,
    },
}

/// The words of a command, as they were typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order<'a> {
    /// The model's name or folder.
    pub model: &'a str,
    /// The profile's name or file.
    pub gpu: &'a str,
    /// The policy's name or file.
    pub policy: &'a str,
    /// The settings that were given.
    pub settings: &'a [(String, String)],
}

/// A forecast with the hashes of everything that it was made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Lock {
    digest: ContentHash,
    body: Body,
}

/// What the file holds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    schema: String,
    digest: ContentHash,
    loadline: String,
    plan_schema: String,
    inputs: Inputs,
    plan: PlanPart,
    forecast: ForecastPart,
}

/// Everything that the digest covers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Body {
    pub(super) loadline: String,
    pub(super) plan_schema: String,
    pub(super) inputs: Inputs,
    pub(super) plan: PlanPart,
    pub(super) forecast: ForecastPart,
}

/// What the forecast was made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Inputs {
    pub(super) model: String,
    pub(super) model_hash: ContentHash,
    pub(super) gpu: String,
    pub(super) profile_hash: ContentHash,
    pub(super) provenance: Provenance,
    pub(super) policy: String,
    pub(super) schedule: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) vram_bytes: Option<Bytes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ram_bytes: Option<Bytes>,
    pub(super) used_by_others_bytes: Bytes,
    pub(super) policy_id: PolicyId,
    pub(super) settings: BTreeMap<String, String>,
    pub(super) request: Request,
    pub(super) knobs: Choice,
}

/// The knobs that were set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Choice {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cfg: Option<Cfg>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) storage: Vec<(String, DType)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tile: Option<Size>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tile_overlap: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) frame_chunk: Option<u32>,
}

/// What was decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlanPart {
    pub(super) hash: ContentHash,
    pub(super) guidance: Cfg,
    pub(super) tiled_to_fit: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tile: Option<Size>,
}

/// What it is expected to take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ForecastPart {
    pub(super) budget_bytes: Bytes,
    pub(super) device_peak_bytes: Bytes,
    pub(super) host_peak_bytes: Bytes,
    pub(super) disk_read_bytes: Bytes,
    pub(super) cold_ns: Nanos,
    pub(super) warm_ns: Nanos,
    pub(super) bound_ns: Nanos,
    pub(super) stages: Vec<StagePart>,
}

/// One stage of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StagePart {
    pub(super) name: String,
    pub(super) cold_ns: Nanos,
    pub(super) warm_ns: Nanos,
    pub(super) p10_ns: Nanos,
    pub(super) p90_ns: Nanos,
    pub(super) stall_ns: Nanos,
    pub(super) peak_bytes: Bytes,
    pub(super) resident_blocks: u32,
    pub(super) streamed_blocks: u32,
    pub(super) reservations: BTreeMap<String, Bytes>,
}

impl Lock {
    /// Pins a forecast.
    #[must_use]
    pub fn new(order: &Order<'_>, asked: &Asked, planned: &Planned, machine: &Machine) -> Self {
        let inputs = Inputs {
            model: order.model.to_owned(),
            model_hash: planned.job.model_hash.clone(),
            gpu: order.gpu.to_owned(),
            profile_hash: machine.hash.clone(),
            provenance: machine.provenance,
            policy: order.policy.to_owned(),
            schedule: if asked.sampling.schedule == ScheduleKind::Wan { "wan" } else { "diffusers" }.to_owned(),
            vram_bytes: asked.vram,
            ram_bytes: asked.ram,
            used_by_others_bytes: asked.used_by_others,
            policy_id: planned.plan.policy.clone(),
            settings: order.settings.iter().cloned().collect(),
            request: asked.request.clone(),
            knobs: choice(&asked.knobs),
        };
        let plan = PlanPart {
            hash: planned.plan.hash(),
            guidance: planned.plan.knobs.cfg,
            tiled_to_fit: planned.tiled_to_fit,
            tile: planned.plan.knobs.tile,
        };
        let (loadline, plan_schema) = (env!("CARGO_PKG_VERSION").to_owned(), PLAN_SCHEMA.to_owned());
        let body = Body { loadline, plan_schema, inputs, plan, forecast: forecast_part(planned) };
        Self { digest: ContentHash::of(&body), body }
    }

    /// Reads a lock file. `name` is the file's, for messages.
    ///
    /// # Errors
    /// If it is no lock file, one of another version, or one whose content is not what its digest says.
    pub fn parse(text: &str, name: &str) -> Result<Self, LockError> {
        let syntax = |detail: &dyn std::fmt::Display| LockError::Syntax {
            name: name.to_owned(),
            detail: detail.to_string().trim_end().replace('\n', " "),
        };
        // The version comes first: the fields of another one mean nothing here.
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| syntax(&e.message()))?;
        match table.get("schema").and_then(toml::Value::as_str) {
            Some(SCHEMA) => {}
            Some(other) => return Err(LockError::Version { name: name.to_owned(), schema: other.to_owned() }),
            None => return Err(syntax(&"it has no schema")),
        }
        let file: File = table.try_into().map_err(|e: toml::de::Error| syntax(&e.message()))?;
        let File { digest, loadline, plan_schema, inputs, plan, forecast, .. } = file;
        let body = Body { loadline, plan_schema, inputs, plan, forecast };
        let found = ContentHash::of(&body);
        if found != digest {
            return Err(LockError::Edited { name: name.to_owned(), digest, found });
        }
        Ok(Self { digest, body })
    }

    /// The file's text.
    ///
    /// # Errors
    /// If a number of the request or its forecast is larger than a TOML file can hold.
    pub fn text(&self) -> Result<String, Error> {
        if let Some((field, number)) = too_large("", &self.json()) {
            return Err(Error::Request(format!(
                "{field} is {number}, and a lock file holds at most {}; ask for less",
                i64::MAX
            )));
        }
        let (digest, body) = (self.digest.clone(), self.body.clone());
        let Body { loadline, plan_schema, inputs, plan, forecast } = body;
        let file = File { schema: SCHEMA.to_owned(), digest, loadline, plan_schema, inputs, plan, forecast };
        let body = toml::to_string(&file).map_err(|e| Error::Request(format!("no lock file can hold this: {e}")))?;
        Ok(format!("{HEADER}{body}"))
    }

    pub(super) const fn body(&self) -> &Body {
        &self.body
    }

    /// The same for scripts.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let body = &self.body;
        serde_json::json!({
            "schema": SCHEMA, "digest": self.digest, "loadline": body.loadline, "plan_schema": body.plan_schema,
            "inputs": body.inputs, "plan": body.plan, "forecast": body.forecast,
        })
    }

    /// Which inputs are others, where there is no plan and all that is known is today's model, machine and policy.
    #[must_use]
    pub fn changed_inputs(&self, model: &ContentHash, machine: &Machine, policy: &PolicyId) -> Vec<String> {
        let mut now = self.body.clone();
        (now.loadline, now.plan_schema) = (env!("CARGO_PKG_VERSION").to_owned(), PLAN_SCHEMA.to_owned());
        (now.inputs.model_hash, now.inputs.policy_id) = (model.clone(), policy.clone());
        (now.inputs.profile_hash, now.inputs.provenance) = (machine.hash.clone(), machine.provenance);
        super::diff::changes(&self.body, &now)
    }

    /// The words of the command that made it.
    #[must_use]
    pub fn order(&self) -> (&str, &str, &str, Vec<(String, String)>) {
        let inputs = &self.body.inputs;
        let settings = inputs.settings.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        (&inputs.model, &inputs.gpu, &inputs.policy, settings)
    }

    /// What was asked for.
    #[must_use]
    pub fn asked(&self) -> Asked {
        let inputs = &self.body.inputs;
        let schedule = if inputs.schedule == "wan" { ScheduleKind::Wan } else { ScheduleKind::Diffusers };
        Asked {
            request: inputs.request.clone(),
            knobs: KnobChoice {
                cfg: inputs.knobs.cfg,
                storage: inputs.knobs.storage.clone(),
                tile: inputs.knobs.tile,
                tile_overlap: inputs.knobs.tile_overlap,
                frame_chunk: inputs.knobs.frame_chunk,
            },
            sampling: SamplerOptions { schedule, ..SamplerOptions::default() },
            vram: inputs.vram_bytes,
            ram: inputs.ram_bytes,
            used_by_others: inputs.used_by_others_bytes,
        }
    }
}

/// The first whole number that TOML has no room for, with its field.
fn too_large(field: &str, value: &serde_json::Value) -> Option<(String, u64)> {
    let inside = |key: &str| if field.is_empty() { key.to_owned() } else { format!("{field}.{key}") };
    match value {
        serde_json::Value::Number(n) => {
            n.as_u64().filter(|n| i64::try_from(*n).is_err()).map(|n| (field.to_owned(), n))
        }
        serde_json::Value::Object(map) => map.iter().find_map(|(key, v)| too_large(&inside(key), v)),
        serde_json::Value::Array(list) => list.iter().find_map(|v| too_large(field, v)),
        _ => None,
    }
}

fn choice(knobs: &KnobChoice) -> Choice {
    Choice {
        cfg: knobs.cfg,
        storage: knobs.storage.clone(),
        tile: knobs.tile,
        tile_overlap: knobs.tile_overlap,
        frame_chunk: knobs.frame_chunk,
    }
}

fn forecast_part(planned: &Planned) -> ForecastPart {
    let forecast = &planned.forecast;
    let stages = forecast.stages.iter().map(|s| StagePart {
        name: s.name.clone(),
        cold_ns: s.cold,
        warm_ns: s.warm,
        p10_ns: s.p10,
        p90_ns: s.p90,
        stall_ns: s.stall,
        peak_bytes: s.peak,
        resident_blocks: s.resident_blocks,
        streamed_blocks: s.streamed_blocks,
        reservations: s.reservations.iter().map(|r| (r.name.clone(), r.bytes)).collect(),
    });
    ForecastPart {
        budget_bytes: planned.budget.device,
        device_peak_bytes: forecast.device_peak(),
        host_peak_bytes: forecast.host_peak(),
        disk_read_bytes: forecast.disk_read,
        cold_ns: forecast.total(|s| s.cold),
        warm_ns: forecast.total(|s| s.warm),
        bound_ns: forecast.total(|s| s.bound.time),
        stages: stages.collect(),
    }
}

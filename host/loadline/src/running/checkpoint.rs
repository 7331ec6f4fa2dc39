//! What a run leaves on disk so that it can go on after Ctrl-C, kill -9 or a power cut.
//!
//! A folder beside the result: `state.safetensors` with everything that lives at the last safe point, replaced as a
//! whole, and `frames.f32` with decoded chunks in their order, to which each chunk is appended. The state says how
//! much of the frames belongs to it; whatever was appended after it is ignored.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use loadline_core::{Knobs, Request};
use loadline_models::weights::WeightIndex;
use serde::{Deserialize, Serialize};

use super::output::{write_floats, write_tensors};
use crate::Error;

const VERSION: u32 = 1;

/// What a checkpoint belongs to: a run that differs in any of this would go on to another result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) model: String,
    pub(super) request: Request,
    pub(super) prompt: String,
    pub(super) negative_prompt: String,
    pub(super) seed: u64,
    pub(super) knobs: Knobs,
    pub(super) sampling: String,
    pub(super) latents: Option<String>,
}

/// Where a run stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Standing {
    version: u32,
    identity: Identity,
    /// The stage and the first pass that has not run.
    pub(super) stage: usize,
    pub(super) pass: u64,
    /// Values of `frames.f32` that belong to this state.
    pub(super) frame_values: u64,
    /// The hash of the plan that ran, for the record.
    pub(super) plan: String,
}

pub(super) type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// A checkpoint folder.
#[derive(Clone, Debug)]
pub(super) struct Checkpoint {
    folder: PathBuf,
    identity: Identity,
    plan: String,
    frame_values: u64,
}

impl Checkpoint {
    /// The checkpoint that belongs to a result.
    pub(super) fn beside(result: &Path, identity: Identity, plan: String) -> Self {
        let mut name = result.file_name().unwrap_or_default().to_owned();
        name.push(".checkpoint");
        Self { folder: result.with_file_name(name), identity, plan, frame_values: 0 }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    fn state(&self) -> PathBuf {
        self.folder.join("state.safetensors")
    }

    fn frames(&self) -> PathBuf {
        self.folder.join("frames.f32")
    }

    /// Saves a safe point: `fresh` are frames decoded since the last one.
    pub(super) fn save(&mut self, stage: usize, pass: u64, tensors: &Tensors, fresh: &[f32]) -> Result<(), Error> {
        let failed = |e: std::io::Error| Error::output(&self.folder, &e);
        fs::create_dir_all(&self.folder).map_err(failed)?;
        if !fresh.is_empty() {
            let file = OpenOptions::new().create(true).append(true).open(self.frames());
            file.and_then(|mut f| write_floats(&mut f, fresh)).map_err(failed)?;
            self.frame_values += fresh.len() as u64;
        }
        let standing = Standing {
            version: VERSION,
            identity: self.identity.clone(),
            stage,
            pass,
            frame_values: self.frame_values,
            plan: self.plan.clone(),
        };
        let text = serde_json::to_string(&standing).map_err(|e| Error::output(&self.folder, &e))?;
        write_tensors(&self.state(), tensors, Some(&text))
    }

    /// Reads what was saved; nothing if there is no checkpoint.
    pub(super) fn load(&mut self) -> Result<Option<(Standing, Tensors, Vec<f32>)>, Error> {
        let path = self.state();
        if !path.exists() {
            return Ok(None);
        }
        let damaged = |detail: String| Error::Output {
            path: path.clone(),
            detail: format!("{detail}; delete {} to start over", self.folder.display()),
        };
        let standing = self.standing(&path).map_err(damaged)?;
        if let Some(what) = self.differs(&standing.identity) {
            return Err(damaged(format!("this checkpoint was made with another {what}")));
        }
        let tensors = read_all(&path).map_err(damaged)?;
        let frames = self.read_frames(standing.frame_values).map_err(damaged)?;
        self.frame_values = standing.frame_values;
        Ok(Some((standing, tensors, frames)))
    }

    fn standing(&self, path: &Path) -> Result<Standing, String> {
        let bytes = fs::read(path).map_err(|e| e.to_string())?;
        let length = bytes.get(..8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
        let header = usize::try_from(length).ok().and_then(|n| bytes.get(8..8usize.checked_add(n)?));
        let header: serde_json::Value =
            serde_json::from_slice(header.ok_or("the file is cut off")?).map_err(|e| e.to_string())?;
        let text =
            header.pointer("/__metadata__/loadline").and_then(|v| v.as_str()).ok_or("no checkpoint of loadline")?;
        let standing: Standing = serde_json::from_str(text).map_err(|e| e.to_string())?;
        if standing.version != VERSION {
            return Err(format!("checkpoint version {}, this program reads {VERSION}", standing.version));
        }
        Ok(standing)
    }

    /// The first thing in which a saved run differs from this one.
    fn differs(&self, saved: &Identity) -> Option<&'static str> {
        let Identity { model, request, prompt, negative_prompt, seed, knobs, sampling, latents } = &self.identity;
        let checks = [
            (model == &saved.model, "model"),
            (request == &saved.request, "size, frames, steps or guidance"),
            (prompt == &saved.prompt, "prompt"),
            (negative_prompt == &saved.negative_prompt, "negative prompt"),
            (seed == &saved.seed, "seed"),
            (same_numbers(knobs, &saved.knobs), "knob (storage, tile, overlap, chunk or batched guidance)"),
            (sampling == &saved.sampling, "schedule"),
            (latents == &saved.latents, "--latents"),
        ];
        checks.into_iter().find(|(same, _)| !same).map(|(_, what)| what)
    }

    fn read_frames(&self, values: u64) -> Result<Vec<f32>, String> {
        if values == 0 {
            return Ok(Vec::new());
        }
        let bytes = fs::read(self.frames()).map_err(|e| format!("frames.f32: {e}"))?;
        let wanted = usize::try_from(values).ok().and_then(|v| bytes.get(..v.checked_mul(4)?));
        let wanted = wanted.ok_or("frames.f32 is shorter than the checkpoint says")?;
        // What was appended after the state was saved belongs to no state.
        let file = OpenOptions::new().write(true).open(self.frames()).and_then(|f| f.set_len(wanted.len() as u64));
        file.map_err(|e| format!("frames.f32: {e}"))?;
        Ok(wanted.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    /// Removes the checkpoint; the result is there.
    pub(super) fn remove(&self) {
        // A checkpoint that cannot be removed does no harm: the next run of this result replaces it.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Sequential and pair give the same bits.
fn same_numbers(a: &Knobs, b: &Knobs) -> bool {
    let batched = |k: &Knobs| k.cfg == loadline_core::Cfg::Batched;
    Knobs { cfg: b.cfg, ..a.clone() } == *b && batched(a) == batched(b)
}

fn read_all(path: &Path) -> Result<Tensors, String> {
    let index = WeightIndex::open_component(path).map_err(|e| e.to_string())?;
    let mut tensors = Tensors::new();
    for entry in &index.tensors {
        let tensor = super::output::read_tensor(path, Some(&entry.name)).map_err(|e| e.to_string())?;
        tensors.insert(entry.name.clone(), tensor);
    }
    Ok(tensors)
}

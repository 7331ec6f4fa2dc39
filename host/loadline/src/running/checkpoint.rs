//! What a run leaves on disk so that it can go on after Ctrl-C, kill -9 or a power cut.
//!
//! A folder beside the result: `state.safetensors` with everything that lives at the last safe point, replaced as a
//! whole, and `frames.f32` with decoded chunks in their order, to which each chunk is appended. The state says how
//! much of the frames belongs to it; whatever was appended after it is ignored. Tensors for `--dump-tensors` lie beside
//! them, a file each, so that a resumed run writes the same dump. A lock keeps two runs from sharing a result.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use loadline_core::{Knobs, Request};
use loadline_models::weights::WeightIndex;
use serde::{Deserialize, Serialize};

use super::output::{read_tensor, write_floats, write_tensors};
use crate::Error;

const VERSION: u32 = 2;

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
    /// What [`checksum`] gives for those values and for the tensors of the state.
    frame_sum: u64,
    state_sum: u64,
    /// Whether tensors are kept for a dump.
    dump: bool,
    /// The hash of the plan that ran, for the record.
    pub(super) plan: String,
}

pub(super) type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// A checkpoint folder.
#[derive(Debug)]
pub(super) struct Checkpoint {
    folder: PathBuf,
    identity: Identity,
    plan: String,
    frame_values: u64,
    frame_sum: u64,
    /// Names of the dump's tensors that are saved; nothing if no dump is wanted.
    dumped: Option<BTreeSet<String>>,
    /// Held while the run lives; the system lets go of it however the process ends.
    lock: Option<File>,
}

/// What a checkpoint gives back.
pub(super) struct Saved {
    pub(super) standing: Standing,
    pub(super) tensors: Tensors,
    pub(super) frames: Vec<f32>,
    pub(super) dumped: Tensors,
}

impl Checkpoint {
    /// The checkpoint that belongs to a result.
    pub(super) fn beside(result: &Path, identity: Identity, plan: String, dump: bool) -> Self {
        let mut name = result.file_name().unwrap_or_default().to_owned();
        name.push(".checkpoint");
        let dumped = dump.then(BTreeSet::new);
        let folder = result.with_file_name(name);
        Self { folder, identity, plan, frame_values: 0, frame_sum: 0, dumped, lock: None }
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

    fn dump(&self) -> PathBuf {
        self.folder.join("dump")
    }

    /// Takes the folder for this run. A run that starts over removes what an earlier one left; one that goes on
    /// reads it.
    ///
    /// # Errors
    /// If another run has it, it cannot be written, or what it holds is damaged or belongs to another run.
    pub(super) fn open(&mut self, resume: bool) -> Result<Option<Saved>, Error> {
        fs::create_dir_all(&self.folder).map_err(|e| Error::output(&self.folder, &e))?;
        self.take_lock()?;
        if resume {
            return self.load();
        }
        for file in [self.state(), self.frames()].iter().filter(|f| f.exists()) {
            fs::remove_file(file).map_err(|e| Error::output(file, &e))?;
        }
        if self.dump().exists() {
            fs::remove_dir_all(self.dump()).map_err(|e| Error::output(&self.folder, &e))?;
        }
        Ok(None)
    }

    fn take_lock(&mut self) -> Result<(), Error> {
        let path = self.folder.join("lock");
        let file = File::create(&path).map_err(|e| Error::output(&path, &e))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                let detail = "another run is making this result; wait for it, or name another with -o".to_owned();
                Err(Error::Output { path: self.folder.clone(), detail })
            }
            // Some network file systems have no locks: going on without one is what every other tool does.
            Ok(()) | Err(TryLockError::Error(_)) => {
                self.lock = Some(file);
                Ok(())
            }
        }
    }

    /// Keeps the dump's tensors that are new since the last safe point.
    pub(super) fn keep(&mut self, tensors: &Tensors) -> Result<(), Error> {
        let folder = self.dump();
        let Some(dumped) = &mut self.dumped else { return Ok(()) };
        for (name, tensor) in tensors.iter().filter(|(name, _)| !dumped.contains(*name)).collect::<Vec<_>>() {
            fs::create_dir_all(&folder).map_err(|e| Error::output(&folder, &e))?;
            let one = Tensors::from([(name.clone(), tensor.clone())]);
            write_tensors(&folder.join(format!("{name}.safetensors")), &one, None)?;
            dumped.insert(name.clone());
        }
        Ok(())
    }

    /// Saves a safe point: `fresh` are frames decoded since the last one.
    pub(super) fn save(&mut self, stage: usize, pass: u64, tensors: &Tensors, fresh: &[f32]) -> Result<(), Error> {
        let failed = |e: std::io::Error| Error::output(&self.folder, &e);
        fs::create_dir_all(&self.folder).map_err(failed)?;
        if !fresh.is_empty() {
            let file = OpenOptions::new().create(true).append(true).open(self.frames());
            file.and_then(|mut f| write_floats(&mut f, fresh)).map_err(failed)?;
            self.frame_values += fresh.len() as u64;
            self.frame_sum = checksum(self.frame_sum, fresh);
        }
        let standing = Standing {
            version: VERSION,
            identity: self.identity.clone(),
            stage,
            pass,
            frame_values: self.frame_values,
            frame_sum: self.frame_sum,
            state_sum: sum_of(tensors),
            dump: self.dumped.is_some(),
            plan: self.plan.clone(),
        };
        let text = serde_json::to_string(&standing).map_err(|e| Error::output(&self.folder, &e))?;
        write_tensors(&self.state(), tensors, Some(&text))
    }

    /// Reads what was saved; nothing if there is no checkpoint.
    fn load(&mut self) -> Result<Option<Saved>, Error> {
        let path = self.state();
        if !path.exists() {
            return Ok(None);
        }
        let folder = self.folder.clone();
        let damaged = |detail: String| Error::Output {
            path: path.clone(),
            detail: format!("{detail}; delete {} to start over", folder.display()),
        };
        let standing = self.standing(&path).map_err(damaged)?;
        if let Some(what) = self.differs(&standing.identity) {
            return Err(damaged(format!("this checkpoint was made with another {what}")));
        }
        if self.dumped.is_some() && !standing.dump {
            let text = "the interrupted run was not asked for --dump-tensors, so the first tensors are gone; resume without it";
            return Err(damaged(text.to_owned()));
        }
        let tensors = read_all(&path).map_err(damaged)?;
        let frames = self.read_frames(standing.frame_values).map_err(damaged)?;
        if sum_of(&tensors) != standing.state_sum || checksum(0, &frames) != standing.frame_sum {
            return Err(damaged("its numbers are not those that were saved".to_owned()));
        }
        (self.frame_values, self.frame_sum) = (standing.frame_values, standing.frame_sum);
        let dumped = self.read_dump().map_err(damaged)?;
        Ok(Some(Saved { standing, tensors, frames, dumped }))
    }

    fn read_dump(&mut self) -> Result<Tensors, String> {
        let folder = self.dump();
        let Some(names) = self.dumped.as_mut().filter(|_| folder.is_dir()) else { return Ok(Tensors::new()) };
        let mut tensors = Tensors::new();
        for entry in fs::read_dir(&folder).map_err(|e| e.to_string())? {
            let path = entry.map_err(|e| e.to_string())?.path();
            if path.extension().is_some_and(|e| e == "safetensors") {
                tensors.extend(read_all(&path)?);
            }
        }
        names.extend(tensors.keys().cloned());
        Ok(tensors)
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

impl Drop for Checkpoint {
    fn drop(&mut self) {
        // A run that ended before its first safe point leaves nothing to go on from; without the lock the folder is
        // not ours.
        if self.lock.is_some() && !self.state().exists() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// FNV-1a over the bits of numbers, going on from an earlier sum: it finds damage, it does not stop forgers.
fn checksum(sum: u64, values: &[f32]) -> u64 {
    values.iter().fold(sum, |sum, v| (sum ^ u64::from(v.to_bits())).wrapping_mul(0x0100_0000_01b3))
}

fn sum_of(tensors: &Tensors) -> u64 {
    tensors.values().fold(0, |sum, (_, values)| checksum(sum, values))
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
        let tensor = read_tensor(path, Some(&entry.name)).map_err(|e| e.to_string())?;
        tensors.insert(entry.name.clone(), tensor);
    }
    Ok(tensors)
}

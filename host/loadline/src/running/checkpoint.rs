//! What a run leaves on disk so that it can go on after Ctrl-C, kill -9 or a power cut.
//!
//! A folder beside the result: `state.safetensors` with everything that lives at the last saved safe point, replaced as
//! a whole, and `frames.f32` with decoded chunks in their order, to which each chunk is appended. The state says how
//! much of the frames belongs to it; whatever was appended after it is overwritten. Tensors for `--dump-tensors` lie
//! beside them, a file each, so that a resumed run writes the same dump. A lock keeps two runs from sharing a result.
//!
//! Every part has a digest in the state, and the state has one of itself: a flipped bit is an error, never another
//! result. Nothing that was found damaged is deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use loadline_core::Cfg;
use loadline_media::PartialFile;
use loadline_models::weights::WeightIndex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::digest::Digest;
use super::identity::Identity;
use super::output::{Tensors, read_tensor, write_floats, write_tensors};
use super::state::{StateReader, StateWriter, sum_of_tensor};
use crate::Error;
use crate::error::told;

const VERSION: u64 = 5;

/// Room in the header of a state for its tensors: latents, prompts, and what some hundred convolutions remember.
const HEADER: usize = 1 << 14;

/// The file that says where a run stands.
const STATE: &str = "state.safetensors";

/// Where a run stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Standing {
    version: u64,
    identity: Identity,
    /// The stage and the first pass that has not run.
    pub(super) stage: usize,
    pub(super) pass: u64,
    /// Values of `frames.f32` that belong to this state, and their digest.
    frame_values: u64,
    frame_sum: u64,
    /// The digest of the state's tensors.
    state_sum: u64,
    /// The digests of the dump's tensors; nothing if no dump is wanted.
    dump: Option<BTreeMap<String, u64>>,
    /// The hash of the plan that ran, for the record.
    plan: String,
}

impl Standing {
    /// Reads the header of a state, and nothing of its tensors, which may be gigabytes.
    fn read(path: &Path) -> Result<Self, String> {
        let text = |e: io::Error| match e.kind() {
            io::ErrorKind::UnexpectedEof => "the file is cut off".to_owned(),
            _ => e.to_string(),
        };
        let mut file = File::open(path).map_err(text)?;
        let rest = file.metadata().map_err(text)?.len().saturating_sub(8);
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(text)?;
        let length = u64::from_le_bytes(length);
        if !(1..=rest).contains(&length) {
            return Err("the file is cut off".to_owned());
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(text)?;
        let header: Value = serde_json::from_slice(&header).map_err(|e| format!("its header is damaged: {e}"))?;
        let field = |name: &str| header.pointer(&format!("/__metadata__/{name}")).and_then(Value::as_str);
        let text = field("loadline").ok_or("this is no checkpoint of loadline")?;
        let value: Value = serde_json::from_str(text).map_err(|e| format!("its header is damaged: {e}"))?;
        match value.get("version").and_then(Value::as_u64) {
            Some(VERSION) => {}
            Some(other) => {
                return Err(format!(
                    "this is checkpoint version {other}, this program reads version {VERSION}: go on with the program \
                     that made it"
                ));
            }
            None => return Err("its header has no version".to_owned()),
        }
        if field("sum") != Some(&format!("{:016x}", Digest::of_text(text))) {
            return Err("its header is not the one that was saved".to_owned());
        }
        serde_json::from_value(value).map_err(|e| format!("its header is damaged: {e}"))
    }

    /// The way of guidance that the passes are those of.
    pub(super) fn cfg(&self) -> Cfg {
        self.identity.knobs.cfg
    }
}

/// The folder beside a result.
fn folder_of(result: &Path) -> PathBuf {
    let mut name = result.file_name().unwrap_or_default().to_owned();
    name.push(".checkpoint");
    result.with_file_name(name)
}

/// The way of guidance that a result's checkpoint was made with, if there is one. A step has as many passes as it says,
/// so that a run goes on with the same, whatever a policy would choose now.
pub(super) fn saved_cfg(result: &Path) -> Option<Cfg> {
    // What is damaged is told when the checkpoint is opened.
    Standing::read(&folder_of(result).join(STATE)).ok().map(|standing| standing.cfg())
}

/// A checkpoint folder.
#[derive(Debug)]
pub(super) struct Checkpoint {
    folder: PathBuf,
    identity: Identity,
    plan: String,
    frame_values: u64,
    frame_sum: Digest,
    /// Digests of the dump's tensors that are saved; nothing if no dump is wanted.
    dumped: Option<BTreeMap<String, u64>>,
    /// Held while the run lives; the system lets go of it however the process ends.
    lock: Option<File>,
    /// Whether a run may go on from here.
    is_wanted: bool,
    /// The last state, on its way to the disk while the run computes on.
    sinking: Option<JoinHandle<Result<(), Error>>>,
    /// The file of frames, if some were appended since the last state.
    appended: Option<File>,
}

/// Takes the number, shape and values of a decoded chunk.
type TakeChunk<'a> = &'a mut dyn FnMut(usize, [usize; 4], &[f32]);

/// What a checkpoint gives back, beside its [frames](Checkpoint::replay).
pub(super) struct Saved {
    pub(super) standing: Standing,
    pub(super) tensors: StateReader,
    pub(super) dumped: Tensors,
}

impl Checkpoint {
    /// The checkpoint that belongs to a result.
    pub(super) fn beside(result: &Path, identity: Identity, plan: String, dump: bool) -> Self {
        let (folder, dumped) = (folder_of(result), dump.then(BTreeMap::new));
        Self {
            folder,
            identity,
            plan,
            frame_values: 0,
            frame_sum: Digest::default(),
            dumped,
            lock: None,
            is_wanted: true,
            sinking: None,
            appended: None,
        }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    fn state(&self) -> PathBuf {
        self.folder.join(STATE)
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
        if resume && self.state().symlink_metadata().is_ok() {
            return self.load().map(Some);
        }
        for file in [self.state(), self.frames()] {
            gone(fs::remove_file(&file)).map_err(|e| Error::output(&file, &e))?;
        }
        gone(fs::remove_dir_all(self.dump())).map_err(|e| Error::output(&self.dump(), &e))?;
        Ok(None)
    }

    fn take_lock(&mut self) -> Result<(), Error> {
        let path = self.folder.join("lock");
        let busy = || {
            let detail = "another run is making this result; wait for it, or name another with -o".to_owned();
            Err(Error::Output { path: self.folder.clone(), detail })
        };
        let file = File::create(&path).map_err(|e| Error::output(&path, &e))?;
        // Some network file systems have no locks: going on without one is what every other tool does.
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            return busy();
        }
        // A run that ends removes its folder: what was locked may be the file of one that has just ended.
        let same = |held: &fs::Metadata, named: &fs::Metadata| held.ino() == named.ino();
        match (file.metadata(), fs::metadata(&path)) {
            (Ok(held), Ok(named)) if same(&held, &named) => self.lock = Some(file),
            _ => return busy(),
        }
        Ok(())
    }

    /// What was saved last, by this run or the one it goes on with; nothing if there was no safe point yet.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(super) fn again(&mut self) -> Result<Option<Saved>, Error> {
        self.settle()?;
        if self.state().symlink_metadata().is_ok() {
            return self.load().map(Some);
        }
        (self.frame_values, self.frame_sum) = (0, Digest::default());
        Ok(None)
    }

    /// Another plan runs from now on.
    pub(super) fn goes_on_with(&mut self, plan: String) {
        self.plan = plan;
    }

    /// Keeps the dump's tensors that are new since the last safe point.
    pub(super) fn keep(&mut self, tensors: &Tensors) -> Result<(), Error> {
        let folder = self.dump();
        let Some(dumped) = &mut self.dumped else { return Ok(()) };
        for (name, tensor) in tensors.iter().filter(|(name, _)| !dumped.contains_key(*name)).collect::<Vec<_>>() {
            fs::create_dir_all(&folder).map_err(|e| Error::output(&folder, &e))?;
            let one = Tensors::from([(name.clone(), tensor.clone())]);
            write_tensors(&dump_file(&folder, name), &one, &[])?;
            dumped.insert(name.clone(), sum_of_tensor(name, tensor));
        }
        Ok(())
    }

    /// Waits until the state that was saved last is on the disk; gives whether there was one to wait for.
    ///
    /// # Errors
    /// If it could not be written.
    pub(super) fn settle(&mut self) -> Result<bool, Error> {
        let Some(sinking) = self.sinking.take() else { return Ok(false) };
        let lost = || Err(Error::output(&self.state(), &io::Error::other("the thread that writes it ended early")));
        sinking.join().unwrap_or_else(|_| lost()).map(|()| true)
    }

    /// What takes the tensors of the next state. The last one has [settled](Self::settle).
    ///
    /// # Errors
    /// If it cannot be begun.
    pub(super) fn begin(&self) -> Result<StateWriter, Error> {
        debug_assert!(self.sinking.is_none(), "two states would be on their way at once");
        fs::create_dir_all(&self.folder).map_err(|e| Error::output(&self.folder, &e))?;
        // Where the run stands lies in the header as a text within a text, so its quotes count twice.
        let texts = serde_json::to_string(&(&self.identity, &self.dumped)).map_or(0, |text| 2 * text.len());
        StateWriter::create(&self.state(), HEADER + texts)
    }

    /// Appends frames that were decoded since the last call. A state that is saved later counts them; until then they
    /// are nothing, and a run that goes on from an earlier state writes them again.
    pub(super) fn append(&mut self, fresh: &[f32]) -> Result<(), Error> {
        if !fresh.is_empty() {
            self.appended = Some(self.write(fresh).map_err(|e| Error::output(&self.frames(), &e))?);
            self.frame_values += fresh.len() as u64;
            self.frame_sum.numbers(fresh);
        }
        Ok(())
    }

    /// Saves the safe point before a pass of a stage: `used` are the components that it depends on. The run may go on
    /// while it sinks to the disk.
    pub(super) fn save(
        &mut self,
        (stage, pass): (usize, u64),
        used: &BTreeSet<String>,
        tensors: StateWriter,
    ) -> Result<(), Error> {
        let standing = Standing {
            version: VERSION,
            identity: self.identity.after(used),
            stage,
            pass,
            frame_values: self.frame_values,
            frame_sum: self.frame_sum.value(),
            state_sum: tensors.sum(),
            dump: self.dumped.clone(),
            plan: self.plan.clone(),
        };
        let text = serde_json::to_string(&standing).map_err(|e| Error::output(&self.state(), &io::Error::other(e)))?;
        let sum = format!("{:016x}", Digest::of_text(&text));
        let state = tensors.finish(&[("loadline", &text), ("sum", &sum)])?;
        self.sink(state)
    }

    /// Makes frames and state last, in this order, beside the run.
    fn sink(&mut self, state: PartialFile) -> Result<(), Error> {
        let (appended, frames) = (self.appended.take(), self.frames());
        let sink = move || {
            appended.map_or(Ok(()), |file| file.sync_all()).map_err(|e| Error::output(&frames, &e))?;
            Ok(state.publish()?)
        };
        let thread = std::thread::Builder::new().name("loadline-state".to_owned()).spawn(sink);
        self.sinking = Some(thread.map_err(|e| Error::output(&self.state(), &e))?);
        Ok(())
    }

    /// What a run appended before it was killed, and never counted, is overwritten.
    fn write(&self, fresh: &[f32]) -> io::Result<File> {
        let end = 4 * self.frame_values;
        let mut file = OpenOptions::new().create(true).write(true).truncate(false).open(self.frames())?;
        file.set_len(end)?;
        file.seek(SeekFrom::Start(end))?;
        write_floats(&mut file, fresh)?;
        Ok(file)
    }

    /// The error of a checkpoint that is no use, with the ways out.
    pub(super) fn damaged(&self, detail: &str) -> Error {
        let detail = format!(
            "{detail}; nothing was deleted: bring the file back, or delete {} to start over",
            self.folder.display()
        );
        Error::Output { path: self.state(), detail }
    }

    fn load(&mut self) -> Result<Saved, Error> {
        let standing = self.standing().map_err(|e| self.damaged(&e))?;
        if let Some(what) = self.identity.differs(&standing.identity) {
            let detail = format!(
                "this checkpoint was made with another {what}: give what it was made with, name another result with \
                 -o, or delete {} to start over",
                self.folder.display()
            );
            return Err(Error::Output { path: self.state(), detail });
        }
        let tensors = StateReader::open(&self.state(), standing.state_sum).map_err(|e| self.damaged(&e))?;
        let dumped = self.read_dump(&standing)?;
        Ok(Saved { standing, tensors, dumped })
    }

    fn standing(&self) -> Result<Standing, String> {
        Standing::read(&self.state())
    }

    fn read_dump(&mut self, standing: &Standing) -> Result<Tensors, Error> {
        if self.dumped.is_none() {
            return Ok(Tensors::new());
        }
        let Some(sums) = &standing.dump else {
            let text = "the interrupted run was not asked for --dump-tensors, so the first tensors are gone; resume \
                        without it";
            return Err(self.damaged(text));
        };
        let mut tensors = Tensors::new();
        for (name, sum) in sums {
            let one = self.read_all(&dump_file(&self.dump(), name)).map_err(|e| self.damaged(&e))?;
            if one.iter().map(|(name, tensor)| sum_of_tensor(name, tensor)).ne([*sum]) {
                return Err(self.damaged(&format!("dump/{name}.safetensors is not the file that was saved")));
            }
            tensors.extend(one);
        }
        self.dumped = Some(sums.clone());
        Ok(tensors)
    }

    fn read_all(&self, path: &Path) -> Result<Tensors, String> {
        let index = WeightIndex::open_component(path).map_err(|e| told(&e))?;
        index.tensors.iter().map(|entry| Ok((entry.name.clone(), read_tensor(&index, entry)?))).collect()
    }

    /// Hands out the saved frames chunk by chunk, in the order in which they were decoded.
    pub(super) fn replay(&mut self, standing: &Standing, take: TakeChunk<'_>) -> Result<(), Error> {
        if standing.frame_values > 0 {
            self.read_frames(standing, take).map_err(|e| self.damaged(&format!("frames.f32: {e}")))?;
        }
        (self.frame_values, self.frame_sum) = (standing.frame_values, Digest::from_value(standing.frame_sum));
        Ok(())
    }

    fn read_frames(&self, standing: &Standing, take: TakeChunk<'_>) -> Result<(), String> {
        let file = File::open(self.frames()).map_err(|e| e.to_string())?;
        let length = file.metadata().map_err(|e| e.to_string())?.len();
        if standing.frame_values.checked_mul(4).is_none_or(|bytes| bytes > length) {
            return Err("it is shorter than the checkpoint says".to_owned());
        }
        let mut file = BufReader::new(file);
        let mut left = standing.frame_values;
        let mut sum = Digest::default();
        for n in 0.. {
            if left == 0 {
                break;
            }
            let mut chunk = read_floats(&mut file, 4)?;
            let shape = [chunk[0], chunk[1], chunk[2], chunk[3]].map(|side| side as usize);
            let size = shape.iter().try_fold(1usize, |n, side| n.checked_mul(*side)).unwrap_or(usize::MAX);
            left = left
                .checked_sub(4)
                .and_then(|l| l.checked_sub(size as u64))
                .ok_or("a chunk is longer than the rest")?;
            chunk.extend(read_floats(&mut file, size)?);
            sum.numbers(&chunk);
            take(n, shape, &chunk[4..]);
        }
        if sum.value() == standing.frame_sum { Ok(()) } else { Err("its numbers are not those that were saved".into()) }
    }

    /// An error after which `--resume` goes on, if there is something to go on from.
    pub(super) fn kept(&mut self, error: Error) -> Error {
        if let Err(unwritten) = self.settle() {
            return self.kept(unwritten);
        }
        if self.state().is_file() {
            return Error::Kept { source: Box::new(error), folder: self.folder.clone() };
        }
        error
    }

    /// Removes the checkpoint; the result is there.
    pub(super) fn remove(mut self) {
        self.is_wanted = false;
    }
}

impl Drop for Checkpoint {
    fn drop(&mut self) {
        let _ = self.settle();
        // A run that ended before its first safe point leaves nothing to go on from; without the lock the folder is
        // not ours. A checkpoint that cannot be removed does no harm: the next run of this result replaces it.
        if self.lock.is_some() && (!self.is_wanted || self.state().symlink_metadata().is_err()) {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

fn dump_file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.safetensors"))
}

/// What is not there need not be removed.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    removed.or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
}

fn read_floats(file: &mut dyn Read, count: usize) -> Result<Vec<f32>, String> {
    let mut bytes = vec![0; 4 * count];
    file.read_exact(&mut bytes).map_err(|e| e.to_string())?;
    Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

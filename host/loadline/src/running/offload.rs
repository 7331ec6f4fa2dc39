//! Packed copies of weights: every block as it lies in its slab, one behind the other, each from a page on.
//!
//! A copy is made once. Its name has the hash of its layout and that of what it holds, and its table knows the weight
//! files that it was made of, so that another run finds it. Files that the table does not know, such as the same ones
//! under other dates, are read and compared: what is there already is not written again. While a copy is made, what is
//! done is written down behind each block, and an interrupted one goes on from there.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use loadline_core::{Bytes, ContentHash};
use loadline_device::disk::Sum;
use loadline_device::{BlockSource, Packed, WeightFiles, pour};
use loadline_engine::{DeviceError, EngineError};
use rustix::fs::{Advice, FallocateFlags, fadvise, fallocate, statvfs};
use serde::{Deserialize, Serialize};

use super::output::write_whole;
use super::weights::{Stamps, unreadable};
use crate::Error;

const VERSION: u32 = 1;

/// Blocks begin at pages, so that direct reads of them need no buffer.
const PAGE: u64 = 4096;

/// What file systems need beside the contents of files.
const ROOM: Bytes = Bytes::mib(16);

/// So much is written before it is forced to the disk and given back by the page cache.
const FLUSH: u64 = 64 << 20;

/// One block of a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Block {
    name: String,
    offset: u64,
    bytes: u64,
    /// The sum of its bytes.
    sum: u64,
}

/// What lies in a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Table {
    version: u32,
    /// The hash of tensors, types and places.
    layout: String,
    /// Weight files that hold the same: hashes of what they are known by.
    made_of: Vec<String>,
    blocks: Vec<Block>,
}

impl Table {
    fn bytes(&self) -> u64 {
        self.blocks.last().map_or(0, |last| last.offset + last.bytes.next_multiple_of(PAGE))
    }

    /// The hash of what it holds.
    fn content(&self) -> ContentHash {
        ContentHash::of(&self.blocks)
    }
}

/// What is to be copied, and where to.
pub(super) struct Offload<'a> {
    /// The folder that copies lie in.
    pub(super) folder: &'a Path,
    /// The model's name.
    pub(super) model: &'a str,
    /// What the weight files are known by.
    pub(super) stamps: &'a Stamps,
    /// The names of the blocks.
    pub(super) names: Vec<String>,
    /// Where they come from.
    pub(super) sources: Vec<BlockSource>,
    /// The weight files.
    pub(super) files: WeightFiles,
    /// Asks for an end.
    pub(super) stop: &'a AtomicBool,
}

/// Is told the copy's file, how much of it there is, and how much it will be.
pub(super) type Tell<'a> = &'a mut dyn FnMut(&Path, Bytes, Bytes);

impl Offload<'_> {
    /// The copy, made if it is not there, as what blocks are read from.
    ///
    /// # Errors
    /// [`Error::Output`] if there is too little room or something cannot be written, [`Error::Unfinished`] after
    /// `stop`, and what is wrong with the weights.
    pub(super) fn packed(&self, tell: Tell<'_>) -> Result<(WeightFiles, Vec<BlockSource>), Error> {
        fs::create_dir_all(self.folder).map_err(|e| Error::output(self.folder, &e))?;
        let known = ContentHash::of(self.stamps).to_string();
        let layout = self.layout();
        let copies = self.copies(&layout)?;
        if let Some((path, table)) = copies.iter().find(|(_, table)| table.made_of.contains(&known)) {
            return sources(path, table);
        }
        if !copies.is_empty() {
            let held = self.held()?;
            if let Some((path, table)) = copies.into_iter().find(|(_, table)| table.blocks == held) {
                let table = Table { made_of: [table.made_of, vec![known]].concat(), ..table };
                write_table(&path, &table)?;
                return sources(&path, &table);
            }
        }
        let (path, table) = self.make(&layout, known, tell)?;
        sources(&path, &table)
    }

    /// The hash of tensors, types and places: copies that differ in it share nothing.
    fn layout(&self) -> String {
        let segment = |s: &loadline_device::Segment| {
            (s.tensor.clone(), s.elements, s.file_dtype, s.place, s.dtype, s.scale.to_bits())
        };
        let block = |source: &BlockSource| source.segments.iter().map(segment).collect::<Vec<_>>();
        let blocks: Vec<_> = self.names.iter().zip(self.sources.iter().map(block)).collect();
        ContentHash::of(&(VERSION, blocks)).to_string()
    }

    /// The places of the blocks; their sums are not known yet.
    fn places(&self) -> Vec<Block> {
        let mut offset = 0;
        let block = |(name, source): (&String, &BlockSource)| {
            let bytes = source.length() as u64;
            let block = Block { name: name.clone(), offset, bytes, sum: 0 };
            offset += bytes.next_multiple_of(PAGE);
            block
        };
        self.names.iter().zip(&self.sources).map(block).collect()
    }

    /// `model-layout`, with which the names of its files begin.
    fn stem(&self, layout: &str) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
        format!("{}-{layout}", self.model.chars().map(plain).collect::<String>())
    }

    /// The whole copies of this layout that are there.
    fn copies(&self, layout: &str) -> Result<Vec<(PathBuf, Table)>, Error> {
        let stem = self.stem(layout);
        let entries = fs::read_dir(self.folder).map_err(|e| Error::output(self.folder, &e))?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        let is_mine = |path: &Path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with(&stem) && name.ends_with(".pack")
        };
        let whole = |path: PathBuf| {
            let table: Table = serde_json::from_slice(&fs::read(table_of(&path)).ok()?).ok()?;
            let length = fs::metadata(&path).ok()?.len();
            (table.version == VERSION && table.layout == layout && table.bytes() == length).then_some((path, table))
        };
        Ok(paths.into_iter().filter(|path| is_mine(path)).filter_map(whole).collect())
    }

    /// What a copy would hold, without writing it.
    fn held(&self) -> Result<Vec<Block>, Error> {
        let mut blocks = self.places();
        for (block, source) in blocks.iter_mut().zip(&self.sources) {
            block.sum = self.sum(source, &mut |_| Ok(()))?;
        }
        Ok(blocks)
    }

    /// Reads a block, and hands it out on the way.
    fn sum(&self, source: &BlockSource, take: &mut dyn FnMut(&[u8]) -> Result<(), Error>) -> Result<u64, Error> {
        let (mut sum, mut failed) = (Sum::default(), None);
        let poured = pour(&self.files, source, &mut |bytes| {
            sum.add(bytes);
            take(bytes).map_err(|error| {
                failed = Some(error);
                DeviceError::Output(String::new())
            })
        });
        match (failed, poured) {
            (Some(error), _) => Err(error),
            (None, Err(source)) => Err(EngineError::Device { stage: "copying weights".to_owned(), source }.into()),
            (None, Ok(())) => Ok(sum.value()),
        }
    }

    fn make(&self, layout: &str, known: String, tell: Tell<'_>) -> Result<(PathBuf, Table), Error> {
        let places = self.places();
        let mut table = Table { version: VERSION, layout: layout.to_owned(), made_of: vec![known], blocks: places };
        let partial = self.folder.join(format!("{}-{}.partial", self.stem(layout), table.made_of[0]));
        let mut journal = Journal::open(&partial, &table.blocks)?;
        let done = std::mem::take(&mut journal.done);
        check_room(self.folder, &partial, table.bytes())?;
        let mut writer = Writer::open(&partial, table.bytes())?;
        table.blocks[..done.len()].clone_from_slice(&done);
        let of = Bytes(table.bytes());
        for (block, source) in table.blocks.iter_mut().zip(&self.sources).skip(done.len()) {
            writer.seek(block.offset);
            block.sum = self.sum(source, &mut |bytes| {
                writer.write(bytes)?;
                tell(&partial, Bytes(writer.at), of);
                if self.stop.load(Ordering::Relaxed) { Err(Error::Unfinished(partial.clone())) } else { Ok(()) }
            })?;
            writer.flush()?;
            journal.append(block)?;
        }
        let path = self.folder.join(format!("{}-{}.pack", self.stem(layout), table.content()));
        // A table without its file is no copy: until the file has its name, the same command goes on with it.
        write_table(&path, &table)?;
        fs::rename(&partial, &path).map_err(|e| Error::output(&path, &e))?;
        journal.remove();
        tell(&path, of, of);
        Ok((path, table))
    }
}

fn table_of(pack: &Path) -> PathBuf {
    pack.with_extension("json")
}

fn write_table(pack: &Path, table: &Table) -> Result<(), Error> {
    let path = table_of(pack);
    let text = serde_json::to_string_pretty(table).map_err(|e| Error::output(&path, &io::Error::other(e)))?;
    write_whole(&path, |out| out.write_all(text.as_bytes()))
}

/// A copy as what blocks are read from.
fn sources(path: &Path, table: &Table) -> Result<(WeightFiles, Vec<BlockSource>), Error> {
    let files = WeightFiles::open(&[path.to_owned()]).map_err(|e| unreadable(&e))?;
    let source = |block: &Block| {
        let packed = Packed { file: 0, offset: block.offset, bytes: block.bytes as usize, sum: block.sum };
        BlockSource { segments: Vec::new(), packed: Some(packed) }
    };
    Ok((files, table.blocks.iter().map(source).collect()))
}

/// Room for what is not there yet.
fn check_room(folder: &Path, partial: &Path, whole: u64) -> Result<(), Error> {
    use std::os::unix::fs::MetadataExt;
    let disk = statvfs(folder).map_err(|e| Error::output(folder, &e.into()))?;
    let free = Bytes(disk.f_bavail.saturating_mul(disk.f_frsize));
    let there = fs::metadata(partial).map_or(0, |about| about.blocks() * 512);
    let needed = Bytes(whole.saturating_sub(there));
    if free >= needed + ROOM {
        return Ok(());
    }
    let detail = format!(
        "the copy of the weights takes {needed} more, and {free} is free on this disk; free some space, name another \
         --offload-folder, or leave it out"
    );
    Err(Error::Output { path: folder.to_owned(), detail })
}

/// The blocks that are done, a line each. It is locked while a process adds to it.
struct Journal {
    path: PathBuf,
    file: File,
    done: Vec<Block>,
}

impl Journal {
    /// Blocks count as done as far as they are those that are wanted, and their file is there.
    fn open(partial: &Path, wanted: &[Block]) -> Result<Self, Error> {
        let path = partial.with_extension("blocks");
        let failed = |e: io::Error| Error::output(&path, &e);
        let file = OpenOptions::new().create(true).read(true).append(true).open(&path).map_err(failed)?;
        // Some network file systems have no locks.
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            let detail = "another run is making this copy; wait for it, or leave --offload-folder out".to_owned();
            return Err(Error::Output { path: partial.to_owned(), detail });
        }
        let text = if partial.exists() { fs::read_to_string(&path).map_err(failed)? } else { String::new() };
        let lines = text.lines().map_while(|line| serde_json::from_str::<Block>(line).ok());
        let is_wanted = |(done, wanted): &(Block, &Block)| Block { sum: done.sum, ..(*wanted).clone() } == *done;
        let done: Vec<Block> = lines.zip(wanted).take_while(is_wanted).map(|(done, _)| done).collect();
        let mut journal = Self { path, file, done: Vec::new() };
        // A line that was cut off must not be the beginning of the next one.
        journal.file.set_len(0).map_err(|e| Error::output(&journal.path, &e))?;
        for block in &done {
            journal.append(block)?;
        }
        journal.done = done;
        Ok(journal)
    }

    fn append(&mut self, block: &Block) -> Result<(), Error> {
        let line = serde_json::to_string(block).map_err(io::Error::other);
        let written = line.and_then(|line| writeln!(self.file, "{line}")).and_then(|()| self.file.sync_data());
        written.map_err(|e| unwritten(&self.path, &e))
    }

    fn remove(self) {
        // A journal without its file counts for nothing.
        let _ = fs::remove_file(&self.path);
    }
}

/// Writes a copy, a block after the other.
struct Writer<'a> {
    path: &'a Path,
    file: File,
    /// Where the next byte goes.
    at: u64,
    /// The first byte that is not on the disk.
    flushed: u64,
}

impl<'a> Writer<'a> {
    /// The file with all its room, so that a full disk is told at once and blocks lie together.
    fn open(path: &'a Path, bytes: u64) -> Result<Self, Error> {
        use rustix::io::Errno;
        let failed = |e: io::Error| unwritten(path, &e);
        let file = OpenOptions::new().create(true).write(true).truncate(false).open(path).map_err(failed)?;
        match fallocate(&file, FallocateFlags::empty(), 0, bytes.max(1)) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
            Err(e) => return Err(failed(e.into())),
        }
        file.set_len(bytes).map_err(failed)?;
        Ok(Self { path, file, at: 0, flushed: 0 })
    }

    fn seek(&mut self, at: u64) {
        (self.at, self.flushed) = (at, at);
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all_at(bytes, self.at).map_err(|e| unwritten(self.path, &e))?;
        self.at += bytes.len() as u64;
        if self.at - self.flushed >= FLUSH { self.flush() } else { Ok(()) }
    }

    /// Forces to the disk what was written, and lets the page cache forget it.
    fn flush(&mut self) -> Result<(), Error> {
        self.file.sync_data().map_err(|e| unwritten(self.path, &e))?;
        let length = std::num::NonZeroU64::new(self.at - self.flushed);
        // Advice: where it is not taken, the system reclaims the pages when it needs them.
        let _ = fadvise(&self.file, self.flushed, length, Advice::DontNeed);
        self.flushed = self.at;
        Ok(())
    }
}

/// The error of a copy that cannot be gone on with for now.
fn unwritten(path: &Path, error: &io::Error) -> Error {
    match Error::output(path, error) {
        Error::Output { path, detail } => Error::Output {
            path,
            detail: format!("{detail}; what was copied stays: the same command goes on from there"),
        },
        other => other,
    }
}

//! Where a model's weights lie: what the device reads blocks from, and how a checkpoint knows the files again.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use loadline_core::DType;
use loadline_device::{BlockSource, Segment, WeightFiles};
use loadline_engine::DeviceError;
use loadline_models::spec::{self, Folder, FolderComponent};
use loadline_models::weights::{FileDtype, WeightIndex};
use loadline_nn::TensorsAt;

use super::digest::Digest;
use super::host::{Table, table_segment};
use crate::Error;

/// So much of the files must be in the page cache for a forecast to count on it.
const CACHED: f64 = 0.9;

/// The files of all components, one after the other.
pub(super) fn files(folder: &Folder) -> Vec<PathBuf> {
    folder.components.iter().flat_map(|c| c.weights.files.iter().cloned()).collect()
}

/// Opens all [`files`].
pub(super) fn open(folder: &Folder) -> Result<WeightFiles, Error> {
    WeightFiles::open(&files(folder)).map_err(|e| unreadable(&e))
}

/// Whether loading will read memory and not the disk. Where the system does not say, the disk is assumed.
pub(super) fn are_cached(folder: &Folder) -> bool {
    loadline_device::cached_share(&files(folder)).ok().flatten().is_some_and(|share| share >= CACHED)
}

/// The tensors of a block as they lie in [`files`].
///
/// # Errors
/// If the folder lacks one.
pub(super) fn block_source(folder: &Folder, component: &str, layout: &TensorsAt) -> Result<BlockSource, Error> {
    let missing = |tensor: &str| Error::Model(format!("{component}: tensor '{tensor}' is missing"));
    let part = component_of(folder, component).ok_or_else(|| missing("*"))?;
    let first: usize =
        folder.components.iter().take_while(|c| c.name != component).map(|c| c.weights.files.len()).sum();
    let segment = |(name, shape, dtype, place): &(String, Vec<usize>, DType, usize)| {
        let entry = part.weights.get(name).ok_or_else(|| missing(name))?;
        Ok(Segment {
            tensor: name.clone(),
            file: first + entry.file,
            offset: entry.offset,
            elements: shape.iter().product(),
            file_dtype: element_type(entry.dtype).ok_or_else(|| missing(name))?,
            place: *place,
            dtype: *dtype,
        })
    };
    Ok(BlockSource { segments: layout.tensors.iter().map(segment).collect::<Result<_, Error>>()? })
}

/// The text encoder's embedding table, whose rows are gathered one by one.
///
/// # Errors
/// If the folder lacks it, or its file cannot be opened.
pub(super) fn table(folder: &Folder) -> Result<Table, Error> {
    let missing = || Error::Model("text_encoder: the embedding table is missing".into());
    let part = component_of(folder, "text_encoder").ok_or_else(missing)?;
    let entry = part.weights.tensors.iter().find(|t| spec::is_gathered(&t.name)).ok_or_else(missing)?;
    let width = entry.shape.get(1).copied().unwrap_or(1) as usize;
    let dtype = element_type(entry.dtype).ok_or_else(missing)?;
    let files = WeightFiles::open(&part.weights.files).map_err(|e| unreadable(&e))?;
    Ok(Table { segment: table_segment(entry, dtype, entry.file), files, width })
}

fn component_of<'a>(folder: &'a Folder, name: &str) -> Option<&'a FolderComponent> {
    folder.components.iter().find(|c| c.name == name)
}

/// What the weight files of each component are known by.
pub(super) type Stamps = BTreeMap<String, u64>;

/// The lengths, times of last change and headers of each component's weight files, as one number. To read all weights
/// only to know them again would keep the first step of a large model waiting for minutes.
///
/// # Errors
/// If a file cannot be read.
pub(super) fn stamps(folder: &Folder) -> Result<Stamps, Error> {
    folder.components.iter().map(|c| Ok((c.name.clone(), stamp(&c.weights)?))).collect()
}

fn stamp(weights: &WeightIndex) -> Result<u64, Error> {
    let opened = WeightFiles::open(&weights.files).map_err(|e| unreadable(&e))?;
    let mut digest = Digest::default();
    for (n, path) in weights.files.iter().enumerate() {
        let about = fs::metadata(path).map_err(|e| Error::Model(format!("{}: {e}; check the file", path.display())))?;
        digest.bytes(&about.len().to_le_bytes());
        digest.bytes(&about.mtime().to_le_bytes());
        digest.bytes(&about.mtime_nsec().to_le_bytes());
        // Names, types, shapes and places of all tensors; the first of them begins where the header ends.
        let data = weights.tensors.iter().filter(|t| t.file == n).map(|t| t.offset).min();
        let mut header = vec![0; data.unwrap_or(0) as usize];
        opened.read(n, 0, &mut header).map_err(|e| unreadable(&e))?;
        digest.bytes(&header);
    }
    Ok(digest.value())
}

/// A file that cannot be opened or read before a run.
pub(super) fn unreadable(error: &DeviceError) -> Error {
    Error::Model(error.to_string())
}

/// The type in memory of a type in a file, if it can be run.
pub(super) fn element_type(dtype: FileDtype) -> Option<DType> {
    match dtype {
        FileDtype::F32 => Some(DType::F32),
        FileDtype::F16 => Some(DType::F16),
        FileDtype::BF16 => Some(DType::Bf16),
        _ => None,
    }
}

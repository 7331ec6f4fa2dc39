//! Where a model's weights lie: what the device reads blocks from, and how a checkpoint knows the files again.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use loadline_core::DType;
use loadline_device::{BlockSource, Segment, WeightFiles};
use loadline_engine::DeviceError;
use loadline_models::spec::{self, Folder, FolderComponent};
use loadline_models::weights::{TensorEntry, WeightIndex};
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
    let scales = scales(part, layout.tensors.iter().map(|(name, ..)| name.as_str()))?;
    let segment = |(name, shape, dtype, place): &(String, Vec<usize>, DType, usize)| {
        let entry = part.weights.get(name).ok_or_else(|| missing(name))?;
        Ok(Segment {
            tensor: name.clone(),
            file: first + entry.file,
            offset: entry.offset,
            elements: shape.iter().product(),
            file_dtype: entry.dtype.storage().ok_or_else(|| missing(name))?,
            place: *place,
            dtype: *dtype,
            scale: scales.get(name.as_str()).copied().unwrap_or(1.0),
        })
    };
    let segments = layout.tensors.iter().map(segment).collect::<Result<_, Error>>()?;
    Ok(BlockSource { segments, packed: None })
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
    let dtype = entry.dtype.storage().ok_or_else(missing)?;
    if !(width as u64).is_multiple_of(dtype.block_elements()) {
        return Err(Error::Model(format!(
            "text_encoder: rows of {} have {width} values, no whole blocks of {dtype}; use a checkpoint in bf16",
            entry.name
        )));
    }
    let scale = scales(part, [entry.name.as_str()])?.values().next().copied();
    let files = WeightFiles::open(&part.weights.files).map_err(|e| unreadable(&e))?;
    let segment = table_segment(entry, dtype, entry.file);
    Ok(Table { segment: Segment { scale: scale.unwrap_or(1.0), ..segment }, files, width })
}

/// The scales of those tensors that have one, by name.
///
/// # Errors
/// If a file cannot be read, or a scale is no positive number.
fn scales<'a>(
    part: &FolderComponent,
    tensors: impl IntoIterator<Item = &'a str>,
) -> Result<BTreeMap<&'a str, f32>, Error> {
    let with_scale = |name: &'a str| Some((name, spec::scale_of(&part.weights, name)?));
    let found: Vec<_> = tensors.into_iter().filter_map(with_scale).collect();
    if found.is_empty() {
        return Ok(BTreeMap::new());
    }
    let files = WeightFiles::open(&part.weights.files).map_err(|e| unreadable(&e))?;
    let read = |(name, entry): (&'a str, &TensorEntry)| {
        let dtype = entry.dtype.storage().unwrap_or(DType::F32);
        let mut scale = [0.0];
        files.read_f32(&table_segment(entry, dtype, entry.file), 0, &mut scale).map_err(|e| unreadable(&e))?;
        if scale[0].is_normal() && scale[0] > 0.0 {
            return Ok((name, scale[0]));
        }
        let file = part.weights.files.get(entry.file).map(|f| f.display().to_string()).unwrap_or_default();
        let (tensor, value) = (&entry.name, scale[0]);
        Err(Error::Model(format!("{file}: tensor '{tensor}' is a scale of {value}; download the file again")))
    };
    found.into_iter().map(read).collect()
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

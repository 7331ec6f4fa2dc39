//! `*.safetensors.index.json`: which of several files holds which tensor.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use super::{TensorEntry, WeightError, WeightIndex, read_safetensors};

/// Longest index that is read; published ones have a few hundred kilobytes.
const INDEX_BYTES_MAX: u64 = 100_000_000;

/// Opens all shards that an index lists and checks that it tells the truth about each.
pub(super) fn open(index: &Path) -> Result<WeightIndex, WeightError> {
    let shards = read_index(index)?;
    let folder = index.parent().unwrap_or(Path::new(""));
    let mut files = Vec::new();
    let mut tensors = Vec::new();
    for (shard, names) in &shards {
        let path = shard_path(index, folder, shard)?;
        let entries = open_shard(index, &path, files.len())?;
        compare(index, shard, names, &entries)?;
        tensors.extend(entries);
        files.push(path);
    }
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(WeightIndex { files, tensors })
}

#[derive(serde::Deserialize)]
struct IndexFile {
    weight_map: BTreeMap<String, String>,
}

/// Tensor names by shard, both sorted.
fn read_index(index: &Path) -> Result<BTreeMap<String, BTreeSet<String>>, WeightError> {
    let mut text = Vec::new();
    let file = File::open(index).map_err(WeightError::io(index))?;
    file.take(INDEX_BYTES_MAX + 1).read_to_end(&mut text).map_err(WeightError::io(index))?;
    if text.len() as u64 > INDEX_BYTES_MAX {
        let (file, value) = (index.to_owned(), text.len() as u64);
        return Err(WeightError::TooLarge { file, what: "a size".into(), value, limit: INDEX_BYTES_MAX });
    }
    let parsed: IndexFile = serde_json::from_slice(&text).map_err(|e| WeightError::header(index, e.to_string()))?;
    if parsed.weight_map.is_empty() {
        return Err(WeightError::header(index, "its \"weight_map\" is empty"));
    }
    let mut shards: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (tensor, shard) in parsed.weight_map {
        shards.entry(shard).or_default().insert(tensor);
    }
    Ok(shards)
}

/// A shard must be a plain name in the index's own folder, else an index could make us read any file.
fn shard_path(index: &Path, folder: &Path, shard: &str) -> Result<PathBuf, WeightError> {
    let mut parts = Path::new(shard).components();
    let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(name)), None) if name == shard);
    // The backslash separates folders on Windows only; refusing it everywhere keeps an index portable.
    if !plain || shard.contains(['\\', '\0']) {
        return Err(WeightError::ShardName { index: index.to_owned(), shard: shard.to_owned() });
    }
    Ok(folder.join(shard))
}

fn open_shard(index: &Path, path: &Path, number: usize) -> Result<Vec<TensorEntry>, WeightError> {
    if !path.exists() {
        return Err(WeightError::MissingShard { index: index.to_owned(), shard: path.to_owned() });
    }
    super::check_regular(path)?;
    let mut file = File::open(path).map_err(WeightError::io(path))?;
    read_safetensors(&mut file, path, number)
}

/// Both lists must be the same: a tensor that only one of them has comes from another version of the model.
fn compare(index: &Path, shard: &str, names: &BTreeSet<String>, entries: &[TensorEntry]) -> Result<(), WeightError> {
    let differ = |tensor: &str, found| WeightError::ShardContents {
        index: index.to_owned(),
        shard: shard.to_owned(),
        tensor: tensor.to_owned(),
        found,
    };
    let held: BTreeSet<&str> = entries.iter().map(|t| t.name.as_str()).collect();
    if let Some(name) = names.iter().find(|name| !held.contains(name.as_str())) {
        return Err(differ(name, "in the index only"));
    }
    match held.iter().find(|name| !names.contains(**name)) {
        Some(name) => Err(differ(name, "in the shard only")),
        None => Ok(()),
    }
}

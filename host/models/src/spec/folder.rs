//! A diffusers folder, or a single weight file, read from configs and headers alone.

use std::path::{Path, PathBuf};

use loadline_core::{Component, DType, ModelSpec};
use serde_json::Value;

use crate::catalog;
use crate::params::ConfigError;
use crate::weights::{FileDtype, WeightError, WeightIndex};

/// Why a folder is no model that can be read.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// A file is missing or cannot be read.
    #[error("{path}: {source}; a diffusers folder has a model_index.json and a folder for each component")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A JSON file is damaged.
    #[error("{path}: not valid JSON: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Where it is damaged.
        source: serde_json::Error,
    },
    /// A config is wrong.
    #[error("{path}: {source}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ConfigError,
    },
    /// A weight file is wrong.
    #[error(transparent)]
    Weights(#[from] WeightError),
    /// A tensor is missing from the files.
    #[error("{path}: tensor '{tensor}' is missing: the files and config.json do not belong together")]
    MissingTensor {
        /// The component's folder.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor has another shape than the config says.
    #[error("{path}: tensor '{tensor}' has shape {found:?}, config.json says {expected:?}")]
    WrongShape {
        /// The component's folder.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// In the file.
        found: Vec<u64>,
        /// From the config.
        expected: Vec<u64>,
    },
    /// A tensor's type cannot be run yet.
    #[error(
        "{path}: tensor '{tensor}' is stored as {dtype}, which cannot be run yet: use an f32, f16 or bf16 checkpoint"
    )]
    UnsupportedType {
        /// The component's folder.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The type in the file.
        dtype: String,
    },
}

/// One component of a folder.
#[derive(Clone, Debug)]
pub struct FolderComponent {
    /// Its name.
    pub name: String,
    /// Its config.
    pub config: Value,
    /// Its weight files.
    pub weights: WeightIndex,
}

/// A model folder: its shape, its configs and where its weights lie.
#[derive(Clone, Debug)]
pub struct Folder {
    /// Where it is.
    pub path: PathBuf,
    /// The model, with the types that the files hold.
    pub model: ModelSpec,
    /// The components that have weights, in the model's order.
    pub components: Vec<FolderComponent>,
    /// The model index.
    pub index: Value,
}

impl Folder {
    /// Reads a diffusers folder's configs and weight headers.
    ///
    /// # Errors
    /// If a file is missing, damaged, or does not fit its config.
    pub fn open(path: &Path) -> Result<Self, SpecError> {
        let index = read_json(&path.join("model_index.json"))?;
        let (mut model_components, mut components) = (Vec::new(), Vec::new());
        for (name, class) in catalog::weight_components(&index) {
            let folder = path.join(&name);
            let file = folder.join("config.json");
            let config = read_json(&file)?;
            let mut component =
                super::component(&name, &class, &config).map_err(|source| SpecError::Config { path: file, source })?;
            let weights = WeightIndex::open_component(&folder)?;
            match_files(&folder, &mut component, &weights)?;
            model_components.push(component);
            components.push(FolderComponent { name, config, weights });
        }
        let class = index.get("_class_name").and_then(Value::as_str).unwrap_or("none").to_owned();
        let model = ModelSpec { name: folder_name(path), pipeline: class, components: model_components };
        Ok(Self { path: path.to_owned(), model, components, index })
    }

    /// The config of a component.
    #[must_use]
    pub fn config(&self, component: &str) -> Option<&Value> {
        self.components.iter().find(|c| c.name == component).map(|c| &c.config)
    }

    /// Reads a JSON file of the folder.
    ///
    /// # Errors
    /// If it is missing or damaged.
    pub fn json(&self, name: &str) -> Result<Value, SpecError> {
        read_json(&self.path.join(name))
    }
}

fn folder_name(path: &Path) -> String {
    let full = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    full.file_name().map_or_else(|| "model".into(), |n| n.to_string_lossy().into_owned())
}

fn read_json(path: &Path) -> Result<Value, SpecError> {
    // A device or a pipe in a config's place would be read until memory ends.
    if path.exists() && !path.is_file() {
        let source = std::io::Error::other("this is no ordinary file");
        return Err(SpecError::Io { path: path.to_owned(), source });
    }
    let text = std::fs::read_to_string(path).map_err(|source| SpecError::Io { path: path.to_owned(), source })?;
    serde_json::from_str(&text).map_err(|source| SpecError::Json { path: path.to_owned(), source })
}

/// Compares the files with the config and takes over the files' types.
fn match_files(folder: &Path, component: &mut Component, weights: &WeightIndex) -> Result<(), SpecError> {
    for tensor in &mut component.tensors {
        let entry = weights.get(&tensor.name).or_else(|| tied(weights, &tensor.name));
        let Some(entry) = entry else {
            if tensor.buffer {
                continue;
            }
            return Err(SpecError::MissingTensor { path: folder.to_owned(), tensor: tensor.name.clone() });
        };
        if entry.shape != tensor.shape {
            return Err(SpecError::WrongShape {
                path: folder.to_owned(),
                tensor: tensor.name.clone(),
                found: entry.shape.clone(),
                expected: tensor.shape.clone(),
            });
        }
        tensor.file_dtype = Some(runnable(entry.dtype).ok_or_else(|| SpecError::UnsupportedType {
            path: folder.to_owned(),
            tensor: tensor.name.clone(),
            dtype: entry.dtype.name().to_owned(),
        })?);
    }
    Ok(())
}

/// T5 checkpoints hold the embedding table under either of two names.
fn tied<'a>(weights: &'a WeightIndex, name: &str) -> Option<&'a crate::weights::TensorEntry> {
    (name == "shared.weight").then(|| weights.get("encoder.embed_tokens.weight")).flatten()
}

/// The type that a file's type is in memory, if it can be run.
fn runnable(dtype: FileDtype) -> Option<DType> {
    match dtype {
        FileDtype::F32 => Some(DType::F32),
        FileDtype::F16 => Some(DType::F16),
        FileDtype::BF16 => Some(DType::Bf16),
        _ => None,
    }
}

//! A diffusers folder, or a single weight file, read from configs and headers alone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use loadline_core::{Component, DType, ModelSpec};
use serde_json::Value;

use super::{names, scales};
use crate::catalog;
use crate::params::ConfigError;
use crate::weights::{TensorEntry, TensorProblem, WeightError, WeightIndex};

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
    /// The model index lacks something.
    #[error("{path}: {problem}; download it again")]
    Index {
        /// The file.
        path: PathBuf,
        /// What it lacks.
        problem: String,
    },
    /// A config is of another class than the model index says.
    #[error(
        "{path}: `{field}` is {found}, model_index.json says {expected}; write the same class in both, or download the \
         model again"
    )]
    OtherClass {
        /// The config.
        path: PathBuf,
        /// Its field.
        field: &'static str,
        /// What the field holds, as JSON.
        found: String,
        /// The class of the model index.
        expected: String,
    },
    /// The files hold a tensor that the config does not know.
    #[error(
        "{path}: tensor '{tensor}' is no part of the model that {config} describes (is a number of layers too low?); \
         they are of different models, download both again"
    )]
    UnknownTensor {
        /// The weight file.
        path: PathBuf,
        /// The config.
        config: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor is missing from the files.
    #[error(
        "{path}: the model has a tensor '{tensor}', which no weight file beside it holds (is a number of layers too \
         high?); \
         they are of different models, download both again"
    )]
    MissingTensor {
        /// The config.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor has another shape than the config says.
    #[error(
        "{path}: tensor '{tensor}' has shape {found:?}, config.json says {expected:?}; they are of different models, \
         download both again"
    )]
    WrongShape {
        /// The weight file.
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
        "{path}: tensor '{tensor}' is stored as {dtype}, which cannot be run: use a checkpoint in f32, f16, bf16, fp8 \
         e4m3 or GGUF's Q8_0 to Q2_K"
    )]
    UnsupportedType {
        /// The weight file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The type in the file.
        dtype: String,
    },
    /// A tensor of 8-bit floats has several scales.
    #[error(
        "{path}: tensor '{tensor}' holds scales of shape {shape:?} in {dtype}, where one float for a whole tensor can be \
         used; use a checkpoint with a scale for each tensor, or one in bf16"
    )]
    Scale {
        /// The weight file.
        path: PathBuf,
        /// The tensor of scales.
        tensor: String,
        /// Its shape.
        shape: Vec<u64>,
        /// Its type.
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
        let class = pipeline_class(&path.join("model_index.json"), &index)?;
        check_scheduler(path, &index)?;
        let (mut model_components, mut components) = (Vec::new(), Vec::new());
        for (name, class) in catalog::weight_components(&index) {
            let (component, read) = open_component(path, name, &class)?;
            model_components.push(component);
            components.push(read);
        }
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

fn open_component(path: &Path, name: String, class: &str) -> Result<(Component, FolderComponent), SpecError> {
    if name.contains(['/', '\\', '\0']) || name.starts_with('.') {
        let problem = format!("component {name:?} leads out of the folder");
        return Err(SpecError::Index { path: path.join("model_index.json"), problem });
    }
    let folder = path.join(&name);
    let file = folder.join("config.json");
    let config = read_json(&file)?;
    check_class(&file, class, &config)?;
    let mut component =
        super::component(&name, class, &config).map_err(|source| SpecError::Config { path: file.clone(), source })?;
    let mut weights = WeightIndex::open_component(&folder)?;
    names::to_diffusers(class, &mut weights).map_err(|twice| {
        let file = weights.files.get(twice.file).cloned().unwrap_or_else(|| folder.clone());
        WeightError::Tensor { file, tensor: twice.name, problem: TensorProblem::Duplicate }
    })?;
    match_files(&file, &mut component, &weights)?;
    Ok((component, FolderComponent { name, config, weights }))
}

fn pipeline_class(path: &Path, index: &Value) -> Result<String, SpecError> {
    let class = index.get("_class_name").and_then(Value::as_str);
    class.map(str::to_owned).ok_or_else(|| SpecError::Index {
        path: path.to_owned(),
        problem: "`_class_name`, the pipeline's class, is missing".to_owned(),
    })
}

/// The scheduler's file may be absent here: who samples says so.
fn check_scheduler(path: &Path, index: &Value) -> Result<(), SpecError> {
    let file = path.join("scheduler").join("scheduler_config.json");
    match index.pointer("/scheduler/1").and_then(Value::as_str) {
        Some(class) if file.exists() => check_class(&file, class, &read_json(&file)?),
        _ => Ok(()),
    }
}

/// Holds a config to what it says of its own class: diffusers writes `_class_name`, transformers `architectures`.
fn check_class(path: &Path, class: &str, config: &Value) -> Result<(), SpecError> {
    let given = |field: &str| config.get(field).filter(|v| !v.is_null() && **v != Value::Array(Vec::new()));
    let is_class = |v: &Value| v.as_str() == Some(class);
    let related = |v: &Value| v.as_str().is_some_and(|other| family(other) == family(class));
    let (field, found, fits) = if let Some(found) = given("_class_name") {
        ("_class_name", found, is_class(found))
    } else if let Some(found) = given("architectures") {
        ("architectures", found, found.as_array().is_some_and(|list| list.iter().any(related)))
    } else {
        return Ok(());
    };
    if fits {
        return Ok(());
    }
    let found = crate::params::shorten(&found.to_string());
    Err(SpecError::OtherClass { path: path.to_owned(), field, found, expected: class.to_owned() })
}

/// A transformers class without what it is used for: `T5ForConditionalGeneration` has all that `T5EncoderModel` needs.
fn family(class: &str) -> &str {
    let uses = ["Encoder", "Text", "Vision", "Model", "For"];
    let end = uses.iter().filter_map(|u| class.find(u)).min().unwrap_or(class.len());
    &class[..end]
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
fn match_files(config: &Path, component: &mut Component, weights: &WeightIndex) -> Result<(), SpecError> {
    let file_of = |entry: &TensorEntry| weights.files.get(entry.file).cloned().unwrap_or_default();
    check_known(config, component, weights)?;
    for tensor in &mut component.tensors {
        let entry = weights.get(&tensor.name).or_else(|| tied(weights, &tensor.name));
        let Some(entry) = entry else {
            if tensor.buffer {
                continue;
            }
            return Err(SpecError::MissingTensor { path: config.to_owned(), tensor: tensor.name.clone() });
        };
        if without_ones(&entry.shape) != without_ones(&tensor.shape) {
            return Err(SpecError::WrongShape {
                path: file_of(entry),
                tensor: tensor.name.clone(),
                found: entry.shape.clone(),
                expected: tensor.shape.clone(),
            });
        }
        tensor.file_dtype = Some(entry.dtype.storage().ok_or_else(|| SpecError::UnsupportedType {
            path: file_of(entry),
            tensor: tensor.name.clone(),
            dtype: entry.dtype.name().to_owned(),
        })?);
        check_scale(weights, &tensor.name)?;
    }
    Ok(())
}

/// GGUF has no axes of one element in front: a table of `[1, 6, n]` is `[6, n]` there.
fn without_ones(shape: &[u64]) -> &[u64] {
    let ones = shape.iter().take_while(|d| **d == 1).count();
    &shape[ones.min(shape.len().saturating_sub(1))..]
}

/// One scale for a whole tensor is what kernels take.
fn check_scale(weights: &WeightIndex, tensor: &str) -> Result<(), SpecError> {
    match scales::scale_of(weights, tensor) {
        Some(scale) if scale.elements() != 1 || !scale.dtype.storage().is_some_and(DType::is_plain) => {
            Err(SpecError::Scale {
                path: weights.files.get(scale.file).cloned().unwrap_or_default(),
                tensor: scale.name.clone(),
                shape: scale.shape.clone(),
                dtype: scale.dtype.name().to_owned(),
            })
        }
        _ => Ok(()),
    }
}

/// Weights that would be left out silently mean a config of another model: its result would be noise.
fn check_known(config: &Path, component: &Component, weights: &WeightIndex) -> Result<(), SpecError> {
    let known: BTreeSet<&str> = component.tensors.iter().map(|t| t.name.as_str()).collect();
    let has = |name: &str| known.contains(name);
    let expected = |name: &str| has(name) || is_spare(component, name) || scales::is_companion(name, &has);
    let unknown = weights.tensors.iter().find(|t| !expected(&t.name));
    unknown.map_or(Ok(()), |entry| {
        Err(SpecError::UnknownTensor {
            path: weights.files.get(entry.file).cloned().unwrap_or_default(),
            config: config.to_owned(),
            tensor: entry.name.clone(),
        })
    })
}

/// Tensors that checkpoints of whole models have beside the part that is used, as the reference leaves them out.
fn is_spare(component: &Component, tensor: &str) -> bool {
    let prefixes: &[&str] = match family(&component.class) {
        // Repackaged encoders hold their tokenizer's model too.
        "T5" | "UMT5" => &["decoder.", "lm_head.", "shared.weight", "encoder.embed_tokens.weight", "spiece_model"],
        "CLIP" => &["text_model.", "vision_model.", "text_projection.", "visual_projection.", "logit_scale"],
        "Llama" => &["lm_head."],
        "Wav2Vec2" => &["lm_head.", "quantizer.", "project_q.", "project_hid."],
        _ => &[],
    };
    let of_own_layers = crate::params::block_lists(&component.class).unwrap_or(&[]);
    let buffer = tensor.ends_with(".position_ids") || tensor.ends_with(".inv_freq");
    buffer || prefixes.iter().any(|p| tensor.starts_with(p)) && !of_own_layers.iter().any(|l| tensor.starts_with(l))
}

/// T5 checkpoints hold the embedding table under either of two names.
fn tied<'a>(weights: &'a WeightIndex, name: &str) -> Option<&'a TensorEntry> {
    (name == "shared.weight").then(|| weights.get("encoder.embed_tokens.weight")).flatten()
}

//! Which files a checkpoint of random weights has, from configs alone.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use loadline_core::{Bytes, Component, DType, Knobs};
use loadline_models::spec::StorageRule;
use serde_json::{Value, json};

use super::layout::{self, Tensor, WeightFile};
use super::tokenizer;
use super::values::{Stored, Values};
use crate::{Error, Model};

/// What to make of a model.
#[derive(Clone, Debug)]
pub struct SynthOptions {
    /// The types of components by name. Others have bf16, or the types of the folder that they are taken from.
    pub storage: Vec<(String, DType)>,
    /// Fixes every value.
    pub seed: u64,
    /// The components to write; all by default.
    pub components: Option<Vec<String>>,
    /// Most bytes of tensors in a file; a component with more is cut into shards.
    pub shard: Bytes,
}

impl Default for SynthOptions {
    fn default() -> Self {
        Self { storage: Vec::new(), seed: 0, components: None, shard: Bytes::gib(5) }
    }
}

/// A small file of a checkpoint.
#[derive(Clone, Debug)]
pub struct TextFile {
    /// Its place in the model folder.
    pub path: PathBuf,
    /// What it holds.
    pub content: Vec<u8>,
}

impl TextFile {
    pub(super) fn json(path: PathBuf, value: &Value) -> Self {
        Self { path, content: format!("{value:#}\n").into_bytes() }
    }
}

/// Every file of a checkpoint: nothing is written yet.
#[derive(Clone, Debug)]
pub struct Blueprint {
    /// Configs, tokenizers, indices of shards, and a README that says what this is.
    pub texts: Vec<TextFile>,
    /// The weights.
    pub weights: Vec<WeightFile>,
    /// Components that the model index names and of which nothing else is known, so that they are left out.
    pub unknown: Vec<String>,
}

impl Blueprint {
    /// Lays out a model of the catalog, or the model of a folder anew.
    ///
    /// # Errors
    /// [`Error::Request`] for a component that the model does not have, or a type that weights cannot be drawn in;
    /// [`Error::Model`] if a file of the folder cannot be read.
    pub fn new(model: &Model, options: &SynthOptions) -> Result<Self, Error> {
        let chosen = chosen(model, options)?;
        let mut made = Self { texts: Vec::new(), weights: Vec::new(), unknown: Vec::new() };
        for component in &model.spec.components {
            if component.absent {
                made.unknown.push(component.name.clone());
            } else if chosen.contains(component.name.as_str()) {
                made.add(model, component, options)?;
            }
        }
        if !model.index().is_null() {
            let kept: BTreeSet<&str> =
                chosen.into_iter().filter(|name| !made.unknown.iter().any(|u| u == name)).collect();
            made.add_index(model, &kept)?;
        }
        made.texts.push(readme(model, options));
        Ok(made)
    }

    /// The bytes of all files together.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        let texts: u64 = self.texts.iter().map(|file| file.content.len() as u64).sum();
        Bytes(texts) + self.weights.iter().map(WeightFile::bytes).sum::<Bytes>()
    }

    fn add(&mut self, model: &Model, component: &Component, options: &SynthOptions) -> Result<(), Error> {
        // A model of a single component has its files at the top.
        let single = model.index().is_null();
        let folder = if single { PathBuf::new() } else { PathBuf::from(&component.name) };
        let library = model.index().pointer(&format!("/{}/0", component.name)).and_then(Value::as_str);
        let stem = if single || library == Some("transformers") { "model" } else { "diffusion_pytorch_model" };
        let (files, index) = layout::files(&folder, stem, tensors(component, options)?, options.shard);
        self.weights.extend(files);
        self.texts.extend(index);
        if let Some(config) = model.config(&component.name) {
            self.texts.push(TextFile::json(folder.join("config.json"), config));
        }
        Ok(())
    }

    /// The model index, and the components that have no weights.
    fn add_index(&mut self, model: &Model, kept: &BTreeSet<&str>) -> Result<(), Error> {
        let mut index = model.index().clone();
        let parts = |value: &Value| Some((value.get(0)?.as_str()?.to_owned(), value.get(1)?.as_str()?.to_owned()));
        for (name, value) in index.as_object_mut().into_iter().flatten() {
            let Some((_, class)) = parts(value) else { continue };
            let weights = model.spec.component(name).is_some();
            let owner = name.replacen("tokenizer", "text_encoder", 1);
            let useless = name.starts_with("tokenizer") && !kept.contains(owner.as_str());
            if useless || (weights && !kept.contains(name.as_str())) {
                // This is how diffusers writes that a pipeline goes without a component.
                *value = json!([null, null]);
            } else if !weights {
                self.texts.extend(helpers(model, name, &class, &owner)?);
            }
        }
        self.texts.push(TextFile::json(PathBuf::from("model_index.json"), &index));
        Ok(())
    }
}

/// The names of the components to write, each of which the model has.
fn chosen<'a>(model: &'a Model, options: &'a SynthOptions) -> Result<BTreeSet<&'a str>, Error> {
    let known = || model.spec.components.iter().map(|c| c.name.as_str());
    let Some(asked) = &options.components else { return Ok(known().collect()) };
    if asked.is_empty() {
        return Err(Error::Request("--components names none: leave it out to write all".to_owned()));
    }
    for name in asked {
        match model.spec.component(name) {
            None => {
                let all: Vec<&str> = known().collect();
                let text = format!("the model has no component '{name}'; it has {}", all.join(", "));
                return Err(Error::Request(format!("--components: {text}")));
            }
            Some(component) if component.absent => {
                let text = "no config of it was published, so its tensors are not known; leave it out";
                return Err(Error::Request(format!("--components: '{name}': {text}")));
            }
            Some(_) => {}
        }
    }
    Ok(asked.iter().map(String::as_str).collect())
}

fn tensors(component: &Component, options: &SynthOptions) -> Result<Vec<Tensor>, Error> {
    let knobs = Knobs { storage: options.storage.clone(), ..Knobs::default() };
    let asked = knobs.storage_of(&component.name);
    let rule = StorageRule::new(component, &knobs);
    let tensor = |spec: &loadline_core::TensorSpec| {
        let dtype = match (asked, spec.file_dtype) {
            (None, Some(in_file)) => in_file,
            // What nobody would find in a file under these names is refused below, asked for or not.
            (Some(asked), _) if !asked.is_plain() => asked,
            _ => rule.of(spec),
        };
        let stored = Stored::of(dtype).ok_or_else(|| {
            let text = "random weights are written as bf16, f32 or f16; give one with --storage";
            Error::Request(format!("component '{}' is stored as {dtype}: {text}", component.name))
        })?;
        Ok(Tensor {
            name: spec.name.clone(),
            shape: spec.shape.clone(),
            elements: spec.elements(),
            stored,
            values: Values::of(spec),
            seed: super::values::chunk_seed(options.seed, &component.name, 0),
        })
    };
    component.tensors.iter().map(tensor).collect()
}

/// The files of a component without weights: those of the folder, or what the catalog knows, or a small tokenizer.
fn helpers(model: &Model, name: &str, class: &str, owner: &str) -> Result<Vec<TextFile>, Error> {
    let place = Path::new(name);
    // A name of the index that leads out of the folder is never followed.
    if name.contains(['/', '\\', '\0']) || name.starts_with('.') {
        return Ok(Vec::new());
    }
    if let Some(folder) = model.folder.as_ref().map(|f| f.path.join(name)).filter(|f| f.is_dir()) {
        return copied(&folder, place);
    }
    if name == "scheduler" {
        return Ok(vec![TextFile::json(place.join("scheduler_config.json"), model.scheduler())]);
    }
    if !name.starts_with("tokenizer") {
        return Ok(Vec::new());
    }
    let vocabulary = model.config(owner).and_then(|c| c.get("vocab_size")).and_then(Value::as_u64);
    let file = |(file, content): (&str, String)| TextFile { path: place.join(file), content: content.into_bytes() };
    Ok(tokenizer::files(class, vocabulary).into_iter().map(file).collect())
}

/// The files that lie in a folder; they are small.
fn copied(folder: &Path, place: &Path) -> Result<Vec<TextFile>, Error> {
    let failed =
        |path: &Path, e: std::io::Error| Error::Model(format!("{}: {e}; check that it may be read", path.display()));
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(|e| failed(folder, e))? {
        let path = entry.map_err(|e| failed(folder, e))?.path();
        if let (true, Some(name)) = (path.is_file(), path.file_name()) {
            files.push(TextFile { path: place.join(name), content: fs::read(&path).map_err(|e| failed(&path, e))? });
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn readme(model: &Model, options: &SynthOptions) -> TextFile {
    let text = format!(
        "# {name}: random weights\n\n\
         `loadline model synth` wrote this folder with seed {seed}. Names, shapes, sizes and layout are those of\n\
         {name}; the values are random, so a run shows how long it takes and what memory it needs, and its\n\
         pictures show nothing.\n\n\
         A tokenizer that did not come from a model folder encodes letter by letter. It is no tokenizer of {name}.\n",
        name = model.spec.name,
        seed = options.seed
    );
    TextFile { path: PathBuf::from("README.md"), content: text.into_bytes() }
}

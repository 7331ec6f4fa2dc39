//! A model to plan or run: a catalog entry or a diffusers folder.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use loadline_core::{Job, Knobs, ModelSpec, Request, Size, TileSize};
use loadline_models::ops::{KernelSet, StreamedCuda};
use loadline_models::pipeline::{self, PipelineError, PipelineSource, RequestError, WanRecipe};
use loadline_models::schedule::SamplerOptions;
use loadline_models::spec::{Folder, StorageRule, catalog_model};
use loadline_models::{catalog, spec};
use serde_json::Value;

use crate::Error;

pub use loadline_models::pipeline::Support;

/// The values that a model allows: `least`, `least + step` and so on, up to `most`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From one value to the next.
    pub step: u32,
    /// The smallest.
    pub least: u32,
    /// The largest.
    pub most: u32,
}

/// A model with its configs, and its weights if it is a folder.
#[derive(Clone, Debug)]
pub struct Model {
    /// Its shape.
    pub spec: ModelSpec,
    /// Its folder, if it has weights.
    pub folder: Option<Folder>,
    configs: BTreeMap<String, Value>,
    scheduler: Value,
    index: Value,
    packed: bool,
}

impl Model {
    /// Opens a folder if there is one of that name, and looks into the catalog otherwise.
    ///
    /// # Errors
    /// If neither is there, or the folder's files are damaged.
    pub fn open(name: &str) -> Result<Self, Error> {
        let path = Path::new(name);
        if path.exists() { Self::folder(path) } else { Self::open_cataloged(name) }
    }

    /// Looks into the catalog only.
    ///
    /// # Errors
    /// If there is no entry of that name; the nearest are named.
    pub fn open_cataloged(name: &str) -> Result<Self, Error> {
        let entry =
            catalog::find(name).map_err(|e| Error::Model(format!("{e}; or give the path of a diffusers folder")))?;
        let spec = catalog_model(entry).map_err(|e| Error::Model(e.to_string()))?;
        let config = |name: &str| entry.json(&format!("{name}/config.json")).or_else(|| entry.json("config.json"));
        let configs = spec.components.iter().filter_map(|c| Some((c.name.clone(), config(&c.name)?))).collect();
        let json = |path: &str| entry.json(path).unwrap_or(Value::Null);
        let (scheduler, index) = (json("scheduler/scheduler_config.json"), json("model_index.json"));
        Ok(Self { spec, folder: None, configs, scheduler, index, packed: false })
    }

    /// The same model with so many of a component's equal layers: what takes as long a layer and less in all. Only
    /// an entry of the catalog can be changed, since a folder's weights are what they are.
    ///
    /// # Errors
    /// If the model is a folder, or the component has no such number in its config or is not there.
    pub fn with_layers(mut self, component: &str, layers: u64) -> Result<Self, Error> {
        let refused = |text: &str| Error::Request(format!("--layers {component}={layers}: {text}"));
        if self.folder.is_some() {
            return Err(refused("the model is a folder; name one of `loadline model list`"));
        }
        let config = self.configs.get_mut(component).filter(|config| config.get("num_layers").is_some());
        let config =
            config.ok_or_else(|| refused("the model has no such component with `num_layers` in its config"))?;
        config["num_layers"] = layers.into();
        let found = self.spec.components.iter_mut().find(|c| c.name == component);
        let found = found.ok_or_else(|| refused("the model has no such component"))?;
        *found = spec::component(component, &found.class, config).map_err(|e| refused(&e.to_string()))?;
        self.spec.name = format!("{}-{component}-{layers}", self.spec.name);
        Ok(self)
    }

    fn folder(path: &Path) -> Result<Self, Error> {
        let folder = Folder::open(path)?;
        let configs = folder.components.iter().map(|c| (c.name.clone(), c.config.clone())).collect();
        let scheduler = folder.json("scheduler/scheduler_config.json")?;
        let (spec, index) = (folder.model.clone(), folder.index.clone());
        Ok(Self { spec, folder: Some(folder), configs, scheduler, index, packed: false })
    }

    /// The same model where its blocks are read from a copy in which they lie as on the device: nothing is converted.
    #[must_use]
    pub fn packed(self) -> Self {
        Self { packed: true, ..self }
    }

    /// The config of a component, if one is known.
    pub(crate) fn config(&self, component: &str) -> Option<&Value> {
        self.configs.get(component)
    }

    /// The model index; null for a model of a single component.
    pub(crate) fn index(&self) -> &Value {
        &self.index
    }

    /// The scheduler's config; null where there is none.
    pub(crate) fn scheduler(&self) -> &Value {
        &self.scheduler
    }

    /// Whether its math runs, or only its shape is known.
    #[must_use]
    pub fn support(&self) -> Support {
        pipeline::support(&self.spec)
    }

    /// What people usually ask this model for; nothing for a model whose pipeline cannot be lowered.
    #[must_use]
    pub fn default_request(&self) -> Option<Request> {
        pipeline::default_request(&self.spec, &|name| self.configs.get(name).cloned())
    }

    /// The numbers of frames that the model makes; nothing for a model that makes pictures or cannot be lowered.
    #[must_use]
    pub fn frames(&self) -> Option<Limits> {
        match self.limit(|request| request.frames = 0)? {
            RequestError::Frames { step, least, most, .. } => Some(Limits { step, least, most }),
            _ => None,
        }
    }

    /// The widths and heights that the model makes; nothing for a model that makes one size or cannot be lowered.
    #[must_use]
    pub fn sides(&self) -> Option<Limits> {
        match self.limit(|request| request.size = Size { width: 1, height: 1 })? {
            RequestError::Size { step, most, .. } => Some(Limits { step, least: step, most }),
            _ => None,
        }
    }

    /// The numbers of denoise steps that the model takes.
    #[must_use]
    pub fn steps(&self) -> Option<Limits> {
        match self.limit(|request| request.steps = 0)? {
            RequestError::Steps { most, .. } => Some(Limits { step: 1, least: 1, most }),
            _ => None,
        }
    }

    /// What the model says about an impossible request. Its rules are written once, where requests are checked.
    fn limit(&self, spoil: impl FnOnce(&mut Request)) -> Option<RequestError> {
        let mut request = self.default_request()?;
        spoil(&mut request);
        let config = |name: &str| self.configs.get(name).cloned();
        let sampling = SamplerOptions::default();
        let source = self.source(&config, &sampling);
        match pipeline::forecast_job(&source, &request, &Knobs::default(), Arc::new(StreamedCuda)) {
            Err(PipelineError::Request(limit)) => Some(limit),
            _ => None,
        }
    }

    /// The VAE tiles that the model allows, largest first, each with its usual overlap.
    #[must_use]
    pub fn tile_sizes(&self) -> Vec<(TileSize, u32)> {
        let tiles = pipeline::tile_sizes(&self.spec).into_iter();
        tiles.map(|tile| (tile, pipeline::tile_overlap(&self.spec, tile))).collect()
    }

    /// The usual overlap of a tile.
    #[must_use]
    pub fn tile_overlap(&self, tile: TileSize) -> u32 {
        pipeline::tile_overlap(&self.spec, tile)
    }

    /// The request lowered for a kernel set.
    ///
    /// # Errors
    /// If the model does not allow the request.
    pub fn lower(
        &self,
        request: &Request,
        knobs: &Knobs,
        sampling: &SamplerOptions,
        kernels: Arc<dyn KernelSet>,
    ) -> Result<Job, Error> {
        let config = |name: &str| self.configs.get(name).cloned();
        let mut job = pipeline::forecast_job(&self.source(&config, sampling), request, knobs, kernels)?;
        if self.packed {
            job.blocks.iter_mut().for_each(|block| (block.file, block.conversion) = (block.slab, None));
        }
        Ok(job)
    }

    /// The recipe of a run.
    ///
    /// # Errors
    /// If the model cannot run or does not allow the request.
    pub fn recipe(
        &self,
        request: &Request,
        knobs: &Knobs,
        sampling: &SamplerOptions,
        ids: Vec<Vec<u32>>,
    ) -> Result<WanRecipe, Error> {
        let config = |name: &str| self.configs.get(name).cloned();
        let recipe = WanRecipe::new(&self.source(&config, sampling), request, knobs, Some(ids))?;
        recipe.runs()?;
        Ok(recipe)
    }

    fn source<'a>(
        &'a self,
        config: &'a dyn Fn(&str) -> Option<Value>,
        sampling: &'a SamplerOptions,
    ) -> PipelineSource<'a> {
        PipelineSource { model: &self.spec, config, scheduler: &self.scheduler, index: &self.index, sampling }
    }

    /// What cannot be stored as the knobs ask and stays plain, one line for each component.
    #[must_use]
    pub fn kept_plain(&self, knobs: &Knobs) -> Vec<String> {
        let kept = |c| spec::kept_plain(c, knobs).map(|kept| kept.to_string());
        self.spec.components.iter().filter_map(kept).collect()
    }

    /// The storage type that a component has when nobody says otherwise.
    #[must_use]
    pub fn default_storage(&self, component: &str) -> Option<loadline_core::DType> {
        let component = self.spec.component(component)?;
        component.tensors.iter().any(|t| !t.keep_f32).then(|| StorageRule::new(component, &Knobs::default()).storage())
    }
}

/// The tensors of one safetensors or GGUF file, from its header alone.
///
/// # Errors
/// If the file's header is not to be trusted.
pub fn weight_file(path: &Path) -> Result<loadline_models::weights::WeightIndex, Error> {
    loadline_models::weights::WeightIndex::open_component(path).map_err(|e| Error::Model(e.to_string()))
}

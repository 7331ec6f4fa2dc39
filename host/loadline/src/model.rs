//! A model to plan or run: a catalog entry or a diffusers folder.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use loadline_core::{Job, Knobs, ModelSpec, Request};
use loadline_models::ops::KernelSet;
use loadline_models::pipeline::{self, WanRecipe, WanSource};
use loadline_models::schedule::SamplerOptions;
use loadline_models::spec::{Folder, catalog_model};
use loadline_models::{catalog, spec};
use serde_json::Value;

use crate::Error;

pub use loadline_models::pipeline::Support;

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
}

impl Model {
    /// Opens a folder if there is one of that name, and looks into the catalog otherwise.
    ///
    /// # Errors
    /// If neither is there, or the folder's files are damaged.
    pub fn open(name: &str) -> Result<Self, Error> {
        let path = Path::new(name);
        if path.exists() { Self::folder(path) } else { Self::cataloged(name) }
    }

    fn cataloged(name: &str) -> Result<Self, Error> {
        let entry = catalog::find(name).map_err(|e| Error::Model(format!("{e}; or give the path of a diffusers folder")))?;
        let spec = catalog_model(entry).map_err(|e| Error::Model(e.to_string()))?;
        let config = |name: &str| entry.json(&format!("{name}/config.json")).or_else(|| entry.json("config.json"));
        let configs = spec.components.iter().filter_map(|c| Some((c.name.clone(), config(&c.name)?))).collect();
        let json = |path: &str| entry.json(path).unwrap_or(Value::Null);
        let (scheduler, index) = (json("scheduler/scheduler_config.json"), json("model_index.json"));
        Ok(Self { spec, folder: None, configs, scheduler, index })
    }

    fn folder(path: &Path) -> Result<Self, Error> {
        let folder = Folder::open(path)?;
        let configs = folder.components.iter().map(|c| (c.name.clone(), c.config.clone())).collect();
        let scheduler = folder.json("scheduler/scheduler_config.json")?;
        let (spec, index) = (folder.model.clone(), folder.index.clone());
        Ok(Self { spec, folder: Some(folder), configs, scheduler, index })
    }

    /// Whether its math runs, or only its shape is known.
    #[must_use]
    pub fn support(&self) -> Support {
        pipeline::support(&self.spec)
    }

    /// What people usually ask this model for.
    #[must_use]
    pub fn default_request(&self) -> Request {
        pipeline::default_request(&self.spec)
    }

    /// The VAE tiles that the model allows, largest first, each with its usual overlap.
    #[must_use]
    pub fn tile_sizes(&self) -> Vec<(loadline_core::TileSize, u32)> {
        pipeline::tile_sizes(&self.spec)
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
        pipeline::forecast_job(&self.spec, &config, &self.scheduler, &self.index, sampling, request, knobs, kernels)
            .map_err(|e| if e.is_request() { Error::Request(e.to_string()) } else { Error::Model(e.to_string()) })
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
        let source =
            WanSource { model: &self.spec, config: &config, scheduler: &self.scheduler, sampling: sampling.clone() };
        Ok(WanRecipe::new(&source, request, knobs, Some(ids))?)
    }

    /// The storage type that a component has when nobody says otherwise.
    #[must_use]
    pub fn default_storage(&self, component: &str) -> Option<loadline_core::DType> {
        let component = self.spec.component(component)?;
        let tensor = component.tensors.iter().find(|t| !t.keep_f32)?;
        Some(spec::storage_of(component, tensor, &Knobs::default()))
    }
}

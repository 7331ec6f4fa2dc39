//! Catalog models as sources of jobs.

#![allow(dead_code, unreachable_pub)] // a module of tests; each test file uses its part

use std::sync::Arc;

use loadline_core::{Job, Knobs, ModelSpec, OpKind, Request, Stage, Task};
use loadline_models::catalog::{self, CatalogEntry};
use loadline_models::ops::StreamedCuda;
use loadline_models::pipeline::{PipelineError, PipelineSource, default_request, forecast_job};
use loadline_models::schedule::SamplerOptions;
use loadline_models::spec;
use serde_json::Value;

/// A catalog model.
pub struct Known {
    entry: &'static CatalogEntry,
    pub model: ModelSpec,
}

impl Known {
    pub fn new(name: &str) -> Self {
        let entry = catalog::find(name).unwrap();
        Self { entry, model: spec::catalog_model(entry).unwrap() }
    }

    /// Calls `f` with everything that a recipe is made from.
    pub fn with<R>(&self, f: impl FnOnce(&PipelineSource<'_>) -> R) -> R {
        let json = |path: &str| self.entry.json(path).unwrap_or(Value::Null);
        let config = |component: &str| self.entry.json(&format!("{component}/config.json"));
        let (scheduler, index) = (json("scheduler/scheduler_config.json"), json("model_index.json"));
        let sampling = SamplerOptions::default();
        f(&PipelineSource {
            model: &self.model,
            config: &config,
            scheduler: &scheduler,
            index: &index,
            sampling: &sampling,
        })
    }

    pub fn usual(&self) -> Option<Request> {
        self.with(|source| default_request(source.model, source.config))
    }

    pub fn job(&self, request: &Request, knobs: &Knobs) -> Result<Job, PipelineError> {
        self.with(|source| forecast_job(source, request, knobs, Arc::new(StreamedCuda)))
    }
}

/// The knobs of a model that nobody tunes.
pub fn plain() -> Knobs {
    Knobs { frame_chunk: 1, ..Knobs::default() }
}

/// The job of a model at its usual request.
pub fn usual(name: &str) -> Job {
    let known = Known::new(name);
    known.job(&known.usual().unwrap(), &plain()).unwrap()
}

pub fn stage<'a>(job: &'a Job, name: &str) -> &'a Stage {
    job.stages.iter().find(|s| s.name == name).unwrap()
}

/// The task of the first or, where passes differ, the last kind of pass.
pub fn task<'a>(stage: &'a Stage, pass: usize, name: &str) -> &'a Task {
    stage.passes[pass].tasks.iter().find(|t| t.name == name).unwrap()
}

pub fn flops(task: &Task, kind: OpKind) -> u64 {
    task.ops.iter().filter(|o| o.kind == kind).map(|o| o.flops).sum()
}

//! What recipes are made from, and the writing of their scripts.

use loadline_core::{BlockId, Component, DType, Knobs, ModelSpec, StageKind};
use serde_json::Value;

use super::{Group, PipelineError, Script, ScriptBlock, StageScript, TaskScript};
use crate::schedule::SamplerOptions;
use crate::spec::StorageRule;

/// A model and its configs.
#[derive(Clone, Copy)]
pub struct PipelineSource<'a> {
    /// The model's shape.
    pub model: &'a ModelSpec,
    /// A component's config by name.
    pub config: &'a dyn Fn(&str) -> Option<Value>,
    /// The scheduler's config.
    pub scheduler: &'a Value,
    /// The model index.
    pub index: &'a Value,
    /// How the schedule deviates from its config.
    pub sampling: &'a SamplerOptions,
}

/// A component with its config.
pub(super) struct Part<'a> {
    pub(super) spec: &'a Component,
    pub(super) config: Value,
}

impl<'a> Part<'a> {
    pub(super) fn find(source: &PipelineSource<'a>, name: &str) -> Result<Self, PipelineError> {
        Self::optional(source, name).ok_or_else(|| PipelineError::MissingComponent {
            model: source.model.name.clone(),
            component: name.to_owned(),
        })
    }

    pub(super) fn optional(source: &PipelineSource<'a>, name: &str) -> Option<Self> {
        let spec = source.model.component(name).filter(|c| !c.absent)?;
        Some(Self { spec, config: (source.config)(name)? })
    }

    /// The type that activations have: that of most weights.
    pub(super) fn compute(&self, knobs: &Knobs) -> DType {
        let any = self.spec.tensors.iter().any(|t| !t.keep_f32);
        if any { StorageRule::new(self.spec, knobs).storage().compute() } else { DType::F32 }
    }
}

/// A stage that is to be written.
pub(super) struct NewStage<'a> {
    pub(super) kind: StageKind,
    pub(super) name: &'a str,
    /// A task without weights before the first block.
    pub(super) before: Option<&'a str>,
    /// A task without weights after the last block.
    pub(super) after: Option<&'a str>,
    /// Which of the component's blocks it walks.
    pub(super) blocks: &'a dyn Fn(&str) -> bool,
    pub(super) groups: Vec<Group>,
    pub(super) safe_every: u64,
}

impl NewStage<'_> {
    /// A stage that walks all blocks and may stop after every pass.
    pub(super) fn new(kind: StageKind, name: &str) -> NewStage<'_> {
        NewStage { kind, name, before: None, after: None, blocks: &|_| true, groups: Vec::new(), safe_every: 1 }
    }
}

/// Writes a script stage by stage.
#[derive(Default)]
pub(super) struct Writer {
    pub(super) script: Script,
}

impl Writer {
    /// Adds a stage, unless it has no passes.
    pub(super) fn stage(&mut self, part: &Part<'_>, stage: NewStage<'_>) {
        let NewStage { kind, name, before, after, blocks, groups, safe_every } = stage;
        if groups.iter().all(|g| g.passes == 0) {
            return;
        }
        let component = self.component(&part.spec.name);
        let bare = |name: &str| TaskScript { name: name.to_owned(), block: None };
        let mut tasks: Vec<_> = before.map(bare).into_iter().collect();
        for (block, index) in part.spec.blocks.iter().zip(0..).filter(|(b, _)| blocks(&b.name)) {
            let id = BlockId(self.script.blocks.len() as u32);
            self.script.blocks.push(ScriptBlock { component, index });
            tasks.push(TaskScript { name: block.name.clone(), block: Some(id) });
        }
        tasks.extend(after.map(bare));
        self.script.stages.push(StageScript { kind, name: name.to_owned(), component, tasks, groups, safe_every });
    }

    fn component(&mut self, name: &str) -> u32 {
        let known = self.script.components.iter().position(|c| c == name);
        let index = known.unwrap_or_else(|| {
            self.script.components.push(name.to_owned());
            self.script.components.len() - 1
        });
        index as u32
    }
}

//! Running a program on the symbolic backend and writing down what each task costs.

use std::collections::BTreeMap;
use std::sync::Arc;

use loadline_core::{Bytes, Component, DType, Job, JobBlock, Knobs, ModelSpec, Pass, Request, Stage, Task, TensorSpec};

use super::{At, Group, Host, Program, Script, StageScript};
use crate::ops::{BlockWeights, KernelSet, OpError, Ops, Symbolic, Weight};
use crate::spec::StorageRule;

/// Why a request could not be lowered.
#[derive(Debug, thiserror::Error)]
pub enum LowerError {
    /// The model's config and its tensors do not fit together.
    #[error("model '{model}': stage '{stage}', task '{task}': {source}")]
    Task {
        /// The model.
        model: String,
        /// The stage.
        stage: String,
        /// The task.
        task: String,
        /// What went wrong.
        source: Box<OpError>,
    },
}

/// Lowers a request: runs `program` without computing anything and records every task.
///
/// # Errors
/// If the program uses a tensor that the model does not have.
pub fn lower(
    model: &ModelSpec,
    request: &Request,
    knobs: &Knobs,
    kernels: Arc<dyn KernelSet>,
    program: &mut dyn Program<Symbolic>,
) -> Result<Job, LowerError> {
    let script = program.script().clone();
    let weights = symbolic_weights(model, &script, knobs);
    let kernel_set = kernels.name().to_owned();
    let mut tracer = Tracer { model, ops: Ops::new(Symbolic, kernels), program, weights };
    let stages = script.stages.iter().enumerate();
    let stages = stages.map(|(i, stage)| tracer.stage(i, stage)).collect::<Result<_, _>>()?;
    Ok(Job {
        model: model.name.clone(),
        model_hash: model.hash(),
        request: request.clone(),
        knobs: knobs.clone(),
        kernel_set,
        blocks: job_blocks(model, &script, knobs),
        components: script.components,
        stages,
        frames_host: Bytes(script.output_host),
    })
}

/// The script's components with their storage, by the script's numbers.
fn components<'a>(model: &'a ModelSpec, script: &Script, knobs: &Knobs) -> Vec<Option<(&'a Component, StorageRule)>> {
    let find = |name: &String| model.component(name).map(|c| (c, StorageRule::new(c, knobs)));
    script.components.iter().map(find).collect()
}

fn job_blocks(model: &ModelSpec, script: &Script, knobs: &Knobs) -> Vec<JobBlock> {
    let components = components(model, script, knobs);
    let block = |b: &super::ScriptBlock| {
        let (component, rule) = components[b.component as usize]?;
        let block = component.blocks.get(b.index as usize)?;
        let tensors = || component.block_tensors(block);
        Some(JobBlock {
            component: b.component,
            index: b.index,
            name: format!("{}.{}", component.name, block.name),
            slab: tensors().map(|t| rule.of(t).bytes(t.elements()).round_up(loadline_core::SLAB_ALIGN)).sum(),
            file: tensors().map(|t| t.file_dtype.unwrap_or(rule.of(t)).file_bytes(t.elements())).sum(),
            conversion: conversion(&rule, tensors()),
        })
    };
    script.blocks.iter().filter_map(block).collect()
}

/// The types of the most bytes that loading converts.
fn conversion<'a>(rule: &StorageRule, tensors: impl Iterator<Item = &'a TensorSpec>) -> Option<(DType, DType)> {
    let converted = |t: &TensorSpec| Some((t.file_dtype.filter(|d| *d != rule.of(t))?, rule.of(t), t.elements()));
    tensors.filter_map(converted).max_by_key(|(_, _, elements)| *elements).map(|(from, to, _)| (from, to))
}

fn symbolic_weights(model: &ModelSpec, script: &Script, knobs: &Knobs) -> Vec<BlockWeights<()>> {
    let components = components(model, script, knobs);
    let weights = |b: &super::ScriptBlock| {
        let (component, rule) = components[b.component as usize]?;
        let block = component.blocks.get(b.index as usize)?;
        let entries = component.block_tensors(block).map(|t| {
            let shape = t.shape.iter().map(|d| *d as usize).collect();
            (t.name.clone(), Weight { shape, dtype: rule.of(t), data: () })
        });
        Some(BlockWeights { name: block.name.clone(), entries: entries.collect() })
    };
    script.blocks.iter().filter_map(weights).collect()
}

struct Tracer<'a> {
    model: &'a ModelSpec,
    ops: Ops<Symbolic>,
    program: &'a mut dyn Program<Symbolic>,
    weights: Vec<BlockWeights<()>>,
}

/// The passes of a stage, each different one once.
#[derive(Default)]
struct Passes {
    distinct: Vec<Pass>,
    order: Vec<Run>,
}

impl Passes {
    fn push(&mut self, pass: Pass) -> u32 {
        let index = self.distinct.iter().position(|p| *p == pass).unwrap_or_else(|| {
            self.distinct.push(pass);
            self.distinct.len() - 1
        }) as u32;
        self.repeat(index, 1);
        index
    }

    fn repeat(&mut self, index: u32, times: u32) {
        match self.order.last_mut() {
            Some((last, count)) if *last == index => *count += times,
            _ => self.order.push((index, times)),
        }
    }
}

/// A pass, an index into the different ones, and how many times in a row it runs.
type Run = (u32, u32);

/// Equal neighbours as one entry with their number: what repeats a tile of a thousand chunks in a few steps.
fn runs(order: &[u32]) -> Vec<Run> {
    order.chunk_by(|a, b| a == b).map(|run| (run[0], run.len() as u32)).collect()
}

impl Tracer<'_> {
    fn stage(&mut self, index: usize, script: &StageScript) -> Result<Stage, LowerError> {
        let mut passes = Passes::default();
        let mut known: BTreeMap<(String, [u64; 5]), Vec<Run>> = BTreeMap::new();
        let mut first = 0;
        for group in &script.groups {
            let key = (group.key.clone(), self.ops.ledger.live_by_class());
            // The last group is always traced: what it leaves behind is what the next stage starts with.
            let last = std::ptr::eq(group, &script.groups[script.groups.len() - 1]);
            match known.get(&key).filter(|_| !last) {
                Some(runs) => runs.iter().for_each(|(index, count)| passes.repeat(*index, *count)),
                None => {
                    let order = self.group(index, script, group, first, &mut passes)?;
                    known.insert(key, runs(&order));
                }
            }
            first += group.passes;
        }
        Ok(Stage {
            kind: script.kind,
            name: script.name.clone(),
            component: script.component,
            passes: passes.distinct,
            sequence: passes.order,
        })
    }

    /// Traces passes until they repeat, skips to the last period, and traces that.
    fn group(
        &mut self,
        stage: usize,
        script: &StageScript,
        group: &Group,
        first: u64,
        passes: &mut Passes,
    ) -> Result<Vec<u32>, LowerError> {
        let period = group.period.max(1);
        let mut order = Vec::new();
        let mut i = 0;
        while i < group.passes {
            let pass = self.pass(stage, script, first + i)?;
            order.push(passes.push(pass));
            i += 1;
            let n = order.len();
            let p = period as usize;
            let steady = n >= 2 * p && order[n - p..] == order[n - 2 * p..n - p];
            let last = group.passes.saturating_sub(period);
            if steady && i % period == 0 && i < last {
                for skipped in i..last {
                    let index = order[n - p + ((skipped - i) % period) as usize];
                    passes.repeat(index, 1);
                    order.push(index);
                }
                i = last;
            }
        }
        Ok(order)
    }

    fn pass(&mut self, stage: usize, script: &StageScript, pass: u64) -> Result<Pass, LowerError> {
        let mut tasks = Vec::with_capacity(script.tasks.len());
        for (task, entry) in script.tasks.iter().enumerate() {
            let before = self.ops.ledger.begin();
            let weights = entry.block.and_then(|b| self.weights.get(b.0 as usize));
            self.program.run(&mut self.ops, At { stage, pass, task }, weights, &mut Nobody).map_err(|source| {
                LowerError::Task {
                    model: self.model.name.clone(),
                    stage: script.name.clone(),
                    task: entry.name.clone(),
                    source: Box::new(source),
                }
            })?;
            let memory = self.ops.ledger.end(before);
            let (ops, to_host, gathered) = self.ops.recording.take();
            tasks.push(Task { name: entry.name.clone(), block: entry.block, ops, memory, gathered, to_host });
        }
        Ok(Pass { tasks, safe_point: (pass + 1).is_multiple_of(script.safe_every.max(1)) })
    }
}

/// The host of the symbolic world: nobody asks it anything.
struct Nobody;

impl Host for Nobody {
    fn embedding_rows(&mut self, _: &str, _: &[u32], _: &mut [f32]) -> Result<(), String> {
        Ok(())
    }
    fn noise(&mut self, _: &[usize], _: &mut [f32]) -> Result<(), String> {
        Ok(())
    }
    fn frames(&mut self, _: usize, _: usize, _: [usize; 4], _: &[f32]) {}
    fn wants(&self, _: &str) -> bool {
        false
    }
    fn observe(&mut self, _: &str, _: &[usize], _: &[f32]) {}
}

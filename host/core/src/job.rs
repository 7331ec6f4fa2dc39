//! A request lowered to work: ordered stages of passes of tasks, each with its exact cost.

use serde::{Deserialize, Serialize};

use crate::ContentHash;
use crate::dtype::DType;
use crate::plan::Knobs;
use crate::request::Request;
use crate::site::Site;
use crate::units::Bytes;

/// A block's index in [`Job::blocks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BlockId(pub u32);

/// The kinds of work that differ in how fast a machine does them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpKind {
    /// Dense matrix products.
    Linear,
    /// Attention that never materialises its scores.
    Attention,
    /// Two- and three-dimensional convolution.
    Conv,
    /// Normalisation, activation, rotation, sums: bound by memory.
    Elementwise,
}

impl OpKind {
    /// Every kind, in the order used in tables.
    pub const ALL: [Self; 4] = [Self::Linear, Self::Attention, Self::Conv, Self::Elementwise];
}

/// What some equal operations cost, whatever machine runs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpCost {
    /// What is done.
    pub kind: OpKind,
    /// Which operation it is and its shape, by which a recorded machine finds its time.
    pub site: Site,
    /// The type that the arithmetic runs in.
    pub dtype: DType,
    /// How many operations of this shape there are.
    pub count: u32,
    /// Floating-point operations of all of them, a multiply-add counted as two.
    pub flops: u64,
    /// Bytes of inputs, weights and outputs of all of them that pass through device memory once.
    pub bytes: u64,
}

/// What activation memory is used for; the classes are reservations of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActClass {
    /// Intermediate results of a task.
    Activations,
    /// Scratch of the operation that is running.
    Workspace,
    /// Prompt and condition embeddings, rotary tables.
    Embeddings,
    /// The latents and the sampler's history.
    Latents,
    /// The causal VAE's feature cache.
    FeatureCache,
}

impl ActClass {
    /// Every class, in the order used in tables.
    pub const ALL: [Self; 5] =
        [Self::Activations, Self::Workspace, Self::Embeddings, Self::Latents, Self::FeatureCache];

    /// The name of the reservation.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Activations => "activations",
            Self::Workspace => "workspace",
            Self::Embeddings => "embeddings",
            Self::Latents => "latents",
            Self::FeatureCache => "feature-cache",
        }
    }
}

/// Device bytes of everything but weights while a task runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActMemory {
    /// Live when the task starts.
    pub before: Bytes,
    /// The most that is live at any instant of the task, the scratch of its operations included.
    pub peak: Bytes,
    /// Live when the task has ended.
    pub after: Bytes,
    /// The peak, split by [`ActClass::ALL`].
    pub at_peak: [Bytes; 5],
}

/// The smallest thing that the engine runs: one block on one set of activations, or work without weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// A name for people, such as `blocks.7`.
    pub name: String,
    /// The block whose weights must be complete on the device, if any.
    pub block: Option<BlockId>,
    /// The work, one entry for each shape.
    pub ops: Vec<OpCost>,
    /// Activation memory.
    pub memory: ActMemory,
    /// Bytes gathered from weight files on the host (rows of an embedding table).
    pub gathered: Bytes,
    /// Bytes sent to the host when the task ends (output frames).
    pub to_host: Bytes,
}

/// One walk over a stage's blocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pass {
    /// The tasks, in order. All passes of a stage have the same number of tasks and visit the same
    /// blocks at the same positions, so that one cyclic schedule serves them all.
    pub tasks: Vec<Task>,
    /// True where the engine may stop, save and decide again when the pass has ended.
    pub safe_point: bool,
}

/// What a stage computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageKind {
    /// Prompts to embeddings.
    TextEncode,
    /// A condition picture to embeddings.
    ImageEncode,
    /// A condition picture or video to latents.
    VaeEncode,
    /// Noise to latents.
    Denoise,
    /// Latents to frames.
    VaeDecode,
}

/// One stage of a job: passes over the blocks of one component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// What is computed.
    pub kind: StageKind,
    /// A name that is unique in the job, such as `denoise`.
    pub name: String,
    /// The component whose blocks are walked, an index into [`Job::components`].
    pub component: u32,
    /// The different passes that occur.
    pub passes: Vec<Pass>,
    /// Which pass runs how many times in a row, in order.
    pub sequence: Vec<(u32, u32)>,
}

impl Stage {
    /// The number of passes that run.
    #[must_use]
    pub fn pass_count(&self) -> u64 {
        self.sequence.iter().map(|(_, n)| u64::from(*n)).sum()
    }

    /// The number of tasks in each pass.
    #[must_use]
    pub fn tasks_per_pass(&self) -> usize {
        self.passes.first().map_or(0, |p| p.tasks.len())
    }

    /// The type in which the stage does most of its arithmetic.
    #[must_use]
    pub fn arithmetic(&self) -> Option<DType> {
        let ops = self.passes.iter().flat_map(|p| &p.tasks).flat_map(|t| &t.ops);
        ops.max_by_key(|op| op.flops).map(|op| op.dtype)
    }

    /// The passes in the order in which they run, as indices into [`Stage::passes`].
    pub fn run_order(&self) -> impl Iterator<Item = usize> + '_ {
        self.sequence.iter().flat_map(|(pass, n)| std::iter::repeat_n(*pass as usize, *n as usize))
    }

    /// The block that each position of a pass needs.
    pub fn blocks(&self) -> impl Iterator<Item = Option<BlockId>> + '_ {
        self.passes.first().into_iter().flat_map(|p| p.tasks.iter().map(|t| t.block))
    }

    /// The different blocks of the stage, in order of first use.
    #[must_use]
    pub fn distinct_blocks(&self) -> Vec<BlockId> {
        let mut seen = Vec::new();
        for block in self.blocks().flatten() {
            if !seen.contains(&block) {
                seen.push(block);
            }
        }
        seen
    }

    /// The task with the largest activation peak.
    #[must_use]
    pub fn peak_task(&self) -> Option<&Task> {
        // `max_by_key` keeps the last of equals; the first is the better name for people.
        self.passes.iter().flat_map(|p| &p.tasks).rev().max_by_key(|t| t.memory.peak)
    }

    /// The largest activation peak of any task.
    #[must_use]
    pub fn activation_peak(&self) -> Bytes {
        self.peak_task().map_or(Bytes::ZERO, |t| t.memory.peak)
    }
}

/// A block as a job sees it: already in its storage type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobBlock {
    /// The component, an index into [`Job::components`].
    pub component: u32,
    /// The block's index in its component.
    pub index: u32,
    /// The name for people, such as `transformer.blocks.7`.
    pub name: String,
    /// Bytes of its slab on the device.
    pub slab: Bytes,
    /// Bytes read from the file for it.
    pub file: Bytes,
    /// The types in the file and on the device where they differ, so that loading converts.
    pub conversion: Option<(DType, DType)>,
}

/// A request for a model, lowered with given knobs for a given kernel set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The model's name.
    pub model: String,
    /// The hash of the model's shape.
    pub model_hash: ContentHash,
    /// What was asked for.
    pub request: Request,
    /// The knobs that were used.
    pub knobs: Knobs,
    /// The kernel set whose scratch is declared.
    pub kernel_set: String,
    /// The names of the components that the job uses.
    pub components: Vec<String>,
    /// Every block that the job uses.
    pub blocks: Vec<JobBlock>,
    /// The stages, in order.
    pub stages: Vec<Stage>,
    /// Host bytes for the output frames and for putting them together from tiles.
    pub frames_host: Bytes,
}

impl Job {
    /// The block of that id.
    ///
    /// # Panics
    /// If the id is not one of this job's; ids come from the job itself or were checked.
    #[must_use]
    pub fn block(&self, id: BlockId) -> &JobBlock {
        &self.blocks[id.0 as usize]
    }

    /// Slab bytes of all blocks of a stage.
    #[must_use]
    pub fn stage_weight(&self, stage: &Stage) -> Bytes {
        stage.distinct_blocks().into_iter().map(|b| self.block(b).slab).sum()
    }

    /// The largest slab among the blocks of a stage.
    #[must_use]
    pub fn largest_block(&self, stage: &Stage) -> Bytes {
        stage.distinct_blocks().into_iter().map(|b| self.block(b).slab).max().unwrap_or(Bytes::ZERO)
    }

    /// The largest activation peak of any stage.
    #[must_use]
    pub fn activation_peak(&self) -> Bytes {
        self.stages.iter().map(Stage::activation_peak).max().unwrap_or(Bytes::ZERO)
    }
}

//! From a request to a job, and the program that both worlds run.
//!
//! A *script* lists a pipeline's stages, passes and tasks. A *program* carries the pipeline's state
//! (latents, embeddings, feature caches) from task to task. [`lower`] runs the program on the symbolic backend and
//! writes down what each task costs; a run gives the same program a real backend, and the engine tells it
//! which task is next.

mod cog;
mod error;
mod flux;
mod forecast;
mod hunyuan;
mod latents;
mod limits;
mod lower;
mod parts;
mod prompts;
mod walk;
mod wan;

use loadline_core::{BlockId, StageKind};

pub use cog::{CogProgram, CogRecipe};
pub use error::PipelineError;
pub use flux::{FluxProgram, FluxRecipe};
pub use forecast::{Support, default_request, forecast_job, support, tile_overlap, tile_sizes};
pub use hunyuan::{HunyuanProgram, HunyuanRecipe};
pub use limits::{RequestError, check_cog, check_flux, check_hunyuan, check_wan};
pub use lower::{LowerError, lower};
pub use parts::PipelineSource;
pub use wan::{WanProgram, WanRecipe};

use crate::ops::{Backend, BlockWeights, OpError, Ops};

/// A task's place in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// The stage.
    pub stage: usize,
    /// The pass, counted from the start of the stage.
    pub pass: u64,
    /// The task's position in the pass.
    pub task: usize,
}

/// One task of every pass of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskScript {
    /// A name for people.
    pub name: String,
    /// The block whose weights it needs.
    pub block: Option<BlockId>,
}

/// Passes that follow each other and, after a few, cost the same again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Groups with the same key cost the same if they start with the same live bytes.
    pub key: String,
    /// How many passes there are.
    pub passes: u64,
    /// The number of passes after which costs repeat.
    pub period: u64,
}

/// One stage of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageScript {
    /// What is computed.
    pub kind: StageKind,
    /// A name that is unique in the job.
    pub name: String,
    /// The component whose blocks are walked, an index into [`Script::components`].
    pub component: u32,
    /// The tasks of every pass.
    pub tasks: Vec<TaskScript>,
    /// All passes, in order.
    pub groups: Vec<Group>,
    /// The run may stop after every so many passes.
    pub safe_every: u64,
}

/// One block that a pipeline uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptBlock {
    /// The component, an index into [`Script::components`].
    pub component: u32,
    /// The block's index in its component.
    pub index: u32,
}

/// What a pipeline does, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// The components that it uses, by name.
    pub components: Vec<String>,
    /// The blocks that it uses; [`BlockId`] is the index.
    pub blocks: Vec<ScriptBlock>,
    /// The stages.
    pub stages: Vec<StageScript>,
    /// Bytes of the output on the host.
    pub output_host: u64,
}

/// Something that a pipeline starts from besides its prompts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// A picture as the vision encoder's processor makes it, `[height, width, channels]`.
    Picture(usize),
    /// Frames for the VAE to encode, `[frames, height, width, channels]` from -1 to 1.
    Frames {
        /// Which of the videos: the only one, or what stays (0) and what changes (1) of a control video.
        video: usize,
        /// The first frame, row and column.
        start: [usize; 3],
        /// Frames, rows and columns.
        size: [usize; 3],
    },
    /// What the transformer is conditioned on, put together from what was [`encoded`](Host::encoded), its mask in the
    /// channels where the model has one: in the layout of the latents.
    Condition,
}

/// What a program asks the host for, and gives it. The symbolic world never calls it.
pub trait Host {
    /// Writes the embedding rows of `ids` as f32, one after the other.
    ///
    /// # Errors
    /// If the table cannot be read.
    fn embedding_rows(&mut self, component: &str, ids: &[u32], out: &mut [f32]) -> Result<(), String>;

    /// Writes the initial noise.
    ///
    /// # Errors
    /// If given latents cannot be read or have another shape.
    fn noise(&mut self, shape: &[usize], out: &mut [f32]) -> Result<(), String>;

    /// Takes decoded frames of one tile and chunk, `[frames, height, width, channels]`, not yet clamped.
    fn frames(&mut self, tile: usize, chunk: usize, shape: [usize; 4], values: &[f32]);

    /// Writes an input. A host of text-to-video pipelines has none.
    ///
    /// # Errors
    /// If there is no such input, or it cannot be read.
    fn input(&mut self, input: Input, out: &mut [f32]) -> Result<(), String> {
        let _ = out;
        Err(format!("the pipeline starts from {input:?}, which this run does not have"))
    }

    /// Takes the latents of one part (video, tile, batch) of what the VAE encoded, `[frames, height, width, channels]`.
    fn encoded(&mut self, part: [usize; 3], shape: [usize; 4], values: &[f32]) {
        let _ = (part, shape, values);
    }

    /// Whether a tensor of that name is wanted by [`observe`](Self::observe).
    fn wants(&self, name: &str) -> bool;

    /// Takes a named intermediate result.
    fn observe(&mut self, name: &str, shape: &[usize], values: &[f32]);
}

/// A pipeline's state and what it does with it, task by task.
pub trait Program<B: Backend> {
    /// What it does, in order.
    fn script(&self) -> &Script;

    /// Runs one task.
    ///
    /// # Errors
    /// If a weight is missing, the budget is exceeded or the backend fails.
    fn run(
        &mut self,
        ops: &mut Ops<B>,
        at: At,
        weights: Option<&BlockWeights<B::Weight>>,
        host: &mut dyn Host,
    ) -> Result<(), OpError>;
}

/// The weights of a task that needs some.
fn needed<W>(weights: Option<&BlockWeights<W>>) -> Result<&BlockWeights<W>, OpError> {
    weights.ok_or_else(|| OpError::Shape { op: "run", detail: "the task's block is not loaded".into() })
}

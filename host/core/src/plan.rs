//! A plan: everything that will happen, as data. Nothing is left to decide while it runs.

use serde::{Deserialize, Serialize};

use crate::ContentHash;
use crate::dtype::DType;
use crate::job::BlockId;
use crate::request::{Cfg, TileSize};
use crate::units::Bytes;

/// Where bytes live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// The device's own memory.
    Device,
    /// Page-locked host memory.
    Pinned,
    /// Ordinary host memory.
    Host,
    /// The weight files.
    Disk,
}

impl Tier {
    /// Every tier, nearest first.
    pub const ALL: [Self; 4] = [Self::Device, Self::Pinned, Self::Host, Self::Disk];

    /// The number that stands for the tier in the policy contract.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The tier of a number of the policy contract.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.code() == code)
    }
}

/// The settings that change cost, and for some of them the numbers, of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Knobs {
    /// How guidance runs.
    pub cfg: Cfg,
    /// The storage type of each component, by name; a component that is not named keeps its default.
    pub storage: Vec<(String, DType)>,
    /// The VAE tile in pixels; absent for no tiling.
    pub tile: Option<TileSize>,
    /// Pixels that neighbouring tiles share.
    pub tile_overlap: u32,
    /// Latent frames that one pass of the VAE decodes.
    pub frame_chunk: u32,
}

impl Knobs {
    /// The storage type of a component, if one was set.
    #[must_use]
    pub fn storage_of(&self, component: &str) -> Option<DType> {
        self.storage.iter().find(|(name, _)| name == component).map(|(_, d)| *d)
    }
}

/// A fixed device buffer that blocks pass through, or that one block stays in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Its size; at least that of the largest block it ever holds.
    pub bytes: Bytes,
    /// True if the slot and its content outlive the stage, for the rest of the job and the next one.
    pub keep: bool,
}

/// A [`Load::after`] that waits for nothing: the load starts as soon as the copy engine is free.
pub const AT_ONCE: u32 = u32::MAX;

/// One copy of a block into a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// The block.
    pub block: BlockId,
    /// The slot, an index into [`StagePlan::slots`].
    pub slot: u32,
    /// The task position in the cycle whose end frees the slot, or [`AT_ONCE`] in a prologue.
    pub after: u32,
}

/// What happens with weights during one stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagePlan {
    /// The device buffers of the stage.
    pub slots: Vec<Slot>,
    /// Loads before the first pass, in the order of the copy engine.
    pub prologue: Vec<Load>,
    /// Loads that repeat, in the order of the copy engine; positions count tasks from the start of
    /// the cycle.
    pub cycle: Vec<Load>,
    /// The number of passes after which the cycle repeats; 1 for most plans.
    pub cycle_passes: u32,
    /// Device bytes set aside for everything but weights. The engine refuses an operation that
    /// would need more.
    pub activations: Bytes,
}

impl StagePlan {
    /// Device bytes of the slots that are loaded once and hold one block for the whole stage.
    #[must_use]
    pub fn resident_bytes(&self) -> Bytes {
        self.slot_bytes(|slot| !self.streams(slot))
    }

    /// Device bytes of the slots that blocks pass through.
    #[must_use]
    pub fn streaming_bytes(&self) -> Bytes {
        self.slot_bytes(|slot| self.streams(slot))
    }

    /// Whether a slot is overwritten while the stage runs.
    #[must_use]
    pub fn streams(&self, slot: u32) -> bool {
        self.cycle.iter().any(|load| load.slot == slot)
    }

    fn slot_bytes(&self, select: impl Fn(u32) -> bool) -> Bytes {
        self.slots.iter().zip(0..).filter(|(_, i)| select(*i)).map(|(s, _)| s.bytes).sum()
    }
}

/// Who made a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyId {
    /// The policy's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The hash of its component.
    pub hash: ContentHash,
}

/// What a policy wants to be told about while its plan runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TriggerKind {
    /// Device bytes in use rise above the threshold.
    DeviceAbove,
    /// Free host bytes fall below the threshold.
    HostFreeBelow,
}

/// A watermark. The host evaluates it at safe points; it fires again only after the quantity has
/// moved back by the hysteresis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trigger {
    /// What is watched.
    pub kind: TriggerKind,
    /// The level that fires.
    pub threshold: Bytes,
    /// How far back the quantity must move before it can fire again.
    pub hysteresis: Bytes,
}

/// One rung of the ladder that is climbed down when reality deviates and the policy cannot answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepDown {
    /// What changes, in words for the report.
    pub reason: String,
    /// The streaming slots that each stage keeps at most; residents become streamed.
    pub slots: u32,
}

/// Everything that will happen, decided before anything happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Who made it.
    pub policy: PolicyId,
    /// The knobs that it runs with.
    pub knobs: Knobs,
    /// Where each block of the job lives when it is not on the device, by [`BlockId`].
    pub homes: Vec<Tier>,
    /// One entry for each stage of the job.
    pub stages: Vec<StagePlan>,
    /// What stays loaded afterwards, most valuable first.
    pub retain: Vec<BlockId>,
    /// Step-downs, gentlest first.
    pub ladder: Vec<StepDown>,
    /// Watermarks.
    pub triggers: Vec<Trigger>,
    /// What the policy wants to be reminded of at its next decision; at most 4 KiB.
    #[serde(default)]
    pub memo: Vec<u8>,
    /// Why the plan is as it is, a line each.
    pub reasons: Vec<String>,
}

impl Plan {
    /// The hash of the whole plan.
    #[must_use]
    pub fn hash(&self) -> ContentHash {
        ContentHash::of(self)
    }

    /// Device bytes of slots that earlier stages keep while a stage runs.
    #[must_use]
    pub fn kept_before(&self, stage: usize) -> Bytes {
        self.stages.iter().take(stage).flat_map(|s| &s.slots).filter(|s| s.keep).map(|s| s.bytes).sum()
    }

    /// Device bytes of slots that later stages keep from the job before, which they occupy while a
    /// stage runs.
    #[must_use]
    pub fn kept_after(&self, stage: usize) -> Bytes {
        self.stages.iter().skip(stage + 1).flat_map(|s| &s.slots).filter(|s| s.keep).map(|s| s.bytes).sum()
    }

    /// Device bytes that a stage occupies at its peak, fixed overhead not counted. Kept slots of all
    /// stages count in every stage: after the first job of a process they are all there.
    #[must_use]
    pub fn stage_device_bytes(&self, stage: usize) -> Bytes {
        let Some(plan) = self.stages.get(stage) else { return Bytes::ZERO };
        let slots: Bytes = plan.slots.iter().map(|s| s.bytes).sum();
        slots + plan.activations + self.kept_before(stage) + self.kept_after(stage)
    }
}

//! One case: a request, a machine, a budget, and what is known about it without any policy.

use std::sync::Arc;

use loadline_core::{
    Bytes, Cfg, ContentHash, Estimate, Job, Knobs, Machine, Nanos, Plan, PolicyId, Request, Settings, Stage, StagePlan,
    Tier, stage_bound_timed, step_down,
};
use loadline_policy::Policy;
use loadline_sim::Times;

use super::corpus::{Level, Work};
use crate::planning::{floor, least, simulate};
use crate::{Asked, Bench, Error, KnobChoice, Planner, SamplerOptions};

/// A request on a machine within a budget.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Names the case together with all that its times depend on: the job, the machine and the simulator. A case whose
    /// times would be others has another key.
    pub key: ContentHash,
    /// The model.
    pub model: String,
    /// What is asked of it.
    pub request: Request,
    /// The profile's name.
    pub gpu: String,
    /// The device budget.
    pub budget: Bytes,
    /// The budget in words.
    pub level: String,
}

impl Case {
    /// Model and request in a few words.
    #[must_use]
    pub fn work(&self) -> String {
        let Request { size, frames, steps, .. } = &self.request;
        format!("{} {size} f{frames} s{steps}", self.model)
    }
}

/// What becomes of the output: plans are compared only if it is the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The knobs that change numbers, as `--flags` of a plan; empty where the output is what was asked for.
    pub changed: String,
    /// How far it is from what was asked for; 0 for not at all.
    distance: u64,
}

impl Output {
    /// What a plan's knobs make of the output that knobs without a policy's say would give.
    #[must_use]
    pub fn of(knobs: &Knobs, asked: &Knobs) -> Self {
        let mut changed = Vec::new();
        let same_bits = |cfg: Cfg| matches!(cfg, Cfg::Sequential | Cfg::Pair);
        if knobs.cfg != asked.cfg && !(same_bits(knobs.cfg) && same_bits(asked.cfg)) {
            changed.push(format!("cfg {}", knobs.cfg.name()));
        }
        for (name, dtype) in knobs.storage.iter().filter(|pair| !asked.storage.contains(pair)) {
            changed.push(format!("storage {name}={}", dtype.name()));
        }
        if knobs.tile != asked.tile || knobs.tile_overlap != asked.tile_overlap {
            let tile = knobs.tile.map_or_else(|| "none".to_owned(), |t| t.to_string());
            changed.push(format!("tile {tile} overlap {}", knobs.tile_overlap));
        }
        if knobs.frame_chunk != asked.frame_chunk {
            changed.push(format!("frame-chunk {}", knobs.frame_chunk));
        }
        // Among tiles the largest is nearest to none.
        let tile = knobs.tile.map_or(u64::MAX, |t| u64::from(t.width) * u64::from(t.height));
        let distance = if changed.is_empty() { 0 } else { u64::MAX - tile + 1 };
        Self { changed: changed.join(", "), distance }
    }

    /// An output as a table has it; it is as far from what was asked for as its tile is small.
    pub(super) fn parse(changed: &str) -> Self {
        let tile = changed.split(", ").find_map(|part| part.strip_prefix("tile ")?.split(' ').next()?.parse().ok());
        let area = tile.map_or(u64::MAX, |t: loadline_core::Size| u64::from(t.width) * u64::from(t.height));
        let distance = if changed.is_empty() { 0 } else { u64::MAX - area + 1 };
        Self { changed: changed.to_owned(), distance }
    }

    /// Whether it is what was asked for.
    #[must_use]
    pub fn is_as_asked(&self) -> bool {
        self.changed.is_empty()
    }

    /// The one that is nearer to what was asked for.
    pub(super) fn nearer(self, other: Self) -> Self {
        if other.distance < self.distance { other } else { self }
    }
}

/// Work on a machine: what all its cases share.
pub(super) struct Place<'a> {
    pub(super) bench: &'a Bench<'a>,
    pub(super) asked: Asked,
    pub(super) gpu: &'a str,
    job: Arc<Job>,
    fingerprint: Nanos,
}

impl<'a> Place<'a> {
    /// # Errors
    /// If the model does not allow the request, or the profile lacks a rate.
    pub(super) fn new(work: &Work, bench: &'a Bench<'a>, any: &Policy) -> Result<Self, Error> {
        let usual = bench.shelf().model().default_request();
        let usual = usual.ok_or_else(|| Error::Request(format!("'{}' cannot be planned", work.model)))?;
        let asked = Asked {
            request: Request { size: work.size, frames: work.frames, steps: work.steps, ..usual },
            knobs: KnobChoice::default(),
            sampling: SamplerOptions::default(),
            vram: None,
            ram: None,
            used_by_others: Bytes::ZERO,
        };
        let planner = planner(bench, any, &NO_SETTINGS);
        let knobs = planner.knobs(&asked, None);
        let job = bench.shelf().job(&asked.request, &knobs, &asked.sampling, &planner.kernels()?)?;
        let times = bench.times(&job, Estimate::Median)?;
        let fingerprint = fingerprint(&job, &times);
        Ok(Self { bench, asked, gpu: &bench.machine().name, job, fingerprint })
    }

    /// The knobs that a plan has if nobody changes one.
    pub(super) fn knobs(&self) -> &Knobs {
        &self.job.knobs
    }

    /// The cases of these levels, in rising order of their budgets; levels that come to the same budget are one case.
    pub(super) fn cases(&self, levels: &[Level], any: &Policy) -> Result<Vec<Case>, Error> {
        let mut cases: Vec<Case> = Vec::new();
        for level in levels {
            let budget = self.budget(*level, any)?;
            if budget > Bytes::ZERO && !cases.iter().any(|c| c.budget == budget) {
                cases.push(self.case(budget, *level));
            }
        }
        cases.sort_by_key(|c| c.budget);
        Ok(cases)
    }

    fn budget(&self, level: Level, any: &Policy) -> Result<Bytes, Error> {
        let machine = self.machine();
        let (granule, card) = (machine.device.granularity.max(1), machine.device.memory);
        let planner = planner(self.bench, any, &NO_SETTINGS);
        let tiled = || floor(&planner, self.bench, &self.asked).map(|bytes| bytes.round_up(granule).min(card));
        let most = |need: fn(&Job, &Stage, &Machine) -> Bytes| {
            let needs = self.job.stages.iter().map(|s| need(&self.job, s, machine));
            needs.max().unwrap_or_default().round_up(granule).min(card)
        };
        let (low, high) = (most(least), most(resident));
        Ok(match level {
            Level::Below => tiled()? - Bytes(granule),
            Level::Tiled => tiled()?,
            Level::Share(share) => {
                let more = (high - low).as_f64() * share.clamp(0.0, 1.0);
                (low + Bytes(more as u64)).round_up(granule).min(card)
            }
        })
    }

    fn case(&self, budget: Bytes, level: Level) -> Case {
        let (job, machine) = (&self.job, self.machine());
        let named = (&job.model_hash, &job.request, &job.knobs, &job.kernel_set, &machine.hash, machine.host.memory);
        Case {
            key: ContentHash::of(&(named, budget, self.fingerprint)),
            model: job.model.clone(),
            request: job.request.clone(),
            gpu: self.gpu.to_owned(),
            budget,
            level: level.name(),
        }
    }

    pub(super) fn machine(&self) -> &'a Machine {
        self.bench.machine()
    }

    /// What no schedule with this output beats within a budget: the bound of each stage with all that is left of the
    /// budget for its weights, for the better of the two ways of guidance that give the same bits.
    ///
    /// # Errors
    /// If the profile lacks a rate.
    pub(super) fn bound(&self, of: &Job, budget: Bytes, any: &Policy) -> Result<Nanos, Error> {
        let mut jobs = vec![self.bench.shelf().job(
            &of.request,
            &of.knobs,
            &self.asked.sampling,
            &planner(self.bench, any, &NO_SETTINGS).kernels()?,
        )?];
        let other = match of.knobs.cfg {
            Cfg::Sequential => Some(Cfg::Pair),
            Cfg::Pair => Some(Cfg::Sequential),
            Cfg::Batched => None,
        };
        if let Some(cfg) = other {
            let knobs = Knobs { cfg, ..of.knobs.clone() };
            let kernels = planner(self.bench, any, &NO_SETTINGS).kernels()?;
            jobs.extend(self.bench.shelf().job(&of.request, &knobs, &self.asked.sampling, &kernels));
        }
        let mut least = None;
        for job in jobs {
            let bound = self.job_bound(&job, budget)?;
            least = Some(least.map_or(bound, |l: Nanos| l.min(bound)));
        }
        Ok(least.unwrap_or_default())
    }

    fn job_bound(&self, job: &Arc<Job>, budget: Bytes) -> Result<Nanos, Error> {
        let machine = self.machine();
        let times = self.bench.times(job, Estimate::Median)?;
        let bounds = job.stages.iter().enumerate().map(|(i, stage)| {
            let room = budget - machine.device.fixed_overhead - stage.activation_peak();
            stage_bound_timed(job, stage, machine, room, &|pass, task| times.task(i, pass, task)).time
        });
        Ok(bounds.sum())
    }
}

/// No policy needs settings for what is worked out without one.
static NO_SETTINGS: Settings = Settings::new();

/// A planner of a policy on a bench.
pub(super) fn planner<'a>(bench: &'a Bench<'a>, policy: &'a Policy, settings: &'a Settings) -> Planner<'a> {
    Planner::new(bench.shelf().model(), bench.machine(), policy, settings)
}

/// What a stage needs with all its weights on the device.
fn resident(job: &Job, stage: &Stage, machine: &Machine) -> Bytes {
    let granule = machine.device.granularity;
    let slots: Bytes = stage.distinct_blocks().into_iter().map(|b| job.block(b).slab.round_up(granule)).sum();
    machine.device.fixed_overhead + stage.activation_peak().round_up(granule) + slots
}

/// The time of the simplest plan: all blocks through two slots. It changes when the job's costs, the machine's figures
/// or the simulator change, so that times that were found before are not taken for times of today.
fn fingerprint(job: &Job, times: &Times) -> Nanos {
    let none = |stage: &Stage| StagePlan {
        slots: Vec::new(),
        prologue: Vec::new(),
        cycle: Vec::new(),
        cycle_passes: 1,
        activations: stage.activation_peak(),
    };
    let empty = Plan {
        policy: PolicyId { name: "two-slots".into(), version: "0".into(), hash: ContentHash::of_bytes(b"") },
        knobs: job.knobs.clone(),
        homes: vec![Tier::Host; job.blocks.len()],
        stages: job.stages.iter().map(none).collect(),
        retain: Vec::new(),
        ladder: Vec::new(),
        triggers: Vec::new(),
        memo: Vec::new(),
        reasons: Vec::new(),
    };
    let plan = step_down(job, &empty, 0, 2);
    simulate(job, &plan, times, false, false).trace.stages.iter().map(|s| s.length()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_says_what_changed_and_survives_a_table() {
        let asked = Knobs { frame_chunk: 1, ..Knobs::default() };
        let check = |knobs: Knobs, expected: &str| {
            let output = Output::of(&knobs, &asked);
            assert_eq!(output.changed, expected);
            assert_eq!(Output::parse(expected), output);
            output
        };
        check(asked.clone(), "");
        check(Knobs { cfg: Cfg::Pair, ..asked.clone() }, "");
        check(Knobs { cfg: Cfg::Batched, ..asked.clone() }, "cfg batched");
        let tile = |side: u32| Some(loadline_core::Size { width: side, height: side });
        let tiled = |side: u32| Knobs { tile: tile(side), tile_overlap: 64, ..asked.clone() };
        let large = check(tiled(512), "tile 512x512 overlap 64");
        let small = check(tiled(256), "tile 256x256 overlap 64");
        assert_eq!(small.clone().nearer(large.clone()), large);
        assert_eq!(small.nearer(Output::parse("")), Output::parse(""));
    }
}

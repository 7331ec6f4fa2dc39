//! The adapter of a version that was never published: see `tests/wit/policy@0.0.9`.

use loadline_core::{Decision, Job, Load, Plan, Refusal, Situation, Slot, Stage, StagePlan, Tier};
use wasmtime::component::Linker;
use wasmtime::{Store, StoreContextMut};

use super::super::{Adapter, Asked, Call, Description, Version};
use crate::PolicyError;
use crate::guest::{self, Question, State};
use bindings::{MemoryPolicy, MemoryPolicyPre};

mod bindings {
    #![allow(missing_docs, unreachable_pub, unused_qualifications, dead_code)]
    #![allow(clippy::all, clippy::unwrap_used, clippy::needless_pass_by_value, clippy::redundant_clone)]

    wasmtime::component::bindgen!({
        path: "tests/wit/policy@0.0.9",
        world: "memory-policy",
        exports: { default: async },
    });
}

pub(crate) const VERSION: Version = Version {
    number: "0.0.9",
    imports: &["log", "time"],
    exports: &["describe", "decide"],
    link,
    adapt: |component| Ok(Box::new(Guest(MemoryPolicyPre::new(component)?))),
};

struct Guest(MemoryPolicyPre<State>);

impl Adapter for Guest {
    fn describe<'a>(&'a self, store: &'a mut Store<State>) -> Call<'a, Description> {
        Box::pin(async move {
            let instance = self.0.instance_pre().instantiate_async(&mut *store).await?;
            let guest = match MemoryPolicy::new(&mut *store, &instance) {
                Ok(guest) => guest,
                Err(error) => return Ok(Err(VERSION.mismatch(&error))),
            };
            let name = guest.loadline_policy_policy().call_describe(store).await?;
            // What this version did not say yet.
            Ok(Ok(Description { name, version: "0".into(), summary: String::new(), settings: String::new() }))
        })
    }

    fn decide<'a>(&'a self, store: &'a mut Store<State>, asked: Asked<'a>) -> Call<'a, Decision> {
        Box::pin(async move {
            let slabs: Vec<u64> = asked.situation.job.blocks.iter().map(|block| block.slab.0).collect();
            let guest = self.0.instantiate_async(&mut *store).await?;
            let answer = guest.loadline_policy_policy().call_decide(store, &slabs).await?;
            Ok(match answer {
                Ok(homes) => plan(&homes, asked.id, asked.situation).map(|plan| Decision::Plan(Box::new(plan))),
                Err(message) => Err(Refusal { stage: None, needs: None, message }.into()),
            })
        })
    }
}

fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut host = linker.instance("loadline:policy/host@0.0.9")?;
    host.func_wrap("log", |mut store: StoreContextMut<'_, State>, (text,): (String,)| {
        guest::log(&mut store, 2, &text)
    })?;
    host.func_wrap_async("time", |mut store: StoreContextMut<'_, State>, (homes,): (Vec<u8>,)| {
        Box::new(async move {
            let entries = homes.len();
            let time = move |caller: &mut guest::Caller<'_>| -> Result<u64, String> {
                let plan = plan(&homes, caller.id, caller.situation).map_err(|error| error.to_string())?;
                Ok(caller.oracle.forecast(&plan)?.forecast.total(|stage| stage.cold).0)
            };
            Ok((guest::ask(&mut store, Question::Forecast, move |price| price.probe(entries), time).await?,))
        })
    })?;
    Ok(())
}

/// This version chose homes; all blocks of a stage were resident.
fn plan(homes: &[u8], id: &loadline_core::PolicyId, situation: &Situation<'_>) -> Result<Plan, PolicyError> {
    let home = |code: &u8| Tier::from_code(*code).ok_or_else(|| PolicyError::nonsense("homes", "no home"));
    Ok(Plan {
        policy: id.clone(),
        knobs: situation.job.knobs.clone(),
        homes: homes.iter().map(home).collect::<Result<_, _>>()?,
        stages: situation.job.stages.iter().map(|stage| resident(situation.job, stage)).collect(),
        retain: Vec::new(),
        ladder: Vec::new(),
        triggers: Vec::new(),
        memo: Vec::new(),
        reasons: Vec::new(),
    })
}

fn resident(job: &Job, stage: &Stage) -> StagePlan {
    let mut blocks: Vec<_> = stage.blocks().flatten().collect();
    blocks.sort_unstable();
    blocks.dedup();
    StagePlan {
        slots: blocks.iter().map(|id| Slot { bytes: job.block(*id).slab, keep: false }).collect(),
        prologue: blocks.iter().zip(0..).map(|(id, slot)| Load { block: *id, slot, after: u32::MAX }).collect(),
        cycle: Vec::new(),
        cycle_passes: 1,
        activations: stage.activation_peak(),
    }
}

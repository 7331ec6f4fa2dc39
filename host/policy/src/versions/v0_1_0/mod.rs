//! Version 0.1.0 of the contract: `wit/policy@0.1.0`.

mod bindings;
mod lift;
mod lower;
mod words;

use loadline_core::Decision;
use wasmtime::component::Linker;
use wasmtime::{Store, StoreContextMut};

use super::{Adapter, Asked, Call, Description, Version};
use crate::guest::{self, Question, State};
use crate::price::{Price, StageRows};
use bindings::exports::loadline::policy::policy::Decision as Answer;
use bindings::loadline::policy::types as wit;
use bindings::{MemoryPolicy, MemoryPolicyPre};

pub(crate) const VERSION: Version = Version {
    number: "0.1.0",
    imports: &["log", "probe", "forecast"],
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
            let description = guest.loadline_policy_policy().call_describe(&mut *store).await?;
            store.data_mut().write("description", &description);
            let wit::Description { name, version, summary, settings } = description;
            Ok(Ok(Description { name, version, summary, settings }))
        })
    }

    fn decide<'a>(&'a self, store: &'a mut Store<State>, asked: Asked<'a>) -> Call<'a, Decision> {
        Box::pin(async move {
            let told = match lower::situation(asked.situation, asked.limits) {
                Ok(told) => told,
                Err(missing) => return Ok(Err(missing.into())),
            };
            store.data_mut().write("situation", &told);
            let guest = self.0.instantiate_async(&mut *store).await?;
            let answer = guest.loadline_policy_policy().call_decide(&mut *store, &told).await?;
            store.data_mut().write("decision", &answer);
            Ok(match answer {
                Ok(Answer::Keep) => Ok(Decision::Keep),
                Ok(Answer::Plan(plan)) => {
                    lift::plan(plan, asked.id, asked.situation).map(|plan| Decision::Plan(Box::new(plan)))
                }
                Err(refusal) => Err(lift::refusal(&refusal).into()),
            })
        })
    }
}

fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut host = linker.instance("loadline:policy/host@0.1.0")?;
    host.func_wrap("log", |mut store: StoreContextMut<'_, State>, (level, text): (u8, String)| {
        guest::log(&mut store, level, &text)
    })?;
    host.func_wrap_async("probe", |mut store: StoreContextMut<'_, State>, (knobs,): (Vec<wit::Entry>,)| {
        Box::new(async move {
            store.data_mut().write("probe", &knobs);
            let entries = knobs.len();
            let probe = move |caller: &mut guest::Caller<'_>| -> Result<wit::Job, String> {
                let knobs = lift::knobs(&knobs, caller.situation).map_err(|error| error.to_string())?;
                let job = caller.oracle.probe(&knobs)?;
                lower::job(&job, caller.situation.machine).map_err(|error| error.to_string())
            };
            let job = guest::ask(&mut store, Question::Probe, move |price| price.probe(entries), probe).await?;
            store.data_mut().write("reply", &job);
            Ok((job,))
        })
    })?;
    host.func_wrap_async("forecast", |mut store: StoreContextMut<'_, State>, (plan,): (wit::Plan,)| {
        Box::new(async move {
            store.data_mut().write("forecast", &plan);
            let (texts, rows) = (plan.knobs.len() + plan.reasons.len() + plan.ladder.len(), rows(&plan));
            let forecast = move |caller: &mut guest::Caller<'_>| -> Result<wit::ForecastReply, String> {
                let plan = lift::plan(plan, caller.id, caller.situation).map_err(|error| error.to_string())?;
                caller.oracle.forecast(&plan).map(|outlook| lower::outlook(&outlook))
            };
            let price = move |price: &Price| price.forecast(texts, rows.into_iter());
            let reply = guest::ask(&mut store, Question::Forecast, price, forecast).await?;
            store.data_mut().write("reply", &reply);
            Ok((reply,))
        })
    })?;
    Ok(())
}

fn rows(plan: &wit::Plan) -> Vec<StageRows> {
    let rows = |s: &wit::StagePlan| StageRows {
        once: s.slot_bytes.len() + s.prologue.block.len(),
        cycle: s.cycle.block.len(),
        cycle_passes: s.cycle_passes,
    };
    plan.stages.iter().map(rows).collect()
}

//! Plans out of a guest: a parrot, whose answer is the memo that it is shown.

use std::sync::OnceLock;

use loadline_core::*;
use loadline_policy::{Decided, Oracle, Outlook, Policy, PolicyError};

use crate::check_message;
use crate::draft::Draft;
use crate::guest::{encode, engine, module};
use crate::image::{BASE, Image};
use crate::plan::check_plan;
use crate::supply::Supply;
use crate::world::World;

/// Where the memo's pointer and length lie in the situation.
const MEMO: u32 = 280;

/// The situation's memo is the memory of a guest, which it hands back as its answer, and as a question for a forecast.
/// An input whose first byte is 0 is that memory as it is; any other is a plan's columns that are laid out as the
/// contract has it.
///
/// Of columns the host makes the plan that they mean, or names what means nothing; of any memory it makes an answer or
/// an error that can be shown. The same memory gives the same decision and the same fuel. An admitted plan runs as it
/// must (see `plan`).
///
/// # Panics
/// Where one of these does not hold.
pub fn parrot(data: &[u8]) -> bool {
    let mut supply = Supply::new(data);
    let parrot = policy();
    if supply.byte() == 0 {
        let world = World::new(&mut Supply::new(&[]));
        return check_asked(parrot, &world, supply.rest(), &Settings::new()).is_ok();
    }
    let asks = supply.flip();
    let world = World::new(&mut supply);
    let draft = Draft::new(&world, &mut supply);
    let decided = check_asked(parrot, &world, &Image::of(&draft, asks), &Settings::new());
    match (decided, draft.plan(&world.job, parrot.id())) {
        (Ok(Decided { decision: Decision::Plan(plan), .. }), Some(meant)) => {
            assert_eq!(*plan, meant);
            world.admits(&plan)
        }
        (Err(PolicyError::Nonsense { .. }), None) => false,
        // The larger a plan, the more fuel its forecast burns.
        (Err(PolicyError::OutOfFuel { .. }), _) if asks => false,
        (decided, meant) => panic!("{decided:?} instead of {meant:?}"),
    }
}

/// What must hold of an answer, whoever gives it.
pub(crate) fn check_asked(
    policy: &Policy,
    world: &World,
    memo: &[u8],
    settings: &Settings,
) -> Result<Decided, PolicyError> {
    let situation = Situation {
        cause: Cause::Start,
        job: &world.job,
        from_stage: 0,
        from_pass: 0,
        machine: &world.machine,
        budget: world.budget,
        settings,
        may_change_cfg: false,
        observed_device: Bytes::ZERO,
        loaded: &[],
        upcoming: &[],
        memo,
    };
    let decided = policy.decide(&situation, &mut Asked(world));
    assert_eq!(decided, policy.decide(&situation, &mut Asked(world)), "another decision of the same situation");
    assert!(!matches!(decided, Err(PolicyError::Host { .. } | PolicyError::MissingRate { .. })), "{decided:?}");
    match &decided {
        Ok(Decided { decision: Decision::Plan(plan), .. }) if world.admits(plan) => check_plan(world, plan),
        Ok(Decided { log, .. }) => assert!(log.iter().all(|line| !line.text.contains(char::is_control))),
        Err(error) => check_message(error),
    }
    decided
}

/// The parrot: it copies the memo to where its answer is to lie, and asks for a forecast if a byte of it says so.
fn policy() -> &'static Policy {
    static PARROT: OnceLock<Policy> = OnceLock::new();
    let lists: String = (0..16).map(|i| format!("(i32.load (i32.const {}))", BASE + 12 + 4 * i)).collect();
    let body = format!(
        "(memory.copy (i32.const {BASE}) (i32.load offset={MEMO} (local.get 0))
           (i32.load offset={} (local.get 0)))
         (if (i32.load8_u (i32.const {})) (then (call $forecast {lists} (i32.const 4096))))
         (i32.const {BASE})",
        MEMO + 4,
        BASE + 4,
    );
    PARROT.get_or_init(|| engine().load(&encode(&module(&body))).unwrap())
}

/// Says whether a plan may run, and little of what it would take.
struct Asked<'a>(&'a World);

impl Oracle for Asked<'_> {
    fn probe(&mut self, _: &Knobs) -> Result<Job, String> {
        Ok(self.0.job.clone())
    }

    fn forecast(&mut self, plan: &Plan) -> Result<Outlook, String> {
        if !self.0.admits(plan) {
            return Err(format!("{:?}", self.0.findings(plan)));
        }
        let forecast = Forecast {
            stages: Vec::new(),
            host: Vec::new(),
            disk_read: Bytes::ZERO,
            provenance: Provenance::Datasheet,
        };
        Ok(Outlook { forecast, stalls: vec![vec![Nanos(1)]], findings: vec!["advice".to_owned()] })
    }
}

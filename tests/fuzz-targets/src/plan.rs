//! Plans, without a guest.

use loadline_core::{ContentHash, Plan, PolicyId, step_down};

use crate::draft::Draft;
use crate::supply::Supply;
use crate::world::World;

/// A job, a machine, budgets and a plan for them, most often one that is a few changes away from a sound one.
///
/// A plan that is admitted is written and read again as the same; it comes to its end within the budget, several times
/// in a row and with another admitted plan in between, every task with its own block (see `World::check_run` and
/// `Watched`). Each rung below it is sound but for budgets, and what of them is admitted comes to its end too.
///
/// # Panics
/// Where one of these does not hold.
pub fn plan(data: &[u8]) -> bool {
    let mut supply = Supply::new(data);
    let world = World::new(&mut supply);
    let draft = Draft::new(&world, &mut supply);
    let id = PolicyId { name: "draft".into(), version: "1".into(), hash: ContentHash::of_bytes(b"") };
    let Some(plan) = draft.plan(&world.job, &id).filter(|plan| world.admits(plan)) else { return false };
    check_plan(&world, &plan);
    let other = Draft::new(&world, &mut supply).plan(&world.job, &id);
    if let Some(other) = other.filter(|other| world.admits(other)) {
        world.check_turns(&[&plan, &other, &plan]);
    }
    true
}

/// What must hold of an admitted plan, whoever made it.
pub(crate) fn check_plan(world: &World, plan: &Plan) {
    let text = serde_json::to_string(plan).unwrap();
    let read: Plan = serde_json::from_str(&text).unwrap();
    assert_eq!((&read, read.hash()), (plan, plan.hash()), "not what was written");
    world.check_run(plan);
    for slots in 0..4 {
        let lower = step_down(&world.job, plan, 0, slots);
        assert!(world.would_admit(&lower), "a rung of {slots} slots is wrong: {:?}", world.findings(&lower));
        if world.admits(&lower) {
            world.check_run(&lower);
        }
    }
}

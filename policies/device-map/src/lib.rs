//! `device-map` gives every block a fixed place for the whole job: the device, host memory or the weight
//! files, with a limit on each. It is a map and no schedule: what is on the device stays there, even
//! while another component runs, and the rest is copied each time it is used.

mod homes;
mod limits;
mod place;

use loadline_policy_sdk::{
    Decision, Description, Host, Plan, Policy, Refusal, Situation, StagePlan, counted, describe, export_policy, size,
};

use limits::Limits;

/// The policy.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeviceMap;

/// How places are given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Map {
    /// The blocks that are used most often come first, evenly spread.
    Auto,
    /// Blocks in the order of their use fill one tier after the other.
    Sequential,
    /// Each component as the settings say.
    Custom,
}

impl Policy for DeviceMap {
    fn describe(&self) -> Description {
        let summary = "Gives every block a fixed place on the device, in host memory or on disk, within limits.";
        describe("device-map", env!("CARGO_PKG_VERSION"), summary, include_str!("settings.json"))
    }

    fn decide(&self, s: &Situation, _: &mut dyn Host) -> Result<Decision, Refusal> {
        let (map, limits) = (Map::of(s), Limits::of(s));
        let stages = place::stages(s, map, limits.device)?;
        let homes = homes::homes(s, map, &limits, &stages);
        let mut plan = s.plan_for(&s.job, &limits.budget(s), Vec::new(), stages);
        plan.homes = homes;
        homes::check(s, map, &limits, &plan)?;
        plan.reasons = reasons(s, map, &plan);
        Ok(Decision::Plan(plan))
    }
}

impl Map {
    fn of(s: &Situation) -> Self {
        match s.text("map") {
            "sequential" => Self::Sequential,
            "custom" => Self::Custom,
            _ => Self::Auto,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Sequential => "sequential",
            Self::Custom => "custom",
        }
    }
}

/// Components with a number, such as `text_encoder_2`, share the place of their family.
fn family(component: &str) -> &'static str {
    let families = ["text_encoder", "image_encoder", "vae"];
    families.into_iter().find(|f| component.starts_with(f)).unwrap_or("transformer")
}

fn reasons(s: &Situation, map: Map, plan: &Plan) -> Vec<String> {
    let placed = homes::placed(s, plan);
    let place =
        |(name, blocks, bytes): (&str, usize, u64)| format!("{name} {} ({})", counted(blocks, "block"), size(bytes));
    let total = placed.into_iter().filter(|(_, blocks, _)| *blocks > 0).map(place).collect::<Vec<_>>().join(", ");
    let stage = |(index, stage): (usize, &StagePlan)| format!("{}: {}", s.stage(index).stage.name, stage.summary());
    let stages = plan.stages.iter().enumerate().map(stage);
    std::iter::once(format!("map {}: {total}", map.name())).chain(stages).collect()
}

export_policy!(DeviceMap);

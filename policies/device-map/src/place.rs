//! What stays on the device for the whole job.

use loadline_policy_sdk::{Refusal, Situation, Split, StagePlan, StageView, size};

use crate::{Map, family};

/// The stages' plans: residents that outlive their stage, and slots for the rest.
pub(crate) fn stages(s: &Situation, map: Map, device: u64) -> Result<Vec<StagePlan>, Refusal> {
    if map == Map::Custom {
        return custom(s, device);
    }
    // After memory failed, a part of the device is left alone as long as the job still fits.
    let squeezed = (0..s.squeezes()).fold(device, |device, _| device / 4 * 3);
    filled(s, map, squeezed).or_else(|_| filled(s, map, device))
}

fn slots(s: &Situation) -> u32 {
    u32::try_from(s.count("prefetch")).unwrap_or(15) + 1
}

/// As many residents as fit, stage by stage.
fn filled(s: &Situation, map: Map, device: u64) -> Result<Vec<StagePlan>, Refusal> {
    let (mut plans, slots) = emptiest(s, device)?;
    for index in order(s, map) {
        fill(s, map, device, slots, index, &mut plans);
    }
    Ok(plans)
}

/// Nothing resident, and as many slots as fit in every stage.
fn emptiest(s: &Situation, device: u64) -> Result<(Vec<StagePlan>, u32), Refusal> {
    for slots in (1..=slots(s)).rev() {
        let plans: Vec<StagePlan> = s.stages().map(|view| resident(&view, Map::Auto, 0, slots)).collect();
        if s.fits(&s.job, &plans, device) {
            return Ok((plans, slots));
        }
    }
    Err(too_small(s, device))
}

fn too_small(s: &Situation, device: u64) -> Refusal {
    let mut refusal = s.too_small(s.largest_stage().unwrap_or(0), device);
    if device < s.budget.device {
        refusal.message += ": raise max_memory_device";
    }
    refusal
}

/// Which stage's blocks come first: with `auto` those that are used most often.
fn order(s: &Situation, map: Map) -> Vec<usize> {
    let mut order: Vec<usize> = (0..s.job.stages.len()).collect();
    if map == Map::Auto {
        // An insertion sort: stages are few, and a sort of the library would add kilobytes.
        for i in 1..order.len() {
            let passes = |at: usize, order: &[usize]| s.job.stages[order[at]].passes;
            let mut j = i;
            while j > 0 && passes(j - 1, &order) < passes(j, &order) {
                order.swap(j - 1, j);
                j -= 1;
            }
        }
    }
    order
}

/// The most residents of one stage with which all stages fit.
fn fill(s: &Situation, map: Map, device: u64, slots: u32, index: usize, plans: &mut [StagePlan]) {
    let view = s.stage(index);
    let blocks = view.distinct().len();
    let works = |count: usize, plans: &mut [StagePlan]| {
        let before = std::mem::replace(&mut plans[index], resident(&view, map, count, slots));
        let fits = s.fits(&s.job, plans, device);
        if !fits {
            plans[index] = before;
        }
        fits
    };
    // All of them need no slots, which a few fewer do: so that is asked apart.
    if works(blocks, plans) {
        return;
    }
    let (mut fits, mut fails) = (0, blocks);
    while fails - fits > 1 {
        let middle = usize::midpoint(fits, fails);
        if works(middle, plans) { fits = middle } else { fails = middle }
    }
}

/// A stage with so many residents, which are kept for the whole job.
fn resident(view: &StageView, map: Map, count: usize, slots: u32) -> StagePlan {
    let blocks = view.distinct();
    let split = match map {
        Map::Sequential => Split::of(&blocks, &blocks[..count]),
        _ => Split::count(view, blocks.len() - count, false),
    };
    let plan = StagePlan::rolling(view, &split, slots);
    if count == 0 { plan } else { plan.kept() }
}

/// Components on the device as a whole, the others streamed.
fn custom(s: &Situation, device: u64) -> Result<Vec<StagePlan>, Refusal> {
    let stays = |view: &StageView| s.text(family(view.component())) == "device";
    let made = |slots: u32| -> Vec<StagePlan> {
        let plan = |view: StageView| match stays(&view) {
            true => StagePlan::all_resident(&view).kept(),
            false => resident(&view, Map::Auto, 0, slots),
        };
        s.stages().map(plan).collect()
    };
    let plans = (1..=slots(s)).rev().map(made).find(|plans| s.fits(&s.job, plans, device));
    plans.ok_or_else(|| refuse(s, device, &made(1)))
}

/// Names the largest component that was to stay on the device.
fn refuse(s: &Situation, device: u64, plans: &[StagePlan]) -> Refusal {
    let granularity = s.machine.granularity;
    let kept: Vec<u64> = plans.iter().map(|plan| plan.kept_bytes(granularity)).collect();
    let all = kept.iter().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
    let needs = |index: usize| {
        let view = s.stage(index);
        let own = s.machine.fixed_overhead.saturating_add(view.activations()).saturating_add(plans[index].held(&view));
        own.saturating_add(all - kept[index])
    };
    let worst = (0..plans.len()).rev().max_by_key(|index| needs(*index)).unwrap_or(0);
    let largest = (0..plans.len()).rev().max_by_key(|index| kept[*index]).unwrap_or(0);
    if kept.get(largest).is_none_or(|bytes| *bytes == 0) {
        return too_small(s, device);
    }
    let (needs, component) = (needs(worst), family(s.stage(largest).component()));
    let message = format!(
        "stage '{}' needs {} of device memory, {} of it for components mapped to the device, {} may be used: \
         set {component} to host",
        s.stage(worst).stage.name,
        size(needs),
        size(all),
        size(device),
    );
    Refusal { stage: Some(worst as u32), needs_bytes: Some(needs), message }
}

//! `manual-swap` does what the user says: how many blocks are streamed, through how many slots, and
//! which components leave the device. It improves nothing; what does not fit is refused with the
//! setting to change.

use loadline_policy_sdk::{
    Decision, Description, Host, Policy, Refusal, Situation, Split, StagePlan, StageView, counted, describe,
    export_policy, size,
};

/// The policy.
#[derive(Clone, Copy, Debug, Default)]
pub struct ManualSwap;

/// What the user says about the component of one stage.
struct Wish {
    /// The component's part of the settings' names.
    family: &'static str,
    /// Blocks to stream; absent for as few as the budget asks for.
    swap: Option<usize>,
    /// The name of the setting that `swap` comes from.
    swap_key: String,
    /// Whether the component leaves the device; absent for what fits.
    offload: Option<bool>,
}

impl Policy for ManualSwap {
    fn describe(&self) -> Description {
        let summary = "Streams as many blocks as it is told, and refuses what does not fit.";
        describe("manual-swap", env!("CARGO_PKG_VERSION"), summary, include_str!("settings.json"))
    }

    fn decide(&self, s: &Situation, _: &mut dyn Host) -> Result<Decision, Refusal> {
        let wishes: Vec<Wish> = s.stages().map(|view| wish(s, &view)).collect();
        let kept = forced(s, &wishes);
        let mut stages = Vec::new();
        for (i, wish) in wishes.iter().enumerate() {
            let beside: u64 = kept.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, bytes)| *bytes).sum();
            let plan = stage(s, i, wish, beside)?;
            stages.push(if wish.offload == Some(false) { plan.kept() } else { plan });
        }
        keep_if_all_fits(s, &wishes, &mut stages);
        let mut plan = s.plan(stages);
        plan.reasons =
            s.stages().zip(&plan.stages).map(|(v, p)| format!("{}: {}", v.stage.name, p.summary())).collect();
        Ok(Decision::Plan(plan))
    }
}

fn slots(s: &Situation) -> u32 {
    let slots = match s.count("slots") {
        0 => s.count("prefetch") + 1,
        slots => slots,
    };
    u32::try_from(slots).unwrap_or(64)
}

fn leading(s: &Situation) -> bool {
    s.text("residency") == "leading"
}

/// Components with a number, such as `text_encoder_2`, share the settings of their family.
fn family(component: &str) -> &'static str {
    let families = ["text_encoder", "image_encoder", "vae"];
    families.into_iter().find(|f| component.starts_with(f)).unwrap_or("transformer")
}

fn wish(s: &Situation, view: &StageView) -> Wish {
    let family = family(view.component());
    let own = match (family, view.component()) {
        ("transformer", "transformer_2") if s.integer("transformer_2_blocks_to_swap") >= Some(0) => {
            "transformer_2_blocks_to_swap".to_owned()
        }
        ("transformer", _) => "blocks_to_swap".to_owned(),
        (other, _) => format!("{other}_blocks_to_swap"),
    };
    Wish {
        family,
        swap: s.integer(&own).and_then(|n| usize::try_from(n).ok()),
        swap_key: own,
        offload: match s.text(&format!("offload_{family}")) {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        },
    }
}

/// Bytes of each stage that the user wants to stay on the device whatever runs.
fn forced(s: &Situation, wishes: &[Wish]) -> Vec<u64> {
    let bytes = |(view, wish): (StageView, &Wish)| match wish.offload {
        Some(false) => {
            let split = Split::count(&view, wish.swap.unwrap_or(0), leading(s));
            StagePlan::rolling(&view, &split, slots(s)).kept().kept_bytes(s.machine.granularity)
        }
        _ => 0,
    };
    s.stages().zip(wishes).map(bytes).collect()
}

fn stage(s: &Situation, index: usize, wish: &Wish, beside: u64) -> Result<StagePlan, Refusal> {
    let view = s.stage(index);
    let room = s.room(&view, s.budget.device).and_then(|room| room.checked_sub(beside));
    let exact = |count: usize| StagePlan::rolling(&view, &Split::count(&view, count, leading(s)), slots(s));
    let count = match (wish.swap, wish.offload) {
        (Some(count), _) => count,
        (None, Some(false)) => 0,
        (None, _) => {
            let plan = room.and_then(|room| StagePlan::within(&view, s.squeezed(&view, room), slots(s)));
            return plan.ok_or_else(|| refuse_beside(s, index, beside));
        }
    };
    let plan = exact(count);
    let fits = |plan: &StagePlan| room.is_some_and(|room| plan.held(&view) <= room);
    if fits(&plan) {
        return Ok(plan);
    }
    let enough = least(count + 1, view.distinct().len(), |count| fits(&exact(count)));
    Err(refuse_count(s, index, wish, &plan, enough, beside))
}

/// The least count from `from` to `to` that is enough, where every larger one is enough too.
fn least(mut from: usize, to: usize, enough: impl Fn(usize) -> bool) -> Option<usize> {
    let mut found = (from <= to && enough(to)).then_some(to)?;
    while from < found {
        let middle = usize::midpoint(from, found);
        if enough(middle) { found = middle } else { from = middle + 1 }
    }
    Some(found)
}

/// Even one slot for the largest block is too much.
fn refuse_beside(s: &Situation, index: usize, beside: u64) -> Refusal {
    let mut refusal = s.too_small(index, s.budget.device);
    refusal.needs_bytes = refusal.needs_bytes.map(|needs| needs.saturating_add(beside));
    if beside > 0 {
        refusal.message +=
            &format!("; {} are held by components with offload_... = false: set it to true", size(beside));
    }
    refusal
}

fn refuse_count(
    s: &Situation,
    index: usize,
    wish: &Wish,
    plan: &StagePlan,
    enough: Option<usize>,
    beside: u64,
) -> Refusal {
    let view = s.stage(index);
    let needs = s.machine.fixed_overhead + view.activations() + plan.held(&view) + beside;
    if enough.is_none() && s.smallest(&view).saturating_add(beside) > s.budget.device {
        return refuse_beside(s, index, beside);
    }
    let change = match enough {
        Some(count) => format!("set {} to {count}", wish.swap_key),
        None => format!("set {} to {} and slots to 1", wish.swap_key, view.distinct().len()),
    };
    let said = wish.swap.map_or_else(
        || format!("offload_{} = false", wish.family),
        |count| format!("{} = {count} and {}", wish.swap_key, counted(slots(s) as usize, "slot")),
    );
    let (need, have) = (size(needs), size(s.budget.device));
    let message = format!("stage '{}' needs {need} with {said}, the budget is {have}: {change}", view.stage.name);
    Refusal { stage: Some(index as u32), needs_bytes: Some(needs), message }
}

/// Where nothing was said about leaving the device, everything stays if all of it fits at once.
fn keep_if_all_fits(s: &Situation, wishes: &[Wish], stages: &mut Vec<StagePlan>) {
    let keep = |(plan, wish): (&StagePlan, &Wish)| match wish.offload {
        None => plan.clone().kept(),
        Some(_) => plan.clone(),
    };
    let kept: Vec<StagePlan> = stages.iter().zip(wishes).map(keep).collect();
    if s.fits(&s.job, &kept, s.budget.device) {
        *stages = kept;
    }
}

export_policy!(ManualSwap);

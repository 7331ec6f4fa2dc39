//! `manual-swap` does what the user says: how many blocks are streamed, through how many slots, and
//! which components leave the device. It improves nothing; what does not fit is refused with the
//! setting to change.

mod layout;

use loadline_policy_sdk::{
    Decision, Description, Host, Policy, Refusal, Situation, StagePlan, StageView, counted, describe, export_policy,
    size,
};

use layout::{Layout, least};

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
    /// The share of a pass that the link may be busy, in thousandths.
    target: u64,
}

impl Policy for ManualSwap {
    fn describe(&self) -> Description {
        let summary = "Streams as many blocks as it is told, and refuses what does not fit.";
        describe("manual-swap", env!("CARGO_PKG_VERSION"), summary, include_str!("settings.json"))
    }

    fn decide(&self, s: &Situation, _: &mut dyn Host) -> Result<Decision, Refusal> {
        let wishes: Vec<Wish> = s.stages().map(|view| wish(s, &view)).collect();
        let kept = forced(s, &wishes);
        let (mut stages, mut reasons) = (Vec::new(), Vec::new());
        for (i, wish) in wishes.iter().enumerate() {
            let beside: u64 = kept.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, bytes)| *bytes).sum();
            let plan = stage(s, i, wish, beside, &mut reasons)?;
            stages.push(if wish.offload == Some(false) { plan.kept() } else { plan });
        }
        keep_if_all_fits(s, &wishes, &mut stages);
        let mut plan = s.plan(stages);
        plan.reasons =
            s.stages().zip(&plan.stages).map(|(v, p)| format!("{}: {}", v.stage.name, p.summary())).collect();
        plan.reasons.extend(reasons);
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

/// What the settings say about a stage beside the number of blocks.
fn layout<'a>(s: &Situation, view: StageView<'a>, wish: &Wish) -> Layout<'a> {
    let transformer = wish.family == "transformer";
    let control = s.integer("vace_blocks_to_swap").and_then(|n| usize::try_from(n).ok());
    Layout {
        view,
        control: control.filter(|_| transformer && view.distinct().into_iter().any(|b| view.is_control(b))),
        front: transformer && (s.switch("offload_txt_emb") || s.switch("offload_img_emb")),
        leading: s.text("residency") == "leading",
        slots: slots(s),
    }
}

/// A component that is walked only a few times is copied once or twice, whatever its share of the link.
fn target(s: &Situation, family: &str) -> u64 {
    let said = s.number("bandwidth_target").filter(|_| family == "transformer");
    said.map_or(1000, |share| (share * 1000.0) as u64)
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
        target: target(s, family),
    }
}

/// Bytes of each stage that the user wants to stay on the device whatever runs.
fn forced(s: &Situation, wishes: &[Wish]) -> Vec<u64> {
    let bytes = |(view, wish): (StageView, &Wish)| match wish.offload {
        Some(false) => layout(s, view, wish).plan(wish.swap.unwrap_or(0)).kept().kept_bytes(s.machine.granularity),
        _ => 0,
    };
    s.stages().zip(wishes).map(bytes).collect()
}

fn stage(
    s: &Situation,
    index: usize,
    wish: &Wish,
    beside: u64,
    reasons: &mut Vec<String>,
) -> Result<StagePlan, Refusal> {
    let view = s.stage(index);
    let layout = layout(s, view, wish);
    let room = s.room(&view, s.budget.device).and_then(|room| room.checked_sub(beside));
    let fits = |plan: &StagePlan| room.is_some_and(|room| plan.held(&view) <= room);
    let most = view.distinct().len();
    let count = match (wish.swap, wish.offload) {
        (Some(count), _) => count,
        (None, Some(false)) => 0,
        (None, _) if layout.is_plain() => {
            let plan = room.and_then(|room| StagePlan::within(&view, s.squeezed(&view, room), slots(s)));
            return plan
                .ok_or_else(|| refuse_beside(s, index, beside))
                .and_then(|p| on_target(s, index, &layout, wish, p));
        }
        (None, _) => {
            least(0, most, |count| fits(&layout.plan(count))).ok_or_else(|| refuse_beside(s, index, beside))?
        }
    };
    let carried = carried(s, index, &layout, wish, count.min(most));
    if carried < count.min(most) {
        let (swapped, share) = (counted(carried, "block"), percent(wish.target));
        reasons.push(format!(
            "{}: {swapped} to swap: more would keep the link busy for over {share} of a pass",
            view.stage.name
        ));
    }
    let plan = layout.plan(carried);
    if fits(&plan) {
        return Ok(plan);
    }
    match least(carried + 1, most, |count| fits(&layout.plan(count))) {
        Some(enough) if enough <= count => {
            Err(refuse_target(s, index, wish, layout.link_share(s, index, &layout.plan(enough))))
        }
        enough => Err(refuse_count(s, index, wish, &layout.plan(count), enough, beside)),
    }
}

/// As many of the blocks as the link carries in its share of a pass.
fn carried(s: &Situation, index: usize, layout: &Layout<'_>, wish: &Wish, count: usize) -> usize {
    let over = |count: usize| layout.link_share(s, index, &layout.plan(count)) > wish.target;
    if wish.target >= 1000 {
        return count;
    }
    // More blocks take more of the link, so the first count that is too much is found by halving.
    least(0, count, over).map_or(count, |first| first.saturating_sub(1))
}

/// What the budget asks for has to be within the link's share too.
fn on_target(
    s: &Situation,
    index: usize,
    layout: &Layout<'_>,
    wish: &Wish,
    plan: StagePlan,
) -> Result<StagePlan, Refusal> {
    let share = if wish.target < 1000 { layout.link_share(s, index, &plan) } else { 0 };
    if share <= wish.target { Ok(plan) } else { Err(refuse_target(s, index, wish, share)) }
}

fn refuse_target(s: &Situation, index: usize, wish: &Wish, share: u64) -> Refusal {
    let hundredths = share.div_ceil(10);
    let message = format!(
        "stage '{}': within {} so many blocks are streamed that the link is busy for {} of a pass, bandwidth_target \
         allows {}: set bandwidth_target to {}.{:02}",
        s.job.stages[index].name,
        size(s.budget.device),
        percent(share),
        percent(wish.target),
        hundredths / 100,
        hundredths % 100,
    );
    Refusal { stage: Some(index as u32), needs_bytes: None, message }
}

/// Thousandths as `80 %` or `80.5 %`.
fn percent(thousandths: u64) -> String {
    match thousandths % 10 {
        0 => format!("{} %", thousandths / 10),
        tenth => format!("{}.{tenth} %", thousandths / 10),
    }
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
        None => everything(s, &view, wish),
    };
    let said = wish.swap.map_or_else(
        || format!("offload_{} = false", wish.family),
        |count| format!("{} = {count} and {}", wish.swap_key, counted(slots(s) as usize, "slot")),
    );
    let (need, have) = (size(needs), size(s.budget.device));
    let message = format!("stage '{}' needs {need} with {said}, the budget is {have}: {change}", view.stage.name);
    Refusal { stage: Some(index as u32), needs_bytes: Some(needs), message }
}

/// The settings that stream everything through one slot.
fn everything(s: &Situation, view: &StageView, wish: &Wish) -> String {
    let blocks = view.distinct().len();
    let branch = match layout(s, *view, wish).control {
        Some(_) => format!(" and vace_blocks_to_swap to {blocks}"),
        None => String::new(),
    };
    format!("set {} to {blocks}{branch} and slots to 1", wish.swap_key)
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

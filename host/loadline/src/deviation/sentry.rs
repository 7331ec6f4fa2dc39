//! Looking around: does the plan still fit what there is?

use loadline_core::check::{fixed_and_stage, host_reservations};
use loadline_core::{Budget, Bytes, Cause, Machine, Nanos, StageForecast, Tier, Trigger, TriggerKind};
use loadline_engine::{Room, SafePoint, Surroundings};

use crate::planning::Planned;

/// A run that is late by less than this is not planned anew: stopping a stage and loading its blocks again costs
/// seconds, too.
pub const PATIENCE: Nanos = Nanos(30_000_000_000);

/// Something that the plan did not reckon with.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Deviation {
    pub(crate) cause: Cause,
    /// The stage and the first pass that remain.
    pub(crate) from: (usize, u64),
    /// What there is to go on with.
    pub(crate) budget: Budget,
    /// What there may be at most, where that is not known well: tried if `budget` is too little.
    pub(crate) at_most: Budget,
    /// How many times as long the disk takes as the profile says.
    pub(crate) slower_disk: Option<f64>,
    /// Device bytes in use.
    pub(crate) observed: Bytes,
    /// Whether the plan that runs cannot go on.
    pub(crate) forced: bool,
    /// What was seen, in words.
    pub(crate) what: String,
}

/// Watches one run.
pub(crate) struct Sentry {
    patience: Nanos,
    /// By how much and how many times as long as its slow forecast a stage may take; both double each time that it was
    /// asked about, so that one delay is told once.
    late: Nanos,
    lateness: u64,
    /// Triggers that have fired and whose level has not gone back since. A new plan that asks for the same is not told
    /// the same again.
    fired: Vec<Trigger>,
    /// Device bytes that others had when the run began.
    others: Option<Bytes>,
    /// The shortage that was last told, so that the same one is not told again.
    shortage: Bytes,
}

/// Where a look is taken from.
pub(crate) struct Outlook<'a> {
    pub(crate) planned: &'a Planned,
    pub(crate) machine: &'a Machine,
    pub(crate) around: Surroundings,
    /// Device bytes that the engine has allocated or set aside.
    pub(crate) in_use: Bytes,
    pub(crate) now: Nanos,
}

impl Sentry {
    pub(crate) fn new(patience: Nanos) -> Self {
        Self { patience, late: patience, lateness: 2, fired: Vec::new(), others: None, shortage: Bytes::ZERO }
    }

    /// Looks around behind a pass.
    pub(crate) fn look(&mut self, view: &Outlook<'_>, at: &SafePoint<'_>, budget: Budget) -> Option<Deviation> {
        let from = (at.next.stage, at.next.pass);
        let plain = Deviation {
            cause: Cause::Start,
            from,
            budget,
            at_most: budget,
            slower_disk: None,
            observed: self.used(view),
            forced: false,
            what: String::new(),
        };
        let shortage =
            self.shortage(view, from.0, budget).map(|found| Deviation { forced: true, ..found.onto(&plain) });
        shortage.or_else(|| self.trigger(view, &plain)).or_else(|| self.lateness(view, at, &plain))
    }

    /// Another plan has another forecast to be late by.
    pub(crate) fn new_plan(&mut self) {
        (self.late, self.lateness) = (self.patience, 2);
    }

    /// Whether what remains needs more than there is.
    fn shortage(&mut self, view: &Outlook<'_>, from: usize, budget: Budget) -> Option<Found> {
        let Planned { plan, job, .. } = view.planned;
        let fixed = view.machine.device.fixed_overhead;
        let device = (from..plan.stages.len()).map(|i| fixed_and_stage(plan, i, view.machine)).max()? - fixed;
        let host: Bytes = host_reservations(plan, job, view.machine).iter().map(|r| r.bytes).sum();
        let found = if view.machine.device.unified {
            shared(view, device, host, budget)
        } else {
            apart(view, device, host, budget)
        };
        let short = found.as_ref().map_or(Bytes::ZERO, |f| f.shortage);
        // It was told and answered as well as could be, as long as it is not worse.
        let told = short <= self.shortage;
        self.shortage = short;
        found.filter(|_| !told)
    }

    fn trigger(&mut self, view: &Outlook<'_>, plain: &Deviation) -> Option<Deviation> {
        let (used, free) = (plain.observed, view.around.host.map(|room| room.free));
        self.fired.retain(|trigger| !level(trigger, used, free).is_some_and(|(_, is_back)| is_back));
        let fires = |t: &&Trigger| level(t, used, free).is_some_and(|(is_reached, _)| is_reached);
        let trigger = view.planned.plan.triggers.iter().filter(fires).find(|t| !self.fired.contains(t))?;
        self.fired.push(*trigger);
        Some(Deviation { cause: Cause::Trigger, what: told(trigger, used, free), ..plain.clone() })
    }

    /// Device bytes in use: what the run has, and what others have taken since it began. Where the device's memory is
    /// the machine's own, the run's budget is a share of it by agreement, and what others have is no part of that.
    fn used(&mut self, view: &Outlook<'_>) -> Bytes {
        let fixed = view.machine.device.fixed_overhead;
        let own = view.in_use + fixed;
        let Some(room) = view.around.device.filter(|_| !view.machine.device.unified) else { return own };
        let others = view.machine.device.memory - fixed - room.available();
        own + (others - *self.others.get_or_insert(others))
    }

    fn lateness(&mut self, view: &Outlook<'_>, at: &SafePoint<'_>, plain: &Deviation) -> Option<Deviation> {
        let (forecast, stage) = (view.planned.forecast.stages.get(at.stage)?, view.planned.job.stages.get(at.stage)?);
        let share = |whole: Nanos| Nanos((whole.as_f64() * at.passes as f64 / stage.pass_count() as f64) as u64);
        let (took, expected) = (view.now.saturating_sub(at.since), share(forecast.p90));
        if took <= expected * self.lateness || took - expected <= self.late {
            return None;
        }
        self.lateness *= 2;
        self.late = (took - expected) * 2;
        let what = format!("{} after {took}, forecast were at most {expected}", at_pass(forecast, at.pass));
        let stalled = at.totals.stall.saturating_sub(share(forecast.stall));
        let disk = share(forecast.busy.disk);
        if streams_from_disk(view.planned, at.stage) && disk > Nanos::ZERO && stalled * 2 > took - expected {
            let times = (disk + stalled).as_f64() / disk.as_f64();
            let what = format!("{what}: the disk takes {times:.1} times as long as it should");
            return Some(Deviation { cause: Cause::DiskSlow, slower_disk: Some(times), what, ..plain.clone() });
        }
        Some(Deviation { cause: Cause::Drift, what, ..plain.clone() })
    }
}

fn at_pass(stage: &StageForecast, pass: u64) -> String {
    format!("pass {} of '{}' ended", pass + 1, stage.name)
}

fn streams_from_disk(planned: &Planned, stage: usize) -> bool {
    let Some(stage) = planned.plan.stages.get(stage) else { return false };
    let home = |block: loadline_core::BlockId| planned.plan.homes.get(block.0 as usize).copied();
    stage.cycle.iter().any(|load| home(load.block) == Some(Tier::Disk))
}

/// A shortage that was found.
struct Found {
    cause: Cause,
    budget: Budget,
    shortage: Bytes,
    what: String,
}

impl Found {
    fn onto(self, plain: &Deviation) -> Deviation {
        let Self { cause, budget, what, .. } = self;
        Deviation { cause, budget, at_most: budget, what, ..plain.clone() }
    }
}

/// Device and host have memory of their own.
fn apart(view: &Outlook<'_>, device: Bytes, host: Bytes, budget: Budget) -> Option<Found> {
    let short = |room: Option<Room>, needs: Bytes| room.filter(|room| room.available() < needs).map(|r| (r, needs));
    let granule = view.machine.device.granularity;
    if let Some((room, needs)) = short(view.around.device, device) {
        let left = (view.machine.device.fixed_overhead + room.available()).round_down(granule);
        let what =
            format!("others took device memory: {} are left for this run, its plan needs {needs}", room.available());
        let budget = Budget { device: left.min(budget.device), ..budget };
        return Some(Found { cause: Cause::Pressure, budget, shortage: needs - room.available(), what });
    }
    let (room, needs) = short(view.around.host, host)?;
    let what = format!("host memory runs out: {} are left for this run, its plan needs {needs}", room.available());
    let left = room.available().min(budget.host);
    let budget = Budget { host: left, pinned: budget.pinned.min(left), ..budget };
    Some(Found { cause: Cause::HostLow, budget, shortage: needs - room.available(), what })
}

/// Device and host share one memory: copies in host memory are given up first, since the files are still there.
fn shared(view: &Outlook<'_>, device: Bytes, host: Bytes, budget: Budget) -> Option<Found> {
    let Surroundings { device: on_device, host: on_host } = view.around;
    let free = on_device.into_iter().chain(on_host).map(|room| room.free).min()?;
    let held = |room: Option<Room>| room.unwrap_or_default().held;
    let (needs, has) = (device + host, held(on_device) + held(on_host) + free);
    if needs <= has {
        return None;
    }
    let shortage = needs - has;
    let frames = view.planned.job.frames_host;
    let from_host = shortage.min(host - frames);
    let from_device = shortage - from_host;
    let granule = view.machine.device.granularity;
    let cause = if from_device > Bytes::ZERO { Cause::Pressure } else { Cause::HostLow };
    let what = format!("memory runs out: {has} are left for this run, its plan needs {needs}");
    let left = (view.machine.device.fixed_overhead + device - from_device).round_down(granule);
    let host = (host - from_host).min(budget.host);
    let budget = Budget { device: left.min(budget.device), host, pinned: budget.pinned.min(host), ..budget };
    Some(Found { cause, budget, shortage, what })
}

/// Whether a trigger's level is reached, and whether it is far enough back; nothing where it cannot be told.
fn level(trigger: &Trigger, used: Bytes, free: Option<Bytes>) -> Option<(bool, bool)> {
    let Trigger { kind, threshold, hysteresis } = *trigger;
    Some(match kind {
        TriggerKind::DeviceAbove => (used > threshold, used + hysteresis <= threshold),
        TriggerKind::HostFreeBelow => (free? < threshold, free? >= threshold + hysteresis),
    })
}

fn told(trigger: &Trigger, used: Bytes, free: Option<Bytes>) -> String {
    match trigger.kind {
        TriggerKind::DeviceAbove => format!("{used} of device memory are in use, above {}", trigger.threshold),
        TriggerKind::HostFreeBelow => {
            format!("{} of host memory are free, below {}", free.unwrap_or_default(), trigger.threshold)
        }
    }
}

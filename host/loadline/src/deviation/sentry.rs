//! Looking around: does the plan still fit what there is?

use loadline_core::check::{fixed_and_stage, host_reservations, least_host, program};
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
    /// When waiting for memory was last told, and how long it is not told again.
    strained: Option<(Nanos, Nanos)>,
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
        Self {
            patience,
            late: patience,
            lateness: 2,
            fired: Vec::new(),
            others: None,
            strained: None,
            shortage: Bytes::ZERO,
        }
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
        shortage
            .or_else(|| self.strain(view, from.0, &plain))
            .or_else(|| self.trigger(view, &plain))
            .or_else(|| self.lateness(view, at, &plain))
    }

    /// Another plan has another forecast to be late by.
    pub(crate) fn new_plan(&mut self) {
        (self.late, self.lateness) = (self.patience, 2);
    }

    /// Whether what remains needs more than there is.
    fn shortage(&mut self, view: &Outlook<'_>, from: usize, budget: Budget) -> Option<Found> {
        let (device, host) = needs(view, from)?;
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

    /// Whether somebody waits for memory, though what the system calls free would be enough: it says so late, and a
    /// machine that reclaims all the time kills without ever having run out.
    fn strain(&mut self, view: &Outlook<'_>, from: usize, plain: &Deviation) -> Option<Deviation> {
        let stalled = view.around.stalled?;
        if stalled < STALLED {
            self.strained = self.strained.filter(|_| stalled * 2 >= STALLED);
            return None;
        }
        let wait = match self.strained {
            Some((told, wait)) if view.now - told < wait => return None,
            Some((_, wait)) => wait * 2,
            None => self.patience,
        };
        self.strained = Some((view.now, wait));
        let (device, host) = needs(view, from)?;
        let (cause, budget, less) = eased(view, device, host, plain.budget);
        let percent = stalled / 10;
        let what = format!(
            "in {percent} % of the last ten seconds something waited for memory{}: the run is to give back {less}",
            in_group(view)
        );
        // It can go on as it is, if slowly: what the policy cannot give back stays.
        (less > Bytes::ZERO).then(|| Deviation { cause, budget, what, ..plain.clone() })
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

/// A fifth of the time, in thousandths: more than a run causes that reads weights through the page cache beside others.
const STALLED: u32 = 200;
/// Where memory is waited for it is not known how much would be enough: this part of what the plan needs is given back.
const EASED: u64 = 8;

/// Device bytes and host bytes that what remains of a plan needs, fixed overhead and the program not counted: both have
/// been taken already.
fn needs(view: &Outlook<'_>, from: usize) -> Option<(Bytes, Bytes)> {
    let Planned { plan, job, .. } = view.planned;
    let fixed = view.machine.device.fixed_overhead;
    let device = (from..plan.stages.len()).map(|i| fixed_and_stage(plan, i, view.machine)).max()? - fixed;
    let host: Bytes = host_reservations(plan, job, view.machine).iter().map(|r| r.bytes).sum();
    Some((device, host - program(view.machine)))
}

/// What there is to go on with after a part of what the plan needs was given back, and how much that is.
fn eased(view: &Outlook<'_>, device: Bytes, host: Bytes, budget: Budget) -> (Cause, Budget, Bytes) {
    if view.machine.device.unified {
        let less = Bytes((device + host).0 / EASED);
        let (cause, budget) = without(view, device, host, budget, less);
        return (cause, budget, less);
    }
    // Memory of a device of its own is none that the system would reclaim, and of the host's only copies can be given
    // back.
    let less = Bytes(host.0 / EASED).min(copies(view));
    let host = (host - less).min(budget.host);
    (Cause::HostLow, Budget { host, pinned: budget.pinned.min(host), ..budget }, less)
}

/// Bytes of blocks that live in host memory: their files are still there.
fn copies(view: &Outlook<'_>) -> Bytes {
    let Planned { plan, job, .. } = view.planned;
    let homes = job.blocks.iter().zip(&plan.homes);
    homes.filter(|(_, home)| matches!(home, Tier::Host | Tier::Pinned)).map(|(block, _)| block.slab).sum()
}

fn in_group(view: &Outlook<'_>) -> &'static str {
    if view.around.grouped { " in this control group" } else { "" }
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
    let (left, place) = (room.available(), in_group(view));
    let what = format!("host memory runs out{place}: {left} are left for this run, its plan needs {needs}");
    let left = room.available().min(budget.host);
    let budget = Budget { host: left, pinned: budget.pinned.min(left), ..budget };
    Some(Found { cause: Cause::HostLow, budget, shortage: needs - room.available(), what })
}

/// Device and host share one memory.
fn shared(view: &Outlook<'_>, device: Bytes, host: Bytes, budget: Budget) -> Option<Found> {
    let Surroundings { device: on_device, host: on_host, .. } = view.around;
    let free = on_device.into_iter().chain(on_host).map(|room| room.free).min()?;
    let held = |room: Option<Room>| room.unwrap_or_default().held;
    let (needs, has) = (device + host, held(on_device) + held(on_host) + free);
    if needs <= has {
        return None;
    }
    let shortage = needs - has;
    let (cause, budget) = without(view, device, host, budget, shortage);
    let place = in_group(view);
    let what = format!("memory runs out{place}: {has} are left for this run, its plan needs {needs}");
    Some(Found { cause, budget, shortage, what })
}

/// What there is to go on with if so much of one memory is not there: copies in host memory are given up first,
/// since the files are still there. Frames and the ring that files are read through stay on any plan.
fn without(view: &Outlook<'_>, device: Bytes, host: Bytes, budget: Budget, shortage: Bytes) -> (Cause, Budget) {
    let program = program(view.machine);
    let from_host = shortage.min(host + program - least_host(&view.planned.job, view.machine));
    let from_device = shortage - from_host;
    let granule = view.machine.device.granularity;
    let cause = if from_device > Bytes::ZERO { Cause::Pressure } else { Cause::HostLow };
    let left = (view.machine.device.fixed_overhead + device - from_device).round_down(granule);
    let host = (host + program - from_host).min(budget.host);
    (cause, Budget { device: left.min(budget.device), host, pinned: budget.pinned.min(host), ..budget })
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

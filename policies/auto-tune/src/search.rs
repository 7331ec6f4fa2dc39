//! The search itself.

use loadline_policy_sdk::{
    Entry, ForecastReply, Host, Job, Level, Plan, Situation, StagePlan, StageView, copy_times, homes,
};

/// Shared slots in the order in which they are tried: most stages are done after the first.
const SLOTS: [u32; 8] = [2, 3, 1, 4, 6, 8, 12, 16];

/// The best that was found.
pub(crate) struct Found {
    pub(crate) plan: Plan,
    /// The names of the stages.
    pub(crate) names: Vec<String>,
    /// Its forecast; absent if none could be made.
    pub(crate) time: Option<u64>,
    /// Whether every stage is as fast as its lower bound.
    pub(crate) at_bound: bool,
    /// How many plans were forecast.
    pub(crate) tried: u32,
    /// Why there is no forecast.
    pub(crate) trouble: String,
}

/// The candidates of one stage, and the best of those that were tried.
struct Contest {
    candidates: Vec<StagePlan>,
    best: usize,
    best_time: u64,
    bound: u64,
}

struct Search<'a> {
    s: &'a Situation,
    job: &'a Job,
    knobs: &'a [Entry],
    host: &'a mut dyn Host,
    tried: u32,
    trouble: String,
}

/// The best plan for a job; fails with the index of a stage that does not fit.
pub(crate) fn search(s: &Situation, job: &Job, knobs: &[Entry], host: &mut dyn Host) -> Result<Found, usize> {
    let mut contests = contests(s, job)?;
    let mut search = Search { s, job, knobs, host, tried: 0, trouble: String::new() };
    let rounds = contests.iter().map(|c| c.candidates.len()).max().unwrap_or(1);
    let mut best: Option<(u64, Plan)> = None;
    for round in 0..rounds {
        if round > 0 && contests.iter().all(|c| c.done(round, s)) {
            break;
        }
        let pick = |c: &Contest| if c.done(round, s) { c.best } else { round };
        let picks: Vec<usize> = contests.iter().map(pick).collect();
        let Some((plan, reply)) = search.try_plan(&contests, &picks) else { continue };
        judge(&mut contests, &picks, &reply, s);
        keep_better(&mut best, time(&reply, s), plan);
    }
    let winners: Vec<usize> = contests.iter().map(|c| c.best).collect();
    if let Some((plan, reply)) = search.try_plan(&contests, &winners) {
        keep_better(&mut best, time(&reply, s), plan);
    }
    Ok(search.found(best, &contests))
}

impl Search<'_> {
    fn try_plan(&mut self, contests: &[Contest], picks: &[usize]) -> Option<(Plan, ForecastReply)> {
        let plan = self.plan(contests, picks);
        self.tried += 1;
        match self.host.forecast(&plan) {
            Ok(reply) => Some((plan, reply)),
            Err(trouble) => {
                self.host.log(Level::Detail, &trouble);
                self.trouble = trouble;
                None
            }
        }
    }

    fn plan(&self, contests: &[Contest], picks: &[usize]) -> Plan {
        let mut stages: Vec<StagePlan> = contests.iter().zip(picks).map(|(c, i)| c.candidates[*i].clone()).collect();
        if self.s.switch("keep") {
            self.s.keep_for_upcoming(self.job, &mut stages, self.s.budget.device);
        }
        self.s.plan_for(self.job, &self.s.budget, self.knobs.to_vec(), stages)
    }

    fn found(self, best: Option<(u64, Plan)>, contests: &[Contest]) -> Found {
        let unjudged = || self.plan(contests, &vec![0; contests.len()]);
        let time = best.as_ref().map(|(time, _)| *time);
        Found {
            plan: best.map_or_else(unjudged, |(_, plan)| plan),
            names: self.job.stages.iter().map(|stage| stage.name.clone()).collect(),
            time,
            at_bound: contests.iter().all(|c| c.at_bound(self.s)),
            tried: self.tried,
            trouble: self.trouble,
        }
    }
}

impl Found {
    pub(crate) fn is_faster_than(&self, other: &Self) -> bool {
        self.time.is_some_and(|time| other.time.is_none_or(|others| time < others))
    }
}

impl Contest {
    /// Whether a round has nothing to try for the stage.
    fn done(&self, round: usize, s: &Situation) -> bool {
        round >= self.candidates.len() || self.at_bound(s)
    }

    fn at_bound(&self, s: &Situation) -> bool {
        let gap = self.best_time.saturating_sub(self.bound);
        // Per cent in thousandths, so that whole numbers are enough.
        let allowed = (s.number("gap_percent").unwrap_or(0.0) * 1000.0) as u128;
        self.best_time != u64::MAX && u128::from(gap) * 100_000 <= u128::from(self.bound) * allowed
    }
}

/// With jobs to come, the time of the next one counts too.
fn stage_time(reply: &ForecastReply, stage: usize, s: &Situation) -> u64 {
    let of = |column: &[u64]| column.get(stage).copied().unwrap_or(0);
    let next = if s.upcoming.is_empty() { 0 } else { of(&reply.stage_warm_ns) };
    of(&reply.stage_cold_ns).saturating_add(next)
}

fn time(reply: &ForecastReply, s: &Situation) -> u64 {
    (0..s.job.stages.len()).fold(0, |sum: u64, stage| sum.saturating_add(stage_time(reply, stage, s)))
}

fn judge(contests: &mut [Contest], picks: &[usize], reply: &ForecastReply, s: &Situation) {
    for (stage, (contest, pick)) in contests.iter_mut().zip(picks).enumerate() {
        let time = stage_time(reply, stage, s);
        if time < contest.best_time {
            contest.best = *pick;
            contest.best_time = time;
            contest.bound = reply.stage_bound_ns.get(stage).copied().unwrap_or(0);
        }
    }
}

fn keep_better(best: &mut Option<(u64, Plan)>, time: u64, plan: Plan) {
    if best.as_ref().is_none_or(|(least, _)| time < *least) {
        *best = Some((time, plan));
    }
}

fn contests(s: &Situation, job: &Job) -> Result<Vec<Contest>, usize> {
    let rooms = rooms(s, job)?;
    let views = || (0..job.stages.len()).map(|i| s.stage_of(job, i));
    // Where blocks will live, if two slots are used: good enough to know how long copies take.
    let usual: Option<Vec<StagePlan>> = views().zip(&rooms).map(|(v, room)| StagePlan::within(&v, *room, 2)).collect();
    let copy_ns = copy_times(job, &homes(&s.machine, job, &s.budget, &usual.unwrap_or_default()));
    let contest = |(index, (view, room)): (usize, (StageView, &u64))| {
        let candidates = candidates(s, &view, *room, &copy_ns);
        let contest = Contest { candidates, best: 0, best_time: u64::MAX, bound: 0 };
        if contest.candidates.is_empty() { Err(index) } else { Ok(contest) }
    };
    views().zip(&rooms).enumerate().map(contest).collect()
}

fn rooms(s: &Situation, job: &Job) -> Result<Vec<u64>, usize> {
    let room = |index: usize| {
        let view = s.stage_of(job, index);
        let room = s.room(&view, s.budget.device).ok_or(index)?;
        Ok(s.squeezed(&view, room))
    };
    (0..job.stages.len()).map(room).collect()
}

fn candidates(s: &Situation, view: &StageView, room: u64, copy_ns: &[u64]) -> Vec<StagePlan> {
    let most = u32::try_from(s.count("most_slots")).unwrap_or(1).max(1);
    let mut plans: Vec<StagePlan> = Vec::new();
    for slots in SLOTS.into_iter().filter(|slots| *slots <= most) {
        plans.extend(StagePlan::with_slots(view, room, slots).filter(|plan| !plans.contains(plan)));
    }
    // The schedules so far stream something: where copies are the bottleneck, the eager one streams less.
    if plans.first().is_some_and(|plan| plan.shared_slots() > 0) {
        plans.extend(StagePlan::eager_within(view, room, copy_ns));
    }
    plans
}

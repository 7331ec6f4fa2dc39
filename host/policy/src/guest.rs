//! Running a guest: a fresh store for every call, on the caller's thread and a stack of its own.
//!
//! The stack is a fiber of known size, so no caller's thread can be too small for a guest. And a fiber
//! can be left: the store, which must own all it refers to, need not own the situation, because a guest
//! that asks something of the [`Oracle`](crate::Oracle) is put aside until the caller has laid down the answer.
//! A thread for each call would do the same, but starting and joining one takes 60 us.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use loadline_core::Bytes;
use wasmtime::component::Linker;
use wasmtime::{Engine, ResourceLimiter, Store, StoreContextMut, Trap, UpdateDeadline};

use crate::bindings::MemoryPolicyPre;
use crate::bindings::exports::loadline::policy::policy::Decision;
use crate::bindings::loadline::policy::types as wit;
use crate::lift::line;
use crate::pool::{self, Gate};
use crate::watch::watched;
use crate::{Limits, LogLine, PolicyError};

/// What the guest asks of the caller.
pub(crate) enum Question {
    Probe(Vec<wit::Entry>),
    Forecast(Box<wit::Plan>),
}

pub(crate) enum Answer {
    Job(Box<Result<wit::Job, String>>),
    Forecast(Box<Result<wit::ForecastReply, String>>),
}

/// What came of a call.
pub(crate) struct Outcome {
    pub(crate) answer: Result<Decision, wit::Refusal>,
    pub(crate) fuel: u64,
    pub(crate) log: Vec<LogLine>,
    pub(crate) calls: Calls,
}

/// Calls of the host that are left, or were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Calls {
    pub(crate) probes: u32,
    pub(crate) forecasts: u32,
}

/// A compiled component, ready to be started.
#[derive(Clone)]
pub(crate) struct Guest {
    pub(crate) engine: Engine,
    pub(crate) pre: MemoryPolicyPre<State>,
    pub(crate) limits: Limits,
    pub(crate) gate: Arc<Gate>,
}

/// Where the guest lays its question and finds the answer.
#[derive(Clone, Default)]
struct Desk(Arc<Mutex<(Option<Question>, Option<Answer>)>>);

impl Desk {
    /// A panic of the oracle passes through here; what lies on the desk is whole even then.
    fn open(&self) -> MutexGuard<'_, (Option<Question>, Option<Answer>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lays down a question; the guest is put aside until there is an answer.
    async fn ask(self, question: Question) -> Answer {
        self.open().0 = Some(question);
        poll_fn(|_| self.open().1.take().map_or(Poll::Pending, Poll::Ready)).await
    }

    fn answer(&self, answer: &mut impl FnMut(Question) -> Answer) {
        let question = self.open().0.take();
        if let Some(question) = question {
            let answer = answer(question);
            self.open().1 = Some(answer);
        }
    }
}

/// What belongs to one call.
pub(crate) struct State {
    memory_left: MemoryLimit,
    log: Log,
    desk: Option<Desk>,
    made: Calls,
    call_fuel: u64,
    limits: Limits,
}

impl Guest {
    pub(crate) fn describe(&self) -> Result<wit::Description, PolicyError> {
        let fuel = self.limits.describe_fuel;
        let overdue = Arc::new(AtomicBool::new(false));
        let _room = self.gate.enter();
        let mut store = self.store(fuel, None, 0, &overdue)?;
        let call = async {
            let guest = self.pre.instantiate_async(&mut store).await?;
            guest.loadline_policy_policy().call_describe(&mut store).await
        };
        let result = self.drive(call, &overdue, || ())?;
        result.map_err(|error| fault(&error, store.data(), fuel))
    }

    /// Asks for a decision. `answer` is called for each question of the guest.
    pub(crate) fn decide(
        &self,
        situation: &wit::Situation,
        fuel: u64,
        call_fuel: u64,
        mut answer: impl FnMut(Question) -> Answer,
    ) -> Result<Outcome, PolicyError> {
        let overdue = Arc::new(AtomicBool::new(false));
        let _room = self.gate.enter();
        let desk = Desk::default();
        let mut store = self.store(fuel, Some(desk.clone()), call_fuel, &overdue)?;
        let call = async {
            let guest = self.pre.instantiate_async(&mut store).await?;
            guest.loadline_policy_policy().call_decide(&mut store, situation).await
        };
        let result = self.drive(call, &overdue, || desk.answer(&mut answer))?;
        let answer = result.map_err(|error| fault(&error, store.data(), fuel))?;
        let left = store.get_fuel().unwrap_or(0);
        let state = store.into_data();
        Ok(Outcome { answer, fuel: fuel - left.min(fuel), log: state.log.lines, calls: state.made })
    }

    /// Runs a call to its end on this thread; whenever the guest waits, `answer` has its turn.
    fn drive<T>(
        &self,
        call: impl Future<Output = T>,
        overdue: &AtomicBool,
        mut answer: impl FnMut(),
    ) -> Result<T, PolicyError> {
        let mut call = pin!(call);
        let mut context = Context::from_waker(Waker::noop());
        let interrupt = || {
            overdue.store(true, Ordering::Relaxed);
            self.engine.increment_epoch();
        };
        watched(self.limits.watchdog, interrupt, |watch| {
            loop {
                match watch.over(|| call.as_mut().poll(&mut context)) {
                    Poll::Ready(result) => return result,
                    Poll::Pending => answer(),
                }
            }
        })
    }

    fn store(
        &self,
        fuel: u64,
        desk: Option<Desk>,
        call_fuel: u64,
        overdue: &Arc<AtomicBool>,
    ) -> Result<Store<State>, PolicyError> {
        let limits = self.limits;
        let state = State {
            memory_left: MemoryLimit { limit: limits.memory_bytes, exceeded: false },
            log: Log::new(&limits),
            desk,
            made: Calls::default(),
            call_fuel,
            limits,
        };
        let mut store = Store::new(&self.engine, state);
        store.limiter(|state| &mut state.memory_left);
        store.set_hostcall_fuel(limits.result_bytes);
        // The epoch is the engine's: when one guest is overdue, the others only look up.
        let overdue = Arc::clone(overdue);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(move |_| match overdue.load(Ordering::Relaxed) {
            true => Err(Trap::Interrupt.into()),
            false => Ok(UpdateDeadline::Continue(1)),
        });
        store.set_fuel(fuel).map_err(|error| PolicyError::Host { reason: error.to_string() })?;
        Ok(store)
    }
}

/// The one import interface.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    let mut host = linker.instance("loadline:policy/host@0.1.0")?;
    host.func_wrap("log", |mut store: StoreContextMut<'_, State>, (level, text): (u8, String)| {
        store.data_mut().log.push(level, &text);
        Ok(())
    })?;
    host.func_wrap_async("probe", |mut store: StoreContextMut<'_, State>, (knobs,): (Vec<wit::Entry>,)| {
        Box::new(async move {
            charge(&mut store)?;
            Ok((store.data_mut().probe(knobs).await,))
        })
    })?;
    host.func_wrap_async("forecast", |mut store: StoreContextMut<'_, State>, (plan,): (wit::Plan,)| {
        Box::new(async move {
            charge(&mut store)?;
            Ok((store.data_mut().forecast(plan).await,))
        })
    })?;
    Ok(linker)
}

/// Simulating costs time of the host, so it costs fuel of the guest.
fn charge(store: &mut StoreContextMut<'_, State>) -> wasmtime::Result<()> {
    let left = store.get_fuel()?.checked_sub(store.data().call_fuel);
    store.set_fuel(left.unwrap_or(0))?;
    left.map(|_| ()).ok_or_else(|| Trap::OutOfFuel.into())
}

impl State {
    async fn probe(&mut self, knobs: Vec<wit::Entry>) -> Result<wit::Job, String> {
        if self.made.probes >= self.limits.probe_calls {
            return Err(format!("probe was called {} times, which is the limit", self.made.probes));
        }
        self.made.probes += 1;
        match self.ask(Question::Probe(knobs)).await {
            Some(Answer::Job(job)) => *job,
            _ => Err("there is nothing to probe while a policy describes itself".to_owned()),
        }
    }

    async fn forecast(&mut self, plan: wit::Plan) -> Result<wit::ForecastReply, String> {
        if self.made.forecasts >= self.limits.forecast_calls {
            return Err(format!("forecast was called {} times, which is the limit", self.made.forecasts));
        }
        self.made.forecasts += 1;
        match self.ask(Question::Forecast(Box::new(plan))).await {
            Some(Answer::Forecast(reply)) => *reply,
            _ => Err("there is nothing to forecast while a policy describes itself".to_owned()),
        }
    }

    async fn ask(&mut self, question: Question) -> Option<Answer> {
        let desk = self.desk.clone()?;
        Some(desk.ask(question).await)
    }
}

struct Log {
    lines: Vec<LogLine>,
    line_bytes: usize,
    left: usize,
}

impl Log {
    const fn new(limits: &Limits) -> Self {
        Self { lines: Vec::new(), line_bytes: limits.log_line_bytes, left: limits.log_bytes }
    }

    fn push(&mut self, level: u8, text: &str) {
        let end = text.floor_char_boundary(self.line_bytes);
        let text = line(&text[..end]);
        // An empty line costs memory too.
        let Some(left) = self.left.checked_sub(text.len().max(16)) else { return };
        self.left = left;
        self.lines.push(LogLine { level, text });
    }
}

/// Counts the guest's memory, and remembers that it wanted more than there is: it cannot tell us
/// itself, since a failed allocation ends in a plain trap.
struct MemoryLimit {
    limit: usize,
    exceeded: bool,
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let fits = desired <= self.limit;
        self.exceeded |= !fits;
        Ok(fits)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= pool::TABLE)
    }

    fn memories(&self) -> usize {
        1
    }

    fn tables(&self) -> usize {
        pool::TABLES as usize
    }

    fn instances(&self) -> usize {
        pool::INSTANCES as usize
    }
}

/// What a failed call says about the policy.
fn fault(error: &wasmtime::Error, state: &State, fuel: u64) -> PolicyError {
    let limits = &state.limits;
    let said = || state.log.lines.iter().rev().find(|l| l.level == 0).map(|l| l.text.clone());
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => PolicyError::OutOfFuel { limit: fuel },
        Some(Trap::StackOverflow) => PolicyError::StackOverflow { limit: Bytes(limits.stack_bytes as u64) },
        Some(Trap::Interrupt) => PolicyError::Watchdog { limit: limits.watchdog.unwrap_or_default() },
        _ if state.memory_left.exceeded => PolicyError::OutOfMemory { limit: Bytes(limits.memory_bytes as u64) },
        Some(trap) => PolicyError::Trap { reason: said().unwrap_or_else(|| trap.to_string()) },
        None if error.to_string().contains("allocated for hostcalls") => {
            PolicyError::ResultTooLarge { limit: Bytes(limits.result_bytes as u64) }
        }
        None => PolicyError::Trap { reason: said().unwrap_or_else(|| line(&format!("{error:#}"))) },
    }
}

//! Running a guest: a fresh store for every call, on a thread of its own.
//!
//! The thread has two reasons. The guest runs on a native stack of known size, so that no caller's
//! thread can be too small for it. And the store, which must own all it refers to, need not own the
//! situation: what the guest asks of the [`Oracle`](crate::Oracle) is sent to the caller's thread and
//! answered there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};

use loadline_core::Bytes;
use wasmtime::component::Linker;
use wasmtime::{Engine, ResourceLimiter, Store, StoreContextMut, Trap, UpdateDeadline};

use crate::bindings::exports::loadline::policy::policy::Decision;
use crate::bindings::loadline::policy::types as wit;
use crate::bindings::{MemoryPolicy, MemoryPolicyPre};
use crate::lift::line;
use crate::{Limits, LogLine, PolicyError};

/// The native stack of the thread: the guest's own stack and what lifting and lowering need.
const THREAD_STACK: usize = 2 << 20;

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
}

/// What a call of `decide` may use, and the line to the caller.
struct Line {
    ask: Sender<Question>,
    answer: Receiver<Answer>,
}

/// What belongs to one call.
pub(crate) struct State {
    memory_left: MemoryLimit,
    log: Log,
    line: Option<Line>,
    made: Calls,
    call_fuel: u64,
    limits: Limits,
}

impl Guest {
    pub(crate) fn describe(&self) -> Result<wit::Description, PolicyError> {
        let limits = &self.limits;
        let overdue = Arc::new(AtomicBool::new(false));
        std::thread::scope(|scope| {
            let work = || {
                let mut store = self.store(limits.describe_fuel, None, 0, &overdue)?;
                let describe = |guest: &MemoryPolicy, store: &mut Store<State>| {
                    guest.loadline_policy_policy().call_describe(store)
                };
                self.call(&mut store, limits.describe_fuel, describe)
            };
            join(spawn(scope, work)?)
        })
    }

    /// Asks for a decision. `answer` is called on this thread for each question of the guest.
    pub(crate) fn decide(
        &self,
        situation: &wit::Situation,
        fuel: u64,
        call_fuel: u64,
        mut answer: impl FnMut(Question) -> Answer,
    ) -> Result<Outcome, PolicyError> {
        let overdue = Arc::new(AtomicBool::new(false));
        let (ask, asked) = channel();
        let (reply, replies) = channel();
        let line = Line { ask, answer: replies };
        std::thread::scope(|scope| {
            let work = || {
                let mut store = self.store(fuel, Some(line), call_fuel, &overdue)?;
                let decide = |guest: &MemoryPolicy, store: &mut Store<State>| {
                    guest.loadline_policy_policy().call_decide(store, situation)
                };
                let answer = self.call(&mut store, fuel, decide)?;
                let left = store.get_fuel().unwrap_or(0);
                let state = store.into_data();
                Ok(Outcome { answer, fuel: fuel - left.min(fuel), log: state.log.lines, calls: state.made })
            };
            let thread = spawn(scope, work)?;
            while let Some(question) = self.next(&asked, &overdue) {
                if reply.send(answer(question)).is_err() {
                    break;
                }
            }
            join(thread)
        })
    }

    /// The guest's next question, or nothing when it has ended.
    fn next(&self, asked: &Receiver<Question>, overdue: &AtomicBool) -> Option<Question> {
        let Some(limit) = self.limits.watchdog else { return asked.recv().ok() };
        loop {
            match asked.recv_timeout(limit) {
                Ok(question) => return Some(question),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {
                    overdue.store(true, Ordering::Relaxed);
                    self.engine.increment_epoch();
                }
            }
        }
    }

    fn store(
        &self,
        fuel: u64,
        line: Option<Line>,
        call_fuel: u64,
        overdue: &Arc<AtomicBool>,
    ) -> Result<Store<State>, PolicyError> {
        let limits = self.limits;
        let state = State {
            memory_left: MemoryLimit { limit: limits.memory_bytes, exceeded: false },
            log: Log::new(&limits),
            line,
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

    fn call<T>(
        &self,
        store: &mut Store<State>,
        fuel: u64,
        call: impl FnOnce(&MemoryPolicy, &mut Store<State>) -> wasmtime::Result<T>,
    ) -> Result<T, PolicyError> {
        let result = self.pre.instantiate(&mut *store).and_then(|guest| call(&guest, store));
        result.map_err(|error| fault(&error, store.data(), fuel))
    }
}

fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<std::thread::ScopedJoinHandle<'scope, T>, PolicyError> {
    let builder = std::thread::Builder::new().name("policy".to_owned()).stack_size(THREAD_STACK);
    builder.spawn_scoped(scope, work).map_err(|error| PolicyError::Host { reason: error.to_string() })
}

/// A panic on the guest's thread is a bug of this host, so it goes on in the caller's.
fn join<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The one import interface.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    let mut host = linker.instance("loadline:policy/host@0.1.0")?;
    host.func_wrap("log", |mut store: StoreContextMut<'_, State>, (level, text): (u8, String)| {
        store.data_mut().log.push(level, &text);
        Ok(())
    })?;
    host.func_wrap("probe", |mut store: StoreContextMut<'_, State>, (knobs,): (Vec<wit::Entry>,)| {
        charge(&mut store)?;
        Ok((store.data_mut().probe(knobs)?,))
    })?;
    host.func_wrap("forecast", |mut store: StoreContextMut<'_, State>, (plan,): (wit::Plan,)| {
        charge(&mut store)?;
        Ok((store.data_mut().forecast(plan)?,))
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
    fn probe(&mut self, knobs: Vec<wit::Entry>) -> wasmtime::Result<Result<wit::Job, String>> {
        if self.made.probes >= self.limits.probe_calls {
            return Ok(Err(format!("probe was called {} times, which is the limit", self.made.probes)));
        }
        self.made.probes += 1;
        match self.ask(Question::Probe(knobs))? {
            Some(Answer::Job(job)) => Ok(*job),
            _ => Ok(Err("there is nothing to probe while a policy describes itself".to_owned())),
        }
    }

    fn forecast(&mut self, plan: wit::Plan) -> wasmtime::Result<Result<wit::ForecastReply, String>> {
        if self.made.forecasts >= self.limits.forecast_calls {
            return Ok(Err(format!("forecast was called {} times, which is the limit", self.made.forecasts)));
        }
        self.made.forecasts += 1;
        match self.ask(Question::Forecast(Box::new(plan)))? {
            Some(Answer::Forecast(reply)) => Ok(*reply),
            _ => Ok(Err("there is nothing to forecast while a policy describes itself".to_owned())),
        }
    }

    fn ask(&self, question: Question) -> wasmtime::Result<Option<Answer>> {
        let Some(line) = &self.line else { return Ok(None) };
        let gone = || wasmtime::Error::msg("the caller is gone");
        line.ask.send(question).map_err(|_| gone())?;
        line.answer.recv().map(Some).map_err(|_| gone())
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

impl MemoryLimit {
    /// Entries of all of a guest's tables; an interpreter needs a few thousand.
    const TABLE: usize = 100_000;
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let fits = desired <= self.limit;
        self.exceeded |= !fits;
        Ok(fits)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= Self::TABLE)
    }

    fn memories(&self) -> usize {
        1
    }

    fn tables(&self) -> usize {
        4
    }

    fn instances(&self) -> usize {
        64
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

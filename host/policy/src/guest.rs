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

use loadline_core::{Bytes, Decision, PolicyId, Situation};
use wasmtime::{Engine, ResourceLimiter, Store, StoreContextMut, Trap, UpdateDeadline};

use crate::pool::{self, Gate};
use crate::price::Price;
use crate::text::line;
use crate::transcript::{Pen, Said};
use crate::versions::{Adapter, Asked, Description};
use crate::watch::watched;
use crate::wave::Wave;
use crate::{Limits, LogLine, Oracle, PolicyError, Transcript};

/// What a guest may ask of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    Probe,
    Forecast,
}

/// Who asks a guest for a decision, and answers it.
pub(crate) struct Caller<'a> {
    pub(crate) id: &'a PolicyId,
    pub(crate) situation: &'a Situation<'a>,
    pub(crate) oracle: &'a mut dyn Oracle,
}

/// What came of a call.
pub(crate) struct Outcome {
    pub(crate) decision: Decision,
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
    pub(crate) adapter: Arc<dyn Adapter>,
    pub(crate) limits: Limits,
    pub(crate) gate: Arc<Gate>,
    /// Where calls are written down, if anywhere.
    pub(crate) transcript: Option<Transcript>,
}

/// Work for the caller: it alone has the situation and the oracle.
type Work = Box<dyn FnOnce(&mut Caller<'_>) + Send>;

/// Where the guest lays its question for the caller to find.
#[derive(Clone, Default)]
struct Desk(Arc<Mutex<Option<Work>>>);

/// A panic of the oracle passes through while something lies here; what does is whole even then.
fn open<T>(place: &Mutex<T>) -> MutexGuard<'_, T> {
    place.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    /// Lays down a question; the guest is put aside until there is an answer.
    async fn ask<T: Send + 'static>(self, question: impl FnOnce(&mut Caller<'_>) -> T + Send + 'static) -> T {
        let place = Arc::new(Mutex::new(None));
        let answer = Arc::clone(&place);
        *open(&self.0) = Some(Box::new(move |caller| {
            let answered = question(caller);
            *open(&answer) = Some(answered);
        }));
        poll_fn(|_| open(&place).take().map_or(Poll::Pending, Poll::Ready)).await
    }

    fn answer(&self, caller: &mut Caller<'_>) {
        let work = open(&self.0).take();
        if let Some(work) = work {
            work(caller);
        }
    }
}

/// What belongs to one call.
pub(crate) struct State {
    memory_left: MemoryLimit,
    log: Log,
    desk: Option<Desk>,
    made: Calls,
    unanswered: u32,
    price: Price,
    limits: Limits,
    pen: Option<Pen>,
}

/// So many questions beyond the limit are answered with the limit; a guest that goes on is broken off.
const UNANSWERED: u32 = 1000;

impl Guest {
    pub(crate) fn describe(&self) -> Result<Description, PolicyError> {
        let fuel = self.limits.describe_fuel;
        let overdue = Arc::new(AtomicBool::new(false));
        let _room = self.gate.enter()?;
        let mut store = self.store(fuel, None, Price::default(), &overdue)?;
        let result = self.drive(self.adapter.describe(&mut store), &overdue, || ())?;
        let description = result.map_err(|error| fault(&error, store.data(), fuel))?;
        self.written(store.data().pen.as_ref());
        description
    }

    /// Asks for a decision. The caller answers each question of the guest.
    pub(crate) fn decide(&self, mut caller: Caller<'_>) -> Result<Outcome, PolicyError> {
        let asked = Asked { id: caller.id, situation: caller.situation, limits: &self.limits };
        let job = asked.situation.job;
        let (fuel, price) = (self.limits.fuel(job), Price::of(job, &self.limits));
        let overdue = Arc::new(AtomicBool::new(false));
        let _room = self.gate.enter()?;
        let desk = Desk::default();
        let mut store = self.store(fuel, Some(desk.clone()), price, &overdue)?;
        let call = self.adapter.decide(&mut store, asked);
        let result = self.drive(call, &overdue, || desk.answer(&mut caller))?;
        let decision = result.map_err(|error| fault(&error, store.data(), fuel))?;
        let fuel = fuel - store.get_fuel().unwrap_or(0).min(fuel);
        let mut state = store.into_data();
        state.write("fuel", &fuel);
        self.written(state.pen.as_ref());
        Ok(Outcome { decision: decision?, fuel, log: state.log.lines, calls: state.made })
    }

    fn written(&self, call: Option<&Pen>) {
        self.transcript.iter().zip(call).for_each(|(transcript, call)| transcript.add(call));
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
        price: Price,
        overdue: &Arc<AtomicBool>,
    ) -> Result<Store<State>, PolicyError> {
        let limits = self.limits;
        let state = State {
            memory_left: MemoryLimit { limit: limits.memory_bytes, table: limits.table_entries, exceeded: false },
            log: Log::new(&limits),
            desk,
            made: Calls::default(),
            unanswered: 0,
            price,
            limits,
            pen: self.transcript.as_ref().map(|_| Pen::default()),
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

/// Asks the caller a question for the guest, if it still may; the inner error is for the guest to read.
pub(crate) async fn ask<T: Send + 'static>(
    store: &mut StoreContextMut<'_, State>,
    kind: Question,
    fuel: impl FnOnce(&Price) -> u64,
    question: impl FnOnce(&mut Caller<'_>) -> Result<T, String> + Send + 'static,
) -> wasmtime::Result<Result<T, String>> {
    let fuel = fuel(&store.data().price);
    charge(store, fuel)?;
    match store.data_mut().desk_for(kind) {
        Ok(desk) => Ok(desk.ask(question).await),
        Err(refusal) if store.data_mut().is_patient() => Ok(Err(refusal)),
        Err(refusal) => Err(wasmtime::Error::msg(format!("{refusal}; it was asked again and again"))),
    }
}

/// Writes a line to the report.
pub(crate) fn log(store: &mut StoreContextMut<'_, State>, level: u8, text: &str) -> wasmtime::Result<()> {
    charge(store, Price::log(text))?;
    let state = store.data_mut();
    state.write("log", &Said { level, text });
    state.log.push(level, text);
    Ok(())
}

/// What costs time of the host costs fuel of the guest.
fn charge(store: &mut StoreContextMut<'_, State>, fuel: u64) -> wasmtime::Result<()> {
    let left = store.get_fuel()?.checked_sub(fuel);
    store.set_fuel(left.unwrap_or(0))?;
    left.map(|_| ()).ok_or_else(|| Trap::OutOfFuel.into())
}

impl State {
    /// Writes down what was said, if anybody wants to know.
    pub(crate) fn write(&mut self, word: &str, value: &dyn Wave) {
        if let Some(pen) = &mut self.pen {
            pen.write(word, value);
        }
    }

    /// Whether a question without an answer is only told so: the guest can see from that that there will be none.
    fn is_patient(&mut self) -> bool {
        self.unanswered += 1;
        self.unanswered <= UNANSWERED
    }

    /// Counts a question.
    fn desk_for(&mut self, kind: Question) -> Result<Desk, String> {
        let (name, made, limit) = match kind {
            Question::Probe => ("probe", &mut self.made.probes, self.limits.probe_calls),
            Question::Forecast => ("forecast", &mut self.made.forecasts, self.limits.forecast_calls),
        };
        if *made >= limit {
            return Err(format!("{name} was called {made} times, which is the limit"));
        }
        *made += 1;
        self.desk.clone().ok_or_else(|| format!("there is nothing to {name} while a policy describes itself"))
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
    table: usize,
    exceeded: bool,
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let fits = desired <= self.limit;
        self.exceeded |= !fits;
        Ok(fits)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= self.table)
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

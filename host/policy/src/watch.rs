//! The watchdog of real runs: a thread that counts how long a guest has run without a word.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use crate::PolicyError;

/// Told when the guest starts to run and when it stops; does nothing where there is no limit.
pub(crate) struct Watch(Option<Sender<()>>);

impl Watch {
    /// Runs a stretch of the guest under the eye of the watchdog.
    pub(crate) fn over<T>(&self, stretch: impl FnOnce() -> T) -> T {
        self.tell();
        let result = stretch();
        self.tell();
        result
    }

    fn tell(&self) {
        if let Some(line) = &self.0 {
            // The watchdog hangs up only after the work has ended.
            let _ = line.send(());
        }
    }
}

/// Does `work`; calls `interrupt` each time that a stretch of it lasts another `limit`.
///
/// # Errors
/// [`PolicyError::Host`] if the watchdog's thread cannot be started.
pub(crate) fn watched<T>(
    limit: Option<Duration>,
    interrupt: impl Fn() + Send,
    work: impl FnOnce(&Watch) -> T,
) -> Result<T, PolicyError> {
    let Some(limit) = limit else { return Ok(work(&Watch(None))) };
    let (line, signs) = channel();
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name("policy-watchdog".to_owned());
        let spawned = builder.spawn_scoped(scope, move || guard(&signs, limit, interrupt));
        spawned.map_err(|error| PolicyError::Host { reason: error.to_string() })?;
        let watch = Watch(Some(line));
        Ok(work(&watch))
    })
}

/// Between two signs the guest runs, or the caller does, in turn; only the guest's time is limited.
fn guard(signs: &Receiver<()>, limit: Duration, interrupt: impl Fn()) {
    while signs.recv().is_ok() {
        while signs.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            interrupt();
        }
    }
}

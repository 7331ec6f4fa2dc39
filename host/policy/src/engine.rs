//! Admission: from bytes to a policy that can be asked.

use std::path::Path;
use std::sync::Arc;

use loadline_core::{Bytes, ContentHash, PolicyId};
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Engine, OptLevel};

use crate::admission::admit;
use crate::cache::{Cache, Code, DIGEST};
use crate::guest::{Guest, State};
use crate::policy::Policy;
use crate::pool::{Gate, pooled};
use crate::scan::scan;
use crate::settings::Schema;
use crate::text::line;
use crate::versions::{Description, NEWEST, SPOKEN};
use crate::{Limits, PolicyError};

/// The newest version of the contract that this host speaks: the one to build policies for.
pub const CONTRACT: &str = NEWEST.number;

/// Every version of the contract that this host speaks, oldest first. Of each, all later patch versions are spoken too.
pub fn contracts() -> impl Iterator<Item = &'static str> {
    SPOKEN.iter().map(|version| version.number)
}

/// The part of a guest's native stack that is left for lifting, lowering and what traps need.
const HOST_STACK: usize = 1 << 20;

/// Compiles policies and runs them. A process needs one.
#[derive(Clone)]
pub struct PolicyEngine {
    engine: Engine,
    linker: Linker<State>,
    limits: Limits,
    gate: Arc<Gate>,
    cache: Option<Cache>,
}

impl std::fmt::Debug for PolicyEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PolicyEngine").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl PolicyEngine {
    /// An engine whose policies have the given limits.
    ///
    /// # Errors
    /// [`PolicyError::Host`] if this processor or operating system cannot run compiled WebAssembly,
    /// [`PolicyError::Limit`] if a limit makes no sense.
    pub fn new(limits: Limits) -> Result<Self, PolicyError> {
        limits.check()?;
        let host = |error: wasmtime::Error| PolicyError::Host { reason: format!("{error:#}") };
        // Where a process may not reserve that many addresses, each call maps its own.
        let engine = Engine::new(&pooled(config(&limits), &limits)).or_else(|_| Engine::new(&config(&limits)));
        let engine = engine.map_err(host)?;
        let mut linker = Linker::new(&engine);
        SPOKEN.iter().try_for_each(|version| (version.link)(&mut linker)).map_err(host)?;
        Ok(Self { engine, linker, limits, gate: Arc::default(), cache: None })
    }

    /// Keeps compiled code in a folder, and takes it from there. The folder is made if it is missing; if anybody but
    /// the user of this process may look into it, it is not used. See [`Policy::code`].
    #[must_use]
    pub fn with_cache(self, folder: &Path) -> Self {
        Self { cache: Some(Cache::new(folder)), ..self }
    }

    /// Compiles a component, starts it once and asks what it is.
    ///
    /// # Errors
    /// [`TooLarge`](PolicyError::TooLarge), [`Malformed`](PolicyError::Malformed),
    /// [`TooOld`](PolicyError::TooOld), [`TooNew`](PolicyError::TooNew),
    /// [`ForbiddenImport`](PolicyError::ForbiddenImport), and the faults of a policy that does not survive to say what
    /// it is.
    pub fn load(&self, bytes: &[u8]) -> Result<Policy, PolicyError> {
        let digest = blake3::hash(bytes);
        let (component, code) = self.code(bytes, digest.as_bytes())?;
        let version = admit(&self.engine, &component)?;
        let pre = self.linker.instantiate_pre(&component).and_then(version.adapt);
        let adapter = Arc::from(pre.map_err(|error| version.mismatch(&error))?);
        let limits = self.limits.of(bytes.len());
        let (engine, gate) = (self.engine.clone(), Arc::clone(&self.gate));
        let guest = Guest { engine, adapter, limits, gate, transcript: None };
        let (id, summary, schema) = described(&guest.describe()?, ContentHash::of_digest(digest.as_bytes()))?;
        Ok(Policy { guest, id, summary, schema, code, contract: version.number })
    }

    fn code(&self, bytes: &[u8], digest: &[u8; DIGEST]) -> Result<(Component, Code), PolicyError> {
        let limit = self.limits.component_bytes;
        if bytes.len() > limit {
            return Err(PolicyError::TooLarge { bytes: Bytes(bytes.len() as u64), limit: Bytes(limit as u64) });
        }
        // Compiled code is machine code: loading it would run whatever it holds, outside any sandbox.
        if Engine::detect_precompiled(bytes).is_some() {
            return Err(PolicyError::malformed("compiled code is never loaded; give the component itself"));
        }
        match &self.cache {
            Some(cache) => cache.load(&self.engine, digest, || self.compile(bytes)),
            None => Ok((self.compile(bytes)?, Code::Compiled)),
        }
    }

    /// What was compiled before was looked over then: going over an interpreter takes longer than all else at a start.
    fn compile(&self, bytes: &[u8]) -> Result<Component, PolicyError> {
        scan(bytes, &self.limits)?;
        Component::from_binary(&self.engine, bytes).map_err(|error| {
            PolicyError::malformed(match bytes.get(4..8) {
                Some([1, 0, 0, 0]) => "it is a core module; encode it as a component".to_owned(),
                _ => line(&format!("{error:#}")),
            })
        })
    }
}

/// One profile for simulated and real runs: equal inputs, equal decisions, equal fuel.
fn config(limits: &Limits) -> Config {
    let mut config = Config::new();
    config.wasm_component_model(true);
    config.consume_fuel(true);
    config.epoch_interruption(true);
    config.cranelift_nan_canonicalization(true);
    config.wasm_simd(false);
    config.wasm_relaxed_simd(false);
    config.wasm_memory64(false);
    // A guest has one memory all the same. But components inside of a component call each other through code that
    // wasmtime writes, which names the memories of both; without this it panics on that code.
    config.wasm_multi_memory(true);
    config.wasm_tail_call(false);
    config.concurrency_support(false);
    // A policy runs for a millisecond and is compiled for a hundred: optimising costs half
    // as much again and does not show in the first.
    config.cranelift_opt_level(OptLevel::None);
    config.max_wasm_stack(limits.stack_bytes);
    config.async_stack_size(limits.stack_bytes.saturating_add(HOST_STACK));
    config
}

fn described(description: &Description, hash: ContentHash) -> Result<(PolicyId, String, Schema), PolicyError> {
    let name = description.name.as_str();
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > 64 || !name.chars().all(letter) {
        return Err(PolicyError::malformed(format!(
            "its name '{}' is not made of 1 to 64 letters, digits, '-' and '_'",
            line(name)
        )));
    }
    let schema = Schema::parse(&description.settings)
        .map_err(|error| PolicyError::malformed(line(&format!("the settings of '{name}': {error}"))))?;
    let id = PolicyId { name: name.to_owned(), version: line(&description.version), hash };
    Ok((id, line(&description.summary), schema))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn compiled_code_is_never_loaded() {
        let engine = PolicyEngine::new(Limits::default()).unwrap();
        let code = engine.engine.precompile_component(crate::builtin()[0].component).unwrap();
        let error = PolicyEngine::new(Limits::default()).unwrap().load(&code).unwrap_err();
        let reason = "compiled code is never loaded; give the component itself".to_owned();
        assert_eq!(error, PolicyError::Malformed { reason });
    }
}

//! Admission: from bytes to a policy that can be asked.

use std::path::Path;
use std::sync::Arc;

use loadline_core::{Bytes, ContentHash, PolicyId};
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Engine, OptLevel};

use crate::bindings::MemoryPolicyPre;
use crate::bindings::loadline::policy::types::Description;
use crate::cache::{Cache, Code};
use crate::guest::{self, Guest, State};
use crate::lift::line;
use crate::policy::Policy;
use crate::pool::{Gate, pooled};
use crate::settings::Schema;
use crate::{Limits, PolicyError};

/// The version of the contract that this host speaks.
pub const CONTRACT: &str = "0.1.0";

const PACKAGE: &str = "loadline:policy/";
/// What the `host` interface of version 0.1 has.
const HOST_FUNCTIONS: [&str; 3] = ["log", "probe", "forecast"];

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
    /// [`PolicyError::Host`] if this processor or operating system cannot run compiled WebAssembly.
    pub fn new(limits: Limits) -> Result<Self, PolicyError> {
        let host = |error: wasmtime::Error| PolicyError::Host { reason: format!("{error:#}") };
        // Where a process may not reserve that many addresses, each call maps its own.
        let engine = Engine::new(&pooled(config(&limits), &limits)).or_else(|_| Engine::new(&config(&limits)));
        let engine = engine.map_err(host)?;
        let linker = guest::linker(&engine).map_err(host)?;
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
    /// [`WrongVersion`](PolicyError::WrongVersion), [`ForbiddenImport`](PolicyError::ForbiddenImport), and
    /// the faults of a policy that does not survive to say what it is.
    pub fn load(&self, bytes: &[u8]) -> Result<Policy, PolicyError> {
        let (component, code) = self.code(bytes)?;
        self.check_exports(&component)?;
        self.check_imports(&component)?;
        let malformed = |error: wasmtime::Error| PolicyError::malformed(format!("{error:#}"));
        let pre = self.linker.instantiate_pre(&component).and_then(MemoryPolicyPre::new).map_err(malformed)?;
        let guest = Guest { engine: self.engine.clone(), pre, limits: self.limits, gate: Arc::clone(&self.gate) };
        let (id, summary, schema) = described(&guest.describe()?, ContentHash::of_bytes(bytes))?;
        Ok(Policy { guest, id, summary, schema, code })
    }

    fn code(&self, bytes: &[u8]) -> Result<(Component, Code), PolicyError> {
        let limit = self.limits.component_bytes;
        if bytes.len() > limit {
            return Err(PolicyError::TooLarge { bytes: Bytes(bytes.len() as u64), limit: Bytes(limit as u64) });
        }
        // Compiled code is machine code: loading it would run whatever it holds, outside any sandbox.
        if Engine::detect_precompiled(bytes).is_some() {
            return Err(PolicyError::malformed("compiled code is never loaded; give the component itself"));
        }
        match &self.cache {
            Some(cache) => cache.load(&self.engine, bytes, || self.compile(bytes)),
            None => Ok((self.compile(bytes)?, Code::Compiled)),
        }
    }

    fn compile(&self, bytes: &[u8]) -> Result<Component, PolicyError> {
        Component::from_binary(&self.engine, bytes).map_err(|error| {
            PolicyError::malformed(match bytes.get(4..8) {
                Some([1, 0, 0, 0]) => "it is a core module; encode it as a component".to_owned(),
                _ => line(&format!("{error:#}")),
            })
        })
    }

    fn check_exports(&self, component: &Component) -> Result<(), PolicyError> {
        let ty = component.component_type();
        let names: Vec<&str> = ty.exports(&self.engine).map(|(name, _)| name).collect();
        let interface = |name: &&str| name.strip_prefix(PACKAGE).is_some_and(|rest| rest.starts_with("policy@"));
        let Some(name) = names.iter().copied().find(interface) else {
            let listed = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
            return Err(PolicyError::malformed(format!(
                "it exports no '{PACKAGE}policy@{CONTRACT}' (it exports {})",
                line(&listed)
            )));
        };
        check_version(name)
    }

    fn check_imports(&self, component: &Component) -> Result<(), PolicyError> {
        for (name, item) in component.component_type().imports(&self.engine) {
            let known =
                ["host@", "types@"].iter().any(|i| name.strip_prefix(PACKAGE).is_some_and(|r| r.starts_with(i)));
            if !known {
                return Err(PolicyError::ForbiddenImport { name: line(name) });
            }
            check_version(name)?;
            self.check_functions(name, &item.ty)?;
        }
        Ok(())
    }

    fn check_functions(&self, interface: &str, item: &ComponentItem) -> Result<(), PolicyError> {
        let ComponentItem::ComponentInstance(instance) = item else {
            return Err(PolicyError::ForbiddenImport { name: line(interface) });
        };
        for (name, item) in instance.exports(&self.engine) {
            let harmless = matches!(item.ty, ComponentItem::Type(_));
            if !harmless && !HOST_FUNCTIONS.contains(&name) {
                return Err(PolicyError::ForbiddenImport { name: line(&format!("{interface}#{name}")) });
            }
        }
        Ok(())
    }
}

/// Patch versions of one minor version are the same contract.
fn check_version(name: &str) -> Result<(), PolicyError> {
    let version = name.split_once('@').map_or("", |(_, version)| version);
    let minor = |v: &str| v.split('.').take(2).map(str::to_owned).collect::<Vec<_>>();
    if minor(version) == minor(CONTRACT) {
        return Ok(());
    }
    Err(PolicyError::WrongVersion { built_for: line(version), spoken: CONTRACT })
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
    config.wasm_multi_memory(false);
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
        .map_err(|error| PolicyError::malformed(format!("the settings of '{name}': {error}")))?;
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
        let error = PolicyEngine::new(Limits::heavy()).unwrap().load(&code).unwrap_err();
        let reason = "compiled code is never loaded; give the component itself".to_owned();
        assert_eq!(error, PolicyError::Malformed { reason });
    }
}

//! Compiled code kept between processes, since compiling a policy takes longer than asking it.
//!
//! Compiled code runs outside of any sandbox, so whoever can write it can do whatever the user can. It is loaded only
//! from files that nobody but the user could have written: see [`folder`]. A file's name is the hash of the component,
//! of the engine's configuration and of this processor's instructions, and a digest over name and content tells a
//! damaged or renamed file. Trouble with the cache is never trouble of a plan: the component is compiled as if there
//! were none.
#![allow(unsafe_code, reason = "loading compiled code is the one thing here that cannot be checked by looking at it")]

mod folder;

use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};

use wasmtime::Engine;
use wasmtime::component::Component;

use folder::Folder;

/// How the machine code of a policy was come by.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Code {
    /// It was compiled; the engine has no cache.
    Compiled,
    /// It was compiled and put into the cache.
    Kept,
    /// It was in the cache.
    Cached,
    /// It was compiled, and the cache could not take it.
    NotKept {
        /// Why, and what to do about it.
        reason: String,
    },
}

/// The first bytes of a file: what it is, and the version of its layout.
const MAGIC: &[u8; 16] = b"loadline code 1\n";
/// Bytes of a BLAKE3 hash.
pub(crate) const DIGEST: usize = 32;

/// A folder of compiled components.
#[derive(Clone, Debug)]
pub(crate) struct Cache(PathBuf);

impl Cache {
    pub(crate) fn new(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    /// The component's compiled code: from the cache if it is there and whole, else from `compile`.
    ///
    /// # Errors
    /// Those of `compile`.
    pub(crate) fn load<E>(
        &self,
        engine: &Engine,
        component_digest: &[u8; DIGEST],
        compile: impl FnOnce() -> Result<Component, E>,
    ) -> Result<(Component, Code), E> {
        let folder = match Folder::open(&self.0) {
            Ok(folder) => folder,
            Err(reason) => return Ok((compile()?, Code::NotKept { reason })),
        };
        let name = name(engine, component_digest);
        if let Some(component) = folder.read(&name).and_then(|file| loaded(engine, &name, &file)) {
            return Ok((component, Code::Cached));
        }
        let component = compile()?;
        let kept = component.serialize().map_err(|error| format!("{error:#}")).and_then(|code| {
            folder.write(&name, &[MAGIC, &digest(&name, &code), &code]).map_err(|error| error.to_string())
        });
        Ok((component, kept.map_or_else(|reason| Code::NotKept { reason }, |()| Code::Kept)))
    }
}

fn loaded(engine: &Engine, name: &str, file: &[u8]) -> Option<Component> {
    let (stored, code) = file.strip_prefix(MAGIC)?.split_at_checked(DIGEST)?;
    if stored != digest(name, code) {
        return None;
    }
    // SAFETY: `deserialize` asks for bytes that `serialize` made, unaltered. The file is a regular one that belongs to
    // this user and that no other user may write, read through a handle of a folder of which the same is true; only
    // the user, who can run any code anyway, could have put it there. These bytes are a copy in memory, so the file
    // changing now changes nothing, and the digest shows that they are what was written for this component and
    // engine. That the engine's version and configuration agree is checked by `deserialize` itself.
    unsafe { Component::deserialize(engine, code) }.ok()
}

fn digest(name: &str, code: &[u8]) -> [u8; DIGEST] {
    blake3::Hasher::new().update(name.as_bytes()).update(code).finalize().into()
}

/// The file of a component: whatever could change its code is in the hash.
fn name(engine: &Engine, component: &[u8; DIGEST]) -> String {
    let mut hash = Blake(blake3::Hasher::new());
    engine.precompile_compatibility_hash().hash(&mut hash);
    hash.0.update(env!("CARGO_PKG_VERSION").as_bytes()).update(component);
    hash.0.finalize().to_hex().to_string()
}

/// The standard library's hashes are too short to be the only thing that tells two components apart.
struct Blake(blake3::Hasher);

impl Hasher for Blake {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = *self.0.finalize().as_bytes();
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

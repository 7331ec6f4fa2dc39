//! The policies that ship inside the program.

/// A component that is part of the program.
#[derive(Clone, Copy, Debug)]
pub struct Builtin {
    /// The policy's name.
    pub name: &'static str,
    /// Its component, for [`PolicyEngine::load`](crate::PolicyEngine::load).
    pub component: &'static [u8],
}

macro_rules! shipped {
    ($($name:literal),*) => {
        [$(Builtin {
            name: $name,
            component: include_bytes!(concat!("../../../policies/components/", $name, ".wasm")),
        }),*]
    };
}

static BUILTIN: [Builtin; 6] = shipped!["auto-tune", "threshold", "manual-swap", "lazy-load", "offload", "device-map"];

/// Every policy that ships, the default first.
#[must_use]
pub fn builtin() -> &'static [Builtin] {
    &BUILTIN
}

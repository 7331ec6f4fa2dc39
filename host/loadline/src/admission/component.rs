//! What a component names from outside and for the outside, read without compiling it.

use wasmparser::{Encoding, Parser, Payload};

/// The interface of a policy; its version comes after.
pub(super) const POLICY: &str = "loadline:policy/policy@";

/// The interfaces of a component.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// What it wants.
    pub(super) imports: Vec<String>,
    /// What it offers.
    pub(super) exports: Vec<String>,
}

impl Names {
    /// Whether it offers a policy of any version.
    pub(super) fn exports_a_policy(&self) -> bool {
        self.exports.iter().any(|name| name.starts_with(POLICY))
    }

    /// What policies do not get.
    fn foreign(&self) -> Vec<&str> {
        let ours =
            |name: &&str| !name.starts_with("loadline:policy/host@") && !name.starts_with("loadline:policy/types@");
        self.imports.iter().map(String::as_str).filter(ours).collect()
    }
}

/// The names of a component; nothing for bytes that are none.
pub(super) fn names(component: &[u8]) -> Option<Names> {
    let mut names = Names::default();
    let (mut depth, mut is_component) = (0_usize, false);
    for payload in Parser::new(0).parse_all(component) {
        match payload.ok()? {
            Payload::Version { encoding, .. } if depth == 0 => is_component = encoding == Encoding::Component,
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                names.imports.extend(section.into_iter().flatten().map(|import| plain(import.name.name)));
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                names.exports.extend(section.into_iter().flatten().map(|export| plain(export.name.name)));
            }
            _ => {}
        }
    }
    is_component.then_some(names)
}

/// A name that is safe to print.
fn plain(name: &str) -> String {
    name.chars().take(128).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What files of WebAssembly begin with.
const MAGIC: &[u8] = b"\0asm";

/// Why bytes are not even WebAssembly; nothing if they may be.
pub(super) fn foreign_file(component: &[u8]) -> Option<String> {
    let way_out = "give a component, such as `loadline policy build` makes";
    match component {
        [] => Some(format!("the file is empty; {way_out}")),
        bytes if !bytes.starts_with(MAGIC) => Some(format!("this is no WebAssembly; {way_out}")),
        _ => None,
    }
}

/// Why a check of the component failed, with all names that matter and the way out.
pub(super) fn reason(check: &str, names: &Option<Names>, error: &str) -> String {
    let foreign = names.as_ref().map(Names::foreign).unwrap_or_default();
    if check != "imports" || foreign.is_empty() {
        return error.to_owned();
    }
    let wasi = foreign.iter().any(|name| name.starts_with("wasi:"));
    let way_out = match wasi {
        true => "a policy gets no WASI: build it for wasm32-unknown-unknown, or with `loadline policy build`",
        false => "a policy gets nothing but the host interface of its contract: leave them out",
    };
    format!("it imports {}; {way_out}", foreign.join(", "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_names_of_a_policy_are_those_of_the_contract() {
        let names = names(loadline_policy::builtin()[0].component).unwrap();
        assert!(names.exports_a_policy() && names.foreign().is_empty(), "{names:?}");
        assert!(names.imports.iter().any(|name| name.starts_with("loadline:policy/host@")), "{names:?}");
    }

    #[test]
    fn what_is_no_component_has_no_names() {
        for bytes in [&b""[..], b"text", b"\0asm\x01\0\0\0"] {
            assert_eq!(names(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn every_import_that_is_too_much_is_named() {
        let imports = ["loadline:policy/host@0.1.0", "wasi:clocks/wall-clock@0.2.0", "wasi:io/poll@0.2.0"];
        let names = Some(Names { imports: imports.map(str::to_owned).to_vec(), exports: Vec::new() });
        let text = reason("imports", &names, "the first");
        assert!(text.starts_with("it imports wasi:clocks/wall-clock@0.2.0, wasi:io/poll@0.2.0; "), "{text}");
        assert_eq!(reason("exports", &names, "the first"), "the first");
    }
}

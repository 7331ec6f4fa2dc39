//! Components as files: made from core modules, read, looked into.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use loadline_policy::Limits;
use wasmparser::{Parser, Payload};

use super::WorkshopError;

/// Turns a core module, whose custom section holds its WIT types, into a component.
///
/// # Errors
/// If the module lacks the section, imports something else, or exports nothing.
pub(super) fn encode(module: &[u8]) -> Result<Vec<u8>, WorkshopError> {
    let no_component = |reason: String| WorkshopError::NoComponent { reason };
    let component = wit_component::ComponentEncoder::default()
        .validate(true)
        .module(module)
        .and_then(|encoder| encoder.encode())
        .map_err(|error| no_component(format!("{error:#}").replace('\n', " ")))?;
    // The SDK alone, without a policy, is a component, too.
    let exports = outer(&component).any(|payload| matches!(payload, Payload::ComponentExportSection(_)));
    if exports { Ok(component) } else { Err(no_component("it exports nothing".to_owned())) }
}

/// The names of everything that a component wants from outside, in its order; nothing of what is no component.
#[must_use]
pub fn imports(component: &[u8]) -> Vec<String> {
    let names = |payload| match payload {
        Payload::ComponentImportSection(section) => {
            section.into_iter().flatten().map(|import| import.name.name.to_owned()).collect()
        }
        _ => Vec::new(),
    };
    outer(component).flat_map(names).collect()
}

/// The parts of a component that are not parts of what is inside it.
fn outer(component: &[u8]) -> impl Iterator<Item = Payload<'_>> {
    let mut depth = 0_usize;
    Parser::new(0).parse_all(component).map_while(Result::ok).filter(move |payload| {
        let outside = depth == 0;
        match payload {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            _ => {}
        }
        outside
    })
}

/// Reads a component's file. One that is larger than the limits allow is not read.
///
/// # Errors
/// If it is no ordinary file, too large, or cannot be read.
pub fn read(path: &Path, limits: &Limits) -> Result<Vec<u8>, WorkshopError> {
    let io = |error: &std::io::Error| WorkshopError::io(path, error);
    // Before it is opened: opening a pipe waits for somebody who writes.
    let meta = std::fs::metadata(path).map_err(|error| io(&error))?;
    let limit = limits.component_bytes as u64;
    if !meta.is_file() {
        return Err(WorkshopError::NoFile { path: path.to_owned() });
    }
    if meta.len() > limit {
        return Err(WorkshopError::TooLarge { path: path.to_owned(), bytes: meta.len(), limit });
    }
    // Interpreters have many megabytes: a buffer that grows copies them again and again.
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0));
    let read = File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    read.map_err(|error| io(&error))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_imports_of_a_built_in_policy_are_those_of_the_contract() {
        let names = imports(loadline_policy::builtin()[0].component);
        assert!(names.iter().any(|name| name.starts_with("loadline:policy/host@")), "{names:?}");
        assert!(names.iter().all(|name| name.starts_with("loadline:policy/")), "{names:?}");
        assert_eq!(imports(b"no component"), [""; 0]);
    }

    #[test]
    fn a_module_without_types_makes_no_component() {
        let empty = b"\0asm\x01\0\0\0";
        assert!(matches!(encode(b"text"), Err(WorkshopError::NoComponent { .. })));
        assert!(matches!(encode(empty), Err(WorkshopError::NoComponent { .. })));
    }
}

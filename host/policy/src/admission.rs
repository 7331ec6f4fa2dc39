//! Whether a component is a policy, of which version of the contract, and if not what it lacks. Nothing of the
//! component runs for this.

use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime::component::types::{ComponentInstance, ComponentItem};

use crate::PolicyError;
use crate::text::line;
use crate::versions::{NEWEST, Number, SPOKEN, Version};

const PACKAGE: &str = "loadline:policy/";

/// The version of the contract through which a component is asked: the newest that both sides speak.
///
/// # Errors
/// [`Malformed`](PolicyError::Malformed) for what is no policy, [`TooOld`](PolicyError::TooOld) and
/// [`TooNew`](PolicyError::TooNew) for another version, [`ForbiddenImport`](PolicyError::ForbiddenImport) for a
/// component that wants more than policies get.
pub(crate) fn admit(engine: &Engine, component: &Component) -> Result<&'static Version, PolicyError> {
    let ty = component.component_type();
    let names: Vec<&str> = ty.exports(engine).map(|(name, _)| name).collect();
    let (name, version) = exported(&names)?;
    if let Some(ComponentItem::ComponentInstance(policy)) = ty.get_export(engine, name).map(|export| export.ty) {
        check_exports(engine, name, &policy, version)?;
    }
    for (name, import) in ty.imports(engine) {
        check_import(engine, name, &import.ty)?;
    }
    Ok(version)
}

/// A component may export the interface of more than one version.
fn exported<'a>(names: &[&'a str]) -> Result<(&'a str, &'static Version), PolicyError> {
    let policies = names.iter().filter_map(|name| Some((*name, name.strip_prefix(PACKAGE)?.strip_prefix("policy@")?)));
    let mut numbers = Vec::new();
    for (name, text) in policies {
        let unreadable = || PolicyError::malformed(format!("'{}' is no version of the contract", line(text)));
        numbers.push((text.parse::<Number>().map_err(|()| unreadable())?, text, name));
    }
    numbers.sort_unstable();
    let spoken = numbers.iter().rev().find_map(|(number, _, name)| Some((*name, Version::of(*number)?)));
    match (spoken, numbers.last()) {
        (Some(spoken), _) => Ok(spoken),
        (None, Some((number, text, _))) => Err(not_spoken(*number, text)),
        (None, None) => Err(no_policy(names)),
    }
}

fn not_spoken(number: Number, text: &str) -> PolicyError {
    let built_for = line(text);
    let newer = NEWEST.number.parse::<Number>().is_ok_and(|newest| number > newest);
    if newer {
        return PolicyError::TooNew { built_for, spoken: NEWEST.number };
    }
    PolicyError::TooOld { built_for, spoken: SPOKEN[0].number }
}

fn no_policy(names: &[&str]) -> PolicyError {
    let listed = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    let alone = NEWEST.exports.iter().any(|function| names.contains(function));
    let advice = if alone { "; export the interface, not its functions one by one" } else { "" };
    let wanted = format!("{PACKAGE}policy@{}", NEWEST.number);
    PolicyError::malformed(format!("it exports no '{wanted}' (it exports {}){advice}", line(&listed)))
}

fn check_exports(
    engine: &Engine,
    name: &str,
    policy: &ComponentInstance,
    version: &Version,
) -> Result<(), PolicyError> {
    let there = functions(engine, policy);
    let Some(missing) = version.exports.iter().find(|function| !there.contains(function)) else { return Ok(()) };
    let there = if there.is_empty() { "no functions".to_owned() } else { there.join(", ") };
    let (name, there) = (line(name), line(&there));
    Err(PolicyError::malformed(format!(
        "its '{name}' lacks the function '{missing}' (it has {there}); rebuild it with an SDK of version {}",
        version.number
    )))
}

fn functions<'a>(engine: &'a Engine, instance: &'a ComponentInstance) -> Vec<&'a str> {
    let functions = instance.exports(engine).filter(|(_, item)| !matches!(item.ty, ComponentItem::Type(_)));
    functions.map(|(name, _)| name).collect()
}

fn check_import(engine: &Engine, name: &str, item: &ComponentItem) -> Result<(), PolicyError> {
    let forbidden = |name: &str| PolicyError::ForbiddenImport { name: line(name) };
    let interface = name.strip_prefix(PACKAGE).and_then(|rest| rest.split_once('@'));
    let (Some(("host" | "types", text)), ComponentItem::ComponentInstance(instance)) = (interface, item) else {
        return Err(forbidden(name));
    };
    let number: Number = text.parse().map_err(|()| forbidden(name))?;
    let version = Version::of(number).ok_or_else(|| not_spoken(number, text))?;
    let unknown = functions(engine, instance).into_iter().find(|function| !version.imports.contains(function));
    match unknown {
        None => Ok(()),
        // A later patch version may have more functions, and a component that uses them needs a host that has them.
        Some(_) if version.number.parse().is_ok_and(|ours: Number| number > ours) => {
            Err(PolicyError::TooNew { built_for: line(text), spoken: version.number })
        }
        Some(function) => Err(forbidden(&format!("{name}#{function}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_versions_the_newest_that_is_spoken_is_chosen() {
        let check = |exports: &[&str], expected: Result<&str, &str>| {
            let names: Vec<String> =
                exports.iter().map(|version| format!("loadline:policy/policy@{version}")).collect();
            let found = exported(&names.iter().map(String::as_str).collect::<Vec<_>>());
            let found = found.map(|(_, version)| version.number).map_err(|error| error.to_string());
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{exports:?}"),
                (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
                (found, _) => panic!("{exports:?}: {found:?}"),
            }
        };
        check(&["0.1.0"], Ok("0.1.0"));
        check(&["0.1.4"], Ok("0.1.0"));
        check(&["0.1.0", "0.0.9"], Ok("0.1.0"));
        check(&["0.0.9", "7.0.0"], Ok("0.0.9"));
        check(&["0.0.8"], Err("made for contract 0.0.8, and the oldest that this program speaks is 0.0.9: rebuild"));
        check(&["0.1.0-draft"], Err("made for contract 0.1.0-draft, and the oldest"));
        check(
            &["0.2.0", "1.0.0"],
            Err("made for contract 1.0.0, and the newest that this program speaks is 0.1.0: update"),
        );
        check(&["new"], Err("'new' is no version of the contract"));
        check(&[], Err("it exports nothing"));
    }
}

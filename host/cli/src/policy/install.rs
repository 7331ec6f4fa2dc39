//! `loadline policy install` and `uninstall`.

use std::path::Path;

use loadline::Error;
use loadline::policies;
use loadline::workshop::{Added, Installed, Reference, WorkshopError, read_component};

use super::places;

pub(super) fn install(file: &Path) -> Result<(), Error> {
    let places = places();
    let installed = store()?;
    let component = read_component(file, &super::limits())?;
    // A file that does not say what it is, or wants more than policies get, is never put there.
    let policy = policies::load_bytes(&file.display().to_string(), &component, &places, super::limits())?;
    let (entry, added) = installed.add(policy.id(), &component)?;
    let reference = entry.reference();
    match added {
        Added::New => say!("installed {reference} ({})", policy.id().version),
        Added::Already => say!("{reference} is installed already"),
        Added::Mended => say!("installed {reference} ({}) in place of a damaged file", policy.id().version),
    }
    let name = &entry.name;
    let same: Vec<_> = installed.list()?.into_iter().filter(|other| other.name == *name && *other != entry).collect();
    if policies::names().any(|builtin| builtin == name) {
        say!(
            "a built-in policy is called {name}, too, and is meant by this name: use this one as --policy {reference}"
        );
    } else if same.is_empty() {
        say!("use it as --policy {name}");
    } else {
        let others = same.iter().map(|other| other.reference()).collect::<Vec<_>>().join(", ");
        say!("{others} is installed, too: use this one as --policy {reference}, or uninstall the other");
    }
    Ok(())
}

pub(super) fn uninstall(name: &str) -> Result<(), Error> {
    let wanted = Reference::parse(name)?.ok_or_else(|| WorkshopError::BadName {
        name: name.to_owned(),
        reason: "give the name of an installed policy; `loadline policy list` shows them".to_owned(),
    })?;
    let installed = store()?;
    let built_in = wanted.hash.is_none() && policies::names().any(|builtin| builtin == wanted.name);
    if built_in && installed.matching(&wanted)?.is_empty() {
        return Err(WorkshopError::BuiltIn(wanted.name).into());
    }
    say!("uninstalled {}", installed.remove(&wanted)?.reference());
    Ok(())
}

fn store() -> Result<Installed, Error> {
    let missing = || {
        let text = "there is no place for installed policies: set LOADLINE_POLICIES to the path of a folder";
        Error::Settings(text.to_owned())
    };
    places().installed.as_deref().map(Installed::new).ok_or_else(missing)
}

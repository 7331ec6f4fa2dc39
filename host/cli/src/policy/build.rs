//! `loadline policy build`.

use std::path::{Path, PathBuf};

use loadline::Error;
use loadline::core::Bytes;
use loadline::workshop::{self, Built};
use serde_json::json;

use super::{open, places};

pub(super) fn run(dir: &Path, output: Option<&Path>, json: bool) -> Result<(), Error> {
    let home = open::cargo_home();
    let built = workshop::build(dir, home.as_deref(), &places(), super::limits(), &mut |line| note!("{line}"))?;
    let path = output.map_or_else(|| dir.join(format!("{}.wasm", built.policy.id().name)), Path::to_owned);
    loadline::write_whole(&path, |file| file.write_all(&built.component))?;
    if json {
        say!("{}", as_json(&built, &path))
    } else {
        tell(&built, &path)
    }
    Ok(())
}

fn tell(built: &Built, path: &Path) {
    let id = built.policy.id();
    say!("{} {}", id.name, id.version);
    say!("  component  {}", path.display());
    say!("  size       {}", Bytes(built.component.len() as u64));
    say!("  hash       {}", id.hash);
    say!("  imports    {}; no WASI", workshop::imports(&built.component).join(", "));
    say!("\nnext: loadline policy check {}", shown(path));
}

/// A path that is not taken for the name of a policy.
fn shown(path: &Path) -> String {
    let bare = path.parent().is_none_or(|folder| folder.as_os_str().is_empty());
    let path = if bare { PathBuf::from(".").join(path) } else { path.to_owned() };
    path.display().to_string()
}

fn as_json(built: &Built, path: &Path) -> serde_json::Value {
    let id = built.policy.id();
    json!({
        "name": id.name,
        "version": id.version,
        "hash": id.hash.as_str(),
        "language": built.language.name(),
        "component": path,
        "bytes": built.component.len(),
        "imports": workshop::imports(&built.component),
    })
}

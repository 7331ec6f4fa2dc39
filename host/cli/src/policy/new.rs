//! `loadline policy new`.

use std::path::Path;

use loadline::Error;
use loadline::workshop::{Language, create};

pub(super) fn run(name: &str, language: Language, dir: Option<&Path>) -> Result<(), Error> {
    let dir = dir.unwrap_or(Path::new(name));
    let files = create(name, language, dir)?;
    say!("{}: the policy '{name}' in {language}", dir.display());
    for file in files.iter().filter(|file| !file.starts_with("sdk/")) {
        say!("  {file}");
    }
    let of_sdk = files.iter().filter(|file| file.starts_with("sdk/")).count();
    say!("  sdk/ ({of_sdk} files)\n");
    say!("next:\n  cd {}", dir.display());
    language.preparation().into_iter().for_each(|command| say!("  {command}"));
    say!("  loadline policy build\n  loadline policy test\n  loadline policy bench ./{name}.wasm");
    Ok(())
}

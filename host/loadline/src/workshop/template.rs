//! New projects.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::files::{self, Embedded};
use super::{Language, WorkshopError};

/// What the templates call their policy.
const PLACEHOLDER: &str = "my-policy";
/// The package of the SDK for Rust.
const SDK: &str = "loadline-policy-sdk";
/// The one package that it needs from elsewhere.
const GENERATOR: &str = "wit-bindgen";

/// A file of a project: where it goes, and what it holds.
type Text = (String, Cow<'static, str>);

/// Whether the contract lets a policy have a name.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &str) -> Result<(), WorkshopError> {
    let bad = |reason: &str| Err(WorkshopError::BadName { name: name.to_owned(), reason: reason.to_owned() });
    let letter = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(letter) {
        return bad("use 1 to 64 letters, digits, '-' and '_'");
    }
    Ok(())
}

/// Makes a project in a folder, which must be empty or not there yet. The paths of its files are returned, relative to
/// the folder.
///
/// # Errors
/// If the name is not allowed or that of a built-in policy, the folder holds something, or a file cannot be written.
pub fn create(name: &str, language: Language, folder: &Path) -> Result<Vec<String>, WorkshopError> {
    check_name(name)?;
    if loadline_policy::builtin().iter().any(|b| b.name == name) {
        let reason = "a built-in policy has this name, and `--policy` would mean that one: choose another".to_owned();
        return Err(WorkshopError::BadName { name: name.to_owned(), reason });
    }
    check_empty(folder)?;
    let files = project(name, language)?;
    for (path, text) in &files {
        write(&folder.join(path), text)?;
    }
    Ok(files.into_iter().map(|(path, _)| path).collect())
}

fn check_empty(folder: &Path) -> Result<(), WorkshopError> {
    match fs::read_dir(folder).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(WorkshopError::Taken(folder.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(WorkshopError::io(folder, &error)),
    }
}

fn write(path: &Path, text: &str) -> Result<(), WorkshopError> {
    let failed = |path: &Path, error: &io::Error| WorkshopError::io(path, error);
    let folder: PathBuf = path.parent().unwrap_or(Path::new("")).to_owned();
    fs::create_dir_all(&folder).map_err(|error| failed(&folder, &error))?;
    fs::write(path, text).map_err(|error| failed(path, &error))
}

/// Every file of a new project.
fn project(name: &str, language: Language) -> Result<Vec<Text>, WorkshopError> {
    let mut files = match language {
        Language::Rust => rust(name)?,
        Language::Python => with_sdk(named(files::PYTHON_TEMPLATE, name), files::PYTHON_SDK),
        Language::JavaScript => with_sdk(named(files::JS_TEMPLATE, name), files::JS_SDK),
    };
    files.extend(named(files::SCENARIOS, name));
    files.extend(as_they_are(files::WIT));
    Ok(files)
}

fn rust(name: &str) -> Result<Vec<Text>, WorkshopError> {
    let package = package_name(name);
    let mut files: Vec<Text> = named(files::RUST_TEMPLATE, name);
    for (_, text) in files.iter_mut().filter(|(path, _)| path == "Cargo.toml") {
        *text = text.replace(&format!("name = \"{name}\""), &format!("name = \"{package}\"")).into();
    }
    files.push(("Cargo.lock".to_owned(), lock(&package)?.into()));
    files.push(("sdk/rust/Cargo.toml".to_owned(), sdk_manifest(files::RUST_SDK_MANIFESTS)?.into()));
    files.extend(as_they_are(files::RUST_SDK));
    files.extend(as_they_are(files::RUST_BINDINGS));
    Ok(files)
}

fn with_sdk(mut files: Vec<Text>, sdk: &'static [Embedded]) -> Vec<Text> {
    files.extend(as_they_are(sdk));
    files
}

fn as_they_are(files: &'static [Embedded]) -> Vec<Text> {
    files.iter().map(|file| (file.path.to_owned(), file.text.into())).collect()
}

/// A template's files for a policy of that name. A file `gitignore` has lost its dot so that it ignores nothing here.
fn named(files: &'static [Embedded], name: &str) -> Vec<Text> {
    let path = |file: &Embedded| if file.path == "gitignore" { ".gitignore".to_owned() } else { file.path.to_owned() };
    files.iter().map(|file| (path(file), file.text.replace(PLACEHOLDER, name).into())).collect()
}

/// What cargo may call the package: it wants a letter first, and no name that a dependency has.
fn package_name(name: &str) -> String {
    let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if first && ![SDK, GENERATOR].contains(&name) { name.to_owned() } else { format!("policy-{name}") }
}

/// A lock file with the versions of the SDK's own, so that what is built does not change with the day.
fn lock(package: &str) -> Result<String, WorkshopError> {
    let shared: Table = parsed(files::RUST_LOCK)?;
    let packages = shared.get("package").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let text = |name: &str, key: &str| {
        let of_name = packages.iter().find(|package| package.get("name").and_then(Value::as_str) == Some(name));
        let value = of_name.and_then(|package| package.get(key)).and_then(Value::as_str);
        value.map(str::to_owned).ok_or_else(|| damaged(&format!("{name} has no {key} in Cargo.lock")))
    };
    let sdk = text(SDK, "version")?;
    let (version, source) = (text(GENERATOR, "version")?, text(GENERATOR, "source")?);
    let checksum = text(GENERATOR, "checksum")?;
    let mut packages = [
        (package, format!("version = \"0.1.0\"\ndependencies = [\n \"{SDK}\",\n]\n")),
        (SDK, format!("version = \"{sdk}\"\ndependencies = [\n \"{GENERATOR}\",\n]\n")),
        (GENERATOR, format!("version = \"{version}\"\nsource = \"{source}\"\nchecksum = \"{checksum}\"\n")),
    ];
    packages.sort();
    let packages = packages.map(|(name, rest)| format!("\n[[package]]\nname = \"{name}\"\n{rest}"));
    let head =
        "# This file is automatically @generated by Cargo.\n# It is not intended for manual editing.\nversion = 4\n";
    Ok(format!("{head}{}", packages.concat()))
}

/// The SDK's manifest without what it inherits, since a project is a workspace of its own, and without the generator of
/// bindings, which a project gets written out.
fn sdk_manifest([sdk, workspace]: [&str; 2]) -> Result<String, WorkshopError> {
    let (mut sdk, workspace) = (parsed(sdk)?, parsed(workspace)?);
    sdk.remove("lints");
    let shared = workspace.get("workspace").and_then(|w| w.get("package")).and_then(Value::as_table);
    if let (Some(package), Some(shared)) = (sdk.get_mut("package").and_then(Value::as_table_mut), shared) {
        for (key, value) in package.iter_mut().filter(|(_, value)| inherited(value)) {
            shared.get(key.as_str()).into_iter().for_each(|there| *value = there.clone());
        }
    }
    let generator = sdk.get_mut("dependencies").and_then(|all| all.get_mut(GENERATOR));
    if let Some(features) = generator.and_then(|g| g.get_mut("features")).and_then(Value::as_array_mut) {
        features.retain(|feature| feature.as_str() != Some("macros"));
    }
    Ok(sdk.to_string())
}

fn parsed(text: &str) -> Result<Table, WorkshopError> {
    text.parse().map_err(|error: toml::de::Error| damaged(&error.to_string()))
}

/// Files of this program that are not what they were when it was built.
fn damaged(reason: &str) -> WorkshopError {
    let reason = format!("the SDK inside this program is damaged ({reason}): install loadline again");
    WorkshopError::Project { path: "sdk/rust".into(), reason }
}

fn inherited(value: &Value) -> bool {
    value.get("workspace").and_then(Value::as_bool) == Some(true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn of(files: &[Text], path: &str) -> String {
        files.iter().find(|(p, _)| p == path).unwrap_or_else(|| panic!("no {path}")).1.clone().into_owned()
    }

    #[test]
    fn names_are_those_of_the_contract() {
        let long = "x".repeat(64);
        for good in ["a", "my_Policy-2", "7up", "-", long.as_str()] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        let longer = "x".repeat(65);
        for bad in ["", "my policy", "a/b", "..", "ä", "a\n", longer.as_str()] {
            assert!(matches!(check_name(bad), Err(WorkshopError::BadName { .. })), "{bad}");
        }
    }

    #[test]
    fn a_project_has_its_policys_name_and_nothing_left_of_the_template() {
        let check = |language: Language, source: &str, built: &str| {
            let files = project("frugal", language).unwrap();
            for (path, text) in files.iter().filter(|(path, _)| !path.starts_with("sdk/")) {
                assert!(!text.contains(PLACEHOLDER), "{path}");
            }
            assert!(of(&files, source).contains("\"frugal\""), "{language}");
            assert!(of(&files, language.marker()).len() > 100, "{language}");
            assert!(of(&files, ".gitignore").contains(built), "{language}");
            assert!(of(&files, "README.md").contains("loadline policy build"), "{language}");
            assert!(of(&files, "scenarios/tight.toml").contains("expect = \"fits\""), "{language}");
            assert!(of(&files, "wit/policy@0.1.0/policy.wit").contains("package loadline:policy@"), "{language}");
        };
        check(Language::Rust, "src/lib.rs", "/target");
        check(Language::Python, "app.py", "/build");
        check(Language::JavaScript, "policy.js", "/build");
    }

    #[test]
    fn a_package_has_a_name_that_cargo_takes() {
        let check = |name: &str, expected: &str| assert_eq!(package_name(name), expected);
        check("frugal", "frugal");
        check("_x", "_x");
        check("7up", "policy-7up");
        check("-x", "policy--x");
        check("wit-bindgen", "policy-wit-bindgen");
        check("loadline-policy-sdk", "policy-loadline-policy-sdk");
    }

    #[test]
    fn the_lock_file_has_the_project_and_the_versions_of_the_sdk() {
        let mine: Table = lock("my-own").unwrap().parse().unwrap();
        let theirs: Table = files::RUST_LOCK.parse().unwrap();
        let package = |lock: &Table, name: &str| {
            lock["package"].as_array().unwrap().iter().find(|p| p["name"].as_str() == Some(name)).cloned().unwrap()
        };
        assert_eq!(package(&mine, GENERATOR)["checksum"], package(&theirs, GENERATOR)["checksum"]);
        assert_eq!(package(&mine, "my-own")["dependencies"].as_array().unwrap().len(), 1);
        let names: Vec<_> = mine["package"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
        assert_eq!(names, [SDK, "my-own", GENERATOR]);
    }

    #[test]
    fn the_sdk_inherits_nothing() {
        let manifest: Table = sdk_manifest(files::RUST_SDK_MANIFESTS).unwrap().parse().unwrap();
        let package = manifest["package"].as_table().unwrap();
        assert_eq!(package["edition"].as_str(), Some("2024"));
        assert!(package.values().all(|value| !inherited(value)), "{package:?}");
        assert!(!manifest.contains_key("lints"));
        let features = manifest["dependencies"][GENERATOR]["features"].as_array().unwrap();
        assert_eq!(features.iter().filter_map(Value::as_str).collect::<Vec<_>>(), ["realloc"]);
    }
}

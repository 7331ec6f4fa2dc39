//! The kernels of `host/cuda`: from their sources to the PTX that is committed.
//!
//! The PTX is committed so that building the host needs no CUDA. In return `check` has to prove that it is what the
//! sources compile to, byte for byte, with the compiler that `kernels/toolkit.txt` names by its hash.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Outcome, Stop, shell};

const SOURCES: &str = "host/cuda/kernels";
const COMMITTED: &str = "host/cuda/ptx";
const TOOLKIT: &str = "host/cuda/kernels/toolkit.txt";
/// Where the compiler is put, and built files aside.
const BUILD: &str = "target/cuda-kernels";
/// The oldest GPUs that are served; drivers compile its PTX for all newer ones, too.
const TARGET: &str = "compute_80";
/// GPUs that the PTX is assembled for, to show that it is valid: A100, RTX 30, RTX 40, H100, RTX 50.
const GPUS: [&str; 5] = ["sm_80", "sm_86", "sm_89", "sm_90", "sm_120"];
/// The compiler names its own version, which drivers older than it refuse. No kernel uses anything newer than this one,
/// which the assembler proves, and every driver that serves takes it.
const VERSION: &str = ".version 7.1";

/// Compiles every kernel and replaces the committed PTX.
///
/// # Errors
/// When the compiler is not to be had, or a kernel does not compile.
pub fn build(root: &Path) -> Outcome {
    let built = compiled(root, &toolkit(root)?)?;
    let committed = committed(root)?;
    for name in committed.keys().filter(|name| !built.contains_key(*name)) {
        remove(&root.join(COMMITTED).join(name))?;
    }
    for (name, text) in &built {
        write(&root.join(COMMITTED).join(name), text)?;
    }
    println!("{COMMITTED}: {}", summary(&built));
    Ok(())
}

/// Compiles every kernel aside and compares the PTX with what is committed.
///
/// # Errors
/// [`Stop::Failed`] names every file that differs; [`Stop::Skipped`] when the compiler is not to be had.
pub fn check(root: &Path) -> Outcome {
    let compiler = toolkit(root).map_err(|stop| Stop::Skipped(format!("SKIPPED: nothing compares the PTX: {stop}")))?;
    let built = compiled(root, &compiler)?;
    let differences = differences(&committed(root)?, &built);
    if differences.is_empty() {
        println!("{COMMITTED} is what {SOURCES} compiles to: {}", summary(&built));
        return Ok(());
    }
    Err(Stop::failed(format!(
        "{COMMITTED} is not what {SOURCES} compiles to; run `cargo xtask cuda-kernels` and commit the result\n  {}",
        differences.join("\n  ")
    )))
}

type Texts = BTreeMap<String, String>;

fn summary(built: &Texts) -> String {
    let kernels: usize = built.values().map(|text| text.matches(".visible .entry").count()).sum();
    format!("{kernels} kernels in {} modules", built.len())
}

fn differences(committed: &Texts, built: &Texts) -> Vec<String> {
    let mut names: Vec<&String> = committed.keys().chain(built.keys()).collect();
    names.sort();
    names.dedup();
    let word = |name: &String| match (committed.get(name), built.get(name)) {
        (Some(old), Some(new)) if old == new => None,
        (Some(_), Some(_)) => Some(format!("{name} differs")),
        (Some(_), None) => Some(format!("{name} has no source")),
        (None, _) => Some(format!("{name} is not committed")),
    };
    names.into_iter().filter_map(word).collect()
}

/// The folder of the compiler's programs, which is fetched where it is not there yet.
fn toolkit(root: &Path) -> Outcome<PathBuf> {
    let wanted = read(&root.join(TOOLKIT))?;
    let (folder, stamp) = (root.join(BUILD).join("toolkit"), root.join(BUILD).join("toolkit.txt"));
    if read(&stamp).ok().as_ref() != Some(&wanted) {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore"]);
        pip.args(["--no-deps", "--upgrade"]);
        pip.args(["--only-binary=:all:", "--require-hashes", "--target"]).arg(&folder);
        shell::run(pip.arg("--requirement").arg(root.join(TOOLKIT)))?;
        write(&stamp, &wanted)?;
    }
    Ok(folder.join("nvidia/cu13/bin"))
}

/// The PTX of every source, by the name of its file.
fn compiled(root: &Path, compiler: &Path) -> Outcome<Texts> {
    let built = root.join(BUILD).join("ptx");
    std::fs::create_dir_all(&built).map_err(|error| cannot("make", &built, &error))?;
    let sources = files(&root.join(SOURCES), "cu")?;
    sources.into_iter().map(|source| one(&source, compiler, &built)).collect()
}

fn one(source: &Path, compiler: &Path, built: &Path) -> Outcome<(String, String)> {
    let name = format!("{}.ptx", source.file_stem().unwrap_or_default().to_string_lossy());
    let file = built.join(&name);
    let mut nvcc = Command::new(compiler.join("nvcc"));
    nvcc.args(["-ptx", "-std=c++17", "-O3", "-arch", TARGET]).arg(source).arg("-o").arg(&file);
    // Flags of the caller would end up in the bytes.
    for variable in ["NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS"] {
        nvcc.env_remove(variable);
    }
    shell::run(&mut nvcc)?;
    let text = with_version(&name, &read(&file)?)?;
    write(&file, &text)?;
    for gpu in GPUS {
        let mut ptxas = Command::new(compiler.join("ptxas"));
        shell::run(ptxas.args(["-arch", gpu, "-o", "/dev/null"]).arg(&file))?;
    }
    Ok((name, text))
}

/// The same text with the version that it needs.
fn with_version(name: &str, text: &str) -> Outcome<String> {
    let line = text.lines().find(|line| line.starts_with(".version "));
    let line = line.ok_or_else(|| Stop::failed(format!("{name}: nvcc has written no version")))?;
    Ok(text.replacen(line, VERSION, 1))
}

fn committed(root: &Path) -> Outcome<Texts> {
    let name = |file: &Path| file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let files = files(&root.join(COMMITTED), "ptx")?;
    files.into_iter().map(|file| Ok((name(&file), read(&file)?))).collect()
}

/// The files of a folder with an extension, in order.
fn files(folder: &Path, extension: &str) -> Outcome<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|error| cannot("read", folder, &error))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|found| found == extension));
    files.sort();
    Ok(files)
}

fn read(file: &Path) -> Outcome<String> {
    std::fs::read_to_string(file).map_err(|error| cannot("read", file, &error))
}

fn write(file: &Path, text: &str) -> Outcome {
    std::fs::write(file, text).map_err(|error| cannot("write", file, &error))
}

fn remove(file: &Path) -> Outcome {
    std::fs::remove_file(file).map_err(|error| cannot("remove", file, &error))
}

fn cannot(what: &str, file: &Path, error: &std::io::Error) -> Stop {
    Stop::failed(format!("cannot {what} {}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(files: &[(&str, &str)]) -> Texts {
        files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn every_kind_of_difference_is_named() {
        let committed = texts(&[("a.ptx", "1"), ("b.ptx", "1"), ("c.ptx", "1")]);
        let built = texts(&[("a.ptx", "1"), ("b.ptx", "2"), ("d.ptx", "1")]);
        let expected = ["b.ptx differs", "c.ptx has no source", "d.ptx is not committed"];
        assert_eq!(differences(&committed, &built), expected);
        assert_eq!(differences(&built, &built), [""; 0]);
    }

    #[test]
    fn the_version_is_the_oldest_that_serves() {
        let text = "// .version\n.version 9.0\n.target sm_80\n";
        assert_eq!(with_version("a.ptx", text).unwrap_or_default(), "// .version\n.version 7.1\n.target sm_80\n");
        assert!(with_version("a.ptx", ".target sm_80\n").is_err());
    }
}

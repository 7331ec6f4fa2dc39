//! The kernels as a library for this processor, built by a C++ compiler from the sources that nvcc compiles.
// A compiler is run, and files are what it leaves.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../host/cuda/kernels");

/// The library, for [`Settings::emulation`](crate::Settings), in a folder that may keep it: it is built when the
/// sources have changed.
///
/// # Errors
/// If no C++ compiler builds it, with what to do about that.
pub fn emulation(folder: &Path) -> Result<PathBuf, String> {
    let digest = digest().map_err(|e| format!("{SOURCES}: {e}"))?;
    let file = folder.join(format!("kernels-{digest:016x}.so"));
    if !file.is_file() {
        build(&file)?;
    }
    Ok(file)
}

fn digest() -> io::Result<u64> {
    let mut hasher = DefaultHasher::new();
    for folder in [SOURCES.to_owned(), format!("{SOURCES}/emulation")] {
        let files = fs::read_dir(folder)?.map(|entry| entry.map(|e| e.path())).collect::<io::Result<BTreeSet<_>>>()?;
        for file in files.iter().filter(|path| path.is_file()) {
            hasher.write(&fs::read(file)?);
        }
    }
    Ok(hasher.finish())
}

/// Builds beside the file and renames, since several tests may want it at the same time.
fn build(file: &Path) -> Result<(), String> {
    let part = file.with_extension(format!("{}.part", std::process::id()));
    let compile = |compiler: &str| {
        let mut command = Command::new(compiler);
        command.current_dir(SOURCES).args(["-std=c++17", "-O3", "-w", "-fPIC", "-shared", "-ffp-contract=off"]);
        command.args(["emulation/all.cpp", "emulation/emulation.cpp", "-o"]).arg(&part);
        command.status().is_ok_and(|status| status.success())
    };
    let named = std::env::var("CXX").into_iter();
    if !named.chain(["c++", "g++", "clang++"].map(str::to_owned)).any(|compiler| compile(&compiler)) {
        return Err("no C++ compiler builds the kernels; install g++ or set CXX".to_owned());
    }
    fs::rename(part, file).map_err(|e| format!("{}: {e}", file.display()))
}

//! The CUDA build without a GPU: every crate that knows the driver compiles and passes its tests over the mock, and the
//! kernels run on the processor.
//!
//! In `ci` this is a step of its own, which passes at once where nothing of CUDA has changed: the crates themselves are
//! compiled and tested with all others, and what is added here takes minutes. Those are whole runs on emulated kernels;
//! besides, the program without CUDA, which is nobody's default, and the text of the GPU check.

use std::path::Path;
use std::process::Command;

use crate::{Outcome, Stop, cuda_kernels, shell};

/// What belongs to CUDA: paths from the root that begin like this.
const PATHS: [&str; 8] = [
    "host/cuda/",
    "host/device/src/cuda/",
    "host/nn/src/cuda/",
    "host/loadline/src/gpu/",
    "host/loadline/src/recording/cuda/",
    "host/loadline/tests/cuda.rs",
    "tests/cuda-mock/",
    "benches/gpu_",
];

/// The tests that run over the mock, those among them that take minutes, too. With the features of the whole workspace,
/// so that nothing is compiled a second time.
const SUITE: &str = "test --release --locked --workspace --no-fail-fast --features loadline-cuda-mock/kernels \
                     --test driver --test cuda --test kernels -- --include-ignored";

/// Compiles the CUDA build and runs the mock's suites.
///
/// # Errors
/// When anything does not compile or a test fails.
pub fn run(root: &Path) -> Outcome {
    rest(root)?;
    cargo(root, SUITE)
}

/// The same where CUDA code has changed since the branch left its base, which is what `ci` does.
///
/// # Errors
/// As [`run`].
pub fn in_ci(root: &Path) -> Outcome {
    let changed = changed(root)?;
    if changed.is_empty() {
        println!("nothing of CUDA has changed");
        return Ok(());
    }
    println!("changed: {}", changed.join(", "));
    run(root)
}

/// What no other step compiles or reads.
fn rest(root: &Path) -> Outcome {
    cargo(root, "check --release --locked -p loadline-cli --no-default-features")?;
    for script in ["benches/gpu_check.py", "benches/gpu_outside.py", "benches/gpu_peers.py"] {
        let text = format!("import ast,sys; ast.parse(open(sys.argv[1]).read(), '{script}')");
        shell::run(Command::new("python3").current_dir(root).args(["-c", &text, script]))?;
    }
    shell::run(Command::new("bash").current_dir(root).args(["-n", "benches/gpu_check.sh"]))?;
    match cuda_kernels::check(root) {
        // Without a network there is no compiler; what the PTX computes is then shown by nothing but its last build.
        Err(Stop::Skipped(why)) => {
            println!("{why}");
            Ok(())
        }
        other => other,
    }
}

fn cargo(root: &Path, arguments: &str) -> Outcome {
    shell::run(Command::new("cargo").current_dir(root).args(arguments.split(' ')))
}

/// Files of CUDA that differ from where this branch left its base, committed or not. Without a base it is the last
/// commit that counts.
fn changed(root: &Path) -> Outcome<Vec<String>> {
    let git = |arguments: &[&str]| shell::output(Command::new("git").current_dir(root).args(arguments));
    let base = ["origin/main", "origin/master", "main"].iter().find_map(|branch| {
        let quiet = git(&["rev-parse", "--verify", "--quiet", &format!("{branch}^{{commit}}")]).ok()?;
        let head = git(&["rev-parse", "HEAD"]).ok()?;
        (quiet.trim() != head.trim()).then(|| git(&["merge-base", "HEAD", branch]).ok()).flatten()
    });
    let base = base.map_or_else(|| "HEAD~1".to_owned(), |base| base.trim().to_owned());
    // A first commit has none before it: everything in it is new.
    let differing = git(&["diff", "--name-only", &base]).or_else(|_| git(&["ls-files"]))?;
    let added = git(&["ls-files", "--others", "--exclude-standard"])?;
    Ok(of_cuda(differing.lines().chain(added.lines())))
}

fn of_cuda<'a>(files: impl Iterator<Item = &'a str>) -> Vec<String> {
    files.filter(|file| PATHS.iter().any(|path| file.starts_with(path))).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_cuda_are_told_from_others() {
        let files = ["host/nn/src/cuda/arena.rs", "host/nn/src/backend.rs", "benches/gpu_check.sh", "README.md"];
        assert_eq!(of_cuda(files.into_iter()), ["host/nn/src/cuda/arena.rs", "benches/gpu_check.sh"]);
    }

    #[test]
    fn every_path_of_cuda_exists() {
        let root = crate::workspace_root();
        for path in PATHS.iter().filter(|path| **path != "benches/gpu_") {
            assert!(root.join(path).exists(), "{path} is gone: nobody would notice a change of CUDA code");
        }
    }
}

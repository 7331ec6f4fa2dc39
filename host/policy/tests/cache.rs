//! Compiled code that was kept: used if nobody else could have touched it, compiled again otherwise.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use common::*;
use loadline_core::*;
use loadline_policy::settings::resolve;
use loadline_policy::{Code, Decided, Limits, Policy, PolicyEngine, builtin};

fn load(folder: &Path) -> Policy {
    PolicyEngine::new(Limits::default()).unwrap().with_cache(folder).load(builtin()[2].component).unwrap()
}

fn code(folder: &Path) -> Code {
    load(folder).code().clone()
}

#[track_caller]
fn not_kept(folder: &Path) {
    let code = code(folder);
    assert!(matches!(code, Code::NotKept { .. }), "{code:?}");
}

fn decided(policy: &Policy) -> Decided {
    let (job, machine) = (job(&shapes(), Knobs::default()), machine());
    let (budget, settings) = (budget(4 << 30), resolve(policy.schema(), &[]).unwrap());
    let situation = situation(&job, &machine, budget, &settings);
    policy.decide(&situation, &mut Simulator::new(&job, &machine, budget)).unwrap()
}

/// A folder that does not exist yet, and what owns it.
fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("new/compiled");
    (dir, folder)
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn only_file(folder: &Path) -> PathBuf {
    let mut files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let file = files.next().unwrap();
    assert_eq!(files.next(), None);
    file
}

#[test]
fn what_was_kept_decides_alike() {
    let (_dir, folder) = place();
    let (fresh, cached) = (load(&folder), load(&folder));
    assert_eq!((fresh.code(), cached.code()), (&Code::Kept, &Code::Cached));
    assert_eq!(fresh.id(), cached.id());
    assert_eq!(decided(&fresh), decided(&cached));
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(only_file(&folder)).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn without_a_folder_nothing_is_kept() {
    let policy = PolicyEngine::new(Limits::default()).unwrap().load(builtin()[2].component).unwrap();
    assert_eq!(policy.code(), &Code::Compiled);
}

#[test]
fn a_damaged_file_is_compiled_again() {
    let (_dir, folder) = place();
    assert_eq!(code(&folder), Code::Kept);
    let file = only_file(&folder);
    let whole = fs::read(&file).unwrap();
    let mut damaged: Vec<Vec<u8>> = [0, 20, 60, whole.len() / 2, whole.len() - 1]
        .into_iter()
        .map(|at| {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            bytes
        })
        .collect();
    damaged.extend([0, 10, 40, 48, whole.len() - 1].map(|len| whole[..len].to_vec()));
    damaged.push([whole.as_slice(), b"more"].concat());
    for bytes in damaged {
        fs::write(&file, bytes).unwrap();
        assert_eq!(code(&folder), Code::Kept);
        assert!(fs::read(&file).unwrap() == whole, "the file was not mended");
        assert_eq!(code(&folder), Code::Cached);
    }
}

#[test]
fn the_file_of_another_component_is_not_taken() {
    let (_dir, folder) = place();
    assert_eq!(code(&folder), Code::Kept);
    let file = only_file(&folder);
    let engine = PolicyEngine::new(Limits::default()).unwrap().with_cache(&folder);
    engine.load(builtin()[1].component).unwrap();
    let other = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).find(|path| *path != file).unwrap();
    fs::rename(other, &file).unwrap();
    let policy = load(&folder);
    assert_eq!((policy.code(), policy.id().name.as_str()), (&Code::Kept, "manual-swap"));
}

#[test]
fn a_folder_that_others_may_enter_is_not_used() {
    for mode in [0o777, 0o770, 0o702, 0o755] {
        let (_dir, folder) = place();
        assert_eq!(code(&folder), Code::Kept);
        chmod(&folder, mode);
        not_kept(&folder);
        chmod(&folder, 0o700);
        assert_eq!(code(&folder), Code::Cached);
    }
}

#[test]
fn a_file_that_others_may_write_is_not_used() {
    let (_dir, folder) = place();
    for mode in [0o666, 0o620, 0o602, 0o644] {
        code(&folder);
        chmod(&only_file(&folder), mode);
        assert_eq!(code(&folder), Code::Kept, "{mode:o}");
        assert_eq!(code(&folder), Code::Cached, "{mode:o}");
    }
}

#[test]
fn links_are_not_followed() {
    let (dir, folder) = place();
    assert_eq!(code(&folder), Code::Kept);
    let link = dir.path().join("link");
    symlink(&folder, &link).unwrap();
    not_kept(&link);
    let (file, aside) = (only_file(&folder), dir.path().join("aside"));
    fs::rename(&file, &aside).unwrap();
    symlink(&aside, &file).unwrap();
    assert_eq!(code(&folder), Code::Kept);
    assert!(fs::symlink_metadata(&file).unwrap().is_file());
}

#[test]
fn a_place_that_is_no_folder_only_costs_time() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    not_kept(&file);
    not_kept(&file.join("below"));
}

#[test]
fn a_folder_in_place_of_the_file_only_costs_time() {
    let (_dir, folder) = place();
    assert_eq!(code(&folder), Code::Kept);
    let file = only_file(&folder);
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    not_kept(&folder);
}

#[test]
fn many_may_write_at_once() {
    let (_dir, folder) = place();
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(|| load(&folder))).collect();
        for thread in all {
            let policy = thread.join().unwrap();
            assert!(matches!(policy.code(), Code::Kept | Code::Cached), "{:?}", policy.code());
        }
    });
    only_file(&folder);
    assert_eq!(code(&folder), Code::Cached);
}

#[test]
fn old_files_make_way() {
    let (_dir, folder) = place();
    assert_eq!(code(&folder), Code::Kept);
    fs::remove_file(only_file(&folder)).unwrap();
    fs::File::create(folder.join("notes")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    for i in 0..100 {
        let path = folder.join(format!("{i:064x}"));
        fs::File::create(path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    }
    assert_eq!(code(&folder), Code::Kept);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 64 + 1);
    assert_eq!(code(&folder), Code::Cached);
}

/// Processes of two containers may have the same number: the files that the other one is writing stay as they are.
#[test]
fn a_name_that_is_taken_is_left_to_its_owner() {
    let (_dir, folder) = place();
    assert_eq!(code(&folder), Code::Kept);
    let file = only_file(&folder);
    fs::remove_file(&file).unwrap();
    let key = file.file_name().unwrap().to_str().unwrap();
    let others: Vec<PathBuf> =
        (0..40).map(|turn| folder.join(format!(".{}-{turn}-{key}", std::process::id()))).collect();
    others.iter().for_each(|path| fs::write(path, "half").unwrap());
    assert_eq!(code(&folder), Code::Kept);
    assert_eq!(code(&folder), Code::Cached);
    assert!(others.iter().all(|path| fs::read(path).is_ok_and(|half| half == b"half")));
}

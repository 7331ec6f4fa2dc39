//! Pictures read back.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use loadline_media::{FrameFolder, MediaError, write_png};

fn pixels(count: u32) -> Vec<u8> {
    (0..count * 3).map(|i| (i * 7) as u8).collect()
}

fn read(path: &Path) -> (u32, u32, Vec<u8>) {
    let mut reader = png::Decoder::new(BufReader::new(File::open(path).unwrap())).read_info().unwrap();
    let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut rgb).unwrap();
    (info.width, info.height, rgb)
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn pictures_come_back_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.png");
    write_png(&path, 7, 5, &pixels(35)).unwrap();
    assert_eq!(read(&path), (7, 5, pixels(35)));
    write_png(&path, 3, 1, &pixels(3)).unwrap();
    assert_eq!(read(&path), (3, 1, pixels(3)));
    assert_eq!(names(dir.path()), ["a.png"]);
}

#[test]
fn pictures_of_the_wrong_size_leave_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let check = |width, height, bytes, message: &str| {
        let error = write_png(&dir.path().join("a.png"), width, height, &vec![0; bytes]).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    };
    check(7, 5, 104, "104 bytes instead of 105");
    check(0, 5, 0, "no pixels");
    check(u32::MAX, u32::MAX, 3, "3 bytes instead of");
    assert!(names(dir.path()).is_empty());
}

#[test]
fn frames_are_numbered_from_one() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("new/frames");
    let mut frames = FrameFolder::create(&folder, 2, 2).unwrap();
    for _ in 0..3 {
        frames.push_frame(&pixels(4)).unwrap();
    }
    assert!(matches!(frames.push_frame(&[0]), Err(MediaError::FrameBytes { .. })));
    assert_eq!(frames.frames(), 3);
    assert!(!folder.exists(), "a folder that is not finished has no name");
    frames.finish().unwrap();
    assert_eq!(names(&folder), ["frame_0001.png", "frame_0002.png", "frame_0003.png"]);
    assert_eq!(names(&dir.path().join("new")), ["frames"]);
}

#[test]
fn frames_of_two_runs_do_not_mix() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("frames");
    let write = || {
        let mut frames = FrameFolder::create(&folder, 2, 2)?;
        frames.push_frame(&pixels(4))?;
        frames.finish()
    };
    std::fs::create_dir(&folder).unwrap();
    write().unwrap();
    let error = write().unwrap_err();
    assert!(error.to_string().contains("already holds frame_0001.png"), "{error}");
    assert_eq!(names(dir.path()), ["frames"]);
}

#[test]
fn a_target_that_is_a_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = write_png(dir.path(), 1, 1, &[0; 3]).unwrap_err();
    assert!(matches!(error, MediaError::Io { .. }), "{error}");
}

//! Videos taken apart and decoded again.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use loadline_media::{FrameRate, MediaError, VideoWriter};
use openh264::decoder::Decoder;
use openh264::formats::YUVSource;

mod mp4;
use mp4::Track;

/// A moving colour pattern without sharp edges, which 4:2:0 would blur by design.
fn frame(width: u32, height: u32, time: u32) -> Vec<u8> {
    let wave = |x: f64| (127.5 + 110.0 * x.sin()) as u8;
    let pixel = |i: u32| {
        let (x, y, t) = (f64::from(i % width), f64::from(i / width), f64::from(time));
        [wave(x / 23.0 + t / 3.0), wave(y / 19.0 - t / 5.0), wave((x + y) / 31.0)]
    };
    (0..width * height).flat_map(pixel).collect()
}

fn write(path: &Path, width: u32, height: u32, rate: FrameRate, frames: u32) {
    let mut writer = VideoWriter::create(path, width, height, rate).unwrap();
    for time in 0..frames {
        writer.push_frame(&frame(width, height, time)).unwrap();
    }
    assert_eq!(writer.frames(), u64::from(frames));
    writer.finish().unwrap();
}

/// RGB of a decoded picture by the inverse of the matrix that its size implies.
fn to_rgb(yuv: &impl YUVSource, width: usize, height: usize) -> Vec<u8> {
    let high = width >= 1280 || height > 576;
    let (red, blue) = if high { (0.2126, 0.0722) } else { (0.299, 0.114) };
    let green = 1.0 - red - blue;
    let (stride, chroma_stride, _) = yuv.strides();
    let pixel = |i: usize| {
        let (x, y) = (i % width, i / width);
        let chroma = y / 2 * chroma_stride + x / 2;
        let luma = (f64::from(yuv.y()[y * stride + x]) - 16.0) / 219.0;
        let cb = (f64::from(yuv.u()[chroma]) - 128.0) / 224.0;
        let cr = (f64::from(yuv.v()[chroma]) - 128.0) / 224.0;
        let (r, b) = (luma + 2.0 * (1.0 - red) * cr, luma + 2.0 * (1.0 - blue) * cb);
        [r, (luma - red * r - blue * b) / green, b].map(|c| (c * 255.0).round().clamp(0.0, 255.0) as u8)
    };
    (0..width * height).flat_map(pixel).collect()
}

fn psnr(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    let squares: f64 = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    10.0 * (255.0 * 255.0 / (squares / a.len() as f64)).log10()
}

/// Lowest quality of any frame, after decoding in order.
fn worst_psnr(track: &Track, width: u32, height: u32) -> f64 {
    let mut decoder = Decoder::new().unwrap();
    decoder.decode(&track.parameters).unwrap();
    let (w, h) = (width as usize, height as usize);
    let quality = |(time, sample): (usize, &Vec<u8>)| {
        let picture = decoder.decode(sample).unwrap().expect("a picture for every sample");
        assert_eq!(picture.dimensions(), (w, h));
        psnr(&to_rgb(&picture, w, h), &frame(width, height, time as u32))
    };
    track.samples.iter().enumerate().map(quality).fold(f64::INFINITY, f64::min)
}

#[test]
fn frames_come_back_as_they_were_pushed() {
    let dir = tempfile::tempdir().unwrap();
    let check = |width: u32, height: u32, rate: (u32, u32), ticks: u32| {
        let path = dir.path().join(format!("{width}x{height}.mp4"));
        write(&path, width, height, FrameRate::new(rate.0, rate.1).unwrap(), 10);
        let file = std::fs::read(&path).unwrap();
        assert_eq!(mp4::kinds(&file), ["ftyp", "moov", "mdat"], "the index comes first");
        let track = Track::read(&file);
        assert_eq!(track.size, (width as u16, height as u16));
        assert_eq!(track.timing, (90_000, vec![(10, ticks)]));
        assert_eq!((track.profile, track.samples.len()), (77, 10));
        let quality = worst_psnr(&track, width, height);
        assert!(quality > 36.0, "{width}x{height}: {quality} dB");
    };
    check(96, 64, (16, 1), 5625);
    check(82, 46, (24, 1), 3750);
    check(832, 480, (30_000, 1001), 3003);
    check(1280, 720, (16, 1), 5625);
    check(16, 16, (1, 2), 180_000);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 5, "no temporary files are left");
}

/// Whether the parameter sets hold a colour description with these numbers: format 5 (three bits), limited range,
/// description present, then a byte for each of primaries, transfer and matrix.
fn has_colours(track: &Track, number: u8) -> bool {
    let bits =
        |bytes: &[u8]| -> Vec<u8> { bytes.iter().flat_map(|byte| (0..8).rev().map(move |i| byte >> i & 1)).collect() };
    let wanted = [&[1, 0, 1, 0, 1][..], &bits(&[number; 3])].concat();
    bits(&track.parameters).windows(wanted.len()).any(|window| window == wanted)
}

#[test]
fn colours_are_tagged_by_size() {
    let dir = tempfile::tempdir().unwrap();
    let check = |width, height, number: u8| {
        let path = dir.path().join("a.mp4");
        write(&path, width, height, FrameRate::new(16, 1).unwrap(), 1);
        let track = Track::read(&std::fs::read(&path).unwrap());
        let found: Vec<u8> = (1..=9).filter(|n| has_colours(&track, *n)).collect();
        assert_eq!(found, [number], "{width}x{height}");
    };
    // Numbers of ITU-T H.273: 6 is SMPTE 170M, that is BT.601; 1 is BT.709.
    check(832, 480, 6);
    check(1280, 720, 1);
}

#[test]
fn equal_frames_give_equal_files() {
    let dir = tempfile::tempdir().unwrap();
    let files = ["a.mp4", "b.mp4"].map(|name| {
        let path = dir.path().join(name);
        write(&path, 128, 96, FrameRate::new(16, 1).unwrap(), 5);
        std::fs::read(path).unwrap()
    });
    assert_eq!(files[0], files[1]);
}

#[test]
fn sizes_and_rates_that_cannot_be_encoded_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mp4");
    let rate = FrameRate::new(16, 1).unwrap();
    let check = |width, height, message: &str| {
        let error = VideoWriter::create(&path, width, height, rate).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    };
    check(833, 480, "nearest size is 834x480");
    check(833, 481, "nearest size is 834x482");
    check(8, 480, "outside");
    check(0, 0, "outside");
    check(4096, 2160, "outside");
    check(3840, 3840, "outside");
    for (num, den) in [(0, 1), (16, 0), (241, 1), (u32::MAX, 1)] {
        assert!(matches!(FrameRate::new(num, den), Err(MediaError::FrameRate { .. })), "{num}/{den}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_video_without_frames_is_an_error_and_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let writer = VideoWriter::create(&dir.path().join("a.mp4"), 64, 64, FrameRate::new(16, 1).unwrap()).unwrap();
    assert!(matches!(writer.finish(), Err(MediaError::NoFrames { .. })));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn an_unfinished_video_leaves_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mp4");
    std::fs::write(&path, "old").unwrap();
    let mut writer = VideoWriter::create(&path, 64, 64, FrameRate::new(16, 1).unwrap()).unwrap();
    writer.push_frame(&frame(64, 64, 0)).unwrap();
    let error = writer.push_frame(&[0; 5]).unwrap_err();
    assert!(matches!(error, MediaError::FrameBytes { found: 5, expected: 12288, .. }), "{error}");
    drop(writer);
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let rate = FrameRate::new(16, 1).unwrap();
    let error = VideoWriter::create(Path::new("no-such-folder/a.mp4"), 64, 64, rate).unwrap_err();
    assert!(error.to_string().contains("no-such-folder/a.mp4"), "{error}");
    assert!(matches!(error, MediaError::Io { .. }));
}

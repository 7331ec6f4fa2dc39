//! How near a pass over weights comes to the disk's own rate: one row for each way of reading, measured in turns.
//!
//! `cargo run --release -p loadline-device --example disk_pass -- FOLDER [GIB] [BUSY]` makes a file of so many GiB in
//! the folder (4), reads parts of it that nobody has read before, and removes it. While it reads, so many threads
//! compute (0).
//!
//! `disk_pass rate THREADS MIB BUSY FILE...` prints how many bytes in a second so many threads read from the files, in
//! requests of so many MiB, past the page cache and into memory for all of them: into one buffer that a cache holds it
//! is faster. Meanwhile so many threads read memory, as blocks of few tokens do.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, clippy::disallowed_methods)]

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, Mutex};
use std::time::Instant;

use loadline_core::Bytes;
use loadline_device::disk::{DiskOptions, DiskReads, pass};
use rustix::mm::{Advice, madvise};

const MIB: u64 = 1 << 20;
/// What one measurement reads.
const PART: u64 = 64 * MIB;
/// Smaller than most blocks of a DiT, so that what lies between two of them counts.
const BLOCK: Bytes = Bytes::mib(16);
/// Tensors lie behind a header.
const HEADER: u64 = 104;
const LARGE: usize = 2 << 20;

/// A way to read a part; gives bytes per second.
type Read<'a> = Box<dyn Fn(&Path, u64) -> f64 + 'a>;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, numbers @ .., _] = &args[..]
        && mode == "rate"
        && let [Some(threads), Some(mib), Some(busy)] = [0, 1, 2].map(|n| numbers.get(n)?.parse::<usize>().ok())
    {
        println!("{:.0}", while_busy(busy, reading, || rate(threads, mib << 20, &args[4..])));
        return;
    }
    let Some(folder) = args.first() else {
        eprintln!("usage: disk_pass FOLDER [GIB] [BUSY], or disk_pass rate THREADS MIB BUSY FILE...");
        std::process::exit(2);
    };
    let number = |n: usize, default: u64| args.get(n).map_or(default, |text| text.parse().unwrap());
    let (bytes, busy) = (number(1, 4) << 30, number(2, 0));
    let path = PathBuf::from(folder).join("disk_pass.scratch");
    write(&path, bytes);
    let kinds = kinds();
    let rates = while_busy(busy as usize, computing, || measure(&path, bytes, &kinds));
    std::fs::remove_file(&path).unwrap();
    print(&kinds, &rates, busy);
}

/// Bytes per second of reading all whole requests of the files.
fn rate(threads: usize, request: usize, files: &[String]) -> f64 {
    let open = |path: &String| OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path).unwrap();
    let files: Vec<File> = files.iter().map(open).collect();
    let requests = |file: &File| file.metadata().unwrap().len() / request as u64;
    let places = files.iter().flat_map(|file| (0..requests(file)).map(move |n| (file, n * request as u64)));
    let places: Vec<(&File, u64)> = places.collect();
    plain(threads, request, &places)
}

/// Bytes per second of plain reads of these places, as fast as they go, into memory that is there for all of them.
fn plain(threads: usize, request: usize, places: &[(&File, u64)]) -> f64 {
    let mut memory = large_pages(places.len() * request);
    let start = memory.as_ptr().align_offset(LARGE);
    let next = Mutex::new(memory[start..].chunks_mut(request).zip(places));
    let ready = Barrier::new(threads);
    let read = || {
        ready.wait();
        let begun = Instant::now();
        loop {
            let asked = next.lock().unwrap().next();
            let Some((memory, (file, from))) = asked else { return begun };
            file.read_exact_at(memory, *from).unwrap();
        }
    };
    // The clock starts with the first that reads: whoever started them may get a processor later.
    let begun = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(read)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).min().unwrap()
    });
    (places.len() * request) as f64 / begun.elapsed().as_secs_f64()
}

/// Bytes that nothing between here and the disk can make fewer.
fn write(path: &Path, bytes: u64) {
    let mut file = File::create(path).unwrap();
    let (mut state, mut chunk) = (0x9e37_79b9_7f4a_7c15_u64, vec![0u8; 8 << 20]);
    for _ in 0..bytes / chunk.len() as u64 {
        for word in chunk.chunks_exact_mut(8) {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            word.copy_from_slice(&(state ^ (state >> 29)).to_le_bytes());
        }
        file.write_all(&chunk).unwrap();
    }
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

fn kinds() -> Vec<(&'static str, Read<'static>)> {
    let reader = |reads: DiskReads, in_flight: usize, header: u64| -> Read<'static> {
        Box::new(move |path, from| {
            let options = DiskOptions { reads, in_flight, ..DiskOptions::default() };
            let made = pass(path, from + header..from + PART, BLOCK, options, false).unwrap();
            assert!(made.report.notes.is_empty(), "{:?}", made.report);
            made.bytes.as_f64() / made.time.as_secs_f64()
        })
    };
    vec![
        (
            "the disk: O_DIRECT, one request of 8 MiB at a time",
            Box::new(|path: &Path, from| direct(path, from, 1, 8 * MIB)),
        ),
        (
            "the disk: O_DIRECT, 8 threads with requests of 1 MiB",
            Box::new(|path: &Path, from| direct(path, from, 8, MIB)),
        ),
        ("io_uring, 8 in flight", reader(DiskReads::Uring, 8, HEADER)),
        ("io_uring, 8 in flight, packed copy", reader(DiskReads::Uring, 8, 0)),
        ("io_uring, one at a time", reader(DiskReads::Uring, 1, HEADER)),
        ("O_DIRECT, 4 threads", reader(DiskReads::Direct, 8, HEADER)),
        ("page cache, given back", reader(DiskReads::Buffered, 8, HEADER)),
    ]
}

/// Plain reads of a part.
fn direct(path: &Path, from: u64, threads: usize, request: u64) -> f64 {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path).unwrap();
    let places: Vec<_> = (0..PART / request).map(|n| (&file, from + n * request)).collect();
    plain(threads, request as usize, &places)
}

/// So many bytes of memory from a large page on, in such pages if the system has them: a request to small ones is cut
/// into many, and slabs are in large ones, too.
fn large_pages(bytes: usize) -> Vec<u8> {
    let mut memory = vec![0u8; bytes.next_multiple_of(LARGE) + LARGE];
    let start = memory.as_ptr().align_offset(LARGE);
    let part = &mut memory[start..start + bytes.next_multiple_of(LARGE)];
    // SAFETY: it is this function's own memory, and the advice changes no byte of it.
    let advised = unsafe { madvise(part.as_mut_ptr().cast(), part.len(), Advice::LinuxHugepage) };
    advised.unwrap();
    part.fill(1);
    memory
}

/// Rates by kind and round; kinds take turns, and every measurement has a part of its own.
fn measure(path: &Path, bytes: u64, kinds: &[(&str, Read<'_>)]) -> Vec<Vec<f64>> {
    let parts = (bytes / PART) as usize;
    let mut rates = vec![Vec::new(); kinds.len()];
    for part in 0..parts / kinds.len() * kinds.len() {
        // Each round begins with another kind, so that none always comes after the same.
        let kind = (part + part / kinds.len()) % kinds.len();
        rates[kind].push(kinds[kind].1(path, part as u64 * PART));
    }
    rates
}

/// Does something while so many threads are busy.
fn while_busy<T, B: FnMut()>(threads: usize, busy: impl Fn() -> B + Sync, work: impl FnOnce() -> T) -> T {
    let (stop, ready) = (AtomicBool::new(false), Barrier::new(threads + 1));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut turn = busy();
                ready.wait();
                while !stop.load(Ordering::Relaxed) {
                    turn();
                }
            });
        }
        ready.wait();
        let done = work();
        stop.store(true, Ordering::Relaxed);
        done
    })
}

/// Computes with what a cache holds.
fn computing() -> impl FnMut() {
    let mut values = vec![1.0f32; 1 << 14];
    move || {
        values.iter_mut().for_each(|v| *v = v.mul_add(0.999, 0.001));
        std::hint::black_box(&mut values);
    }
}

/// Reads what no cache holds.
fn reading() -> impl FnMut() {
    let values = vec![1u32; 1 << 25];
    move || {
        std::hint::black_box(values.iter().fold(0u32, |sum, v| sum.wrapping_add(*v)));
    }
}

/// The value that so many quarters of the others are below.
fn quarter(values: &[f64], quarters: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() - 1) * quarters / 4]
}

fn print(kinds: &[(&str, Read<'_>)], rates: &[Vec<f64>], busy: u64) {
    println!("| read, {busy} threads computing | MB/s | quarter to three quarters | share of the disk's rate |");
    println!("|---|---|---|---|");
    for ((name, _), own) in kinds.iter().zip(rates) {
        // Other work comes and goes: what was measured in the same round is compared.
        let disk = |round: usize| rates[..2].iter().map(|rates| rates[round]).fold(0.0, f64::max);
        let shares: Vec<f64> = own.iter().enumerate().map(|(round, rate)| rate / disk(round)).collect();
        let [low, middle, high] = [1, 2, 3].map(|n| quarter(own, n) / 1e6);
        println!("| {name} | {middle:.0} | {low:.0} to {high:.0} | {:.2} |", quarter(&shares, 2));
    }
}

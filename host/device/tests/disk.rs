//! Reading weights in every way: the same bytes, within the ring, and an error that names the file where the disk, the
//! system or somebody else gets in the way.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::alloc::System;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use loadline_core::check::DISK_RING;
use loadline_core::{Bytes, DType};
use loadline_device::disk::{BUFFERS, BlockReader, DiskOptions, DiskReads, Refused, Report, Sum, Target, Way};
use loadline_device::memory::{Counting, Domain, live};
use loadline_device::{BlockSource, Packed, Segment, Slab, SlabView, Sources, WeightFiles, cached_share, load_block};
use loadline_engine::DeviceError;

#[global_allocator]
static ALLOCATOR: Counting<System> = Counting(System);

/// The counters and the page cache belong to everybody.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

const WAYS: [(DiskReads, Way); 3] =
    [(DiskReads::Uring, Way::Uring), (DiskReads::Direct, Way::Direct), (DiskReads::Buffered, Way::Buffered)];

fn options(reads: DiskReads) -> DiskOptions {
    DiskOptions { reads, ..DiskOptions::default() }
}

/// A file of small f32 numbers, none of them equal to its neighbours.
fn weights(path: &Path, elements: usize) {
    let values: Vec<u8> =
        (0..elements).flat_map(|i| ((i * 7919 % 65_537) as f32 / 1000.0 - 30.0).to_le_bytes()).collect();
    let file = File::create(path).unwrap();
    std::io::Write::write_all(&mut &file, &values).unwrap();
    // Direct reads see what is on disk, and dirty pages cannot be dropped.
    file.sync_all().unwrap();
}

fn segment(file: usize, offset: u64, elements: usize, place: usize, dtype: DType) -> Segment {
    let tensor = format!("tensor at {offset} of file {file}");
    Segment { tensor, file, offset, elements, file_dtype: DType::F32, place, dtype, scale: 1.0 }
}

/// Blocks over two files: large and small tensors, some converted, some at odd places, out of order.
fn blocks() -> Vec<BlockSource> {
    let block = |start: u64, dtype: DType| {
        let (f32, half) = (DType::F32, dtype);
        let tensors = [(1, 40, 700_000, half), (0, start, 900_001, f32), (0, start + 3_700_000, 17, half)];
        let mut place = 0;
        let mut segments = Vec::new();
        for (file, offset, elements, dtype) in tensors {
            segments.push(segment(file, offset, elements, place, dtype));
            place += dtype.bytes(elements as u64).round_up(64).0 as usize;
        }
        BlockSource { segments, packed: None }
    };
    vec![block(0, DType::Bf16), block(4096, DType::F16), block(100, DType::F32), block(4_000_008, DType::Bf16)]
}

struct Setup {
    files: Vec<PathBuf>,
    sources: Arc<Sources>,
    _dir: tempfile::TempDir,
}

fn setup() -> Setup {
    let dir = tempfile::tempdir_in(".").unwrap();
    let files = vec![dir.path().join("a.safetensors"), dir.path().join("b.safetensors")];
    weights(&files[0], 2_100_000);
    weights(&files[1], 800_000);
    let sources = Arc::new(Sources { files: WeightFiles::open(&files).unwrap(), blocks: blocks() });
    Setup { files, sources, _dir: dir }
}

fn slab(source: &BlockSource) -> Arc<Slab> {
    Slab::allocate(Bytes(source.length() as u64)).unwrap()
}

fn bits(slab: &Arc<Slab>) -> Vec<u16> {
    let view = SlabView { slab: Arc::clone(slab), offset: 0, elements: slab.bytes() / 2, dtype: DType::Bf16 };
    view.bf16().unwrap().iter().map(|v| v.to_bits()).collect()
}

fn report(reader: &BlockReader) -> Report {
    reader.report().lock().unwrap().clone()
}

/// Asks for all blocks at once and takes them as they come.
fn bring(reader: &mut BlockReader, sources: &Arc<Sources>) -> Result<Vec<Arc<Slab>>, DeviceError> {
    let slabs: Vec<_> = sources.blocks.iter().map(slab).collect();
    for (n, slab) in slabs.iter().enumerate() {
        // SAFETY: nobody reads the slab before all blocks have come.
        unsafe { reader.begin(sources, n, Target::slab(slab), true) };
    }
    let mut expected = None;
    while !reader.is_idle() {
        let Some(brought) = reader.advance() else { continue };
        assert!(expected.is_none_or(|number| number == brought.number), "blocks come in order");
        expected = Some(brought.number + 1);
        brought.result?;
    }
    Ok(slabs)
}

#[test]
fn every_way_brings_the_same_bytes() {
    let _alone = alone();
    let setup = setup();
    let plain: Vec<_> =
        setup.sources.blocks.iter().map(|b| bits(&load_block(&setup.sources.files, b).unwrap())).collect();
    for (reads, way) in WAYS {
        for in_flight in [1, 3, BUFFERS] {
            let mut reader = BlockReader::new(DiskOptions { in_flight, ..options(reads) });
            // The second time nothing is new to the reader.
            for _ in 0..2 {
                let slabs = bring(&mut reader, &setup.sources).unwrap();
                assert!(slabs.iter().map(bits).eq(plain.iter().cloned()), "{way}, {in_flight} in flight");
            }
            let report = report(&reader);
            assert!(report.way == Some(way) && report.notes.is_empty(), "{report:?}");
            assert!(report.in_flight <= in_flight && report.bytes > Bytes(30 << 20), "{report:?}");
        }
    }
}

#[test]
fn a_packed_block_goes_straight_to_its_place_and_is_checked() {
    let _alone = alone();
    let dir = tempfile::tempdir_in(".").unwrap();
    let path = dir.path().join("blocks.pack");
    weights(&path, 1_500_000);
    let raw = std::fs::read(&path).unwrap();
    let block = raw[8192..8192 + 5_000_004].to_vec();
    let source = |sum| {
        let packed = Some(Packed { file: 0, offset: 8192, bytes: block.len(), sum });
        let files = WeightFiles::open(std::slice::from_ref(&path)).unwrap();
        Arc::new(Sources { files, blocks: vec![BlockSource { segments: Vec::new(), packed }] })
    };
    for (reads, way) in WAYS {
        let mut reader = BlockReader::new(options(reads));
        let slabs = bring(&mut reader, &source(Sum::of(&block))).unwrap();
        let expected: Vec<u16> = block.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect();
        assert!(bits(&slabs[0]) == expected, "{way}");
        let report = report(&reader);
        // All but what is behind the last whole read.
        assert!(report.straight >= Bytes(4 << 20) && report.bytes == Bytes(5_000_004), "{report:?}");
        let error = bring(&mut reader, &source(1)).unwrap_err().to_string();
        assert!(error.contains("blocks.pack") && error.contains("damaged; delete the file"), "{error}");
    }
}

#[test]
fn what_is_refused_is_said_once_and_the_next_way_is_taken() {
    let _alone = alone();
    let setup = setup();
    let check = |reads: DiskReads, refused: Refused, way: Way, texts: &[&str]| {
        let mut reader = BlockReader::new(DiskOptions { refused, ..options(reads) });
        bring(&mut reader, &setup.sources).unwrap();
        bring(&mut reader, &setup.sources).unwrap();
        let report = report(&reader);
        assert_eq!(report.way, Some(way), "{report:?}");
        assert_eq!(report.notes.len(), texts.len(), "{report:?}");
        texts.iter().for_each(|text| assert!(report.notes.iter().any(|n| n.contains(text)), "{text}: {report:?}"));
    };
    let refused = |uring, direct| Refused { uring, direct };
    let no_direct = ["a.safetensors: O_DIRECT is refused", "b.safetensors: O_DIRECT is refused"];
    check(DiskReads::Auto, refused(false, false), Way::Uring, &[]);
    check(DiskReads::Auto, refused(true, false), Way::Direct, &["io_uring is refused"]);
    check(DiskReads::Uring, refused(true, false), Way::Direct, &["io_uring is refused"]);
    check(DiskReads::Direct, refused(true, false), Way::Direct, &[]);
    check(DiskReads::Auto, refused(false, true), Way::Buffered, &no_direct);
    check(DiskReads::Direct, refused(true, true), Way::Buffered, &no_direct);
    check(DiskReads::Buffered, refused(true, true), Way::Buffered, &[]);
}

/// Forbids io_uring to this thread and those that it starts, as containers do for whole programs.
fn forbid_io_uring() {
    let step = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut filter = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_io_uring_setup as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program is whole and lives until the call returns; the filter is this thread's alone.
    let results = unsafe {
        [
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program),
        ]
    };
    assert_eq!(results, [0, 0]);
}

#[test]
fn a_system_that_forbids_io_uring_is_read_from_by_threads() {
    let _alone = alone();
    let setup = setup();
    let sources = Arc::clone(&setup.sources);
    let read = move || {
        forbid_io_uring();
        assert!(loadline_device::disk::try_uring().is_err());
        let mut reader = BlockReader::new(DiskOptions::default());
        bring(&mut reader, &sources).unwrap();
        report(&reader)
    };
    let report = std::thread::spawn(read).join().unwrap();
    assert_eq!(report.way, Some(Way::Direct));
    assert!(report.notes[0].contains("io_uring is refused (Operation not permitted"), "{report:?}");
}

#[test]
fn a_file_system_in_memory_can_be_read_from() {
    let _alone = alone();
    let shm = Path::new("/dev/shm");
    if !shm.is_dir() {
        return;
    }
    let dir = tempfile::tempdir_in(shm).unwrap();
    let path = dir.path().join("a.safetensors");
    weights(&path, 500_000);
    let files = WeightFiles::open(std::slice::from_ref(&path)).unwrap();
    let blocks = vec![BlockSource { segments: vec![segment(0, 8, 400_000, 0, DType::F32)], ..BlockSource::default() }];
    let plain = bits(&load_block(&files, &blocks[0]).unwrap());
    let sources = Arc::new(Sources { files, blocks });
    for (reads, _) in WAYS {
        let mut reader = BlockReader::new(options(reads));
        // Old kernels refuse O_DIRECT there, new ones take it.
        assert!(bits(&bring(&mut reader, &sources).unwrap()[0]) == plain, "{reads:?}");
    }
}

/// What is done to a file while it is in use, and what is said of it.
#[test]
fn files_that_change_vanish_or_cannot_be_read_are_named() {
    let _alone = alone();
    let check = |what: &dyn Fn(&Path), text: &str| {
        for (reads, way) in WAYS {
            let setup = setup();
            let mut reader = BlockReader::new(options(reads));
            bring(&mut reader, &setup.sources).unwrap();
            what(&setup.files[0]);
            let error = bring(&mut reader, &setup.sources).unwrap_err();
            let DeviceError::Reading { file, detail } = &error else { panic!("{way}: {error}") };
            assert_eq!(*file, setup.files[0].display().to_string(), "{way}");
            assert!(detail.contains(text), "{way}: {detail}");
        }
    };
    let cut = |path: &Path| File::options().write(true).open(path).unwrap().set_len(1000).unwrap();
    check(&cut, "shorter than the 8400000 bytes");
    check(&|path| weights(path, 2_100_000), "has changed while the run was reading it");
    check(&|path| weights(path, 2_100_001), "has changed while the run was reading it");
    check(&|path| std::fs::remove_file(path).unwrap(), "was removed or replaced");
    let replace = |path: &Path| {
        let other = path.with_extension("new");
        std::fs::copy(path, &other).unwrap();
        std::fs::rename(&other, path).unwrap();
    };
    check(&replace, "was removed or replaced");
}

#[test]
fn a_read_error_is_one_of_its_block_and_the_reader_goes_on() {
    let _alone = alone();
    let setup = setup();
    for (reads, way) in WAYS {
        let mut reader = BlockReader::new(options(reads));
        reader.failing().store(true, std::sync::atomic::Ordering::Relaxed);
        let error = bring(&mut reader, &setup.sources).unwrap_err();
        let DeviceError::Reading { file, detail } = &error else { panic!("{way}: {error}") };
        assert!(file.ends_with(".safetensors") && detail.contains("Input/output error"), "{way}: {error}");
        assert!(detail.contains("check the disk"), "{way}: {detail}");
        reader.cancel();
        bring(&mut reader, &setup.sources).unwrap();
    }
}

#[test]
fn the_ring_is_what_plans_reserve() {
    let _alone = alone();
    let setup = setup();
    for (reads, way) in WAYS {
        let before = live(Domain::Host);
        let mut reader = BlockReader::new(options(reads));
        drop(bring(&mut reader, &setup.sources).unwrap());
        // Beside it there are lists of reads, which are gone with their blocks.
        assert_eq!(live(Domain::Host) - before, DISK_RING, "{way}");
        drop(reader);
        assert_eq!(live(Domain::Host), before, "{way}");
    }
}

/// Pages that were not there before are not there afterwards.
#[test]
fn reading_leaves_the_page_cache_as_it_was() {
    let _alone = alone();
    let setup = setup();
    let drop_cache = |path: &PathBuf| {
        let file = File::open(path).unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    };
    for (reads, way) in WAYS {
        setup.files.iter().for_each(drop_cache);
        let sources = Arc::new(Sources { files: WeightFiles::open(&setup.files).unwrap(), blocks: blocks() });
        drop(bring(&mut BlockReader::new(options(reads)), &sources).unwrap());
        // Looking brings single pages in, and some file systems do not say.
        let share = cached_share(&setup.files).unwrap().unwrap_or(0.0);
        assert!(share < 0.5, "{way}: {share} of the files are cached");
    }
    // What was there stays there: somebody may need it.
    setup.files.iter().for_each(|path| drop(std::fs::read(path).unwrap()));
    let sources = Arc::new(Sources { files: WeightFiles::open(&setup.files).unwrap(), blocks: blocks() });
    drop(bring(&mut BlockReader::new(options(DiskReads::Buffered)), &sources).unwrap());
    assert!(cached_share(&setup.files).unwrap().is_none_or(|share| share > 0.9));
}

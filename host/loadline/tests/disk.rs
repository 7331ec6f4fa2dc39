//! Weights from the disk in whole runs: the same numbers in every way, the first block computing before the last has
//! come, packed copies, and files and limits that get in the way.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use loadline::core::Bytes;
use loadline::{
    DiskOptions, DiskReads, Error, ErrorClass, JobSpec, Model, Outcome, Progress, Session, SessionOptions, System, Way,
    policies,
};
use loadline_engine::{Fault, Injection, Moment};
use support::{copy_folder, cpu, fixture, golden_job, run, synthetic};

/// A folder with a model in it and room for results.
struct Scene {
    dir: tempfile::TempDir,
}

const EARLY: &str = "transformer/diffusion_pytorch_model-00001-of-00003.safetensors";

impl Scene {
    fn new() -> Self {
        let scene = Self { dir: tempfile::tempdir_in(".").unwrap() };
        copy_folder(&fixture("wan_t2v/model"), &scene.model());
        scene
    }

    fn model(&self) -> PathBuf {
        self.dir.path().join("model")
    }

    fn copies(&self) -> PathBuf {
        self.dir.path().join("copies")
    }

    fn job(&self, vram: Option<Bytes>) -> JobSpec {
        let mut job = golden_job(self.dir.path(), vram);
        (job.asked.request.frames, job.asked.request.steps, job.latents) = (5, 2, None);
        job
    }

    /// A session in which the transformer and the decoder are read again whenever they are used.
    fn options(&self, reads: DiskReads) -> SessionOptions {
        let policy = policies::load("device-map").unwrap();
        let given = [("map", "custom"), ("text_encoder", "disk"), ("transformer", "disk"), ("vae", "disk")];
        let given: Vec<_> = given.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        let settings = policies::settings(&policy, &given).unwrap();
        let model = Model::open(self.model().to_str().unwrap()).unwrap();
        let disk = DiskOptions { reads, ..DiskOptions::default() };
        SessionOptions { disk, record: true, ..SessionOptions::new(model, policy, settings, cpu()) }
    }

    fn session(&self, reads: DiskReads) -> Session {
        Session::new(self.options(reads)).unwrap()
    }

    fn packed(&self) -> Session {
        let offload = Some(self.copies());
        Session::new(SessionOptions { offload, ..self.options(DiskReads::Auto) }).unwrap()
    }

    fn tensors(&self) -> Vec<u8> {
        fs::read(self.job(None).dump.unwrap()).unwrap()
    }

    /// What a run gives that nothing disturbs.
    fn calm(&self) -> Vec<u8> {
        run(&mut self.session(DiskReads::Auto), &self.job(None));
        self.tensors()
    }

    /// The names of the copies' files with these endings.
    fn names(&self, ending: &str) -> Vec<PathBuf> {
        let mut paths: Vec<_> = fs::read_dir(self.copies()).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|e| e == ending));
        paths.sort();
        paths
    }
}

fn watched(
    session: &mut Session,
    job: &JobSpec,
    watch: &mut dyn FnMut(Progress<'_>, &AtomicBool),
) -> Result<Outcome, Error> {
    let stop = AtomicBool::new(false);
    session.run(job, &stop, &mut |event| watch(event, &stop))
}

const WAYS: [(DiskReads, Way); 3] =
    [(DiskReads::Uring, Way::Uring), (DiskReads::Direct, Way::Direct), (DiskReads::Buffered, Way::Buffered)];

#[test]
fn every_way_and_depth_gives_the_same_numbers_and_says_how() {
    let scene = Scene::new();
    let calm = scene.calm();
    for (reads, way) in WAYS {
        for in_flight in [1, 8] {
            let options = scene.options(reads);
            let disk = DiskOptions { in_flight, ..options.disk };
            let mut session = Session::new(SessionOptions { disk, ..options }).unwrap();
            let job = scene.job(None);
            let mut told = Vec::new();
            let outcome = watched(&mut session, &job, &mut |event, _| {
                if let Progress::Reads(report) = event {
                    told.push((report.way, report.in_flight));
                }
            });
            let outcome = outcome.unwrap();
            assert!(scene.tensors() == calm, "{way}, {in_flight} in flight");
            let report = &outcome.measured.disk;
            assert!(report.way == Some(way) && report.in_flight <= in_flight, "{report:?}");
            assert!(report.bytes >= outcome.planned.forecast.disk_read, "{report:?}");
            assert_eq!(told, [(report.way, report.in_flight)]);
            let again = run(&mut session, &job);
            assert_eq!(again.measured.disk.bytes, report.bytes, "only its own bytes are a run's");
        }
    }
}

/// Files in the page cache are read from there, and forecast so; where another way is asked for they are not.
#[test]
fn forecast_and_reader_agree_on_the_page_cache() {
    let scene = Scene::new();
    // What was just written is there, where the system says so at all.
    let files = [scene.model().join(EARLY)];
    if loadline_device::cached_share(&files).unwrap().is_none() {
        return;
    }
    let plain = cpu().disk.read;
    let session = scene.session(DiskReads::Auto);
    assert!(session.machine().disk.read != plain, "planned for the disk");
    let outcome = run(&mut scene.session(DiskReads::Auto), &scene.job(None));
    assert_eq!(outcome.measured.disk.way, Some(Way::Buffered));
    assert!(scene.session(DiskReads::Direct).machine().disk.read == plain, "planned for the cache");
}

/// Where the disk is slow the first block of a stage has been computed long before the last has come, whether files are
/// read in parallel or from start to end.
#[test]
fn the_first_block_computes_before_the_last_has_come() {
    let scene = Scene::new();
    synthetic::write(&scene.model());
    for in_flight in [1, 8] {
        let options = scene.options(DiskReads::Auto);
        let disk = DiskOptions { in_flight, ..options.disk };
        let mut session = Session::new(SessionOptions { disk, ..options }).unwrap();
        let job = scene.job(None);
        let stage = session.plan(&job).unwrap().job.stages.iter().position(|s| s.name == "denoise").unwrap();
        let when = Moment::Pass { stage, pass: 0 };
        session.inject(vec![Injection { when, fault: Fault::DiskSlower(20) }]);
        let trace = run(&mut session, &job).trace;
        let stage = &trace.stages[stage];
        let last = stage.loads.iter().map(|load| load.end).max().unwrap();
        let before = stage.tasks.iter().filter(|task| task.end < last).count();
        assert!(stage.loads.len() > 2 && before >= 1, "{before} tasks of {}", stage.tasks.len());
    }
}

/// Somebody gets at a file in the middle of a run: the run ends with its checkpoint and an exit code of its own, and
/// goes on when the file is as it was.
#[test]
fn files_that_change_while_they_are_read_cost_no_finished_pass() {
    let scene = Scene::new();
    let calm = scene.calm();
    let file = scene.model().join(EARLY);
    let (bytes, date) = (fs::read(&file).unwrap(), fs::metadata(&file).unwrap().modified().unwrap());
    let restore = || {
        fs::write(&file, &bytes).unwrap();
        fs::File::options().write(true).open(&file).unwrap().set_modified(date).unwrap();
    };
    let check = |what: &dyn Fn(), text: &str| {
        for (reads, way) in WAYS {
            restore();
            let mut session = scene.session(reads);
            let job = scene.job(None);
            let (mut denoises, mut is_first) = (false, true);
            let result = watched(&mut session, &job, &mut |event, _| match event {
                Progress::StageStarts { stage, .. } => denoises = stage == "denoise",
                Progress::Task { task, of, .. } if denoises && is_first && task + 1 == of => {
                    is_first = false;
                    what();
                }
                _ => {}
            });
            let error = result.err().unwrap();
            assert_eq!(error.class(), ErrorClass::Reading, "{way}: {error}");
            let told = error.told();
            for part in [EARLY, text, "--resume to go on"] {
                assert!(told.contains(part), "{way}: no '{part}' in {told}");
            }
            restore();
            run(&mut scene.session(reads), &JobSpec { resume: true, ..job });
            assert!(scene.tensors() == calm, "{way}: {text}");
        }
    };
    let open = || fs::File::options().write(true).open(&file).unwrap();
    check(&|| open().set_len(1000).unwrap(), "shorter than the");
    check(&|| open().set_modified(SystemTime::UNIX_EPOCH).unwrap(), "has changed while the run was reading it");
    check(&|| fs::remove_file(&file).unwrap(), "was removed or replaced");
}

#[test]
fn a_read_error_in_the_middle_ends_the_run_with_its_checkpoint() {
    let scene = Scene::new();
    let calm = scene.calm();
    for (reads, way) in WAYS {
        let mut session = scene.session(reads);
        let job = scene.job(None);
        let stage = session.plan(&job).unwrap().job.stages.iter().position(|s| s.name == "denoise").unwrap();
        session.inject(vec![Injection { when: Moment::Pass { stage, pass: 1 }, fault: Fault::ReadError }]);
        let error = session.run(&job, &AtomicBool::new(false), &mut |_| ()).err().unwrap();
        assert_eq!(error.class(), ErrorClass::Reading, "{way}: {error}");
        let told = error.told();
        assert!(told.contains("Input/output error") && told.contains("check the disk"), "{way}: {told}");
        assert!(told.contains("--resume to go on"), "{way}: {told}");
        run(&mut scene.session(reads), &JobSpec { resume: true, ..job });
        assert!(scene.tensors() == calm, "{way}");
    }
}

#[test]
fn a_packed_copy_is_made_once_and_read_instead() {
    let scene = Scene::new();
    let calm = scene.calm();
    let job = scene.job(None);
    let mut copied = 0;
    let mut count =
        |event: Progress<'_>, _: &AtomicBool| copied += usize::from(matches!(event, Progress::Copying { .. }));
    let outcome = watched(&mut scene.packed(), &job, &mut count).unwrap();
    assert!(scene.tensors() == calm, "the copy holds other numbers");
    assert!(outcome.planned.job.blocks.iter().all(|b| b.file == b.slab && b.conversion.is_none()));
    assert!(copied > 0);
    let packs = scene.names("pack");
    assert_eq!((packs.len(), scene.names("json").len(), scene.names("partial").len()), (1, 1, 0));
    let made = fs::metadata(&packs[0]).unwrap().modified().unwrap();
    // Again, and with the same files under other dates: what they hold is what counts.
    for touched in [false, true, false] {
        let file = scene.model().join(EARLY);
        if touched {
            fs::File::options().write(true).open(&file).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        }
        let mut none = |event: Progress<'_>, _: &AtomicBool| assert!(!matches!(event, Progress::Copying { .. }));
        watched(&mut scene.packed(), &job, &mut none).unwrap();
        assert!(scene.tensors() == calm && scene.names("pack") == packs);
    }
    assert_eq!(fs::metadata(&packs[0]).unwrap().modified().unwrap(), made, "nothing is written twice");
    // Other weights have a copy of their own.
    let file = scene.model().join(EARLY);
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    fs::write(&file, &bytes).unwrap();
    run(&mut scene.packed(), &job);
    assert!(scene.names("pack").len() == 2 && scene.tensors() != calm);
}

#[test]
fn a_copy_that_was_interrupted_is_gone_on_with() {
    let scene = Scene::new();
    let calm = scene.calm();
    let job = scene.job(None);
    // Interrupted when half of it is there.
    let error = watched(&mut scene.packed(), &job, &mut |event, stop| {
        if let Progress::Copying { done, of, .. } = event {
            stop.fetch_or(done.0 * 2 > of.0, Ordering::Relaxed);
        }
    });
    let error = error.err().unwrap();
    assert_eq!(error.class(), ErrorClass::Interrupted);
    assert!(error.to_string().contains("run the same command again"), "{error}");
    assert_eq!((scene.names("pack").len(), scene.names("partial").len()), (0, 1));
    // Its last line was cut off, as by a power cut: then that block is copied again.
    let journal = &scene.names("blocks")[0];
    let text = fs::read_to_string(journal).unwrap();
    fs::write(journal, &text[..text.len() - 10]).unwrap();
    let mut first = None;
    let went_on = watched(&mut scene.packed(), &job, &mut |event, _| {
        if let Progress::Copying { done, of, .. } = event {
            first.get_or_insert(done.0 * 4 > of.0);
        }
    });
    went_on.unwrap();
    assert_eq!(first, Some(true), "it began again");
    assert!(scene.tensors() == calm);
    assert_eq!((scene.names("pack").len(), scene.names("partial").len(), scene.names("blocks").len()), (1, 0, 0));
}

#[test]
fn a_damaged_copy_is_named_and_made_again_once_it_is_gone() {
    let scene = Scene::new();
    let calm = scene.calm();
    run(&mut scene.packed(), &scene.job(None));
    let pack = &scene.names("pack")[0];
    let mut bytes = fs::read(pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(pack, bytes).unwrap();
    let error = scene.packed().run(&scene.job(None), &AtomicBool::new(false), &mut |_| ()).err().unwrap();
    assert_eq!(error.class(), ErrorClass::Reading, "{error}");
    assert!(error.told().contains("is damaged; delete the file"), "{}", error.told());
    fs::remove_file(pack).unwrap();
    run(&mut scene.packed(), &scene.job(None));
    assert!(scene.tensors() == calm);
}

#[test]
fn more_than_a_control_group_allows_is_refused_before_anything_runs() {
    let scene = Scene::new();
    let say = |file: &str, text: &str| {
        let path: PathBuf = scene.dir.path().join("system").join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    say("proc/self/cgroup", "0::/job\n");
    say("sys/fs/cgroup/job/memory.max", &Bytes::gib(1).0.to_string());
    let check = |vram: Option<Bytes>, ram: Option<Bytes>, text: Option<&str>| {
        let system = System::at(scene.dir.path().join("system"));
        let session = Session::new(SessionOptions { system, ..scene.options(DiskReads::Auto) }).unwrap();
        let mut job = scene.job(vram);
        job.asked.ram = ram;
        match (session.plan(&job), text) {
            (Ok(_), None) => {}
            (Err(error), Some(text)) => {
                assert_eq!(error.class(), ErrorClass::HostMemory, "{error}");
                let told = error.to_string();
                assert!(told.starts_with(text) && told.contains("1.00 GiB that the control group"), "{told}");
                assert!(told.contains("give less, or raise its memory.max"), "{told}");
            }
            (other, text) => panic!("{:?} and not {text:?}", other.map(|planned| planned.budget)),
        }
    };
    let (some, half) = (Some(Bytes::mib(700)), Some(Bytes::mib(300)));
    check(some, half, None);
    check(some, some, Some("--vram 700 MiB and --ram 700 MiB are more than"));
    check(None, Some(Bytes::gib(4)), Some("--ram 4.00 GiB are more than"));
    check(Some(Bytes::gib(2)), None, Some("--vram 2.00 GiB are more than"));
}

/// The ring and the frames are taken on any plan: what is less than they are is too little.
#[test]
fn host_memory_below_what_reading_takes_is_refused_with_a_way_out() {
    let scene = Scene::new();
    let mut job = scene.job(None);
    job.asked.ram = Some(Bytes::mib(1));
    let error = scene.session(DiskReads::Auto).plan(&job).err().unwrap();
    assert_eq!(error.class(), ErrorClass::NeverFits);
    let certificate = error.certificate().unwrap();
    assert!(certificate.reason.contains("raise --ram"), "{}", certificate.reason);
    assert!(certificate.tensor.contains("the ring that weights are read through (8.00 MiB)"), "{}", certificate.tensor);
}

/// A file system in memory takes direct reads or not, by the kernel's version; runs go on in either case.
#[test]
fn a_model_in_a_file_system_without_direct_reads_runs() {
    let shm = Path::new("/dev/shm");
    if !shm.is_dir() {
        return;
    }
    let scene = Scene { dir: tempfile::tempdir_in(shm).unwrap() };
    copy_folder(&fixture("wan_t2v/model"), &scene.model());
    let calm = scene.calm();
    for (reads, _) in WAYS {
        run(&mut scene.session(reads), &scene.job(None));
        assert!(scene.tensors() == calm, "{reads:?}");
    }
}

//! The suite that every device passes, for the CPU, and what it does when its files change.
#![allow(clippy::unwrap_used)]
// Files are what these tests are about.
#![allow(clippy::disallowed_methods)]

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use loadline_core::{BlockId, Bytes, DType, Tier};
use loadline_device::{BlockSource, Compute, CpuDevice, Segment, Slab, SlabView, WeightFiles};
use loadline_engine::{At, Audited, Budgeted, Buffer, Device, DeviceError, LoadOrder, Metered, TaskOrder, contract};

const ELEMENTS: usize = 16;
const BYTES: Bytes = Bytes(4 * ELEMENTS as u64);
const FIXTURE: contract::Fixture = contract::Fixture { bytes: BYTES, activations: Bytes(4096) };

/// Remembers the sum of the weights that each task saw.
#[derive(Clone, Default)]
struct Sum(Arc<Mutex<Vec<f32>>>);

impl Compute for Sum {
    fn run(&mut self, _: &TaskOrder, weights: Option<&Arc<Slab>>) -> Result<(), DeviceError> {
        let slab = Arc::clone(weights.unwrap());
        let view = SlabView { slab, offset: 0, elements: ELEMENTS, dtype: DType::F32 };
        self.0.lock().unwrap().push(view.f32().unwrap().iter().sum());
        Ok(())
    }

    fn set_aside(&mut self, _: Bytes) {}
}

/// A device whose block 0 is a file of sixteen numbers, and the file.
struct Setup {
    device: CpuDevice<Sum>,
    sums: Sum,
    file: PathBuf,
    _dir: tempfile::TempDir,
}

fn setup() -> Setup {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("block.bin");
    write(&file, 1.0);
    let sums = Sum::default();
    let mut device = CpuDevice::new(sums.clone()).unwrap();
    let segment = Segment {
        tensor: "weight".into(),
        file: 0,
        offset: 0,
        elements: ELEMENTS,
        file_dtype: DType::F32,
        place: 0,
        dtype: DType::F32,
        scale: 1.0,
    };
    let files = WeightFiles::open(std::slice::from_ref(&file)).unwrap();
    device.set_sources(files, vec![BlockSource { segments: vec![segment], ..BlockSource::default() }]);
    Setup { device, sums, file, _dir: dir }
}

/// Writes into the file as it lies there, so that handles that are open see it. Its date stays, so that it does not
/// look changed.
fn write(file: &PathBuf, value: f32) {
    let bytes: Vec<u8> = [value; ELEMENTS].iter().flat_map(|v| v.to_le_bytes()).collect();
    std::fs::write(file, bytes).unwrap();
    std::fs::File::options().write(true).open(file).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
}

/// Loads block 0 from its home into a buffer and runs the task.
fn once<D: Device>(device: &mut D, home: Tier, buffer: Buffer) -> Result<(), DeviceError> {
    let past = device.past();
    let ready = device.load(LoadOrder { block: BlockId(0), home, buffer }, past)?;
    let at = At { stage: 0, pass: 0, task: 0 };
    device.run(TaskOrder { at, template: 0, weights: Some((BlockId(0), buffer)) }, ready).map(drop)
}

#[test]
fn the_cpu_keeps_the_contract() {
    let mut setup = setup();
    assert_eq!(contract::run(&mut setup.device, FIXTURE), Ok(()));
    assert_eq!(*setup.sums.0.lock().unwrap(), [16.0]);
}

#[test]
fn the_stack_of_a_session_keeps_the_contract() {
    let Setup { device, _dir, .. } = setup();
    let mut device = Audited::new(Metered::new(Budgeted::new(device, Bytes(3 * 4096), 4096)));
    assert_eq!(contract::run(&mut device, FIXTURE), Ok(()));
    let usage = device.inner.usage();
    assert_eq!((usage.loads, usage.tasks, usage.in_use), (4, 1, Bytes::ZERO));
}

#[test]
fn a_file_that_is_truncated_while_the_run_is_going_is_named() {
    let mut setup = setup();
    let buffer = setup.device.allocate(BYTES).unwrap();
    once(&mut setup.device, Tier::Disk, buffer).unwrap();
    std::fs::OpenOptions::new().write(true).open(&setup.file).unwrap().set_len(8).unwrap();
    let error = once(&mut setup.device, Tier::Disk, buffer).unwrap_err();
    let DeviceError::Reading { file, detail } = &error else { panic!("{error}") };
    assert_eq!(*file, setup.file.display().to_string());
    assert!(detail.contains("shorter than the 64 bytes"), "{detail}");
    // No task ran with half a block.
    assert_eq!(*setup.sums.0.lock().unwrap(), [16.0]);
}

/// The file changes between the loads: a home on disk shows it, a host master does not.
#[test]
fn masters_are_read_once() {
    let check = |home: Tier, expected: [f32; 2]| {
        let mut setup = setup();
        let buffer = setup.device.allocate(BYTES).unwrap();
        once(&mut setup.device, home, buffer).unwrap();
        write(&setup.file, 2.0);
        once(&mut setup.device, home, buffer).unwrap();
        assert_eq!(*setup.sums.0.lock().unwrap(), expected, "{home:?}");
    };
    check(Tier::Host, [16.0, 16.0]);
    check(Tier::Disk, [16.0, 32.0]);
}

/// A block that was finite when it was first loaded is not looked at again; one that was not is never computed with.
#[test]
fn blocks_are_looked_at_once() {
    for home in [Tier::Disk, Tier::Host] {
        let mut setup = setup();
        let buffer = setup.device.allocate(BYTES).unwrap();
        write(&setup.file, f32::NAN);
        let error = once(&mut setup.device, home, buffer).unwrap_err();
        let DeviceError::Weights { file, detail } = &error else { panic!("{error}") };
        assert_eq!(*file, setup.file.display().to_string());
        assert!(detail.contains("'weight' holds NaN at element 0"), "{detail}");
        write(&setup.file, 1.0);
        once(&mut setup.device, home, buffer).unwrap();
        write(&setup.file, f32::NAN);
        once(&mut setup.device, home, buffer).unwrap();
        let sums = setup.sums.0.lock().unwrap();
        assert!(sums[0] == 16.0 && sums[1].is_nan() == (home == Tier::Disk), "{home:?}: {sums:?}");
    }
}

/// Other sources are another job: nothing of the old one's masters is used.
#[test]
fn masters_belong_to_their_sources() {
    let (mut old, new) = (setup(), setup());
    write(&new.file, 3.0);
    let buffer = old.device.allocate(BYTES).unwrap();
    once(&mut old.device, Tier::Host, buffer).unwrap();
    let segment = Segment {
        tensor: "weight".into(),
        file: 0,
        offset: 0,
        elements: ELEMENTS,
        file_dtype: DType::F32,
        place: 0,
        dtype: DType::F32,
        scale: 1.0,
    };
    let files = WeightFiles::open(std::slice::from_ref(&new.file)).unwrap();
    old.device.set_sources(files, vec![BlockSource { segments: vec![segment], ..BlockSource::default() }]);
    once(&mut old.device, Tier::Host, buffer).unwrap();
    assert_eq!(*old.sums.0.lock().unwrap(), [16.0, 48.0]);
}

#[test]
fn a_load_into_a_buffer_that_is_gone_is_an_error() {
    let mut device = setup().device;
    let buffer = device.allocate(BYTES).unwrap();
    device.free(buffer);
    let error = once(&mut device, Tier::Disk, buffer).unwrap_err().to_string();
    assert!(error.contains("does not exist"), "{error}");
}

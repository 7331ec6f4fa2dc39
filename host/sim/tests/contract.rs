//! The suite that every device passes, for the simulated one, bare and under each decorator.
#![allow(clippy::unwrap_used)]

mod common;

use common::{job, machine, rolling};
use loadline_core::{BlockId, Bytes, Estimate, Load, Nanos, Slot, Tier};
use loadline_engine::{
    Audited, Budgeted, Device, DeviceError, Engine, EngineError, Fault, Faulty, Injection, Metered, Moment, Silent,
    Start, contract,
};
use loadline_sim::{SimDevice, Times};

const FIXTURE: contract::Fixture = contract::Fixture { bytes: Bytes(100), activations: Bytes(50) };

/// Both kinds of machine, with and without full host masters.
fn check<D: Device>(around: impl Fn(SimDevice<'static>) -> D) {
    for unified in [false, true] {
        for warm in [false, true] {
            let times = Times::new(&job(&[(100, 10), (100, 10)], 1), &machine(4, unified), Estimate::Median).unwrap();
            // A leak of two hundred bytes lets the device outlive this function's frame.
            let times: &'static Times = Box::leak(Box::new(times));
            let mut device = around(SimDevice::new(times, 2, warm, true));
            let result = contract::run(&mut device, FIXTURE);
            assert_eq!(result, Ok(()), "unified {unified}, warm {warm}");
        }
    }
}

#[test]
fn the_simulated_device_keeps_the_contract() {
    check(|sim| sim);
}

#[test]
fn decorators_keep_the_contract() {
    check(Metered::new);
    check(Audited::new);
    check(|sim| Budgeted::new(sim, Bytes(250), 1));
    check(|sim| Faulty::new(sim, vec![Injection { when: Moment::Task(99), fault: Fault::TaskError }]));
    check(|sim| Audited::new(Metered::new(Budgeted::new(sim, Bytes(512), 64))));
}

#[test]
fn a_budget_refuses_before_anything_happens() {
    let times = Times::new(&job(&[(100, 10)], 1), &machine(4, false), Estimate::Median).unwrap();
    // Two slots of 100, each counted as 128, do not fit beside each other.
    let mut device = Metered::new(Budgeted::new(SimDevice::new(&times, 1, false, true), Bytes(255), 64));
    let broken = contract::run(&mut device, FIXTURE).unwrap_err();
    assert!(broken.contains("budget exceeded: a slot would take 128 B beside 128 B"), "{broken}");
    assert_eq!(device.usage().peak, Bytes(100));
}

#[test]
fn what_is_counted_is_what_was_asked_for() {
    let (job, machine) = (job(&[(100, 10), (90, 10), (80, 10)], 4), machine(4, false));
    let plan = rolling(&job, &[false, true, false], 1, Tier::Host);
    let times = Times::new(&job, &machine, Estimate::Median).unwrap();
    let device = Metered::new(SimDevice::new(&times, 3, false, true));
    let mut engine = Engine::new(device, true);
    let (trace, _) = engine.realise(&job, &plan, Start::default(), &mut Silent).unwrap();
    let usage = engine.device.usage();
    // Two blocks take turns in one slot: 8 loads of theirs, 1 of the resident.
    assert_eq!((usage.loads, usage.tasks), (9, 12));
    assert_eq!((usage.peak, usage.in_use), (Bytes(200), Bytes::ZERO));
    assert_eq!((trace.stages[0].loads.len(), trace.stages[0].tasks.len()), (9, 12));
}

/// A fault strikes at the call that was asked for, is named, and leaves nothing behind.
#[test]
fn faults_strike_as_asked() {
    let check = |when: Moment, fault: Fault, expected: &str, tasks: u64| {
        let (job, machine) = (job(&[(100, 10), (90, 10), (80, 10)], 4), machine(4, false));
        let plan = rolling(&job, &[false, true, false], 1, Tier::Host);
        let times = Times::new(&job, &machine, Estimate::Median).unwrap();
        let script = vec![Injection { when, fault }];
        let device = Metered::new(Faulty::new(Metered::new(SimDevice::new(&times, 3, false, true)), script));
        let mut engine = Engine::new(device, false);
        let error = engine.realise(&job, &plan, Start::default(), &mut Silent).unwrap_err();
        assert!(matches!(&error, EngineError::Device { stage, .. } if stage == "denoise"), "{fault:?}");
        assert!(error.to_string().contains(expected), "{fault:?}: {error}");
        assert_eq!(engine.device.inner.inner.usage().tasks, tasks, "{fault:?}");
        assert_eq!(engine.device.usage().in_use, Bytes::ZERO, "{fault:?} leaves memory behind");
        // It strikes once: the same engine then runs the same plan.
        assert!(engine.realise(&job, &plan, Start::default(), &mut Silent).is_ok(), "{fault:?} strikes twice");
    };
    check(Moment::Allocation(1), Fault::OutOfMemory, "out of device memory: 100 B", 0);
    check(Moment::Load(0), Fault::ReadError, "block 0: a read failed on purpose", 0);
    check(Moment::Load(2), Fault::ReadError, "block 2: a read failed on purpose", 1);
    check(Moment::Task(7), Fault::TaskError, "a task failed on purpose", 7);
    check(Moment::Pass { stage: 0, pass: 2 }, Fault::OutOfMemory, "out of device memory", 6);
}

#[test]
fn a_fault_is_of_the_kind_that_the_caller_acts_on() {
    let times = Times::new(&job(&[(100, 10)], 1), &machine(4, false), Estimate::Median).unwrap();
    let script = vec![Injection { when: Moment::Allocation(0), fault: Fault::OutOfMemory }];
    let mut device = Faulty::new(SimDevice::new(&times, 1, false, true), script);
    let error = device.allocate(Bytes(100)).unwrap_err();
    assert!(matches!(error, DeviceError::OutOfDeviceMemory { requested: Bytes(100) }), "{error}");
}

/// Others who take memory are seen by who asks, and what they took is not to be had.
#[test]
fn memory_that_others_took_is_gone() {
    let (job, machine) = (job(&[(100, 10), (90, 10)], 4), machine(4, false));
    let plan = rolling(&job, &[false; 2], 1, Tier::Host);
    let times = Times::new(&job, &machine, Estimate::Median).unwrap();
    let script = vec![Injection { when: Moment::Pass { stage: 0, pass: 1 }, fault: Fault::OthersTake(Bytes(950)) }];
    let device = Faulty::new(SimDevice::new(&times, 2, false, true), script).with_memory(Bytes(1000));
    let mut engine = Engine::new(device, false);
    assert_eq!(engine.device.surroundings().device.unwrap().available(), Bytes(1000));
    engine.realise(&job, &plan, Start::default(), &mut Silent).unwrap();
    let room = engine.device.surroundings().device.unwrap();
    assert_eq!((room.held, room.free), (Bytes::ZERO, Bytes(50)));
    let error = engine.realise(&job, &plan, Start::default(), &mut Silent).unwrap_err();
    assert!(error.to_string().contains("out of device memory: 100 B"), "{error}");
}

/// A slower disk makes reads longer from where it was slowed, and nothing else.
#[test]
fn a_slower_disk_costs_what_it_reads() {
    let (job, machine) = (job(&[(100, 10)], 6), machine(4, false));
    let mut plan = rolling(&job, &[false], 1, Tier::Disk);
    plan.stages[0].cycle = plan.stages[0].prologue.iter().map(|l| Load { after: 0, ..*l }).collect();
    let times = Times::new(&job, &machine, Estimate::Median).unwrap();
    let time = |script: Vec<Injection>| {
        let mut engine = Engine::new(Faulty::new(SimDevice::new(&times, 1, false, true), script), false);
        engine.realise(&job, &plan, Start::default(), &mut Silent).unwrap().0.stages[0].length()
    };
    let slower = |pass| vec![Injection { when: Moment::Pass { stage: 0, pass }, fault: Fault::DiskSlower(3) }];
    let (usual, early, late) = (time(Vec::new()), time(slower(0)), time(slower(5)));
    assert!(usual < early, "{usual} {early}");
    assert_eq!(late, usual, "after the last load nothing is read");
}

/// What is held is what the plan declares: a kept slot of another size is given back, and its block loaded anew.
#[test]
fn a_kept_slot_of_another_size_is_another_slot() {
    let (job, machine) = (job(&[(100, 10), (90, 10), (80, 10)], 4), machine(4, false));
    let times = Times::new(&job, &machine, Estimate::Median).unwrap();
    let device = Metered::new(Budgeted::new(SimDevice::new(&times, 3, false, true), Bytes(250), 1));
    let mut engine = Engine::new(device, false);
    let mut loads = 0;
    let mut check = |bytes: u64, fresh: u64| {
        let mut plan = rolling(&job, &[false, true, false], 1, Tier::Host);
        let stage = &mut plan.stages[0];
        let resident = stage.prologue.iter().find(|load| load.block == BlockId(1)).unwrap().slot as usize;
        stage.slots[resident] = Slot { bytes: Bytes(bytes), keep: true };
        // Nothing but the resident and the one slot for the others, which has the size of the largest.
        engine.device.inner.set_budget(Bytes(bytes + 100));
        engine.realise(&job, &plan, Start::default(), &mut Silent).unwrap();
        let usage = engine.device.usage();
        assert_eq!((usage.in_use, engine.kept_bytes()), (Bytes(bytes), Bytes(bytes)), "{bytes}");
        assert_eq!(usage.loads, loads + 8 + fresh, "{bytes}: eight loads pass through the other slot");
        loads = usage.loads;
    };
    check(150, 1);
    check(150, 0);
    check(90, 1);
    check(150, 1);
}

/// A block may not have arrived when its stage fails: what the slot holds then is nobody's, and is loaded again.
#[test]
fn what_a_failed_stage_was_to_keep_is_given_back() {
    let (job, machine) = (job(&[(100, 10), (90, 10)], 4), machine(4, false));
    let times = Times::new(&job, &machine, Estimate::Median).unwrap();
    let mut plan = rolling(&job, &[true, false], 1, Tier::Host);
    let resident = plan.stages[0].prologue.iter().find(|load| load.block == BlockId(0)).unwrap().slot as usize;
    plan.stages[0].slots[resident].keep = true;
    let fails = vec![Injection { when: Moment::Pass { stage: 0, pass: 1 }, fault: Fault::TaskError }];
    let device = Metered::new(Faulty::new(SimDevice::new(&times, 2, false, true), fails));
    let mut engine = Engine::new(device, false);
    engine.realise(&job, &plan, Start::default(), &mut Silent).unwrap_err();
    assert_eq!((engine.kept_bytes(), engine.device.usage().in_use), (Bytes::ZERO, Bytes::ZERO));
    let loads = engine.device.usage().loads;
    engine.realise(&job, &plan, Start::default(), &mut Silent).unwrap();
    assert_eq!((engine.kept_bytes(), engine.device.usage().loads - loads), (Bytes(100), 2));
}

/// A delay is in the time of the run and of what it held up, and nothing waits for it.
#[test]
fn a_delay_is_told_where_it_was() {
    let (job, machine) = (job(&[(100, 10)], 6), machine(4, false));
    let mut plan = rolling(&job, &[false], 1, Tier::Disk);
    plan.stages[0].cycle = plan.stages[0].prologue.iter().map(|l| Load { after: 0, ..*l }).collect();
    let times = Times::new(&job, &machine, Estimate::Median).unwrap();
    let trace = |script: Vec<Injection>| {
        let mut engine = Engine::new(Faulty::new(SimDevice::new(&times, 1, false, true), script), false);
        engine.realise(&job, &plan, Start::default(), &mut Silent).unwrap().0.stages.remove(0)
    };
    let usual = trace(Vec::new());
    let at = |pass, fault| vec![Injection { when: Moment::Pass { stage: 0, pass }, fault }];
    let hour = Nanos(3_600_000_000_000);
    let task = trace(at(2, Fault::TaskDelay(hour)));
    assert_eq!((task.length(), task.compute), (usual.length() + hour, usual.compute + hour));
    assert_eq!(task.stall, usual.stall);
    let disk = trace(at(2, Fault::DiskDelay(hour)));
    // The block of the pass itself was there; those of the three passes behind it are read.
    assert_eq!((disk.length(), disk.stall), (usual.length() + hour * 3, usual.stall + hour * 3));
    assert_eq!(disk.compute, usual.compute);
}

//! Every profile that ships is sound, and one card's times are what paper and pencil give.
#![allow(clippy::unwrap_used)]

use loadline_core::{
    ActMemory, Bytes, DType, Estimate, Machine, Op, OpCost, OpKind, Provenance, Site, StageKind, Task, Tier,
};
use loadline_profile::{Basis, Profile, catalog};
use serde_json::Value;

fn machine(name: &str) -> Machine {
    catalog::find(name).unwrap().to_machine().unwrap()
}

#[test]
fn every_embedded_profile_is_sound_and_named_after_its_file() {
    for name in catalog::names() {
        let profile = catalog::find(name).unwrap();
        assert_eq!(profile.name, name);
        assert_eq!(profile.lint(), []);
        assert_eq!(profile.to_machine().unwrap().name, name);
    }
}

#[test]
fn a_profile_survives_being_written_and_read() {
    for name in catalog::names() {
        let profile = catalog::find(name).unwrap();
        let again = Profile::parse(&profile.to_json().unwrap(), "again").unwrap();
        assert_eq!(again, profile);
        assert_eq!(again.hash(), profile.hash());
    }
}

/// Whatever was measured: a number that is written is read as the same number, or the profile on disk would have
/// another hash than the one in memory.
#[test]
fn every_number_is_read_as_it_was_written() {
    for n in 1..=5 {
        let mut value = serde_json::to_value(catalog::find("cpu").unwrap()).unwrap();
        shake(&mut value, &mut (n * 7919));
        let read = Profile::parse(&value.to_string(), "again").unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), value, "{n}");
    }
}

/// Changes every fraction by a few parts in a billion.
fn shake(value: &mut Value, state: &mut u64) {
    match value {
        Value::Number(number) if number.is_f64() => {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let by = 1.0 + (*state >> 40) as f64 * 1e-16;
            *value = (number.as_f64().unwrap() * by).into();
        }
        Value::Array(values) => values.iter_mut().for_each(|value| shake(value, state)),
        Value::Object(fields) => fields.values_mut().for_each(|value| shake(value, state)),
        _ => {}
    }
}

#[test]
fn data_sheet_cards_have_a_rate_for_all_that_the_kernels_compute() {
    for name in ["rtx-3060-12gb", "rtx-4090", "h100-80gb"] {
        let machine = machine(name);
        assert_eq!(machine.provenance, Provenance::Datasheet);
        assert_eq!(machine.device.kernel_set, "cuda");
        for kind in OpKind::ALL {
            for dtype in [DType::F32, DType::F16, DType::Bf16] {
                let cost = OpCost { kind, site: site(dtype), dtype, count: 1, flops: 1 << 40, bytes: 1 << 30 };
                assert!(
                    machine.task_time(StageKind::Denoise, &task(cost), Estimate::Slow).is_ok(),
                    "{name} {kind:?} {dtype}"
                );
            }
        }
    }
}

/// No profile that ships has a table, so any site will do.
fn site(dtype: DType) -> Site {
    Site { op: Op::Linear, weight: dtype, dims: [1; 4] }
}

fn task(cost: OpCost) -> Task {
    Task {
        name: "task".to_owned(),
        block: None,
        ops: vec![cost],
        memory: ActMemory::default(),
        gathered: Bytes::ZERO,
        to_host: Bytes::ZERO,
    }
}

/// Nanoseconds of one operation on an RTX 3060.
fn check_op(kind: OpKind, flops: u64, bytes: u64, estimate: Estimate, expected: u64) {
    let cost = OpCost { kind, site: site(DType::Bf16), dtype: DType::Bf16, count: 1, flops, bytes };
    let time = machine("rtx-3060-12gb").task_time(StageKind::Denoise, &task(cost), estimate).unwrap();
    assert_eq!(time.0, expected, "{kind:?} {flops} {bytes} {estimate:?}");
}

#[test]
fn operations_on_an_rtx_3060_take_what_the_data_sheet_says() {
    // 20.4 GFLOP at 0.80, 0.65 and 0.92 of 25.5 TFLOP/s, after a launch of 5 us.
    check_op(OpKind::Linear, 20_400_000_000, 1_000, Estimate::Median, 1_005_000);
    check_op(OpKind::Linear, 20_400_000_000, 1_000, Estimate::Slow, 1_235_769);
    check_op(OpKind::Linear, 20_400_000_000, 1_000, Estimate::Fast, 874_565);
    // 295.2 MB at 0.82 of 360 GB/s take longer than the little arithmetic on them.
    check_op(OpKind::Linear, 1_000, 295_200_000, Estimate::Median, 1_005_000);
    // 16.575 GFLOP at 0.65 of 25.5 TFLOP/s.
    check_op(OpKind::Attention, 16_575_000_000, 1_000, Estimate::Median, 1_005_000);
    // 270 MB at 0.75 of 360 GB/s; 3.185 GFLOP at 0.25 of the f32 peak, 12.74 TFLOP/s.
    check_op(OpKind::Elementwise, 1_000, 270_000_000, Estimate::Median, 1_005_000);
    check_op(OpKind::Elementwise, 3_185_000_000, 1_000, Estimate::Median, 1_005_000);
}

#[test]
fn copies_and_reads_of_an_rtx_3060_take_what_the_data_sheet_says() {
    let machine = machine("rtx-3060-12gb");
    let block = Bytes::mib(64);
    // PCIe 4.0 x16 is 16 GT/s x 16 lanes x 128/130 / 8 = 31.508 GB/s, of which 0.81, 0.86, 0.18 and
    // 0.80, after 10 us.
    assert_eq!(machine.copy_time(Tier::Pinned, block, Estimate::Median).0, 2_639_531);
    assert_eq!(machine.copy_time(Tier::Pinned, block, Estimate::Fast).0, 2_486_651);
    assert_eq!(machine.copy_time(Tier::Host, block, Estimate::Slow).0, 11_842_889);
    assert_eq!(machine.send_time(block, Estimate::Median).0, 2_672_400);
    // 28 MB at 2.8 GB/s after 100 us; conversion at 4 GB/s.
    assert_eq!(machine.read_time(Bytes(28_000_000), None, Estimate::Median).0, 10_100_000);
    assert_eq!(machine.read_time(Bytes(28_000_000), Some((DType::F32, DType::Bf16)), Estimate::Median).0, 17_100_000);
}

#[test]
fn the_device_of_an_rtx_3060_keeps_the_larger_overhead() {
    let device = machine("rtx-3060-12gb").device;
    assert_eq!(device.memory, Bytes::gib(12));
    assert_eq!(device.granularity, 2 << 20);
    assert_eq!(device.fixed_overhead, Bytes::mib(900));
}

#[test]
fn the_cpu_has_one_memory_and_the_rates_of_its_kernels() {
    let profile = catalog::find("cpu").unwrap();
    let machine = profile.to_machine().unwrap();
    assert!(machine.device.unified);
    assert_eq!((machine.device.granularity, machine.device.fixed_overhead), (4096, Bytes::ZERO));
    assert_eq!(machine.provenance, Provenance::Derived);
    for kind in OpKind::ALL {
        let cost = |dtype| OpCost { kind, site: site(dtype), dtype, count: 1, flops: 1 << 30, bytes: 1 << 20 };
        for dtype in [DType::F32, DType::Bf16] {
            assert!(
                machine.task_time(StageKind::Denoise, &task(cost(dtype)), Estimate::Slow).is_ok(),
                "{kind:?} {dtype}"
            );
        }
        assert!(machine.task_time(StageKind::Denoise, &task(cost(DType::F16)), Estimate::Slow).is_err(), "{kind:?}");
    }
    let other = profile.with_host_memory(Bytes::gib(8)).to_machine().unwrap();
    assert_eq!((other.device.memory, other.host.memory), (Bytes::gib(8), Bytes::gib(8)));
}

#[test]
fn a_point_that_was_recorded_is_given_back_exactly() {
    let profile = catalog::find("cpu").unwrap();
    let calibrated = profile.to_machine().unwrap();
    let machine = Machine { calibration: Vec::new(), ..calibrated.clone() };
    let Basis::Points(points) = &profile.link.h2d_pinned.basis else { panic!("points expected") };
    for point in points {
        let time = |machine: &Machine| machine.copy_time(Tier::Pinned, Bytes(point.amount as u64), Estimate::Slow).0;
        assert_eq!(time(&machine), (point.amount / point.rate.p10 * 1e9).round() as u64);
        // Runs have shown how far a stage strays, its copies included.
        assert_eq!(time(&calibrated), (point.amount / point.rate.p50 * 1e9).round() as u64);
    }
}

#[test]
fn other_ram_is_another_machine() {
    let profile = catalog::find("rtx-4090").unwrap();
    let other = profile.clone().with_host_memory(Bytes::gib(96));
    assert_eq!(other.to_machine().unwrap().host.memory, Bytes::gib(96));
    assert_ne!(other.hash(), profile.hash());
}

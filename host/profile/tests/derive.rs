//! Cards that nobody recorded: their own peaks, another's shares, and no word that they were measured.
#![allow(clippy::unwrap_used)]

use loadline_core::{DType, OpKind, Provenance, Quantiles};
use loadline_profile::{
    Basis, Datasheet, DeriveError, DevicePart, Distance, Known, Point, Profile, Rate, Reference, catalog, derive,
    distance, leave_one_out, nearest, spread,
};

fn sheet(name: &str) -> &'static Datasheet {
    catalog::datasheet(name).unwrap()
}

/// A recording of a card, made up: its linear layers reach `share` of the peak at 1 GFLOP and nine
/// tenths of twice that at 64 GFLOP, within a tenth.
fn recording(name: &str, share: f64) -> Profile {
    let mut profile = catalog::find(name).unwrap();
    let peak = sheet(name).flops_per_s[&DType::Bf16].value;
    profile.device.ops.retain(|op| op.kind == OpKind::Linear && op.dtypes.contains(&DType::Bf16));
    let op = &mut profile.device.ops[0];
    op.dtypes = vec![DType::Bf16];
    let point = |amount: f64, share: f64| {
        let p50 = share * peak;
        // Calls that take equally long on every card.
        Point { amount: amount * peak / 1e14, rate: Quantiles { p10: 0.9 * p50, p50, p90: 1.1 * p50 } }
    };
    let basis = Basis::Points(vec![point(1e9, share), point(64e9, (1.8 * share).min(0.9))]);
    op.flops = Rate { basis, provenance: Provenance::Measured, source: "made up for a test".to_owned() };
    op.bytes.provenance = Provenance::Measured;
    profile.device.launch_ns =
        Known { value: 4000.0, provenance: Provenance::Measured, source: "made up for a test".to_owned() };
    profile.device.fixed_overhead_bytes.provenance = Provenance::Measured;
    profile.device.granularity_bytes.provenance = Provenance::Measured;
    profile
}

fn reference(profile: &Profile) -> Reference {
    Reference::recorded(profile, catalog::datasheet_of(&profile.name, &profile.device).unwrap())
}

fn points(device: &DevicePart) -> &[Point] {
    let Basis::Points(points) = &device.ops[0].flops.basis else { panic!("points expected") };
    points
}

#[test]
fn nothing_that_is_derived_calls_itself_measured() {
    let recordings: Vec<_> = ["rtx-3070", "h200"].map(|name| reference(&recording(name, 0.4))).into();
    let mut references = catalog::references();
    references.extend(recordings);
    for sheet in catalog::datasheets() {
        for reference in &references {
            let profile = catalog::profile_of(sheet, reference).unwrap();
            let least = profile.to_machine().unwrap().provenance;
            assert_ne!(least, Provenance::Measured, "{} from {}", sheet.name, reference.name);
            for entry in profile.figures() {
                assert_ne!(entry.provenance, Provenance::Measured, "{} {}", sheet.name, entry.field);
                assert!(!entry.source.is_empty());
            }
            let rate = &profile.device.ops[0].flops;
            let expected = if reference.recording.is_some() { Provenance::Derived } else { Provenance::Datasheet };
            assert_eq!(rate.provenance, expected, "{} from {}", sheet.name, reference.name);
        }
    }
}

#[test]
fn only_a_recording_that_ships_is_more_than_a_data_sheet() {
    for name in catalog::names().filter(|name| *name != "cpu") {
        let profile = catalog::find(name).unwrap();
        assert_eq!(profile.to_machine().unwrap().provenance, Provenance::Datasheet, "{name}");
        assert!(profile.title.ends_with("(data sheet)"), "{name}");
        for op in &profile.device.ops {
            assert!(op.flops.source.starts_with("assumption: "), "{name}: {}", op.flops.source);
        }
    }
}

/// Which set of assumptions a card takes, and how far it is.
fn check_nearest(card: &str, set: &str, far: Distance) {
    let references = catalog::references();
    let reference = nearest(sheet(card), &references).unwrap();
    assert_eq!((reference.name.as_str(), distance(sheet(card), reference)), (set, far), "{card}");
}

#[test]
fn cards_take_the_nearest_assumptions() {
    check_nearest("rtx-3060-12gb", "half-ampere", Distance::Card);
    check_nearest("rtx-3090", "half-ampere", Distance::Architecture);
    check_nearest("rtx-4060", "half-ada", Distance::Architecture);
    check_nearest("gtx-1650", "half-turing", Distance::Architecture);
    check_nearest("rtx-5070", "half-blackwell", Distance::Architecture);
    check_nearest("h200", "hbm-hopper", Distance::Architecture);
    check_nearest("l4", "full-ada", Distance::Architecture);
    // What feeds the tensor units decides more than their age.
    check_nearest("a100-80gb", "hbm-hopper", Distance::Neighbour);
    check_nearest("b200", "hbm-hopper", Distance::Neighbour);
    check_nearest("a10", "full-ada", Distance::Neighbour);
    check_nearest("t4", "half-turing", Distance::Neighbour);
}

#[test]
fn a_near_recording_goes_before_every_assumption_and_a_far_one_after() {
    let with = |name: &str| {
        let mut all = catalog::references();
        all.push(reference(&recording(name, 0.4)));
        all
    };
    let chosen = |card: &str, references: &[Reference]| nearest(sheet(card), references).unwrap().name.clone();
    assert_eq!(chosen("rtx-3080-10gb", &with("rtx-3070")), "rtx-3070");
    assert_eq!(chosen("rtx-4090", &with("rtx-3070")), "rtx-3070", "a neighbour");
    assert_eq!(chosen("h100-80gb", &with("rtx-3070")), "hbm-hopper", "too far");
    assert_eq!(chosen("h100-80gb", &with("h200")), "h200");
}

#[test]
fn the_interval_grows_with_the_distance() {
    let width = |card: &str| {
        let device = derive(sheet(card), &reference(&recording("rtx-3070", 0.4))).unwrap();
        let rate = points(&device)[0].rate;
        (rate.p90 - rate.p10) / rate.p50
    };
    let widths = ["rtx-3070", "rtx-3080-10gb", "rtx-4090", "h100-80gb"].map(width);
    assert!(widths.is_sorted_by(|a, b| a < b), "{widths:?}");
    let all = [Distance::Card, Distance::Architecture, Distance::Neighbour, Distance::Far];
    assert!(all.map(Distance::widening).is_sorted_by(|a, b| a < b));
}

#[test]
fn a_recorded_point_moves_by_the_ratio_of_the_peaks() {
    // 149 / 40.6 of an RTX 3070's peak: the rate and the amount that reaches it.
    let there = recording("rtx-3070", 0.4);
    let device = derive(sheet("rtx-3090"), &reference(&there)).unwrap();
    let ratio = 71e12 / 40.6e12;
    for (here, there) in points(&device).iter().zip(points(&there.device)) {
        assert!((here.amount / there.amount - ratio).abs() < 1e-9);
        assert!((here.rate.p50 / there.rate.p50 - ratio).abs() < 1e-9);
        assert!((here.rate.p10 * 1.05 / there.rate.p10 - ratio).abs() < 1e-9);
    }
    assert_eq!(device.launch_ns.value, 4000.0);
    assert_eq!(device.launch_ns.provenance, Provenance::Derived);
    assert!(device.launch_ns.source.contains("'rtx-3070'"), "{}", device.launch_ns.source);
}

#[test]
fn no_rate_goes_beyond_the_peak_however_wide_the_interval() {
    let near_peak = recording("rtx-3070", 0.5);
    let device = derive(sheet("h100-80gb"), &reference(&near_peak)).unwrap();
    assert!(points(&device).iter().all(|point| point.rate.p90 <= 989.5e12));
    for reference in catalog::references() {
        for sheet in catalog::datasheets() {
            assert_eq!(catalog::profile_of(sheet, &reference).unwrap().lint(), [], "{}", sheet.name);
        }
    }
}

#[test]
fn check_bits_and_the_drivers_share_come_off_the_memory() {
    let overhead = |name: &str| catalog::find(name).unwrap().device.fixed_overhead_bytes.spread.p50 / (1 << 20) as f64;
    // A sixteenth of 16 GiB, and 130 MiB with 10 for each of its GiB, before any context.
    assert!(overhead("t4") > 1024.0 + 290.0);
    assert!(overhead("rtx-4080") < 900.0, "no check bits on GeForce");
    assert!(overhead("rtx-5090") > overhead("rtx-5070"));
}

#[test]
fn a_reference_that_does_not_fit_is_an_error_that_says_so() {
    let mut other = recording("rtx-3070", 0.4);
    other.device.kernel_set = "avx512".to_owned();
    let error = derive(sheet("rtx-3090"), &reference(&other)).unwrap_err();
    assert!(matches!(error, DeriveError::KernelSet { .. }));
    assert!(error.to_string().contains("'avx512'"), "{error}");
    let mut stranger = recording("rtx-3070", 0.4);
    stranger.device.name = "Voodoo 2".to_owned();
    let error = leave_one_out(&[stranger]).unwrap_err().to_string();
    assert!(error.contains("'Voodoo 2'") && error.contains("loadline profile list"), "{error}");
}

#[test]
fn leaving_one_out_finds_no_error_where_the_shares_are_equal() {
    let profiles = ["rtx-3070", "rtx-3090", "rtx-4090"].map(|name| recording(name, 0.4));
    let errors = leave_one_out(&profiles).unwrap();
    assert_eq!(errors.len(), 3);
    for left in &errors {
        assert!(left.spread().p90 < 1e-9, "{left:?}");
        assert_eq!(left.covered, 1.0);
        assert_eq!(left.what(), "linear bf16");
    }
    let pairs: Vec<_> = errors.iter().map(|e| (e.card.as_str(), e.reference.as_str(), e.distance)).collect();
    assert_eq!(
        pairs,
        [
            ("rtx-3070", "rtx-3090", Distance::Architecture),
            ("rtx-3090", "rtx-3070", Distance::Architecture),
            ("rtx-4090", "rtx-3070", Distance::Neighbour)
        ]
    );
}

#[test]
fn leaving_one_out_measures_how_far_the_shares_are_apart() {
    // A fifth less on the one card is a quarter too much from the other, beyond 1.1 with 5 %.
    let errors = leave_one_out(&[recording("rtx-3070", 0.5), recording("rtx-3090", 0.4)]).unwrap();
    let of = |card: &str| errors.iter().find(|left| left.card == card).unwrap();
    assert!((of("rtx-3090").errors[0] - 0.25).abs() < 1e-9);
    assert!((of("rtx-3070").errors[0] + 0.2).abs() < 1e-9);
    assert_eq!(of("rtx-3070").covered, 0.0);
    assert!((spread(errors.iter().flat_map(|left| left.errors.clone())).p90 - 0.25).abs() < 1e-9);
    assert_eq!(leave_one_out(&[recording("rtx-3070", 0.5)]).unwrap(), [], "one card has no other");
    let mut other = recording("rtx-3090", 0.4);
    other.device.kernel_set = "cuda-2".to_owned();
    assert_eq!(leave_one_out(&[recording("rtx-3070", 0.5), other]).unwrap(), [], "other kernels");
}

//! Profiles.

use loadline_core::{Curve, Estimate, Machine, Op, Site};
use loadline_profile::{Profile, unknown_fields};
use serde_json::{Number, Value};

use crate::refused;
use crate::supply::Supply;
use crate::world;

/// A sound profile with every section, two points to a curve.
const THIN: &str = include_str!("../data/profile.json");

/// Amounts of work and sizes of blocks: nothing, one, and up to more than any machine holds.
const AMOUNTS: [f64; 6] = [0.0, 1.0, 4097.0, 1e6, 1e12, 1e18];

/// A profile: an input that begins with `{` is its text, any other is a list of changes to a sound one.
///
/// What is read without complaint is written and read again as the same (but for the last bits of numbers), has a
/// machine, and all times of the machine are finite and not negative, the fast end not above the slow one; a job on
/// it has a forecast that ends.
///
/// # Panics
/// Where one of these does not hold.
pub fn profile(data: &[u8]) -> bool {
    let Some(text) = text(data) else { return false };
    let profile = match Profile::parse(&text, "fuzz") {
        Ok(profile) => profile,
        Err(error) => return refused(&error),
    };
    let written = profile.to_json().unwrap();
    let again = Profile::parse(&written, "fuzz").unwrap().to_json().unwrap();
    let value = |text: &str| serde_json::from_str(text).unwrap();
    assert!(alike(&value(&again), &value(&written)), "{again} is not what was written: {written}");
    assert!(unknown_fields(&written, "fuzz").unwrap().is_empty(), "fields of our own are unknown");
    let machine = profile.to_machine().unwrap();
    check_machine(&machine);
    world::check_forecast(&machine);
    world::check_forecast(&machine.with_cached_files());
    true
}

fn text(data: &[u8]) -> Option<String> {
    if data.first() == Some(&b'{') {
        return std::str::from_utf8(data).ok().map(str::to_owned);
    }
    let mut profile: Value = serde_json::from_str(THIN).unwrap();
    let mut supply = Supply::new(data);
    while !supply.is_empty() {
        let at = usize::from(supply.short()) % count(&profile);
        if let Some(value) = nth(&mut profile, &mut { at }) {
            change(value, &mut supply);
        }
    }
    Some(profile.to_string())
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum::<usize>(),
        _ => 0,
    }
}

/// The value of that number in a walk over all of them, containers in front of what they contain.
fn nth<'a>(value: &'a mut Value, left: &mut usize) -> Option<&'a mut Value> {
    if *left == 0 {
        return Some(value);
    }
    *left -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| nth(item, left)),
        Value::Object(fields) => fields.values_mut().find_map(|field| nth(field, left)),
        _ => None,
    }
}

fn change(value: &mut Value, supply: &mut Supply<'_>) {
    const NUMBERS: [f64; 12] =
        [0.0, 1.0, -1.0, 1e-3, 1e3, 1e4, 1e9, 1e15, 1e18, 1e308, f64::MIN_POSITIVE, 9_007_199_254_740_993.0];
    const FACTORS: [f64; 8] = [0.5, 2.0, 0.3, 0.999_999, 1.000_001, 1e3, 1e-3, 1e-9];
    const TEXTS: [&str; 8] =
        ["", "f32", "bf16", "conv", "attention", "64x64x64 1 1 1", "1 0.001 0.001 3600000000000", "a: 1 1 1"];
    *value = match supply.below(8) {
        0 => number(supply.one_of(&NUMBERS)),
        1 => number(f64::from_bits(supply.long())),
        2 => Value::from(supply.long()),
        3 => number(value.as_f64().unwrap_or(1.0) * supply.one_of(&FACTORS)),
        4 => Value::from(supply.one_of(&TEXTS)),
        5 => return shrink(value, supply),
        6 => return grow(value),
        _ => value.as_bool().map_or(Value::Null, |b| Value::Bool(!b)),
    };
}

fn number(value: f64) -> Value {
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

fn shrink(value: &mut Value, supply: &mut Supply<'_>) {
    match value {
        Value::Array(items) if !items.is_empty() => drop(items.remove(supply.below(items.len()))),
        Value::Object(fields) if !fields.is_empty() => {
            let key = fields.keys().nth(supply.below(fields.len())).cloned();
            drop(key.and_then(|key| fields.shift_remove(&key)));
        }
        _ => {}
    }
}

/// Repeats a list's last item, for a change to come.
fn grow(value: &mut Value) {
    if let Some(items) = value.as_array_mut().filter(|items| items.len() < 8) {
        items.extend(items.last().cloned());
    }
}

/// Whether two texts say the same. The parser of JSON is off in the last place of some numbers.
fn alike(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.keys().eq(b.keys()) && a.values().zip(b.values()).all(|(a, b)| alike(a, b))
        }
        (Value::Number(a), Value::Number(b)) if a != b => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            (a - b).abs() <= 4.0 * f64::EPSILON * a.abs().max(b.abs())
        }
        _ => a == b,
    }
}

fn check_machine(machine: &Machine) {
    let link = &machine.link;
    let curves = [&link.h2d_pinned, &link.h2d_pageable, &link.d2h, &machine.host.convert, &machine.disk.read];
    let conversions = machine.host.conversions.iter().map(|(_, _, curve)| curve);
    let ops = machine.ops.iter().flat_map(|rate| [&rate.flops, &rate.bytes]);
    let rare = machine.disk.cached.iter().chain(&machine.device.allocation);
    curves.into_iter().chain(conversions).chain(ops).chain(rare).for_each(check_curve);
    for table in &machine.sites {
        for dims in [[1; 4], [64, 1536, 1536, 0], [1 << 40, 0, 0, 0], [1 << 20; 4]] {
            let site = Site { op: Op::Linear, weight: loadline_core::DType::F32, dims };
            check_times(|estimate| table.time_ns(&site, estimate), &format!("{table:?} at {dims:?}"), false);
        }
    }
}

fn check_curve(curve: &Curve) {
    for amount in AMOUNTS {
        check_times(|estimate| curve.time_ns(amount, estimate), &format!("{curve:?} at {amount}"), true);
    }
}

fn check_times(time: impl Fn(Estimate) -> f64, what: &str, ordered: bool) {
    let [fast, median, slow] = [Estimate::Fast, Estimate::Median, Estimate::Slow].map(time);
    assert!([fast, median, slow].iter().all(|t| t.is_finite() && *t >= 0.0), "{fast} {median} {slow}: {what}");
    // Rounding may turn equals around by a little.
    let not_above = |a: f64, b: f64| a <= b * (1.0 + 1e-9);
    assert!(!ordered || not_above(fast, median) && not_above(median, slow), "{fast} {median} {slow}: {what}");
}

//! Numbers for people, without the weight of floating-point formatting.

/// Bytes with one digit after the point: `9.4 GiB`, `512 B`. Rounded up, so that what a refusal asks
/// for is enough.
#[must_use]
pub fn size(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let Some((unit, shift)) = units.into_iter().find(|(_, shift)| bytes >> shift > 0) else {
        return format!("{bytes} B");
    };
    let tenths = (u128::from(bytes) * 10).div_ceil(1 << shift);
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// A duration with one digit after the point: `12.3 s`, `4.5 ms`.
#[must_use]
pub fn duration(ns: u64) -> String {
    let units = [("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)];
    let Some((unit, scale)) = units.into_iter().find(|(_, scale)| ns >= *scale) else {
        return format!("{ns} ns");
    };
    let tenths = ns / (scale / 10);
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

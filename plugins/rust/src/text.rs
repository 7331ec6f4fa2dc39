//! Numbers for people, in the form of the program's tables, without the weight of floating-point formatting.

/// Bytes with three digits: `9.38 GiB`, `12.5 MiB`, `512 B`. Rounded up, so that what a refusal asks for is enough.
#[must_use]
pub fn size(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let Some((unit, shift)) = units.into_iter().find(|(_, shift)| bytes >> shift > 0) else {
        return format!("{bytes} B");
    };
    let parts = |of: u128| (u128::from(bytes) * of).div_ceil(1 << shift);
    match parts(100) {
        0..1000 => format!("{} {unit}", point(parts(100), 100)),
        1000..10_000 => format!("{} {unit}", point(parts(10), 10)),
        _ => format!("{} {unit}", parts(1)),
    }
}

/// A duration: `3 h 05 min`, `2 min 07 s`, `12.3 s`, `1.23 s`, `4.5 ms`. Rounded to the nearest, but for minutes and
/// hours, which count what is full.
#[must_use]
pub fn duration(ns: u64) -> String {
    let nearest = |unit: u64| u128::from(ns).saturating_add(u128::from(unit / 2)) / u128::from(unit);
    match ns {
        3_600_000_000_000.. => format!("{} h {:02} min", ns / 3_600_000_000_000, ns / 60_000_000_000 % 60),
        60_000_000_000.. => format!("{} min {:02} s", ns / 60_000_000_000, ns / 1_000_000_000 % 60),
        10_000_000_000.. => format!("{} s", point(nearest(100_000_000), 10)),
        1_000_000_000.. => format!("{} s", point(nearest(10_000_000), 100)),
        1_000_000.. => format!("{} ms", point(nearest(100_000), 10)),
        1_000.. => format!("{} us", point(nearest(100), 10)),
        _ => format!("{ns} ns"),
    }
}

/// A whole number of tenths or hundredths.
fn point(parts: u128, of: u128) -> String {
    let width = if of == 10 { 1 } else { 2 };
    format!("{}.{:0width$}", parts / of, parts % of)
}

/// How many there are of something: `1 block`, `2 blocks`.
#[must_use]
pub fn counted(count: usize, thing: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{s}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_tables_rounded_up() {
        let check = |bytes: u64, expected: &str| assert_eq!(size(bytes), expected, "{bytes}");
        check(0, "0 B");
        check(1023, "1023 B");
        check(1024, "1.00 KiB");
        check(1025, "1.01 KiB");
        check(3 << 30, "3.00 GiB");
        check((10 << 30) - 1, "10.0 GiB");
        check((10 << 30) + 1, "10.1 GiB");
        check(100 << 20, "100 MiB");
        check((100 << 20) + 1, "101 MiB");
        check(u64::MAX, "17179869184 GiB");
    }

    #[test]
    fn durations_are_those_of_the_tables() {
        let check = |ns: u64, expected: &str| assert_eq!(duration(ns), expected, "{ns}");
        check(999, "999 ns");
        check(1_250, "1.3 us");
        check(4_549_000, "4.5 ms");
        check(1_234_000_000, "1.23 s");
        check(12_300_000_000, "12.3 s");
        check(127_900_000_000, "2 min 07 s");
        check(11_100_000_000_000, "3 h 05 min");
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!((counted(1, "block"), counted(0, "slot")), ("1 block".to_owned(), "0 slots".to_owned()));
    }
}

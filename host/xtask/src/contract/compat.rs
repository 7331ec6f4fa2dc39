//! Whether versions that semantic versioning calls alike are alike.

use wit_component::semver_check;
use wit_parser::Resolve;

use super::wit::Version;

/// A line for each version whose guests a later one of the same promise would not load.
pub(super) fn problems(versions: &[Version]) -> Vec<String> {
    let pairs = versions.windows(2).filter(|pair| pair[0].number.promises(pair[1].number));
    pairs.filter_map(|pair| broken(&pair[0], &pair[1])).collect()
}

fn broken(older: &Version, newer: &Version) -> Option<String> {
    let error = compare(older, newer).err()?;
    Some(format!(
        "wit/policy@{}: guests of {} would not load any more; a change of types is a new minor version: {error}",
        newer.number, older.number
    ))
}

/// The newer world must ask for no more and give no less than the older.
fn compare(older: &Version, newer: &Version) -> Result<(), String> {
    let mut resolve = Resolve::default();
    let mut push = |version: &Version| {
        let package = resolve.push_source("policy.wit", &version.text).map_err(|error| format!("{error:#}"))?;
        resolve.select_world(&[package], Some("memory-policy")).map_err(|error| format!("{error:#}"))
    };
    let (older, newer) = (push(older)?, push(newer)?);
    semver_check(resolve, older, newer).map_err(|error| error.root_cause().to_string().replace('\n', " "))
}

#[cfg(test)]
mod tests {
    use super::super::wit::{Number, version};
    use super::*;

    const BEFORE: &str = "\
interface host { log: func(text: string); }
interface policy {
  record plan { homes: list<u8> }
  variant answer { keep, plan(plan) }
  decide: func(budget: u64) -> answer;
}
world memory-policy { import host; export policy; }
";

    fn check(number: Number, from: &str, to: &str, alike: bool) {
        assert!(BEFORE.contains(from), "{from}");
        let versions = [version(Number(0, 1, 0), BEFORE), version(number, &BEFORE.replacen(from, to, 1))];
        let found = problems(&versions);
        assert_eq!(found.is_empty(), alike, "{to}: {found:?}");
        let start = format!("wit/policy@{number}: guests of 0.1.0 would not load any more");
        assert!(found.iter().all(|line| line.starts_with(&start)), "{found:?}");
    }

    #[test]
    fn a_patch_version_may_offer_more_and_change_nothing() {
        let patch = Number(0, 1, 1);
        check(patch, "", "", true);
        check(patch, "interface host", "/// Words.\ninterface host", true);
        check(patch, "log: func(text: string);", "log: func(text: string); more: func();", true);
        check(
            patch,
            "world memory-policy {",
            "interface more { now: func(); }\nworld memory-policy { import more;",
            true,
        );
        check(patch, "homes: list<u8>", "homes: list<u8>, memo: list<u8>", false);
        check(patch, "homes: list<u8>", "homes: list<u16>", false);
        check(patch, "{ keep,", "{ keep, stop,", false);
        check(patch, "budget: u64", "budget: u64, cause: u32", false);
        check(patch, "-> answer;", "-> answer; explain: func();", false);
        check(patch, "log: func(text: string);", "", false);
        check(patch, "export policy;", "export policy; export more: func();", false);
    }

    #[test]
    fn a_minor_version_before_one_may_change_everything() {
        check(Number(0, 2, 0), "homes: list<u8>", "homes: list<u8>, memo: list<u8>", true);
    }
}

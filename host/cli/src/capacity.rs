//! What the verbs of capacity planning share: lists, durations, progress, and Ctrl-C.

use std::io::{Read, Write};
use std::path::Path;

use clap::Args as ClapArgs;
use indicatif::{ProgressBar, ProgressStyle};
use loadline::capacity::{Contender, Watch, contenders};
use loadline::core::{Bytes, Machine, Nanos};
use loadline::presets::Preset;
use loadline::{Error, ErrorClass, policies, profiles};

use crate::args::WhatArgs;
use crate::run::stop_with;
use crate::{policy, setup};

/// Which policies take part, with which settings.
#[derive(ClapArgs, Clone)]
pub(crate) struct PoliciesArgs {
    /// Policies by name or path, with commas between them; `all` for the built-in ones; auto-tune by default
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    pub policy: Vec<String>,
    /// Presets, with commas between them; policies named by --policy take part beside them (see `loadline preset list`)
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    pub preset: Vec<String>,
    /// A setting of the policies that have it: a value, a list (0,8,16) or a range (0..40, 0..40/4)
    #[arg(long = "set", value_name = "KEY=VALUES")]
    pub settings: Vec<String>,
}

/// A request and what surrounds it.
#[derive(ClapArgs, Clone)]
pub(crate) struct WorkloadArgs {
    /// What to make.
    #[command(flatten)]
    pub what: WhatArgs,
    /// Who plans.
    #[command(flatten)]
    pub policies: PoliciesArgs,
    /// Device memory that other programs use
    #[arg(long, value_name = "SIZE", default_value = "0")]
    pub used_by_others: Bytes,
    /// Print JSON on standard output; progress goes to standard error
    #[arg(long)]
    pub json: bool,
}

/// Every name of a list once, in its order.
pub(crate) fn names(flag: &str, list: &[String]) -> Result<Vec<String>, Error> {
    let mut names: Vec<String> = Vec::new();
    for name in list.iter().map(|n| n.trim()) {
        if name.is_empty() {
            return Err(Error::Request(format!("{flag}: an empty name; write one or more with commas between them")));
        }
        if !names.iter().any(|n| n == name) {
            names.push(name.to_owned());
        }
    }
    match names.is_empty() {
        true => Err(Error::Request(format!("{flag}: the list is empty; name at least one"))),
        false => Ok(names),
    }
}

/// A machine to plan for.
pub(crate) fn machine(name: &str) -> Result<Machine, Error> {
    let mut machine = setup::machine(name)?;
    if machine.device.unified {
        loadline::use_local_kernels(&mut machine);
    }
    Ok(machine)
}

/// Machines by name; `all` for every GPU that ships.
pub(crate) fn machines(list: &[String]) -> Result<Vec<Machine>, Error> {
    let mut machines: Vec<Machine> = Vec::new();
    for name in names("--gpu", list)? {
        if name == "all" {
            let every = profiles::names().map(machine).collect::<Result<Vec<_>, _>>()?;
            machines.extend(every.into_iter().filter(|m| !m.device.unified));
        } else {
            machines.push(machine(&name)?);
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    machines.retain(|m| seen.insert(m.name.clone()));
    Ok(machines)
}

/// Policies with settings; `usual` where none was named.
pub(crate) fn policies(args: &PoliciesArgs, usual: &str) -> Result<Vec<Contender>, Error> {
    let presets = args.opened()?;
    if presets.is_empty() { named(args, usual) } else { with_presets(args, &presets) }
}

/// Each preset with its own settings, then the policies that are named.
fn with_presets(args: &PoliciesArgs, presets: &[Preset]) -> Result<Vec<Contender>, Error> {
    let mut own = Vec::new();
    setup::set(&mut own, &args.settings, "NAME")?;
    let mut all = Vec::new();
    for preset in presets {
        let policy = policy::open(&preset.policy)?;
        let mut given = preset.settings();
        for (key, value) in preset.translate(&own)? {
            given.retain(|(k, _)| *k != key);
            given.push((key, value));
        }
        all.extend(contenders(std::slice::from_ref(&policy), &given)?);
    }
    if !args.policy.is_empty() {
        all.extend(named(args, "auto-tune")?);
    }
    Ok(all)
}

fn named(args: &PoliciesArgs, usual: &str) -> Result<Vec<Contender>, Error> {
    let mut wanted: Vec<String> = Vec::new();
    let named = if args.policy.is_empty() { vec![usual.to_owned()] } else { names("--policy", &args.policy)? };
    for name in named {
        let all: Vec<String> = if name == "all" { builtin() } else { vec![name] };
        wanted.extend(all.into_iter().filter(|n| !wanted.contains(n)).collect::<Vec<_>>());
    }
    let loaded = wanted.iter().map(|name| policy::open(name)).collect::<Result<Vec<_>, _>>()?;
    let mut given = Vec::new();
    setup::set(&mut given, &args.settings, "NAME")?;
    contenders(&loaded, &given)
}

/// The names of the built-in policies.
pub(crate) fn builtin() -> Vec<String> {
    policies::names().map(str::to_owned).collect()
}

/// A duration as people write it: `90s`, `10min`, `1.5h`.
pub(crate) fn duration(text: &str) -> Result<Nanos, String> {
    let bad = || format!("'{text}' is no duration: write a number and s, min or h, such as 90s, 10min or 1.5h");
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).ok_or_else(bad)?;
    let (number, unit) = text.split_at(split);
    let seconds = match unit.trim() {
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(bad()),
    };
    let value: f64 = number.parse().map_err(|_| bad())?;
    let nanos = value * seconds * 1e9;
    // A century is more than anybody waits, and far from the largest number of nanoseconds.
    if nanos > 0.0 && nanos < 3.2e18 { Ok(Nanos(nanos.round() as u64)) } else { Err(bad()) }
}

/// Runs a long search with a bar on standard error and Ctrl-C as its end.
pub(crate) fn watched<T>(what: &'static str, search: impl FnOnce(&Watch<'_>) -> Result<T, Error>) -> Result<T, Error> {
    let stop = stop_with(ErrorClass::Stopped, "stopping after the plans that are being made")?;
    // Where standard error is no terminal, nothing is drawn.
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{msg} {pos} of {len} [{bar:30}] {elapsed}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
    bar.set_message(what);
    let progress = |done: usize, total: usize| {
        if total > 0 {
            bar.set_length(total as u64);
        }
        bar.set_position(done as u64);
    };
    let result = search(&Watch { stop: &stop, progress: &progress });
    bar.finish_and_clear();
    result
}

/// Prints a text that ends in a line break of its own.
pub(crate) fn print(text: &str) {
    say!("{}", text.trim_end_matches('\n'));
}

/// Writes a whole file or none.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), Error> {
    loadline::write_whole(path, |out: &mut dyn Write| out.write_all(text.as_bytes()))
}

/// The most bytes of a text file that people write or review.
const TEXT_MOST: u64 = 1 << 20;

/// Reads a small text file, or says why not.
pub(crate) fn read(path: &Path) -> Result<String, String> {
    // Opening a pipe would wait for somebody who writes, so the kind is asked for first.
    if !std::fs::metadata(path).map_err(|e| e.to_string())?.is_file() {
        return Err("this is no ordinary file".to_owned());
    }
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    file.take(TEXT_MOST + 1).read_to_string(&mut text).map_err(|e| e.to_string())?;
    if text.len() as u64 > TEXT_MOST {
        return Err("this has more than 1 MiB".to_owned());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        let check =
            |text: &str, expected: Option<u64>| assert_eq!(duration(text).ok().map(|n| n.0), expected, "{text}");
        check("90s", Some(90_000_000_000));
        check("10min", Some(600_000_000_000));
        check("1.5h", Some(5_400_000_000_000));
        check("10", None);
        check("0s", None);
        check("-1h", None);
        check("1e99h", None);
        check("NaNs", None);
    }
}

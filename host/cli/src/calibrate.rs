//! `loadline calibrate`.

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use loadline::core::{ContentHash, StageKind};
use loadline::{Error, Scattered, StageErrors, StageSample, TraceFile, calibrated, errors, levels, profiles};
use serde_json::json;

use crate::model::print_json;

/// `loadline calibrate`.
#[derive(ClapArgs)]
pub(crate) struct CalibrateArgs {
    /// Traces that `loadline run --trace` wrote, or folders of them
    #[arg(required = true)]
    pub traces: Vec<PathBuf>,
    /// The profile that the runs were forecast with: a name or a file
    #[arg(long, value_name = "PROFILE", default_value = "cpu")]
    pub profile: String,
    /// Where the calibrated profile goes; without it nothing is written
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Prints how far forecasts were off, and writes a profile that is less so.
pub(crate) fn run(args: &CalibrateArgs) -> Result<(), Error> {
    let bad = |e: &dyn std::fmt::Display| Error::Profile(e.to_string());
    let profile = profiles::find_or_open(&args.profile, |path| std::fs::File::open(path)).map_err(|e| bad(&e))?;
    let traces: Vec<TraceFile> =
        files(&args.traces)?.iter().map(|path| TraceFile::read(path)).collect::<Result<_, _>>()?;
    let samples = matching(&traces, &profile.hash(), &args.profile)?;
    let table = errors(&samples);
    let runs = traces.iter().filter(|t| !t.samples.is_empty()).count();
    let (levels, scattered) = levels(&samples, &format!("{runs} runs, by loadline calibrate"));
    if args.json {
        let schema = "loadline-calibration/1";
        print_json(&json!({ "schema": schema, "stages": table, "levels": levels, "scattered": scattered }));
    } else {
        table_of(&table);
        scattered.iter().for_each(|kind| say!("{}", no_level(kind)));
    }
    let Some(output) = &args.output else {
        if !args.json {
            say!("nothing was changed; to write a calibrated profile add -o FILE");
        }
        return Ok(());
    };
    if levels.is_empty() {
        let few = || format!("too few runs: a level needs {} of a kind; save more with --trace", loadline::RUNS_LEAST);
        let text = scattered.first().map_or_else(few, |kind| format!("nothing was written: {}", no_level(kind)));
        return Err(Error::Request(text));
    }
    let text = calibrated(profile, levels).to_json().map_err(|e| bad(&e))?;
    loadline::write_whole(output, |out| out.write_all(text.as_bytes()))?;
    if !args.json {
        say!("wrote {}; use it with --gpu {}", output.display(), output.display());
    }
    Ok(())
}

fn table_of(table: &[StageErrors]) {
    say!(
        "{:<14} {:<5} {:>5} {:>9} {:>9} {:>9} {:>9} {:>8} {:>7}",
        "stage",
        "type",
        "runs",
        "median",
        "p10",
        "p90",
        "worst",
        "covered",
        "width"
    );
    for e in table {
        let percent = |share: f64| format!("{:+.1} %", 100.0 * share);
        say!(
            "{:<14} {:<5} {:>5} {:>9} {:>9} {:>9} {:>9} {:>6.0} % {:>5.0} %",
            name(e.stage),
            e.dtype.name(),
            e.runs,
            percent(e.median),
            percent(e.p10),
            percent(e.p90),
            percent(e.worst),
            100.0 * e.covered,
            100.0 * e.width
        );
    }
    say!("errors are the forecast against what was measured: +5 % is a forecast too long");
}

fn no_level(kind: &Scattered) -> String {
    format!(
        "no level of {} {}: its runs took from {:.2} to {:.0} times as long as their operations; run again on a machine \
         that does nothing else, or with a larger model",
        name(kind.stage),
        kind.dtype.name(),
        kind.low,
        kind.high
    )
}

fn name(stage: StageKind) -> String {
    json!(stage).as_str().unwrap_or_default().to_owned()
}

/// The files given, and those in the folders given, sorted.
fn files(given: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    for path in given {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let unreadable = |e: std::io::Error| Error::Profile(format!("folder '{}': {e}", path.display()));
        let entries = std::fs::read_dir(path).map_err(unreadable)?;
        for entry in entries {
            files.push(entry.map_err(unreadable)?.path());
        }
    }
    files.retain(|path| path.extension().is_some_and(|e| e == "json") || given.contains(path));
    // A trace that was named twice is one run.
    let place = |path: &PathBuf| path.canonicalize().unwrap_or_else(|_| path.clone());
    files.sort_by_cached_key(place);
    files.dedup_by_key(|path| place(path));
    if files.is_empty() {
        let text = "there is no trace: write some with `loadline run ... --trace FILE.json`";
        return Err(Error::Profile(text.to_owned()));
    }
    Ok(files)
}

/// The samples of traces, all of which must belong to the profile: levels of another would be wrong for it.
fn matching(traces: &[TraceFile], profile: &ContentHash, name: &str) -> Result<Vec<StageSample>, Error> {
    if let Some(other) = traces.iter().find(|trace| trace.profile != *profile) {
        let file: &Path = &other.path;
        return Err(Error::Profile(format!(
            "trace '{}' was forecast with profile {}, not with '{name}' ({profile}): name that profile with --profile",
            file.display(),
            other.profile
        )));
    }
    Ok(traces.iter().flat_map(|trace| trace.samples.clone()).collect())
}

//! `loadline doctor`: what this machine can do, what will not work and why, and the command that mends it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args as ClapArgs;
#[cfg(feature = "cuda")]
use loadline::doctor::{Exercise, exercise};
use loadline::doctor::{Finding, Options, Severity, examine, gather, json, worst};
use loadline::{Error, ErrorClass, Gpu};

#[cfg(feature = "cuda")]
use crate::demo;
use crate::model::print_json;
use crate::{policy, setup};

/// What `doctor` takes.
#[derive(ClapArgs)]
pub(crate) struct DoctorArgs {
    /// The folder that models or results lie in
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    pub folder: PathBuf,
    /// Read for three seconds to say how fast the disk is, instead of for a moment: the largest file of the folder, or
    /// one of 128 MiB that is made there and gone
    #[arg(long)]
    pub measure: bool,
    /// Read nothing
    #[arg(long, conflicts_with = "measure")]
    pub no_measure: bool,
    /// Try a GPU: the rules that the engine relies on, the limit of its memory, and a small model against the processor
    #[arg(long)]
    pub exercise: bool,
    /// The GPU to try; the one with most memory by default
    #[arg(long, value_name = "N", requires = "exercise")]
    pub gpu_index: Option<u32>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

pub(crate) fn run(args: &DoctorArgs) -> Result<ExitCode, Error> {
    let facts = gather(&Options {
        processor: setup::processor()?,
        folder: args.folder.clone(),
        measure_seconds: match (args.measure, args.no_measure) {
            (true, _) => 3.0,
            (_, true) => 0.0,
            // Sixty requests of a fast disk; a slow one shows itself in one.
            _ => 0.3,
        },
        places: policy::places(),
    });
    let mut findings = examine(&facts);
    if args.exercise {
        findings.extend(exercised(args.gpu_index)?);
    }
    if args.json {
        print_json(&json(&facts, &findings));
    } else {
        print(&findings);
    }
    Ok(match worst(&findings) {
        Severity::Problem => ExitCode::from(ErrorClass::Unfit as u8),
        Severity::Note | Severity::Ok => ExitCode::SUCCESS,
    })
}

/// What a GPU does of what runs rely on.
#[cfg(feature = "cuda")]
fn exercised(index: Option<u32>) -> Result<Vec<Finding>, Error> {
    let gpu = Gpu::open(index)?;
    let work = demo::unpacked()?;
    let (model, processor) = (work.path(), setup::this_machine("cpu")?);
    let results = demo::folder()?;
    Ok(exercise(&Exercise { gpu: &gpu, model, processor, work: results.path() }))
}

/// A program without CUDA says so.
#[cfg(not(feature = "cuda"))]
fn exercised(index: Option<u32>) -> Result<Vec<Finding>, Error> {
    Gpu::open(index).map(|_| Vec::new())
}

/// Area by area, each finding with its severity in front.
fn print(findings: &[Finding]) {
    let mut area = "";
    for finding in findings {
        if finding.area != area {
            area = finding.area;
            say!("{area}");
        }
        say!("{}", text(finding));
    }
    say!("\n{}", summary(findings));
}

fn text(finding: &Finding) -> String {
    let mut text = format!("  {:<9}{}", finding.severity.name(), finding.what);
    let indent = format!("\n{:11}", "");
    text.extend(finding.reason.iter().map(|reason| format!("{indent}{reason}")));
    text.extend(finding.fix.iter().map(|fix| format!("{indent}-> {fix}")));
    text
}

/// `1 problem, 2 notes`, or that all is well.
fn summary(findings: &[Finding]) -> String {
    let count = |severity: Severity| {
        let n = findings.iter().filter(|finding| finding.severity == severity).count();
        (n > 0).then(|| format!("{n} {}{}", severity.name(), if n == 1 { "" } else { "s" }))
    };
    let parts: Vec<_> = [Severity::Problem, Severity::Note].into_iter().filter_map(count).collect();
    if parts.is_empty() {
        return "everything is as it should be".to_owned();
    }
    format!("{}: what to type is behind each arrow", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(severity: Severity) -> Finding {
        let said = |text: &str| (severity != Severity::Ok).then(|| text.to_owned());
        let (reason, fix) = (said("it is old"), said("sudo reboot"));
        Finding { area: "disk", check: "x", severity, what: "a disk".to_owned(), reason, fix }
    }

    #[test]
    fn a_finding_is_followed_by_its_reason_and_what_to_type() {
        assert_eq!(text(&finding(Severity::Ok)), "  ok       a disk");
        assert_eq!(
            text(&finding(Severity::Note)),
            "  note     a disk\n           it is old\n           -> sudo reboot"
        );
    }

    #[test]
    fn the_last_line_counts() {
        let check = |severities: &[Severity], expected: &str| {
            let findings: Vec<_> = severities.iter().map(|severity| finding(*severity)).collect();
            assert!(summary(&findings).starts_with(expected), "{}", summary(&findings));
        };
        check(&[Severity::Ok], "everything");
        check(&[Severity::Ok, Severity::Note, Severity::Note], "2 notes:");
        check(&[Severity::Problem, Severity::Note], "1 problem, 1 note:");
    }
}

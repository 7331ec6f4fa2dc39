//! `loadline doctor`: what this machine can do, what will not work and why, and the command that mends it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args as ClapArgs;
use loadline::doctor::{Finding, Options, Severity, examine, gather, json, worst};
use loadline::{Error, ErrorClass};

use crate::model::print_json;
use crate::{policy, setup};

/// What `doctor` takes.
#[derive(ClapArgs)]
pub(crate) struct DoctorArgs {
    /// The folder that models or results lie in
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    pub folder: PathBuf,
    /// Read the largest file of the folder for three seconds at most, and say how fast that was
    #[arg(long)]
    pub measure: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

pub(crate) fn run(args: &DoctorArgs) -> Result<ExitCode, Error> {
    let facts = gather(&Options {
        processor: setup::processor()?,
        folder: args.folder.clone(),
        measure: args.measure,
        places: policy::places(),
    });
    let findings = examine(&facts);
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

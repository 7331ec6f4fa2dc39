//! `loadline profile`.

mod check;
mod make;
mod record;
mod show;

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args as ClapArgs, Subcommand};
use loadline::core::Bytes;
use loadline::profile::{FILE_BYTES_MOST, Profile};
use loadline::{Error, profiles};

use record::RecordArgs;

/// The exit code of `diff` where the profiles are not the same.
const DIFFERENT: u8 = 20;

/// Profiles.
#[derive(Subcommand)]
pub(crate) enum ProfileCommand {
    /// List the profiles that ship, with what their figures rest on
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show every figure of a profile with its interval, provenance and source
    Show {
        /// A profile's name or file
        profile: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Say what cannot be true about profiles, and which fields mean nothing
    Lint {
        /// Profile files, or names
        #[arg(required = true)]
        profiles: Vec<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Say what is different between two profiles; exit code 20 if anything is
    Diff {
        /// A profile's name or file
        before: String,
        /// A profile's name or file
        after: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Measure this machine and write its profile
    Record(RecordArgs),
    /// Put a machine together from a profile and other parts
    Compose(Box<ComposeArgs>),
    /// Make the profile of a card from the recording of another
    Derive(DeriveArgs),
}

/// `loadline profile compose`.
#[derive(ClapArgs)]
pub(crate) struct ComposeArgs {
    /// The profile that gives every part that is not named: a name or a file
    pub base: String,
    /// The slot: pcie-3.0-x1 to pcie-5.0-x16
    #[arg(long, value_name = "LINK", conflicts_with = "link_of")]
    pub link: Option<String>,
    /// The link of another profile
    #[arg(long, value_name = "PROFILE")]
    pub link_of: Option<String>,
    /// The host: ddr4-3200, ddr5-5600, ddr5-4800-8ch and others; its RAM is the base's unless --ram is given
    #[arg(long, value_name = "HOST", conflicts_with = "host_of")]
    pub host: Option<String>,
    /// The host of another profile, with its RAM
    #[arg(long, value_name = "PROFILE")]
    pub host_of: Option<String>,
    /// The amount of RAM, such as 32GiB
    #[arg(long, value_name = "SIZE")]
    pub ram: Option<Bytes>,
    /// The disk: hdd, sata-ssd, nvme-gen3 to nvme-gen5, nvme-server, network-1g, network-10g
    #[arg(long, value_name = "DISK", conflicts_with = "disk_of")]
    pub disk: Option<String>,
    /// The disk of another profile
    #[arg(long, value_name = "PROFILE")]
    pub disk_of: Option<String>,
    /// Where the result goes
    #[command(flatten)]
    pub result: ResultArgs,
}

/// `loadline profile derive`.
#[derive(ClapArgs)]
pub(crate) struct DeriveArgs {
    /// The card to make a profile of (see `loadline profile list`)
    #[arg(long = "for", value_name = "CARD")]
    pub card: String,
    /// The profile whose shares of the peaks are taken; the nearest that ships by default
    #[arg(long, value_name = "PROFILE")]
    pub from: Option<String>,
    /// Where the result goes
    #[command(flatten)]
    pub result: ResultArgs,
}

/// Where a profile that was made goes.
#[derive(ClapArgs)]
pub(crate) struct ResultArgs {
    /// The file to write; standard output by default
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The profile's name; the file's name without its ending by default
    #[arg(long)]
    pub name: Option<String>,
}

pub(crate) fn run(command: &ProfileCommand) -> Result<ExitCode, Error> {
    match command {
        ProfileCommand::List { json } => show::list(*json)?,
        ProfileCommand::Show { profile, json } => show::show(profile, *json)?,
        ProfileCommand::Lint { profiles, json } => check::lint(profiles, *json)?,
        ProfileCommand::Diff { before, after, json } => return check::diff(before, after, *json),
        ProfileCommand::Record(args) => record::record(args)?,
        ProfileCommand::Compose(args) => make::compose(args)?,
        ProfileCommand::Derive(args) => make::derive(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A profile by name or file.
fn open(name: &str) -> Result<Profile, Error> {
    profiles::find_or_open(name, |path| std::fs::File::open(path)).map_err(bad)
}

/// The text of a profile: of the file, or of the one that ships.
fn text(name: &str) -> Result<String, Error> {
    if !profiles::is_path(name) {
        return open(name)?.to_json().map_err(bad);
    }
    let unreadable = |e: std::io::Error| Error::Profile(format!("profile '{name}' cannot be opened: {e}"));
    let mut bytes = Vec::new();
    let file = std::fs::File::open(name).map_err(unreadable)?;
    // One byte more than a profile may have, so that a longer file is still seen to be too long.
    file.take(FILE_BYTES_MOST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    String::from_utf8(bytes).map_err(|_| Error::Profile(format!("profile '{name}' is no text: check the path")))
}

fn bad(error: impl std::fmt::Display) -> Error {
    Error::Profile(error.to_string())
}

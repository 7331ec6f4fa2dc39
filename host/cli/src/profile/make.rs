//! `loadline profile compose` and `derive`.

use loadline::Error;
use loadline::core::Provenance;
use loadline::profile::{
    DeriveError, DiskPart, HostPart, LinkPart, Profile, Reference, distance, nearest, parts, plain_name,
};
use loadline::profiles;

use super::{ComposeArgs, DeriveArgs, ResultArgs, bad, open};

pub(super) fn compose(args: &ComposeArgs) -> Result<(), Error> {
    let base = open(&args.base)?;
    let name = args.result.name_or(|| composed_name(args, &base));
    let (link, disk) = (link(args, &base)?, disk(args, &base)?);
    let mut profile = Profile::compose(&name, base.device.clone(), link, host(args, &base)?, disk).map_err(bad)?;
    if let Some(ram) = args.ram {
        profile = profile.with_host_memory(ram);
    }
    args.result.give(&profile)
}

fn composed_name(args: &ComposeArgs, base: &Profile) -> String {
    let given = [&args.link, &args.link_of, &args.host, &args.host_of, &args.disk, &args.disk_of];
    let mut words = vec![base.name.as_str()];
    words.extend(given.into_iter().flatten().map(String::as_str));
    words.join("-")
}

fn link(args: &ComposeArgs, base: &Profile) -> Result<LinkPart, Error> {
    match (&args.link, &args.link_of) {
        (Some(name), _) => parts::link(name).map_err(bad),
        (None, Some(other)) => Ok(open(other)?.link),
        (None, None) => Ok(base.link.clone()),
    }
}

fn host(args: &ComposeArgs, base: &Profile) -> Result<HostPart, Error> {
    match (&args.host, &args.host_of) {
        (Some(name), _) => Ok(parts::host(name).map_err(bad)?.with_memory_of(&base.host)),
        (None, Some(other)) => Ok(open(other)?.host),
        (None, None) => Ok(base.host.clone()),
    }
}

fn disk(args: &ComposeArgs, base: &Profile) -> Result<DiskPart, Error> {
    match (&args.disk, &args.disk_of) {
        (Some(name), _) => parts::disk(name).map_err(bad),
        (None, Some(other)) => Ok(open(other)?.disk),
        (None, None) => Ok(base.disk.clone()),
    }
}

pub(super) fn derive(args: &DeriveArgs) -> Result<(), Error> {
    let sheet = profiles::datasheet(&args.card).map_err(bad)?;
    let given = args.from.as_deref().map(reference).transpose()?;
    let shipped = profiles::references();
    let none = || bad(DeriveError::NoReference { card: sheet.name.clone() });
    let chosen = given.as_ref().or_else(|| nearest(sheet, &shipped)).ok_or_else(none)?;
    let mut profile = profiles::profile_of(sheet, chosen).map_err(bad)?;
    profile.name = args.result.name_or(|| sheet.name.clone());
    let far = distance(sheet, chosen);
    note!(
        "{} ({}) from {} ({}), {}: interval {:.0} % wider",
        sheet.name,
        sheet.lineage,
        chosen.name,
        chosen.lineage,
        far.words(),
        100.0 * far.widening()
    );
    args.result.give(&profile)
}

fn reference(name: &str) -> Result<Reference, Error> {
    let profile = open(name)?;
    let sheet = profiles::datasheet_of(&profile.name, &profile.device).ok_or_else(|| {
        bad(DeriveError::UnknownDevice { profile: name.to_owned(), device: profile.device.name.clone() })
    })?;
    if profile.to_machine().map_err(bad)?.provenance == Provenance::Datasheet {
        note!("note: '{name}' holds assumptions, not a recording; so does what is derived from it");
    }
    Ok(Reference::recorded(&profile, sheet))
}

impl ResultArgs {
    /// The name that was given, or that of the file, or another, as a profile may have it.
    fn name_or(&self, other: impl FnOnce() -> String) -> String {
        let stem = || Some(self.output.as_ref()?.file_stem()?.to_string_lossy().into_owned());
        plain_name(&self.name.clone().or_else(stem).unwrap_or_else(other))
    }

    fn give(&self, profile: &Profile) -> Result<(), Error> {
        let text = profile.to_json().map_err(bad)?;
        let Some(path) = &self.output else {
            say!("{}", text.trim_end());
            return Ok(());
        };
        loadline::check_writable("-o", path)?;
        loadline::write_whole(path, |out| out.write_all(text.as_bytes()))?;
        say!("{}: {} ({})", path.display(), profile.title, profile.hash());
        Ok(())
    }
}

//! `loadline policy list`.

use loadline::Error;
use loadline::core::Bytes;
use loadline::policies::{self, Found, Origin, Places};
use loadline::workshop::Installed;
use serde_json::{Value, json};

use super::places;

/// One line of the list: a policy, or why it cannot be used.
struct Row {
    /// Its name, or its name and hash where the name alone means another or more than one.
    name: String,
    origin: &'static str,
    told: Result<Told, String>,
}

struct Told {
    version: String,
    hash: String,
    bytes: usize,
    summary: String,
}

pub(super) fn run(json: bool) -> Result<(), Error> {
    let places = places();
    let rows = rows(&places)?;
    if json {
        let rows: Vec<Value> = rows.iter().map(as_json).collect();
        say!("{}", Value::from(rows));
        return Ok(());
    }
    rows.iter().for_each(tell);
    if !rows.iter().any(|row| row.origin == "installed") {
        say!("none is installed; `loadline policy install FILE` installs one");
    }
    say!("\nSee the settings of one with `loadline policy show NAME`.");
    Ok(())
}

fn rows(places: &Places) -> Result<Vec<Row>, Error> {
    let builtin = policies::names().map(|name| row(name.to_owned(), name, places));
    let mut rows: Vec<Row> = builtin.collect();
    let installed = places.installed.as_deref().map(|folder| Installed::new(folder).list());
    let installed = installed.transpose()?.unwrap_or_default();
    for policy in &installed {
        let taken = policies::names().any(|name| name == policy.name);
        let many = installed.iter().filter(|other| other.name == policy.name).count() > 1;
        let reference = policy.reference();
        let name = if taken || many { reference.clone() } else { policy.name.clone() };
        rows.push(Row { origin: "installed", ..row(name, &reference, places) });
    }
    Ok(rows)
}

fn row(name: String, wanted: &str, places: &Places) -> Row {
    let told = policies::find(wanted, places, &super::limits()).and_then(|found| told(wanted, &found, places));
    Row { name, origin: "built in", told: told.map_err(|error| error.to_string()) }
}

fn told(name: &str, found: &Found, places: &Places) -> Result<Told, Error> {
    let policy = policies::load_bytes(name, &found.component, places, super::limits())?;
    let id = policy.id();
    Ok(Told {
        version: id.version.clone(),
        hash: id.hash.to_string(),
        bytes: found.component.len(),
        summary: policy.summary().to_owned(),
    })
}

/// What a component of a size carries.
pub(super) fn class(bytes: usize) -> &'static str {
    if bytes > super::limits().light_bytes { "with an interpreter" } else { "compiled" }
}

/// In words, for a line and for a table.
pub(super) fn origin(origin: &Origin) -> String {
    match origin {
        Origin::BuiltIn => "built in".to_owned(),
        Origin::Installed(path) => format!("installed: {}", path.display()),
        Origin::File(path) => path.display().to_string(),
    }
}

fn tell(row: &Row) {
    match &row.told {
        Ok(told) => {
            let size = Bytes(told.bytes as u64).to_string();
            let (version, hash, class) = (&told.version, &told.hash, class(told.bytes));
            say!("{:<14} {version:<8} {hash}  {size:>9} {class}, {}", row.name, row.origin);
            say!("{:14} {}", "", told.summary);
        }
        Err(reason) => say!("{:<14} cannot be used: {reason}", row.name),
    }
}

fn as_json(row: &Row) -> Value {
    match &row.told {
        Ok(told) => json!({
            "name": row.name,
            "version": told.version,
            "hash": told.hash,
            "bytes": told.bytes,
            "class": class(told.bytes),
            "origin": row.origin,
            "summary": told.summary,
        }),
        Err(reason) => json!({ "name": row.name, "origin": row.origin, "error": reason }),
    }
}

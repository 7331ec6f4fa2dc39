//! `loadline policy check`.

use loadline::admission::{Admission, Check, admit};
use loadline::{Error, policies};

use super::places;
use crate::model::print_json;
use crate::setup;

pub(super) fn run(name: &str, set: &[String], json: bool) -> Result<(), Error> {
    let places = places();
    let component = policies::find(name, &places, &super::limits())?.component;
    let mut given = Vec::new();
    setup::set(&mut given, set, name)?;
    let admission = admit(name, &component, &places, super::limits(), &given)?;
    if json {
        print_json(&admission.json());
    } else {
        tell(&admission);
    }
    match admission.failed() {
        None => Ok(()),
        Some(Check { name: check, detail, .. }) => {
            Err(Error::NotAdmitted { name: name.to_owned(), check, detail: detail.clone() })
        }
    }
}

fn tell(admission: &Admission) {
    for check in &admission.checks {
        say!("{:<12} {:<7} {}", check.name, check.status.name(), check.detail);
    }
    if let (true, Some(id)) = (admission.admitted(), &admission.policy) {
        say!("\n{} {} is admitted, {}@{}", id.name, id.version, id.name, admission.hash);
    }
}

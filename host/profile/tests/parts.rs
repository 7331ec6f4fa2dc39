//! Machines put together from parts.
#![allow(clippy::unwrap_used)]

use loadline_core::{Bytes, Estimate, Tier};
use loadline_profile::{ComposeError, Profile, catalog, parts};

fn card(name: &str) -> Profile {
    catalog::find(name).unwrap()
}

fn in_slot(card: &Profile, link: &str) -> Result<Profile, ComposeError> {
    let link = parts::link(link).unwrap();
    Profile::compose("mine", card.device.clone(), link, card.host.clone(), card.disk.clone())
}

#[test]
fn every_part_that_ships_makes_a_sound_machine() {
    let base = card("rtx-5090");
    for link in parts::links() {
        let profile = in_slot(&base, link).unwrap();
        assert_eq!(parts::link_name(profile.link.pcie.unwrap().value), link);
    }
    for host in parts::hosts() {
        let host = parts::host(host).unwrap().with_memory_of(&base.host);
        Profile::compose("mine", base.device.clone(), base.link.clone(), host, base.disk.clone()).unwrap();
    }
    for disk in parts::disks() {
        let disk = parts::disk(disk).unwrap();
        Profile::compose("mine", base.device.clone(), base.link.clone(), base.host.clone(), disk).unwrap();
    }
}

#[test]
fn a_faster_slot_copies_faster_and_a_pinned_copy_is_never_slower() {
    let time = |link: &str, tier| {
        let machine = in_slot(&card("rtx-5090"), link).unwrap().to_machine().unwrap();
        machine.copy_time(tier, Bytes::mib(256), Estimate::Median)
    };
    let slots = ["pcie-3.0-x1", "pcie-3.0-x4", "pcie-3.0-x8", "pcie-3.0-x16", "pcie-4.0-x16", "pcie-5.0-x16"];
    assert!(slots.map(|slot| time(slot, Tier::Pinned)).is_sorted_by(|a, b| a > b));
    for slot in parts::links() {
        assert!(time(slot, Tier::Pinned) <= time(slot, Tier::Host), "{slot}");
    }
}

#[test]
fn a_composed_machine_keeps_the_origin_of_every_figure() {
    let (gpu, cpu) = (card("rtx-3060-12gb"), card("cpu"));
    let link = parts::link("pcie-3.0-x8").unwrap();
    let mine =
        Profile::compose("My Box!", gpu.device.clone(), link.clone(), gpu.host.clone(), cpu.disk.clone()).unwrap();
    assert_eq!(mine.name, "my-box");
    assert_eq!((&mine.device, &mine.link, &mine.host, &mine.disk), (&gpu.device, &link, &gpu.host, &cpu.disk));
    let again = Profile::parse(&mine.to_json().unwrap(), "mine.json").unwrap();
    assert_eq!(again, mine);
    // 7.877 GB/s, of which 0.8, after 10 us.
    let time = mine.to_machine().unwrap().copy_time(Tier::Pinned, Bytes(63_015_385), Estimate::Median);
    assert_eq!(time.0, 10_010_000);
}

#[test]
fn a_card_does_not_use_more_than_its_connector() {
    let error = in_slot(&card("rtx-4060"), "pcie-4.0-x16").unwrap_err().to_string();
    assert!(error.contains("PCI Express 4.0 x8") && error.contains("--link pcie-4.0-x8"), "{error}");
    assert!(in_slot(&card("t4"), "pcie-4.0-x8").is_err(), "a newer slot");
    assert!(in_slot(&card("rtx-4060"), "pcie-3.0-x8").is_ok(), "an older slot");
}

#[test]
fn a_link_that_joins_nothing_is_refused() {
    let (gpu, cpu) = (card("rtx-4090"), card("cpu"));
    let error = in_slot(&cpu, "pcie-4.0-x16").unwrap_err().to_string();
    assert!(error.contains("leave --link out"), "{error}");
    let error = Profile::compose("x", gpu.device, cpu.link, gpu.host, gpu.disk).unwrap_err().to_string();
    assert!(error.contains("copies in RAM") && error.contains("--link pcie-4.0-x16"), "{error}");
}

#[test]
fn an_unknown_part_leads_to_those_that_are_there() {
    let error = parts::disk("nvme").unwrap_err().to_string();
    assert!(error.starts_with("no disk is called 'nvme' (did you mean 'nvme-gen3'"), "{error}");
    assert!(error.ends_with("network-10g, nvme-gen3, nvme-gen4, nvme-gen5, nvme-server, sata-ssd"), "{error}");
    assert!(parts::link("PCIe 3.0 x8").is_ok(), "spelling does not matter");
    assert!(parts::host("ddr3").unwrap_err().to_string().contains("ddr4-3200"));
}

#[test]
fn an_unusable_name_is_an_error() {
    let gpu = card("rtx-4090");
    let error = Profile::compose("!!", gpu.device, gpu.link, gpu.host, gpu.disk).unwrap_err().to_string();
    assert!(error.contains("field 'name' is ''"), "{error}");
}

//! NVIDIA's driver and its cards.

use loadline_core::Bytes;

use super::processor::count;
use super::{Card, Compute, Finding, Gpus, HeldBack, Process, Reach};

const AREA: &str = "gpu";

pub(super) fn findings(gpus: &Gpus) -> Vec<Finding> {
    match gpus {
        Gpus::NoDriver { cards: 0 } => vec![
            Finding::note(AREA, "driver", "no NVIDIA driver and no card of NVIDIA")
                .since("runs use the processor; cards that you do not own can be forecast")
                .mend("loadline plan MODEL --gpu rtx-4090  # or another of: loadline profile list"),
        ],
        Gpus::NoDriver { cards } => vec![
            Finding::problem(AREA, "driver", format!("{} of NVIDIA without a driver", count(*cards, "card")))
                .since("libnvidia-ml.so.1 cannot be loaded, so nothing can use a card here")
                .mend(
                    "sudo ubuntu-drivers install  # or your system's package; a container: docker run --gpus all ...",
                ),
        ],
        Gpus::Broken { reason, mismatch } => vec![broken(reason, *mismatch)],
        Gpus::Driver { version, cuda, cards } => working(version, cuda.as_deref(), cards),
    }
}

fn broken(reason: &str, mismatch: bool) -> Finding {
    let problem = Finding::problem(AREA, "driver", format!("NVIDIA's driver does not work: {reason}"));
    if mismatch {
        return problem
            .since("the driver was updated and the kernel still runs the one before")
            .mend("sudo reboot  # or unload the modules nvidia_uvm, nvidia_drm, nvidia_modeset and nvidia");
    }
    problem
        .since("its library is there, so no card can be used until it answers")
        .mend("sudo modprobe nvidia; nvidia-smi; sudo dmesg | grep -i nvrm | tail")
}

fn working(version: &str, cuda: Option<&str>, cards: &[Card]) -> Vec<Finding> {
    let cuda = cuda.map(|cuda| format!(", for CUDA up to {cuda}")).unwrap_or_default();
    let driver = format!("driver {version}{cuda}, {}", count(cards.len() as u64, "card"));
    let driver = if cards.is_empty() {
        Finding::problem(AREA, "driver", driver)
            .since("the driver works and shows no card")
            .mend("nvidia-smi -L  # a container: docker run --gpus all ...")
    } else {
        Finding::ok(AREA, "driver", driver)
    };
    std::iter::once(driver).chain(cards.iter().flat_map(card)).collect()
}

fn card(card: &Card) -> Vec<Finding> {
    if let Some(reason) = &card.lost {
        let lost = Finding::problem(AREA, "card", format!("card {}: {reason}", card.index));
        return vec![lost.since("the driver cannot reach it").mend("sudo dmesg | grep -i -e nvrm -e xid | tail")];
    }
    let mut found = vec![Finding::ok(AREA, "card", described(card))];
    found.extend(others(card));
    found.extend(link(card));
    found.extend(clocks(card));
    found.extend(compute(card));
    found.extend(unanswered(card));
    found
}

/// What a card leaves open is no fault of it, but nothing is concluded from it either.
fn unanswered(card: &Card) -> Option<Finding> {
    let open: Vec<_> = card.unanswered.iter().map(|open| format!("{} ({})", open.what, open.reason)).collect();
    (!open.is_empty()).then(|| {
        Finding::note(AREA, "unanswered", format!("card {} does not say: {}", card.index, open.join(", ")))
            .since("nothing here is concluded from that; forecasts go by the profile")
            .mend(format!("nvidia-smi -i {} -q  # what can be known of it", card.index))
    })
}

fn described(card: &Card) -> String {
    let known = |value: Option<u64>, what: &str| value.map(|n| format!(" · {} {what}", Bytes(n))).unwrap_or_default();
    let capability = card.capability.as_ref().map(|c| format!(" · compute capability {c}")).unwrap_or_default();
    let memory = known(card.total_bytes, "memory") + &known(card.free_bytes, "free");
    let heat = card.celsius.map(|celsius| format!(" · {celsius} °C")).unwrap_or_default();
    format!("card {}: {}{capability}{memory}{heat}", card.index, card.name)
}

/// What a driver and an idle desktop leave in use.
const USED_LITTLE: u64 = 64 << 20;

fn others(card: &Card) -> Option<Finding> {
    let used = card.used_bytes.filter(|used| *used >= USED_LITTLE)?;
    let who = match card.processes.as_slice() {
        [] => "processes that cannot be seen from here".to_owned(),
        some => some.iter().map(process).collect::<Vec<_>>().join(", "),
    };
    let what = format!("card {}: {} used by others: {who}", card.index, Bytes(used));
    let mib = used.div_ceil(1 << 20);
    Some(
        Finding::note(AREA, "used-by-others", what)
            .since("a budget of the whole card would not be there")
            .mend(format!("loadline plan MODEL --gpu PROFILE --used-by-others {mib}MiB  # or end what is not needed")),
    )
}

fn process(process: &Process) -> String {
    let name = process.name.as_deref().unwrap_or("process");
    let used = process.used_bytes.map(|n| format!(" ({})", Bytes(n))).unwrap_or_default();
    format!("{name} {}{used}", process.pid)
}

fn link(card: &Card) -> Option<Finding> {
    let (lanes, generation) = (card.link_width, card.link_generation);
    let (now, max) = (lanes.now?, lanes.max?);
    let what = format!(
        "card {}: PCIe {} x{now} now, {} x{max} at most",
        card.index,
        named(generation.now),
        named(generation.max)
    );
    // At rest a link saves power in its generation, and never in its lanes.
    let slow = generation.now.zip(generation.max).is_some_and(|(now, max)| now < max) && !is_idle(card);
    if now >= max && !slow {
        return Some(Finding::ok(AREA, "link", what));
    }
    let bus = card.bus.as_deref().unwrap_or("BUS");
    Some(
        Finding::note(AREA, "link", what)
            .since("streamed weights come through this link, so they come slower than forecast for the full one")
            .mend(format!(
                "sudo lspci -vv -s {bus} | grep -e LnkCap -e LnkSta  # then another slot, or the firmware's setting"
            )),
    )
}

fn named(generation: Option<u32>) -> String {
    generation.map_or("of unknown generation".to_owned(), |generation| format!("{generation}.0"))
}

fn is_idle(card: &Card) -> bool {
    card.held_back.contains(&HeldBack::Idle)
}

fn clocks(card: &Card) -> Option<Finding> {
    let text = |reach: Reach, what: &str| {
        reach
            .now
            .map(|now| format!("{what} {now}{} MHz", reach.max.map(|max| format!(" of {max}")).unwrap_or_default()))
    };
    let both = [text(card.clock_mhz, "processors"), text(card.memory_clock_mhz, "memory")];
    let clocks = both.into_iter().flatten().collect::<Vec<_>>().join(", ");
    let what = format!("card {}: clocks: {clocks}", card.index);
    let known = !clocks.is_empty();
    let Some((why, mend)) = card.held_back.iter().find_map(|held| throttled(*held, card.index)) else {
        let idle = if is_idle(card) { ", at rest" } else { "" };
        return known.then(|| Finding::ok(AREA, "clocks", what + idle));
    };
    Some(Finding::note(AREA, "clocks", format!("{what}, held back by {why}")).since(SLOWER).mend(mend))
}

const SLOWER: &str = "it computes slower than a card of its kind, so a recording made now would be wrong later";

fn throttled(held: HeldBack, card: u32) -> Option<(&'static str, String)> {
    let look = format!("nvidia-smi -i {card} -q -d PERFORMANCE,TEMPERATURE,POWER");
    Some(match held {
        HeldBack::Idle => return None,
        HeldBack::Setting => ("a setting", format!("sudo nvidia-smi -i {card} -rac; sudo nvidia-smi -i {card} -rgc")),
        HeldBack::Power => ("its power limit", format!("{look}  # then: sudo nvidia-smi -i {card} -pl WATTS")),
        HeldBack::PowerBrake => ("the power supply", format!("{look}  # then look at cables and supply")),
        HeldBack::Heat => ("heat", format!("{look}  # then look at fans and air")),
        HeldBack::Hardware => ("heat or power", look),
        HeldBack::Group => ("another card of its group", "nvidia-smi -q -d PERFORMANCE".to_owned()),
    })
}

fn compute(card: &Card) -> Option<Finding> {
    let mend = format!("sudo nvidia-smi -i {} -c DEFAULT", card.index);
    match card.compute {
        Compute::Shared => None,
        Compute::Exclusive => Some(
            Finding::note(AREA, "compute-mode", format!("card {}: one process at a time may compute", card.index))
                .since("while another one has it, nothing else can use it")
                .mend(mend),
        ),
        Compute::Prohibited => Some(
            Finding::problem(AREA, "compute-mode", format!("card {}: nobody may compute on it", card.index))
                .since("its compute mode is PROHIBITED")
                .mend(mend),
        ),
    }
}

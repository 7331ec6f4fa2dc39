//! The processor, the kernels, and whether the profile `cpu` is of it.

use super::{Facts, Finding, Processor};

const AREA: &str = "processor";

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let processor = &facts.processor;
    let quota = facts.group.processors.map(|quota| allowance(processor, quota));
    let mut found = vec![Finding::ok(AREA, "processor", described(processor)), kernels(processor)];
    found.extend(fewer_threads(processor));
    found.extend(quota.flatten());
    found.extend(facts.pressure.as_ref().and_then(|pressure| contended(pressure.cpu_percent)));
    found
}

fn described(processor: &Processor) -> String {
    let cores = processor.cores.map(|cores| format!(", {}", count(cores, "core"))).unwrap_or_default();
    let instructions = match processor.instructions.as_slice() {
        [] => String::new(),
        some => format!(" · {}", some.join(" ")),
    };
    format!("{}{cores}, {}{instructions}", processor.name, count(processor.threads, "thread"))
}

pub(super) fn count(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn kernels(processor: &Processor) -> Finding {
    let others: Vec<_> = processor.kernels_available.iter().filter(|set| **set != processor.kernels).cloned().collect();
    let also = if others.is_empty() { String::new() } else { format!("; {} would run too", others.join(", ")) };
    if processor.kernels != "plain" {
        return Finding::ok(AREA, "kernels", format!("kernels: {}{also}", processor.kernels));
    }
    let plain = Finding::note(AREA, "kernels", "plain kernels, without vector instructions of their own");
    match (processor.architecture.as_str(), processor.is_virtual) {
        ("x86_64", true) => plain
            .since("this virtual machine shows no AVX2 with FMA, so everything computes slower than it could")
            .mend("qemu-system-x86_64 -cpu host ...  # or the like of your host: pass its processor through"),
        ("x86_64", false) => plain
            .since("this processor has no AVX2 with FMA, so everything computes slower than on one that does")
            .mend("loadline compare --gpu all --model MODEL  # what other machines would take"),
        (other, _) => plain
            .since(format!("there are no kernels for the vector instructions of {other} yet"))
            .mend("loadline compare --gpu all --model MODEL  # what other machines would take"),
    }
}

/// Affinity leaves a process fewer processors than there are; a quota is another finding.
fn fewer_threads(processor: &Processor) -> Option<Finding> {
    let logical = processor.logical.filter(|logical| *logical > processor.threads)?;
    let what = format!("{} of {} may be used", processor.threads, count(logical, "logical processor"));
    let found = Finding::note(AREA, "threads", what);
    let found =
        found.since("affinity (taskset, cpuset) or a quota takes the others away; kernels start no threads for them");
    Some(found.mend(format!("taskset -c 0-{} loadline ...  # and a container: --cpuset-cpus, --cpus", logical - 1)))
}

fn allowance(processor: &Processor, quota: f64) -> Option<Finding> {
    // A quota that no number of threads reaches takes nothing away.
    let available = processor.logical.unwrap_or(processor.threads) as f64;
    (quota < available).then(|| {
        Finding::note(AREA, "cpu-quota", format!("the control group allows {quota:.2} processors' worth of time"))
            .since("when it is used up, all threads stop until the next period; forecasts do not know of it")
            .mend("cat /sys/fs/cgroup/cpu.max  # a container: raise --cpus; a service: CPUQuota=")
    })
}

/// Half of the time is where a run takes visibly longer than its forecast.
const CONTENDED_PERCENT: f64 = 50.0;

fn contended(percent: f64) -> Option<Finding> {
    (percent >= CONTENDED_PERCENT).then(|| {
        Finding::note(
            AREA,
            "cpu-pressure",
            format!("for {percent:.0} % of the last ten seconds something waited for a processor"),
        )
        .since("other programs compute, so a run takes longer than its forecast")
        .mend("top -o %CPU")
    })
}

/// Whether forecasts without `--gpu` are of this machine.
pub(super) fn profile(facts: &Facts) -> Vec<Finding> {
    const AREA: &str = "profile";
    let profile = &facts.profile;
    let record = "loadline profile record -o this-machine.json  # then: --gpu this-machine.json";
    let finding = if profile.recorded_on != profile.this_machine {
        Finding::note(
            AREA,
            "cpu",
            format!("'cpu' was recorded on {}, this is {}", profile.recorded_on, profile.this_machine),
        )
        .since("memory is forecast rightly all the same; times are those of the other machine")
        .mend(record)
    } else if profile.kernels != facts.processor.kernels {
        let (then, now) = (&profile.kernels, &facts.processor.kernels);
        Finding::note(AREA, "cpu", format!("'cpu' is of this machine, but of its {then} kernels; {now} runs"))
            .since("times of what the kernel sets do differently are forecast less well")
            .mend(record)
    } else {
        Finding::ok(AREA, "cpu", format!("'cpu' was recorded on a machine like this, {}", profile.this_machine))
    };
    vec![finding]
}

//! The values of this version as they are written down. The SDK reads them back with a list of its own
//! (`plugins/rust/src/testing/words.rs`): its types are those of the guest's side, it is copied into projects that have
//! nothing of this program, and a field that either list lacks does not compile.

use super::bindings::loadline::policy::types as wit;
use crate::wave::{Wave, case, records};

records! { wit:
    Entry { key, value }
    Column { name, values }
    Blocks { component, index, slab, file, flags, copy_pinned_ns, copy_pageable_ns, read_ns, extra }
    Stage { kind, name, component, passes, blocks, compute_ns, activation_peak, extra }
    Job { model, request, knobs, components, blocks, stages, frames_host }
    Machine { name, kernel_set, memory, granularity, fixed_overhead, facts }
    Budget { device, host, pinned, disk }
    Loaded { block, tier, bytes, hash }
    Situation {
        cause, job, from_stage, machine, budget, settings, may_change, observed_device, loaded, upcoming, memo, facts,
    }
    Loads { block, slot, after }
    StagePlan { slot_bytes, slot_flags, prologue, cycle, cycle_passes, activations }
    StepDown { reason, slots }
    Trigger { kind, threshold, hysteresis }
    Plan { knobs, homes, stages, retain, ladder, triggers, memo, reasons }
    Refusal { stage, needs_bytes, message }
    ForecastReply {
        cold_ns, warm_ns, host_peak, disk_read, stage_cold_ns, stage_warm_ns, stage_stall_ns, stage_peak,
        stage_bound_ns, stalls, findings, facts,
    }
    Description { name, version, summary, settings }
}

impl Wave for wit::Value {
    fn wave(&self, out: &mut String) {
        match self {
            Self::Boolean(value) => case(out, "boolean", value),
            Self::Integer(value) => case(out, "integer", value),
            Self::Number(value) => case(out, "number", value),
            Self::Text(value) => case(out, "text", value),
        }
    }
}

impl Wave for wit::Decision {
    fn wave(&self, out: &mut String) {
        match self {
            Self::Keep => out.push_str("keep"),
            Self::Plan(plan) => case(out, "plan", plan),
        }
    }
}

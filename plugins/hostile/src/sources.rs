//! Whatever a guest might take randomness from. Each puts what it found into the reasons.

use std::collections::HashMap;

use loadline_policy_sdk::{Host, Plan, Situation};

/// Where things lie in memory.
pub(crate) fn addresses(s: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    let local = 0u8;
    let heap = Box::new(0u8);
    plan.reasons = vec![format!("{:p} {:p} {:p} {:p}", &local, heap, s, plan.homes.as_ptr())];
}

/// The order of a hash map, whose seed is random wherever there is randomness.
pub(crate) fn hash_order(_: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    let map: HashMap<u32, u32> = (0..100).map(|n| (n, n)).collect();
    plan.reasons = vec![format!("{:?}", map.keys().collect::<Vec<_>>())];
}

/// The bits of numbers that are none, which processors choose freely.
pub(crate) fn nan_bits(_: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    let hidden = std::hint::black_box::<f64>;
    let infinity = hidden(f64::INFINITY);
    let odd = f64::from_bits(0xfff4_dead_beef_0001);
    let found = [
        infinity - infinity,
        hidden(0.0) / hidden(0.0),
        hidden(-1.0).sqrt(),
        hidden(odd) + 1.0,
        hidden(odd) * hidden(-1.0),
        infinity * hidden(0.0),
    ];
    plan.reasons = found.iter().map(|x| format!("{:016x}", x.to_bits())).collect();
}

//! Every kernel against a reference in f64, written from what the op layer says it computes.
//!
//! The kernels' own sources run here, built for the processor by a C++ compiler and launched through the mock of the
//! driver, with threads in several orders. On a machine with a GPU, `LOADLINE_KERNELS_ON=gpu` runs the same cases
//! there.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "a compiler is run, and the environment says where the kernels run")]

mod attention;
mod conv;
mod elements;
mod gpu;
mod linear;
mod moves;
mod norms;
mod numbers;
mod stored;

use std::collections::BTreeSet;

use loadline_cuda::kernels::Name;

/// The modules, each of which has a file of cases that ends in [`gpu::Gpu::has_run_all_of`].
const MODULES: [&str; 9] =
    ["attention_bf16", "attention_plain", "conv", "elements", "groups", "linear", "moves", "norms", "stored"];

#[test]
fn every_module_has_cases() {
    let found: BTreeSet<&str> = Name::ALL.iter().map(|name| name.module()).collect();
    assert_eq!(found.into_iter().collect::<Vec<_>>(), MODULES);
}

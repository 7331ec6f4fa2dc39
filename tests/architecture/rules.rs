//! The rules, one a line, each with its reason. Names are packages.

/// A crate and the crates of ours that it may be built on.
pub(crate) struct Layer {
    pub(crate) name: &'static str,
    pub(crate) may_use: &'static [&'static str],
    pub(crate) reason: &'static str,
}

const fn layer(name: &'static str, may_use: &'static [&'static str], reason: &'static str) -> Layer {
    Layer { name, may_use, reason }
}

pub(crate) const CORE: &str = "loadline-core";

const LIBRARIES: &[&str] = &[
    "loadline-core",
    "loadline-cuda",
    "loadline-device",
    "loadline-engine",
    "loadline-kernels",
    "loadline-media",
    "loadline-models",
    "loadline-nn",
    "loadline-policy",
    "loadline-profile",
    "loadline-sim",
    "loadline-text",
];

/// Who may use whom, in what is built and shipped; what only tests use is free, but for [`NOBODY_USES`].
pub(crate) const LAYERS: &[Layer] = &[
    layer(CORE, &[], "everything means the same by bytes, plans and jobs, so these know nobody"),
    layer("loadline-kernels", &[], "loops over slices: to be fast they need no idea of a model"),
    layer("loadline-text", &[], "turns text into token numbers, whatever those are for"),
    layer("loadline-media", &[], "turns pixels into files, wherever those come from"),
    layer("loadline-models", &[CORE], "an architecture's shape is arithmetic, not computation"),
    layer("loadline-profile", &[CORE], "a measured machine is data"),
    layer("loadline-policy", &[CORE], "a policy sees situations and answers plans; it never sees an engine"),
    layer("loadline-engine", &[CORE], "it realises a plan, and knows neither who made it nor on what it runs"),
    layer("loadline-sim", &[CORE, "loadline-engine"], "one implementation of the engine's Device"),
    layer("loadline-cuda", &[], "a driver and kernels: what runs when is for those who know a plan"),
    layer(
        "loadline-device",
        &[CORE, "loadline-engine", "loadline-cuda"],
        "the other implementations of the engine's Device",
    ),
    layer(
        "loadline-nn",
        &[CORE, "loadline-models", "loadline-device", "loadline-kernels", "loadline-cuda", "loadline-engine"],
        "an architecture's math, on what its shape declares and where the device put it",
    ),
    layer("loadline", LIBRARIES, "the one place where the stacks are named"),
    layer("loadline-server", &["loadline"], "another front of the same library"),
    layer("loadline-cli", &["loadline", CORE], "a front of the library; it prints core's units"),
    layer("xtask", &[], "it builds the others, so it must build when they do not"),
    layer(
        "loadline-fuzz-targets",
        &[CORE, "loadline-engine", "loadline-models", "loadline-policy", "loadline-profile", "loadline-sim"],
        "nothing of it ships; it is every way in, with what must hold of what comes of it",
    ),
    layer("loadline-cuda-mock", &["loadline-cuda"], "nothing of it ships; it stands in for NVIDIA's driver"),
    layer("loadline-tests", &[], "nothing of it ships; its tests may use every crate"),
];

/// A binary at the top; whoever needs something of it should find that in a library.
pub(crate) const NOBODY_USES: &[(&str, &str)] = &[
    ("loadline-cli", "what others need belongs into a library"),
    ("loadline-server", "what others need belongs into a library"),
    ("loadline-tests", "tests are leaves"),
];

/// Heavy dependencies and the only crates that may have them, for tests too.
pub(crate) const FENCED: &[(&str, &[&str], &str)] = &[
    ("wasmtime", &["loadline-policy"], "the contract could not change its engine if others saw it"),
    (
        "nvml-wrapper",
        &["loadline"],
        "what a driver says is for the doctor to tell; a plan that it changed could not be repeated",
    ),
    (
        "cudarc",
        &["loadline-cuda"],
        "its results are enums that newer drivers overrun, so one crate takes its declarations and nothing else of it",
    ),
    ("libloading", &["loadline-cuda", "loadline-cuda-mock"], "which libraries a run opens is decided in one place"),
    ("candle-core", &["loadline-nn", "loadline-device"], "a tensor library is an implementation of the math"),
];

/// All that core may use of others' crates.
pub(crate) const CORE_USES: &[(&str, &str)] = &[
    ("serde", "plans, jobs and profiles are files"),
    ("serde_json", "and those files are JSON"),
    ("thiserror", "errors are values with a text"),
    ("blake3", "plans and contents are named by their hash"),
];

/// The crates that may hold `unsafe`.
pub(crate) const UNSAFE: &[(&str, &str)] = &[
    ("loadline-cuda", "calling NVIDIA's driver and launching kernels is its job"),
    ("loadline-cuda-mock", "it is a driver: what it is called with are pointers"),
    ("loadline-device", "memory and page-locking are the operating system's interfaces"),
    ("loadline-kernels", "vector instructions need them"),
];

/// The single files of other crates that may hold `unsafe`, as package and path.
pub(crate) const UNSAFE_FILES: &[(&str, &str, &str)] = &[(
    "loadline-policy",
    "src/cache.rs",
    "no check of the bytes of compiled code shows that they are safe to run; who could have written them does",
)];

/// The packages that are no libraries, and so may talk to the terminal and the system.
pub(crate) const NO_LIBRARIES: &[&str] =
    &["loadline-cli", "loadline-cuda-mock", "loadline-server", "loadline-tests", "xtask"];

/// What no library does, with what its caller would suffer.
pub(crate) const LEAKS: &[(&str, &str)] = &[
    ("println!", "the caller owns its output; return a value or an event"),
    ("print!", "the caller owns its output; return a value or an event"),
    ("eprintln!", "the caller owns its output; return an error or an event"),
    ("eprint!", "the caller owns its output; return an error or an event"),
    ("env::var", "equal calls would give different results; take a parameter"),
    ("env::var_os", "equal calls would give different results; take a parameter"),
    ("env::vars", "equal calls would give different results; take a parameter"),
    ("process::exit", "the caller's destructors would not run; return an error"),
];

//! The files of projects, as they lie in this repository: templates, SDKs and the contract.

/// A text that is part of the program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Embedded {
    /// Where it goes, relative to the project.
    pub(super) path: &'static str,
    /// What it holds.
    pub(super) text: &'static str,
}

/// The files below `$from`, a folder of the repository, put below `$to`, which is empty or ends in a slash.
macro_rules! embedded {
    ($from:literal => $to:literal: $($path:literal),* $(,)?) => {
        &[$(Embedded {
            path: concat!($to, $path),
            text: include_str!(concat!("../../../../", $from, "/", $path)),
        }),*]
    };
}

/// The contract.
pub(super) const WIT: &[Embedded] = embedded!("wit" => "wit/": "policy@0.1.0/policy.wit");

/// The SDK for Rust, without its manifest and its bindings.
pub(super) const RUST_SDK: &[Embedded] = embedded!("plugins/rust/src" => "sdk/rust/src/":
    "draft.rs", "eager.rs", "homes.rs", "lib.rs", "policy.rs", "rolling.rs", "settings.rs", "split.rs", "testing.rs",
    "testing/program.rs", "testing/transcript.rs", "testing/wave.rs", "testing/words.rs", "text.rs", "view.rs",
);

/// The bindings of the SDK for Rust, written out: compiling the generator takes ten times as long as the policy.
pub(super) const RUST_BINDINGS: &[Embedded] =
    embedded!("plugins/rust/standalone" => "sdk/rust/src/": "bindings.rs", "contract.rs.in");

/// The manifest of the SDK for Rust, and that of the workspace from which it inherits.
pub(super) const RUST_SDK_MANIFESTS: [&str; 2] =
    [include_str!("../../../../plugins/rust/Cargo.toml"), include_str!("../../../../plugins/Cargo.toml")];

/// The versions of everything that the SDK for Rust is built from.
pub(super) const RUST_LOCK: &str = include_str!("../../../../plugins/Cargo.lock");

/// A project in Rust.
pub(super) const RUST_TEMPLATE: &[Embedded] = embedded!("plugins/rust/template" => "":
    "Cargo.toml", "README.md", "gitignore", "src/lib.rs", "src/settings.json", "tests/component.rs",
    "tests/plans.rs",
);

/// The SDK for Python.
pub(super) const PYTHON_SDK: &[Embedded] = embedded!("plugins/python/loadline_policy" => "sdk/python/loadline_policy/":
    "__init__.py", "component.py", "contract.py", "homes.py", "plan.py", "policy.py", "py.typed", "records.py",
    "split.py", "stage_plan.py", "testing.py", "text.py", "view.py",
);

/// A project in Python.
pub(super) const PYTHON_TEMPLATE: &[Embedded] = embedded!("plugins/python/template" => "":
    "README.md", "app.py", "gitignore", "pyproject.toml", "tests/test_plans.py",
);

/// The SDK for JavaScript.
pub(super) const JS_SDK: &[Embedded] = embedded!("plugins/js" => "sdk/js/":
    "index.d.ts", "index.js", "package.json", "testing.d.ts", "lib/component.js", "lib/contract.js", "lib/homes.js",
    "lib/plan.js", "lib/split.js", "lib/stage-plan.js", "lib/testing.js", "lib/text.js", "lib/view.js",
);

/// A project in JavaScript.
pub(super) const JS_TEMPLATE: &[Embedded] = embedded!("plugins/js/template" => "":
    "README.md", "component.js", "gitignore", "package.json", "policy.js", "tests/plans.test.js",
);

/// The scenarios that every project starts with; the templates of all languages make the same plans.
pub(super) const SCENARIOS: &[Embedded] = embedded!("plugins/scenarios" => "scenarios/":
    "refused.snap.txt", "refused.toml", "roomy.snap.txt", "roomy.toml", "tight.snap.txt", "tight.toml",
);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// Every file below a folder, by its path in it, but for what tools leave behind.
    fn below(folder: &Path) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            if ["__pycache__", "node_modules"].contains(&name.as_str()) {
                continue;
            }
            if entry.path().is_dir() {
                found.extend(below(&entry.path()).into_iter().map(|path| format!("{name}/{path}")));
            } else {
                found.insert(name);
            }
        }
        found
    }

    #[test]
    fn every_file_of_a_folder_is_in_its_list() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let check = |folder: &str, to: &str, list: &[Embedded]| {
            let listed: BTreeSet<String> =
                list.iter().filter_map(|file| file.path.strip_prefix(to)).map(str::to_owned).collect();
            assert_eq!(below(&root.join(folder)), listed, "{folder}: mend the list");
        };
        // The SDK's own bindings are generated when it is compiled here; projects get them written out.
        let generated = Embedded { path: "sdk/rust/src/bindings.rs", text: "" };
        check("wit/policy@0.1.0", "wit/policy@0.1.0/", WIT);
        check("plugins/rust/src", "sdk/rust/src/", &[RUST_SDK, &[generated]].concat());
        check("plugins/rust/standalone", "sdk/rust/src/", RUST_BINDINGS);
        check("plugins/rust/template", "", RUST_TEMPLATE);
        check("plugins/python/loadline_policy", "sdk/python/loadline_policy/", PYTHON_SDK);
        check("plugins/python/template", "", PYTHON_TEMPLATE);
        check("plugins/js/lib", "sdk/js/lib/", JS_SDK);
        check("plugins/js/template", "", JS_TEMPLATE);
        check("plugins/scenarios", "scenarios/", SCENARIOS);
    }
}

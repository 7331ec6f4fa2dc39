//! Presets: named bundles of a policy, its settings and what a request leaves open, as people know them from other
//! tools. A preset is a TOML file and decides nothing itself: whoever applies it fills in what was not said.

mod file;

use crate::Error;

pub use file::{Choice, Parameter, Preset};

macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!($name, ".toml")))),*]
    };
}

/// Name and text of every preset that ships, in the order in which they are listed.
static SHIPPED: [(&str, &str); 21] = shipped![
    "lightweight",
    "beefy",
    "gpu-only",
    "hybrid",
    "cpu-only",
    "offload-none",
    "offload-model",
    "offload-sequential",
    "offload-auto",
    "device-map-auto",
    "device-map-sequential",
    "device-map-custom",
    "block-swap",
    "auto-hardware-tuning",
    "conservative",
    "aggressive",
    "fast-preview",
    "standard",
    "high-quality",
    "memory-optimised",
    "speed-optimised",
];

/// The names of the presets that ship.
pub fn names() -> impl Iterator<Item = &'static str> {
    SHIPPED.iter().map(|(name, _)| *name)
}

/// A preset that ships, by name or by another name of it. `GPU_only` and `gpu only` are `gpu-only`.
///
/// # Errors
/// If there is none of that name; the nearest is named.
pub fn find(name: &str) -> Result<Preset, Error> {
    let wanted = plain(name);
    for (own, text) in &SHIPPED {
        let preset = Preset::parse(text, own)?;
        if *own == wanted || preset.aliases.contains(&wanted) {
            return Ok(preset);
        }
    }
    let hint = loadline_policy::settings::nearest(names(), &wanted);
    let hint = hint.map(|near| format!(" (did you mean '{near}'?)")).unwrap_or_default();
    Err(Error::Settings(format!("--preset {name}: there is no such preset{hint}; see `loadline preset list`")))
}

/// The text of a preset that ships.
///
/// # Errors
/// If there is none of that name.
pub fn text(name: &str) -> Result<&'static str, Error> {
    let preset = find(name)?;
    let shipped = SHIPPED.iter().find(|(own, _)| *own == preset.name);
    shipped.map(|(_, text)| *text).ok_or_else(|| Error::Settings(format!("preset '{name}' has no text")))
}

fn plain(name: &str) -> String {
    name.trim().to_ascii_lowercase().replace(['_', ' '], "-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policies;

    #[test]
    fn every_preset_is_named_after_its_file_and_its_policy_takes_its_settings() {
        for name in names() {
            let preset = find(name).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(preset.name, name);
            let policy = policies::load(&preset.policy).unwrap_or_else(|e| panic!("{name}: {e}"));
            policies::settings(&policy, &preset.settings()).unwrap_or_else(|e| panic!("{name}: {e}"));
            for (key, parameter) in &preset.parameters {
                let given = preset.translate(&[(key.clone(), parameter.maximum.to_string())]);
                let given = given.unwrap_or_else(|e| panic!("{name}: {e}"));
                policies::settings(&policy, &given).unwrap_or_else(|e| panic!("{name}: {e}"));
            }
        }
    }

    #[test]
    fn names_are_found_as_people_write_them() {
        let check = |name: &str, expected: &str| assert_eq!(find(name).map(|p| p.name).ok().as_deref(), Some(expected));
        check("gpu_only", "gpu-only");
        check("Memory Optimized", "memory-optimised");
        check("memory_optimised", "memory-optimised");
        let message = find("hybird").map_or_else(|e| e.to_string(), |p| p.name);
        assert!(message.contains("did you mean 'hybrid'?"), "{message}");
    }

    #[test]
    fn parameters_become_settings() {
        let hybrid = find("hybrid").unwrap_or_else(|e| panic!("{e}"));
        let check = |value: &str, expected: &str| {
            let given = hybrid.translate(&[("vram_fraction".into(), value.into()), ("slots".into(), "3".into())]);
            let text = match given {
                Ok(given) => given.iter().map(|(k, v)| format!("{k}={v} ")).collect(),
                Err(error) => error.to_string(),
            };
            assert_eq!(text, expected);
        };
        check("0.75", "percent=75 slots=3 ");
        check("0.575", "percent=57.5 slots=3 ");
        check("2", "--set vram_fraction=2: preset 'hybrid' takes a number from 0.05 to 1");
        check("much", "--set vram_fraction=much: preset 'hybrid' takes a number from 0.05 to 1");
    }
}

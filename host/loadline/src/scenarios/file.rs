//! The file of a scenario.

use std::path::{Path, PathBuf};

use loadline_core::{Bytes, Cfg, DType, Size};
use serde::Deserialize;

use super::stages::StageTable;
use crate::Error;

/// What a scenario expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expect {
    /// A plan.
    Fits,
    /// A refusal.
    Refused,
}

impl Expect {
    /// The word in the file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fits => "fits",
            Self::Refused => "refused",
        }
    }
}

/// A scenario as it was written.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its file.
    pub path: PathBuf,
    /// What it is about, in a line.
    pub about: String,
    /// What is expected.
    pub expect: Expect,
    /// The policy that it names, if it names one.
    pub policy: Option<String>,
    /// Settings of the policy.
    pub settings: Vec<(String, String)>,
    pub(super) file: File,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    about: String,
    pub(super) model: Option<String>,
    pub(super) gpu: String,
    pub(super) vram: Option<Text<Bytes>>,
    pub(super) ram: Option<Text<Bytes>>,
    pub(super) used_by_others: Option<Text<Bytes>>,
    /// Faults, as `--inject` takes them.
    #[serde(default)]
    pub(super) inject: Vec<String>,
    expect: Expect,
    policy: Option<String>,
    pub(super) request: Option<RequestTable>,
    pub(super) knobs: Option<KnobsTable>,
    #[serde(default)]
    settings: toml::Table,
    #[serde(default)]
    pub(super) stage: Vec<StageTable>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct RequestTable {
    pub(super) size: Option<Text<Size>>,
    pub(super) frames: Option<u32>,
    pub(super) steps: Option<u32>,
    pub(super) guidance: Option<f64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct KnobsTable {
    pub(super) cfg: Option<Text<Cfg>>,
    #[serde(default)]
    pub(super) storage: Vec<String>,
    pub(super) tile: Option<Text<Size>>,
    pub(super) tile_overlap: Option<u32>,
    pub(super) frame_chunk: Option<u32>,
}

/// A value that people write as a text, such as `10GiB`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<T>(pub(super) T);

impl<'de, T: std::str::FromStr<Err: std::fmt::Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map(Text).map_err(serde::de::Error::custom)
    }
}

/// The most bytes of a file that people write.
const MOST: u64 = 1 << 20;

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    /// If the file cannot be read, or says something that no scenario says; the message names file and line.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let failed = |detail: String| Error::Request(format!("{}: {detail}", path.display()));
        let meta = std::fs::metadata(path).map_err(|e| failed(e.to_string()))?;
        if !meta.is_file() || meta.len() > MOST {
            return Err(failed("this is no scenario: a scenario is an ordinary file of at most 1 MiB".to_owned()));
        }
        let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
        Self::parse(path, &text).map_err(failed)
    }

    /// A scenario from its text; the path is what files in it are relative to.
    ///
    /// # Errors
    /// In words, what no scenario says.
    pub fn parse(path: &Path, text: &str) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|e| e.to_string().trim_end().to_owned())?;
        match (&file.model, file.stage.is_empty()) {
            (None, true) => {
                return Err("it names no model: write `model = \"NAME\"`, or describe a [[stage]]".to_owned());
            }
            (Some(_), false) => return Err("it has both a model and a [[stage]]: leave one out".to_owned()),
            _ => {}
        }
        if !file.stage.is_empty() && (file.request.is_some() || file.knobs.is_some() || !file.inject.is_empty()) {
            return Err("a job of stages has no [request], no [knobs] and no inject: leave them out".to_owned());
        }
        let plain = |v: &toml::Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        let settings = file.settings.iter().map(|(key, value)| (key.clone(), plain(value))).collect();
        let (about, expect, policy) = (file.about.clone(), file.expect, file.policy.clone());
        Ok(Self { path: path.to_owned(), about, expect, policy, settings, file })
    }

    /// The name of its file, without the end.
    #[must_use]
    pub fn name(&self) -> String {
        self.path.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }

    /// A file that the scenario names: relative to its own, if there is one, and the bare name otherwise.
    pub(super) fn beside(&self, name: &str) -> String {
        let beside = self.path.parent().map(|folder| folder.join(name));
        beside.filter(|path| path.exists()).map_or_else(|| name.to_owned(), |path| path.to_string_lossy().into_owned())
    }
}

/// A storage type as `TYPE` or `COMPONENT=TYPE`.
pub(super) fn storage(text: &str) -> Result<(String, DType), String> {
    let (component, dtype) = text.split_once('=').unwrap_or(("", text));
    let dtype: DType = dtype.parse().map_err(|e| format!("storage '{text}': {e}"))?;
    Ok((component.to_owned(), dtype))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[track_caller]
    fn fails(text: &str, expected: &str) {
        let error = Scenario::parse(Path::new("a.toml"), text).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn a_scenario_is_read_whole() {
        let text =
            "model = \"m\"\ngpu = \"g\"\nvram = \"6GiB\"\nexpect = \"refused\"\n[settings]\nslots = 2\nway = \"a\"";
        let scenario = Scenario::parse(Path::new("b/tight.toml"), text).unwrap();
        assert_eq!((scenario.name().as_str(), scenario.expect), ("tight", Expect::Refused));
        assert_eq!(scenario.file.vram.unwrap().0, Bytes::gib(6));
        let pairs: Vec<_> = scenario.settings.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("slots", "2"), ("way", "a")]);
    }

    #[test]
    fn slips_of_the_pen_are_named() {
        let whole = "model = \"m\"\ngpu = \"g\"\nexpect = \"fits\"\n";
        fails("gpu = \"g\"\nexpect = \"fits\"", "it names no model");
        fails("model = \"m\"\nexpect = \"fits\"", "missing field `gpu`");
        fails("model = \"m\"\ngpu = \"g\"", "missing field `expect`");
        fails(&format!("{whole}vrm = \"6GiB\""), "unknown field `vrm`");
        fails(&format!("{whole}vram = \"much\""), "much");
        fails(&format!("{whole}[knobs]\ncfg = \"both\""), "use sequential, pair or batched");
        let stage = "[[stage]]\nname = \"d\"\nblocks = 1\nblock = \"1MiB\"\ngflop = 1\nactivations = \"1MiB\"\n";
        fails(&format!("{whole}{stage}"), "both a model and a [[stage]]");
        fails(&format!("gpu = \"g\"\nexpect = \"fits\"\n[request]\nframes = 1\n{stage}"), "no [request]");
        fails(&format!("gpu = \"g\"\nexpect = \"fits\"\ninject = [\"a@b\"]\n{stage}"), "no inject");
        fails("gpu = \"g\"\nexpect = \"maybe\"\nmodel = \"m\"", "maybe");
    }
}

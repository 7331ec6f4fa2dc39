//! A preset's file.

use std::collections::BTreeMap;

use loadline_core::{Cfg, Size};
use serde::{Deserialize, Serialize};

use crate::Error;

/// A named bundle.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    /// Its name.
    pub name: String,
    /// Other spellings.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// What people know it as.
    pub known_from: String,
    /// What it does, in a sentence.
    pub summary: String,
    /// The policy.
    pub policy: String,
    /// The profile that it runs on, where that is part of its meaning.
    #[serde(default)]
    pub device: Option<String>,
    /// What to know about it.
    #[serde(default)]
    pub notes: Vec<String>,
    #[serde(default)]
    settings: BTreeMap<String, toml::Value>,
    /// Names that `--set` takes in place of a policy's own.
    #[serde(default)]
    pub parameters: BTreeMap<String, Parameter>,
    /// What it says about the request.
    #[serde(default)]
    pub request: RequestChoice,
    /// What it says about the knobs.
    #[serde(default)]
    pub knobs: KnobText,
}

/// A number under another name and in another unit than the policy's setting.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Parameter {
    /// The policy's setting.
    pub setting: String,
    /// The setting is the number times this.
    pub factor: f64,
    /// The least number.
    pub minimum: f64,
    /// The most.
    pub maximum: f64,
    /// What it means.
    pub help: String,
}

/// What a preset says about the request. Absent is left to the user and the model.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RequestChoice {
    /// Denoise steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u32>,
    /// Guidance scale.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance: Option<f64>,
}

/// What a preset says about the knobs, as it is typed.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KnobText {
    /// How guidance runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cfg: Option<String>,
    /// Storage types, as `--storage` takes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub storage: Vec<String>,
    /// A tile's size, or `picture` for one tile as large as the picture: then the VAE is never tiled, even if nothing
    /// else fits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tile: Option<String>,
    /// Pixels that tiles share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tile_overlap: Option<u32>,
    /// Latent frames of a decoder pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame_chunk: Option<u32>,
}

/// What a preset says beside policy and settings, read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choice {
    /// Denoise steps.
    pub steps: Option<u32>,
    /// Guidance scale.
    pub guidance: Option<f64>,
    /// How guidance runs.
    pub cfg: Option<Cfg>,
    /// Storage types, as `--storage` takes them.
    pub storage: Vec<String>,
    /// The VAE's tile.
    pub tile: Option<Size>,
    /// The tile is the picture.
    pub never_tile: bool,
    /// Pixels that tiles share.
    pub tile_overlap: Option<u32>,
    /// Latent frames of a decoder pass.
    pub frame_chunk: Option<u32>,
}

impl Preset {
    /// Reads a preset; `origin` is its name or file, for messages.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str, origin: &str) -> Result<Self, Error> {
        let bad = |detail: String| Error::Settings(format!("preset {origin}: {}", detail.trim_end()));
        let preset: Self = toml::from_str(text).map_err(|e| bad(e.to_string()))?;
        preset.choice().map_err(|e| bad(e.to_string()))?;
        Ok(preset)
    }

    /// The policy's settings that it chooses, as `key` and `value`.
    #[must_use]
    pub fn settings(&self) -> Vec<(String, String)> {
        let plain = |value: &toml::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        self.settings.iter().map(|(key, value)| (key.clone(), plain(value))).collect()
    }

    /// What it says beside policy and settings.
    ///
    /// # Errors
    /// If a knob is not one.
    pub fn choice(&self) -> Result<Choice, Error> {
        let knobs = &self.knobs;
        let never_tile = knobs.tile.as_deref() == Some("picture");
        let bad = |e: String| Error::Settings(format!("preset '{}': {e}", self.name));
        let cfg = knobs.cfg.as_deref().map(str::parse).transpose().map_err(bad)?;
        let tile = knobs.tile.as_deref().filter(|_| !never_tile).map(str::parse).transpose().map_err(bad)?;
        Ok(Choice {
            steps: self.request.steps,
            guidance: self.request.guidance,
            cfg,
            storage: knobs.storage.clone(),
            tile,
            never_tile,
            tile_overlap: knobs.tile_overlap,
            frame_chunk: knobs.frame_chunk,
        })
    }

    /// The given settings with the preset's own names for them replaced by the policy's.
    ///
    /// # Errors
    /// If the value of such a name is no number that it takes.
    pub fn translate(&self, given: &[(String, String)]) -> Result<Vec<(String, String)>, Error> {
        given.iter().map(|(key, value)| self.setting(key, value)).collect()
    }

    fn setting(&self, key: &str, value: &str) -> Result<(String, String), Error> {
        let Some(parameter) = self.parameters.get(key) else { return Ok((key.to_owned(), value.to_owned())) };
        let (least, most) = (parameter.minimum, parameter.maximum);
        let number = value.trim().parse::<f64>().ok().filter(|n| (least..=most).contains(n));
        let number = number.ok_or_else(|| {
            let takes = format!("preset '{}' takes a number from {least} to {most}", self.name);
            Error::Settings(format!("--set {key}={value}: {takes}"))
        })?;
        // Products such as 0.29 * 100 would otherwise show the last bit of a float.
        let product = (number * parameter.factor * 1e6).round() / 1e6;
        Ok((parameter.setting.clone(), product.to_string()))
    }
}

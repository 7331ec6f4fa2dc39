//! `loadline preset`, and what `--preset` fills in: everything that the user did not say.

use clap::Subcommand;
use loadline::Error;
use loadline::core::Machine;
use loadline::presets::{self, Preset};
use serde_json::{Value, json};

use crate::args::{RequestArgs, WhatArgs};
use crate::capacity::{PoliciesArgs, WorkloadArgs};
use crate::model::print_json;
use crate::{capacity, setup};

/// Presets.
#[derive(Subcommand)]
pub(crate) enum PresetCommand {
    /// List the presets: named choices of policy, settings and request, as other tools call them
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what a preset chooses, as the file that it is
    Show {
        /// Its name
        preset: String,
    },
}

/// The policy where nobody names one.
const USUAL: &str = "auto-tune";

/// What came from a preset.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    preset: Preset,
    /// The settings that it chooses; none where another policy was given.
    settings: Vec<(String, String)>,
    /// Flags that it fills in, with their values.
    flags: Vec<(&'static str, String)>,
    /// What was given instead of what it says.
    given: Vec<String>,
}

pub(crate) fn run(command: &PresetCommand) -> Result<(), Error> {
    match command {
        PresetCommand::List { json } => list(*json),
        PresetCommand::Show { preset } => {
            let found = presets::find(preset)?;
            say!("# loadline plan MODEL --gpu PROFILE --preset {}\n{}", found.name, presets::text(preset)?.trim_end());
            Ok(())
        }
    }
}

fn list(json: bool) -> Result<(), Error> {
    let all = presets::names().map(presets::find).collect::<Result<Vec<_>, _>>()?;
    if json {
        print_json(&all.iter().map(described).collect());
        return Ok(());
    }
    for preset in &all {
        say!("{:<22} {}\n{:22} known as {}", preset.name, preset.summary, "", preset.known_from);
    }
    say!("\nSee what one chooses with `loadline preset show NAME`; use it with --preset NAME.");
    Ok(())
}

fn described(preset: &Preset) -> Value {
    let settings: serde_json::Map<_, _> = preset.settings().into_iter().map(|(k, v)| (k, json!(v))).collect();
    json!({
        "name": preset.name, "aliases": preset.aliases, "known_from": preset.known_from, "summary": preset.summary,
        "policy": preset.policy, "settings": settings, "device": preset.device,
        "request": preset.request, "knobs": preset.knobs, "notes": preset.notes,
    })
}

/// A preset that ships, or a file of one's own.
fn open(name: &str) -> Result<Preset, Error> {
    let path = std::path::Path::new(name);
    if path.extension().is_none_or(|e| e != "toml") {
        return presets::find(name);
    }
    let bad = |e| Error::Settings(format!("--preset {name}: {e}; check the path"));
    Preset::parse(&capacity::read(path).map_err(bad)?, name)
}

impl RequestArgs {
    /// The policy's name.
    pub(crate) fn policy(&self) -> &str {
        self.policy.as_deref().unwrap_or(USUAL)
    }

    /// Whether a preset asks for the processor.
    pub(crate) fn wants_processor(&self) -> Result<bool, Error> {
        let preset = self.preset.as_deref().map(open).transpose()?;
        Ok(preset.is_some_and(|preset| preset.device.is_some()))
    }

    /// The flags with what a preset fills in.
    pub(crate) fn with_preset(&self, gpu: &str) -> Result<Self, Error> {
        if self.preset.is_none() {
            return Ok(self.clone());
        }
        self.with_preset_on(&setup::machine(gpu)?)
    }

    /// The same for a machine that is there.
    pub(crate) fn with_preset_on(&self, machine: &Machine) -> Result<Self, Error> {
        let Some(name) = &self.preset else { return Ok(self.clone()) };
        let preset = open(name)?;
        check_device(&preset, machine)?;
        let mut origin = Origin { settings: preset.settings(), preset, flags: Vec::new(), given: Vec::new() };
        let what = origin.fill(&self.what)?;
        let mut filled = Self { what, ..self.clone() };
        match &self.policy {
            Some(own) if *own != origin.preset.policy => {
                origin.given.push(format!("--policy {own}"));
                origin.settings.clear();
            }
            _ => filled.policy = Some(origin.preset.policy.clone()),
        }
        filled.origin = Some(origin);
        Ok(filled)
    }
}

/// A job that is to run on the processor is not planned for another device.
fn check_device(preset: &Preset, machine: &Machine) -> Result<(), Error> {
    match &preset.device {
        Some(device) if !machine.device.unified => Err(Error::Request(format!(
            "--preset {}: it runs on the processor and leaves a GPU such as '{}' alone: say --gpu {device}",
            preset.name, machine.name
        ))),
        _ => Ok(()),
    }
}

impl Origin {
    /// What was said, and the preset's choice of what was not.
    fn fill(&mut self, said: &WhatArgs) -> Result<WhatArgs, Error> {
        let choice = self.preset.choice()?;
        let mut what = said.clone();
        let mut filled = |flag: &'static str, text: Option<String>, is_said: bool| match (text, is_said) {
            (Some(_), true) => self.given.push(format!("--{flag}")),
            (Some(text), false) => self.flags.push((flag, text)),
            (None, _) => {}
        };
        filled("steps", choice.steps.map(|n| n.to_string()), said.steps.is_some());
        filled("guidance", choice.guidance.map(|n| n.to_string()), said.guidance.is_some());
        filled("cfg", choice.cfg.map(|cfg| cfg.name().to_owned()), said.cfg.is_some());
        let tile = choice.tile.map(|tile| tile.to_string());
        let tile = tile.or_else(|| choice.never_tile.then(|| "the whole picture".to_owned()));
        filled("tile", tile, said.tile.is_some());
        // An overlap belongs to its tile.
        let overlap = choice.tile_overlap.filter(|_| said.tile.is_none());
        filled("tile-overlap", overlap.map(|n| n.to_string()), said.tile_overlap.is_some());
        filled("frame-chunk", choice.frame_chunk.map(|n| n.to_string()), said.frame_chunk.is_some());
        for storage in &choice.storage {
            self.flags.push(("storage", storage.clone()));
        }
        what.steps = said.steps.or(choice.steps);
        what.guidance = said.guidance.or(choice.guidance);
        what.cfg = said.cfg.or(choice.cfg);
        what.tile = said.tile.or(choice.tile);
        what.never_tile = said.tile.is_none() && choice.never_tile;
        what.tile_overlap = said.tile_overlap.or(overlap);
        what.frame_chunk = said.frame_chunk.or(choice.frame_chunk);
        // The last of a component counts, and what was said comes last.
        what.storage = choice.storage.iter().chain(&said.storage).cloned().collect();
        Ok(what)
    }

    /// The preset's settings with those of the user, which win.
    pub(crate) fn settings(&self, own: &[(String, String)]) -> Result<Vec<(String, String)>, Error> {
        let own = if self.settings.is_empty() { own.to_vec() } else { self.preset.translate(own)? };
        let mut all = self.settings.clone();
        for (key, value) in own {
            all.retain(|(k, _)| *k != key);
            all.push((key, value));
        }
        Ok(all)
    }

    /// `hybrid: threshold, percent = 75, --steps 30`, and what was given instead.
    pub(crate) fn text(&self, settings: &[(String, String)]) -> String {
        let chosen = self.chosen(settings).map(|(key, value)| format!("{key} = {value}"));
        let flags = self.flags.iter().map(|(flag, value)| format!("--{flag} {value}"));
        let policy = (!self.has_other_policy()).then(|| self.preset.policy.clone());
        let parts: Vec<_> = policy.into_iter().chain(chosen).chain(flags).collect();
        let given = self.overruled(settings);
        let given = if given.is_empty() { String::new() } else { format!("; given instead: {}", given.join(", ")) };
        format!("preset {}: {}{given}", self.preset.name, parts.join(", "))
    }

    fn has_other_policy(&self) -> bool {
        self.given.iter().any(|given| given.starts_with("--policy "))
    }

    /// Its settings that nobody overruled.
    fn chosen<'a>(&'a self, settings: &'a [(String, String)]) -> impl Iterator<Item = &'a (String, String)> {
        self.settings.iter().filter(|own| settings.contains(own))
    }

    fn overruled(&self, settings: &[(String, String)]) -> Vec<String> {
        let other = self.settings.iter().filter(|own| !settings.contains(own));
        let value = |key: &str| settings.iter().find(|(k, _)| k == key).map_or("", |(_, value)| value);
        self.given.iter().cloned().chain(other.map(|(key, _)| format!("{key} = {}", value(key)))).collect()
    }

    /// The same for scripts.
    pub(crate) fn json(&self, settings: &[(String, String)]) -> Value {
        let chosen: serde_json::Map<_, _> = self.chosen(settings).map(|(k, v)| (k.clone(), json!(v))).collect();
        let flags: serde_json::Map<_, _> = self.flags.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
        json!({
            "name": self.preset.name, "policy": self.preset.policy, "settings": chosen, "flags": flags,
            "given_instead": self.overruled(settings),
        })
    }
}

impl PoliciesArgs {
    /// The presets that take part.
    pub(crate) fn opened(&self) -> Result<Vec<Preset>, Error> {
        if self.preset.is_empty() {
            return Ok(Vec::new());
        }
        capacity::names("--preset", &self.preset)?.iter().map(|name| open(name)).collect()
    }
}

impl WorkloadArgs {
    /// The flags with what presets fill in; several have to ask for the same work.
    pub(crate) fn with_presets(&self, machines: &[Machine]) -> Result<Self, Error> {
        let presets = self.policies.opened()?;
        let Some(first) = presets.first() else { return Ok(self.clone()) };
        if let Some(other) = presets.iter().find(|p| (&p.request, &p.knobs) != (&first.request, &first.knobs)) {
            return Err(Error::Request(format!(
                "--preset {},{}: they ask for different work, which no row can compare; name them one at a time",
                first.name, other.name
            )));
        }
        for preset in &presets {
            machines.iter().try_for_each(|machine| check_device(preset, machine))?;
        }
        let mut origin = Origin { preset: first.clone(), settings: Vec::new(), flags: Vec::new(), given: Vec::new() };
        Ok(Self { what: origin.fill(&self.what)?, ..self.clone() })
    }
}

/// The machines where nobody names one: a preset for the processor asks for no GPU.
pub(crate) fn gpus(list: &[String], policies: &PoliciesArgs) -> Result<Vec<String>, Error> {
    let device = policies.opened()?.into_iter().find_map(|preset| preset.device);
    match device {
        Some(device) if *list == ["all".to_owned()] => Ok(vec![device]),
        _ => Ok(list.to_vec()),
    }
}

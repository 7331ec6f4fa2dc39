//! The published models that Loadline knows without a download: their configs, embedded.
//!
//! The files are laid out as in a diffusers model folder, `<component>/config.json` under a `model_index.json`,
//! so that planning a model of the catalog and planning a folder take the same way. Weights are not in it, nor
//! are tokenizers.

use serde_json::Value;

use crate::params::shorten;

/// One published model.
#[derive(Debug)]
#[non_exhaustive]
pub struct CatalogEntry {
    /// The name in lower case, such as `wan2.1-t2v-14b`.
    pub name: &'static str,
    /// Where the configs come from, part by part.
    pub source: &'static [Source],
    /// The files of the model folder: path and JSON text, in order of path.
    pub files: &'static [(&'static str, &'static str)],
}

/// Where some configs of a catalog entry come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// What it is about.
    pub part: &'static str,
    /// Where its values were taken from, and whether they were checked.
    pub origin: &'static str,
}

/// A component of a model that has weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Component {
    /// The folder it lives in, such as `transformer_2`; `model` for a model of a single component.
    pub name: String,
    /// The model class.
    pub class: String,
    /// Its `config.json`; `None` if none was published in a place that could be read, so that its size is unknown.
    pub config: Option<Value>,
}

/// A name that is not in the catalog.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no model `{name}` in the catalog; the nearest names are {}", .nearest.join(", "))]
pub struct UnknownModel {
    /// The name asked for, cut if very long.
    pub name: String,
    /// The most similar names, best first.
    pub nearest: Vec<&'static str>,
}

/// How many names an [`UnknownModel`] suggests.
const SUGGESTIONS: usize = 3;
/// Names are compared up to this length; the longest of the catalog has 22.
const COMPARED_CHARS: usize = 64;

/// The names of all models, in alphabetical order.
pub fn names() -> impl Iterator<Item = &'static str> {
    ENTRIES.iter().map(|entry| entry.name)
}

/// The model of that name. Upper and lower case are the same, and an organisation in front (`Wan-AI/`) or
/// `-Diffusers` at the end does not matter, so names copied from a model hub work.
///
/// # Errors
/// [`UnknownModel`] with the nearest names.
pub fn find(name: &str) -> Result<&'static CatalogEntry, UnknownModel> {
    let plain = plain(name);
    ENTRIES
        .iter()
        .find(|entry| entry.name == plain)
        .ok_or_else(|| UnknownModel { name: shorten(name), nearest: nearest(&plain) })
}

impl CatalogEntry {
    /// The text of a file of the model folder, such as `vae/config.json`.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<&'static str> {
        self.files.iter().find(|(p, _)| *p == path).map(|(_, text)| *text)
    }

    /// A file of the model folder as JSON.
    ///
    /// # Panics
    /// Never: a test parses every embedded file.
    #[must_use]
    pub fn json(&self, path: &str) -> Option<Value> {
        self.file(path).map(|text| serde_json::from_str(text).expect("embedded files are valid JSON"))
    }

    /// The components that have weights, in order of execution.
    #[must_use]
    pub fn components(&self) -> Vec<Component> {
        match self.json("model_index.json") {
            Some(index) => {
                weight_components(&index).into_iter().map(|(name, class)| self.component(name, class)).collect()
            }
            None => self.json("config.json").and_then(single_component).into_iter().collect(),
        }
    }

    fn component(&self, name: String, class: String) -> Component {
        let config = self.json(&format!("{name}/config.json"));
        Component { name, class, config }
    }
}

/// The components of a `model_index.json` that have weights, as name and class, in order of execution. Left out
/// are tokenizers, schedulers and image processors, and components that the index lists as absent.
#[must_use]
pub fn weight_components(index: &Value) -> Vec<(String, String)> {
    let entries = index.as_object().into_iter().flatten().filter(|(name, _)| has_weights(name));
    let mut found: Vec<(String, String)> =
        entries.filter_map(|(name, value)| Some((name.clone(), value.get(1)?.as_str()?.to_owned()))).collect();
    found.sort_by_key(|(name, _)| stage(name));
    found
}

fn has_weights(name: &str) -> bool {
    !["tokenizer", "scheduler", "image_processor", "feature_extractor", "processor"]
        .iter()
        .any(|part| name.starts_with(part))
}

/// Conditions are encoded first, and the VAE decodes last; names break ties (`transformer`, `transformer_2`).
fn stage(name: &str) -> (usize, String) {
    let stages = ["text_encoder", "image_encoder", "transformer"];
    (stages.iter().position(|stage| name.starts_with(stage)).unwrap_or(stages.len()), name.to_owned())
}

fn single_component(config: Value) -> Option<Component> {
    let class = config.pointer("/architectures/0")?.as_str()?.to_owned();
    Some(Component { name: "model".to_owned(), class, config: Some(config) })
}

fn plain(name: &str) -> String {
    let name = name.trim().to_lowercase();
    let name = name.rsplit('/').next().unwrap_or_default();
    name.strip_suffix("-diffusers").unwrap_or(name).to_owned()
}

fn nearest(name: &str) -> Vec<&'static str> {
    let mut all: Vec<&str> = names().collect();
    // A name with its tail missing is nearer than edit distance says: what is missing was not mistyped.
    let is_start = |known: &str| known.starts_with(name) || name.starts_with(known);
    all.sort_by_cached_key(|known| (!is_start(known), distance(name, known)));
    all.truncate(SUGGESTIONS);
    all
}

/// The number of characters to insert, delete or replace to get from `a` to `b` (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(COMPARED_CHARS).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(COMPARED_CHARS).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

const WAN: Source = Source {
    part: "Wan transformers",
    origin: "diffusers scripts/convert_wan_to_diffusers.py get_transformer_config(); cross-checked with Wan-Video/Wan2.1 and Wan2.2 \
             wan/configs/*.py",
};
const WAN_VAE: Source = Source {
    part: "Wan 2.1 VAE",
    origin: "config printed from Wan-AI/Wan2.1-I2V-14B-480P-Diffusers in sgl-project/sglang PR 16225 (the hub file has only these 9 \
             keys); equals the class defaults",
};
const WAN22_VAE: Source =
    Source { part: "Wan 2.2 VAE", origin: "diffusers scripts/convert_wan_to_diffusers.py vae22_diffusers_config" };
const UMT5: Source = Source {
    part: "UMT5-XXL",
    origin: "config printed from Wan-AI/Wan2.1-T2V-1.3B-Diffusers/text_encoder in sgl-project/sglang PR 16225",
};
const WAN_INDEX: Source =
    Source { part: "model index", origin: "printed for Wan2.1-T2V in sgl-project/sglang PR 16948" };
const WAN_SHIFT: Source = Source {
    part: "scheduler flow_shift",
    origin: "diffusers conversion script: 3.0, 16.0 for FLF2V, 5.0 for TI2V-5B; the documentation recommends 5.0 for 720P, Wan2.2's own \
             code uses 12.0 for T2V-A14B and 5.0 for I2V-A14B",
};
const CLIP_H: Source = Source {
    part: "CLIP ViT-H/14",
    origin: "Wan-Video/Wan2.1 wan/modules/clip.py clip_xlm_roberta_vit_h_14 (1280 wide, 32 layers, 16 heads, patch 14, gelu, 224 px)",
};
const T5: Source =
    Source { part: "T5-v1.1-XXL", origin: "ComfyUI t5_config_xxl.json and transformers T5Config; vocabulary 32128" };
const COG: Source =
    Source { part: "CogVideoX", origin: "verbatim hub copies in kijai/ComfyUI-CogVideoXWrapper configs/*.json" };
const COG15: Source = Source {
    part: "CogVideoX1.5",
    origin: "diffusers scripts/convert_cogvideox_to_diffusers.py and two public repositories with the same dictionary (an early hub \
             revision had a sample of 96x170)",
};
const HUNYUAN: Source = Source {
    part: "HunyuanVideo",
    origin: "diffusers scripts/convert_hunyuan_video_to_diffusers.py TRANSFORMER_CONFIGS; VAE: class defaults; Llama: values of \
             llava-llama-3-8b, not checked",
};
const LTX: Source = Source {
    part: "LTX-Video",
    origin: "diffusers scripts/convert_ltx_to_diffusers.py and the diffusers config in LTX's own conversion table",
};
const LTX_13B_VAE: Source = Source {
    part: "LTX-Video 0.9.7 VAE",
    origin: "no config could be read; that the model has one follows from its pipeline class, LTXConditionPipeline",
};
const FLUX: Source = Source {
    part: "FLUX.1-dev",
    origin: "diffusers scripts/convert_flux_to_diffusers.py and class defaults; VAE: that of SD3 with scaling 0.3611 and shift 0.1159; \
             scheduler not checked",
};
const WAV2VEC2: Source = Source {
    part: "wav2vec2",
    origin: "base: transformers Wav2Vec2Config defaults (documented as facebook/wav2vec2-base-960h); xlsr-53: audio_dim 1024 of \
             Wan2.2-S2V and the known flags of the variant",
};

/// Embeds the named files of `catalog/<name>/`.
macro_rules! entry {
    ($name:literal, [$($source:expr),*], [$($file:literal),*]) => {
        CatalogEntry {
            name: $name,
            source: &[$($source),*],
            files: &[$(($file, include_str!(concat!("../catalog/", $name, "/", $file)))),*],
        }
    };
    // The five files that every pipeline has, and the configs of more components.
    ($name:literal, [$($source:expr),*], pipeline + [$($more:literal),*]) => {
        entry!($name, [$($source),*], [
            "model_index.json", "scheduler/scheduler_config.json", "text_encoder/config.json", "transformer/config.json",
            "vae/config.json" $(, $more)*
        ])
    };
}

const ENTRIES: &[CatalogEntry] = &[
    entry!("cogvideox-2b", [COG, T5], pipeline + []),
    entry!("cogvideox-5b", [COG, T5], pipeline + []),
    entry!("cogvideox-5b-i2v", [COG, T5], pipeline + []),
    entry!("cogvideox1.5-5b", [COG15, COG, T5], pipeline + []),
    entry!("cogvideox1.5-5b-i2v", [COG15, COG, T5], pipeline + []),
    entry!("flux.1-dev", [FLUX, T5], pipeline + ["text_encoder_2/config.json"]),
    entry!("hunyuanvideo", [HUNYUAN], pipeline + ["text_encoder_2/config.json"]),
    entry!("ltx-video-0.9.0", [LTX, T5], pipeline + []),
    entry!(
        "ltx-video-13b-0.9.7",
        [LTX, LTX_13B_VAE, T5],
        ["model_index.json", "scheduler/scheduler_config.json", "text_encoder/config.json", "transformer/config.json"]
    ),
    entry!(
        "wan2.1-flf2v-14b-720p",
        [WAN, WAN_VAE, UMT5, CLIP_H, WAN_INDEX, WAN_SHIFT],
        pipeline + ["image_encoder/config.json"]
    ),
    entry!(
        "wan2.1-i2v-14b-480p",
        [WAN, WAN_VAE, UMT5, CLIP_H, WAN_INDEX, WAN_SHIFT],
        pipeline + ["image_encoder/config.json"]
    ),
    entry!(
        "wan2.1-i2v-14b-720p",
        [WAN, WAN_VAE, UMT5, CLIP_H, WAN_INDEX, WAN_SHIFT],
        pipeline + ["image_encoder/config.json"]
    ),
    entry!("wan2.1-t2v-1.3b", [WAN, WAN_VAE, UMT5, WAN_INDEX, WAN_SHIFT], pipeline + []),
    entry!("wan2.1-t2v-14b", [WAN, WAN_VAE, UMT5, WAN_INDEX, WAN_SHIFT], pipeline + []),
    entry!("wan2.1-vace-1.3b", [WAN, WAN_VAE, UMT5, WAN_INDEX, WAN_SHIFT], pipeline + []),
    entry!("wan2.1-vace-14b", [WAN, WAN_VAE, UMT5, WAN_INDEX, WAN_SHIFT], pipeline + []),
    entry!("wan2.2-i2v-a14b", [WAN, WAN_VAE, UMT5, WAN_INDEX, WAN_SHIFT], pipeline + ["transformer_2/config.json"]),
    entry!("wan2.2-t2v-a14b", [WAN, WAN_VAE, UMT5, WAN_INDEX, WAN_SHIFT], pipeline + ["transformer_2/config.json"]),
    entry!("wan2.2-ti2v-5b", [WAN, WAN22_VAE, UMT5, WAN_INDEX, WAN_SHIFT], pipeline + []),
    entry!("wav2vec2-base", [WAV2VEC2], ["config.json"]),
    entry!("wav2vec2-large-xlsr-53", [WAV2VEC2], ["config.json"]),
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn hub_spellings_find_the_entry() {
        let check = |asked: &str, expected: &str| assert_eq!(find(asked).unwrap().name, expected, "{asked}");
        check("wan2.1-t2v-14b", "wan2.1-t2v-14b");
        check("Wan2.1-T2V-14B", "wan2.1-t2v-14b");
        check("Wan-AI/Wan2.1-T2V-14B", "wan2.1-t2v-14b");
        check("Wan-AI/Wan2.2-TI2V-5B-Diffusers", "wan2.2-ti2v-5b");
        check("black-forest-labs/FLUX.1-dev", "flux.1-dev");
        check(" CogVideoX1.5-5B-I2V ", "cogvideox1.5-5b-i2v");
        names().for_each(|name| check(name, name));
    }

    #[test]
    fn an_unknown_name_suggests_the_nearest() {
        let check = |asked: &str, first: &str| assert_eq!(find(asked).unwrap_err().nearest[0], first, "{asked}");
        check("wan2.1-t2v-14", "wan2.1-t2v-14b");
        check("wan21-t2v-1.3b", "wan2.1-t2v-1.3b");
        check("Lightricks/LTX-Video", "ltx-video-0.9.0");
        check("flux", "flux.1-dev");
        check("facebook/wav2vec2-base-960h", "wav2vec2-base");
        let error = find("hunyuan").unwrap_err();
        assert!(
            error.to_string().starts_with("no model `hunyuan` in the catalog; the nearest names are hunyuanvideo, "),
            "{error}"
        );
        assert!(find(&"x".repeat(1 << 20)).unwrap_err().to_string().len() < 400);
    }

    #[test]
    fn edit_distance_counts_changes() {
        let check = |a, b, expected| assert_eq!(distance(a, b), expected, "{a} {b}");
        check("", "", 0);
        check("", "abc", 3);
        check("kitten", "sitting", 3);
        check("flaw", "lawn", 2);
        check("wan2.1", "wan2.2", 1);
    }

    #[test]
    fn names_are_sorted_and_lower_case() {
        let all: Vec<_> = names().collect();
        assert!(all.is_sorted_by(|a, b| a < b), "{all:?}");
        assert!(all.iter().all(|name| plain(name) == *name));
        assert_eq!(all.len(), 21);
    }

    #[test]
    fn every_file_parses_and_every_entry_has_sources() {
        for entry in ENTRIES {
            assert!(!entry.source.is_empty(), "{}", entry.name);
            entry
                .files
                .iter()
                .for_each(|(path, _)| assert!(entry.json(path).unwrap().is_object(), "{} {path}", entry.name));
        }
    }

    #[test]
    fn components_come_in_order_of_execution() {
        let check = |name: &str, expected: &str| {
            let shown =
                |c: &Component| format!("{}:{}{}", c.name, c.class, if c.config.is_none() { " (absent)" } else { "" });
            let found: Vec<_> = find(name).unwrap().components().iter().map(shown).collect();
            assert_eq!(found.join(", "), expected, "{name}");
        };
        check(
            "wan2.1-t2v-14b",
            "text_encoder:UMT5EncoderModel, transformer:WanTransformer3DModel, vae:AutoencoderKLWan",
        );
        check(
            "wan2.1-i2v-14b-480p",
            "text_encoder:UMT5EncoderModel, image_encoder:CLIPVisionModel, transformer:WanTransformer3DModel, vae:AutoencoderKLWan",
        );
        check(
            "wan2.2-i2v-a14b",
            "text_encoder:UMT5EncoderModel, transformer:WanTransformer3DModel, transformer_2:WanTransformer3DModel, \
             vae:AutoencoderKLWan",
        );
        check(
            "flux.1-dev",
            "text_encoder:CLIPTextModel, text_encoder_2:T5EncoderModel, transformer:FluxTransformer2DModel, vae:AutoencoderKL",
        );
        check(
            "ltx-video-13b-0.9.7",
            "text_encoder:T5EncoderModel, transformer:LTXVideoTransformer3DModel, vae:AutoencoderKLLTXVideo (absent)",
        );
        check("wav2vec2-base", "model:Wav2Vec2Model");
    }

    #[test]
    fn a_strange_index_has_no_components() {
        let check = |index: Value| assert_eq!(weight_components(&index), [], "{index}");
        check(serde_json::json!([]));
        check(
            serde_json::json!({"_class_name": "X", "transformer": [null, null], "vae": "text", "unet": [], "boundary_ratio": 0.9}),
        );
    }
}

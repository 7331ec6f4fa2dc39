//! Wan models of random weights, wide enough that their arithmetic and not their start takes the time.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::synthetic::{Part, widen};
use crate::support::{copy_folder, fixture};

/// A model of the corpus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Width {
    pub name: &'static str,
    pub heads: u32,
    pub head: u32,
    pub ffn: u32,
    pub layers: u32,
    pub text: u32,
    pub vae: u32,
}

/// Three widths; the last is Wan 1.3B's with two of its thirty blocks. Text encoders have the 24 blocks of UMT5-XXL.
/// No stage holds more than 1 GiB, which a virtual machine such as this project's would give to its host at once when
/// it is freed, see [`Ballast`](crate::ballast::Ballast).
pub(crate) const WIDTHS: [Width; 3] = [
    Width { name: "narrow", heads: 6, head: 64, ffn: 1536, layers: 8, text: 256, vae: 16 },
    Width { name: "middle", heads: 8, head: 96, ffn: 3072, layers: 6, text: 384, vae: 32 },
    Width { name: "wide", heads: 12, head: 128, ffn: 8960, layers: 2, text: 512, vae: 48 },
];

/// Writes the folders of all widths.
pub(crate) fn write(root: &Path) {
    for width in WIDTHS {
        let folder = root.join(width.name);
        if folder.exists() {
            continue;
        }
        copy_folder(&fixture("wan_t2v/model"), &folder);
        let changes: [(&str, Value); 5] = [
            ("num_attention_heads", json!(width.heads)),
            ("attention_head_dim", json!(width.head)),
            ("ffn_dim", json!(width.ffn)),
            ("num_layers", json!(width.layers)),
            ("text_dim", json!(width.text)),
        ];
        widen(&folder.join("transformer"), Part::Transformer, &changes);
        let changes: [(&str, Value); 5] = [
            ("d_model", json!(width.text)),
            ("d_ff", json!(4 * width.text)),
            ("d_kv", json!(64)),
            ("num_heads", json!(width.text / 64)),
            ("num_layers", json!(24)),
        ];
        widen(&folder.join("text_encoder"), Part::TextEncoder, &changes);
        widen(&folder.join("vae"), Part::Vae, &[("base_dim", json!(width.vae))]);
    }
    fs::write(root.join("README"), "Random weights, made by the accuracy example; may be deleted.\n").unwrap();
}

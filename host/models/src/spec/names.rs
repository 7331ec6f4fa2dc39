//! Checkpoints under other names than diffusers': those of Wan's authors, which GGUF files and ComfyUI's use too, and
//! those that llama.cpp gives to T5's encoder.
//!
//! Sources: diffusers' `convert_wan_to_diffusers.py` and llama.cpp's `gguf-py/gguf/constants.py`, as facts about names.

use std::collections::BTreeSet;

use crate::weights::{TensorEntry, WeightIndex};

/// What tools put before all names of a transformer.
const PREFIXES: [&str; 2] = ["model.diffusion_model.", "diffusion_model."];

/// The start of a name, up to a dot, and what it is called here.
type Rename = (&'static str, &'static str);

/// What stands outside of Wan's blocks.
const WAN: &[Rename] = &[
    ("time_embedding.0", "condition_embedder.time_embedder.linear_1"),
    ("time_embedding.2", "condition_embedder.time_embedder.linear_2"),
    ("text_embedding.0", "condition_embedder.text_embedder.linear_1"),
    ("text_embedding.2", "condition_embedder.text_embedder.linear_2"),
    ("time_projection.1", "condition_embedder.time_proj"),
    ("head.modulation", "scale_shift_table"),
    ("head.head", "proj_out"),
    ("img_emb.proj.0", "condition_embedder.image_embedder.norm1"),
    ("img_emb.proj.1", "condition_embedder.image_embedder.ff.net.0.proj"),
    ("img_emb.proj.3", "condition_embedder.image_embedder.ff.net.2"),
    ("img_emb.proj.4", "condition_embedder.image_embedder.norm2"),
    ("img_emb.emb_pos", "condition_embedder.image_embedder.pos_embed"),
];

/// What a block of Wan's holds. Its authors number the norms in the order of their making, diffusers in that of use.
const WAN_BLOCK: &[Rename] = &[
    ("modulation", "scale_shift_table"),
    ("self_attn.q", "attn1.to_q"),
    ("self_attn.k", "attn1.to_k"),
    ("self_attn.v", "attn1.to_v"),
    ("self_attn.o", "attn1.to_out.0"),
    ("self_attn.norm_q", "attn1.norm_q"),
    ("self_attn.norm_k", "attn1.norm_k"),
    ("cross_attn.q", "attn2.to_q"),
    ("cross_attn.k", "attn2.to_k"),
    ("cross_attn.v", "attn2.to_v"),
    ("cross_attn.o", "attn2.to_out.0"),
    ("cross_attn.norm_q", "attn2.norm_q"),
    ("cross_attn.norm_k", "attn2.norm_k"),
    ("cross_attn.k_img", "attn2.add_k_proj"),
    ("cross_attn.v_img", "attn2.add_v_proj"),
    ("cross_attn.norm_k_img", "attn2.norm_added_k"),
    ("norm3", "norm2"),
    ("ffn.0", "ffn.net.0.proj"),
    ("ffn.2", "ffn.net.2"),
    ("before_proj", "proj_in"),
    ("after_proj", "proj_out"),
];

const T5: &[Rename] = &[("token_embd", "shared"), ("enc.output_norm", "encoder.final_layer_norm")];

const T5_BLOCK: &[Rename] = &[
    ("attn_q", "layer.0.SelfAttention.q"),
    ("attn_k", "layer.0.SelfAttention.k"),
    ("attn_v", "layer.0.SelfAttention.v"),
    ("attn_o", "layer.0.SelfAttention.o"),
    ("attn_rel_b", "layer.0.SelfAttention.relative_attention_bias"),
    ("attn_norm", "layer.0.layer_norm"),
    ("ffn_norm", "layer.1.layer_norm"),
    ("ffn_gate", "layer.1.DenseReluDense.wi_0"),
    ("ffn_up", "layer.1.DenseReluDense.wi_1"),
    ("ffn_down", "layer.1.DenseReluDense.wo"),
];

/// Names of one origin.
struct Scheme {
    /// The start of the classes that have them.
    class: &'static str,
    /// A tensor that tells these names from diffusers'.
    sign: &'static str,
    outside: &'static [Rename],
    /// What block lists are called, there and here.
    lists: &'static [Rename],
    inside: &'static [Rename],
}

const SCHEMES: &[Scheme] = &[
    Scheme {
        class: "Wan",
        sign: "blocks.0.self_attn.q.weight",
        outside: WAN,
        lists: &[("blocks", "blocks"), ("vace_blocks", "vace_blocks")],
        inside: WAN_BLOCK,
    },
    Scheme {
        class: "UMT5",
        sign: "enc.blk.0.attn_q.weight",
        outside: T5,
        lists: &[("enc.blk", "encoder.block")],
        inside: T5_BLOCK,
    },
    Scheme {
        class: "T5",
        sign: "enc.blk.0.attn_q.weight",
        outside: T5,
        lists: &[("enc.blk", "encoder.block")],
        inside: T5_BLOCK,
    },
];

/// Gives the tensors of a file under other names those of diffusers; a file under diffusers' names stays as it is.
///
/// # Errors
/// The name that two tensors would have.
pub(super) fn to_diffusers(class: &str, weights: &mut WeightIndex) -> Result<(), TensorEntry> {
    let prefix = PREFIXES.into_iter().find(|p| weights.tensors.iter().any(|t| t.name.starts_with(p))).unwrap_or("");
    let has = |name: &str| weights.get(&format!("{prefix}{name}")).is_some();
    let scheme = SCHEMES.iter().find(|s| class.starts_with(s.class) && has(s.sign));
    if scheme.is_none() && prefix.is_empty() {
        return Ok(());
    }
    let mut seen = BTreeSet::new();
    for tensor in &mut weights.tensors {
        let own = tensor.name.strip_prefix(prefix).unwrap_or(&tensor.name);
        let name = scheme.map_or_else(|| own.to_owned(), |scheme| scheme.name(own));
        if !seen.insert(name.clone()) {
            return Err(TensorEntry { name, ..tensor.clone() });
        }
        tensor.name = name;
    }
    weights.tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(())
}

impl Scheme {
    fn name(&self, own: &str) -> String {
        let in_list = |(there, here): &Rename| {
            let rest = own.strip_prefix(there)?.strip_prefix('.')?;
            let (number, inside) = rest.split_once('.')?;
            Some(format!("{here}.{number}.{}", renamed(self.inside, inside)?))
        };
        let listed = self.lists.iter().find_map(in_list);
        listed.or_else(|| renamed(self.outside, own)).unwrap_or_else(|| own.to_owned())
    }
}

/// The name with its start replaced; nothing where no start fits.
fn renamed(table: &[Rename], name: &str) -> Option<String> {
    table.iter().find_map(|(there, here)| match name.strip_prefix(there)? {
        "" => Some((*here).to_owned()),
        rest => rest.starts_with('.').then(|| format!("{here}{rest}")),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::weights::FileDtype;

    fn index(names: &[&str]) -> WeightIndex {
        let entry = |name: &&str| TensorEntry {
            name: (*name).to_owned(),
            shape: vec![],
            dtype: FileDtype::F32,
            file: 0,
            offset: 0,
            bytes: 4,
        };
        let mut tensors: Vec<_> = names.iter().map(entry).collect();
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        WeightIndex { files: vec![], tensors }
    }

    fn check(class: &str, names: &[&str], expected: &[&str]) {
        let mut weights = index(names);
        to_diffusers(class, &mut weights).unwrap();
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(weights.tensors.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn names_of_wan_become_those_of_diffusers() {
        let theirs = [
            "blocks.0.self_attn.q.weight",
            "blocks.11.cross_attn.norm_k_img.weight",
            "blocks.11.cross_attn.k_img.scale_weight",
            "blocks.2.modulation",
            "blocks.2.norm3.bias",
            "blocks.2.ffn.2.weight",
            "head.head.bias",
            "head.modulation",
            "patch_embedding.weight",
            "time_projection.1.weight",
            "vace_blocks.0.before_proj.weight",
            "scaled_fp8",
        ];
        let ours = [
            "blocks.0.attn1.to_q.weight",
            "blocks.11.attn2.norm_added_k.weight",
            "blocks.11.attn2.add_k_proj.scale_weight",
            "blocks.2.scale_shift_table",
            "blocks.2.norm2.bias",
            "blocks.2.ffn.net.2.weight",
            "proj_out.bias",
            "scale_shift_table",
            "patch_embedding.weight",
            "condition_embedder.time_proj.weight",
            "vace_blocks.0.proj_in.weight",
            "scaled_fp8",
        ];
        check("WanTransformer3DModel", &theirs, &ours);
        let prefixed: Vec<String> = theirs.iter().map(|name| format!("model.diffusion_model.{name}")).collect();
        check("WanTransformer3DModel", &prefixed.iter().map(String::as_str).collect::<Vec<_>>(), &ours);
    }

    #[test]
    fn names_of_llama_cpp_become_those_of_transformers() {
        check(
            "UMT5EncoderModel",
            &["enc.blk.0.attn_q.weight", "enc.blk.3.ffn_gate.weight", "token_embd.weight", "enc.output_norm.weight"],
            &[
                "encoder.block.0.layer.0.SelfAttention.q.weight",
                "encoder.block.3.layer.1.DenseReluDense.wi_0.weight",
                "shared.weight",
                "encoder.final_layer_norm.weight",
            ],
        );
    }

    #[test]
    fn names_of_diffusers_stay() {
        let names = ["blocks.0.attn1.to_q.weight", "blocks.0.norm2.weight", "scale_shift_table"];
        check("WanTransformer3DModel", &names, &names);
    }

    #[test]
    fn two_tensors_of_one_name_are_told() {
        let mut weights = index(&["blocks.0.self_attn.q.weight", "blocks.0.attn1.to_q.weight"]);
        let twice = to_diffusers("WanTransformer3DModel", &mut weights).unwrap_err();
        assert_eq!(twice.name, "blocks.0.attn1.to_q.weight");
    }
}

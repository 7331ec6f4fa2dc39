//! Scales of 8-bit float weights, which files keep in tensors of their own.
//!
//! ComfyUI's files have `scale_weight` beside `weight` (and a tensor `scaled_fp8` that says so), other tools
//! `weight_scale`. Scales of activations (`scale_input`, `input_scale`) are for products in 8 bits and not used here.

use crate::weights::{FileDtype, TensorEntry, WeightIndex};

/// What stands beside `NAME.weight` to multiply it.
const OF_WEIGHTS: [&str; 2] = ["scale_weight", "weight_scale"];
/// What stands there without meaning for the weights.
const BESIDE: [&str; 3] = ["scale_input", "input_scale", "comfy_quant"];
/// What marks a whole file.
const MARK: &str = "scaled_fp8";

/// The scale of a tensor of 8-bit floats, if the file has one.
#[must_use]
pub fn scale_of<'a>(weights: &'a WeightIndex, tensor: &str) -> Option<&'a TensorEntry> {
    let module = tensor.strip_suffix(".weight")?;
    let entry = weights.get(tensor)?;
    if entry.dtype != FileDtype::F8_E4M3 {
        return None;
    }
    OF_WEIGHTS.iter().find_map(|scale| weights.get(&format!("{module}.{scale}")))
}

/// Whether a tensor stands beside the weight that `has` knows, or marks the file.
pub(super) fn is_companion(tensor: &str, has: &dyn Fn(&str) -> bool) -> bool {
    let of = |module: &str| has(&format!("{module}.weight"));
    let beside = |(module, last): (&str, &str)| (OF_WEIGHTS.contains(&last) || BESIDE.contains(&last)) && of(module);
    tensor == MARK || tensor.rsplit_once('.').is_some_and(beside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn companions_stand_beside_a_weight() {
        let has = |name: &str| name == "blocks.0.attn1.to_q.weight";
        let check = |tensor: &str, expected| assert_eq!(is_companion(tensor, &has), expected, "{tensor}");
        check("blocks.0.attn1.to_q.scale_weight", true);
        check("blocks.0.attn1.to_q.weight_scale", true);
        check("blocks.0.attn1.to_q.scale_input", true);
        check("scaled_fp8", true);
        check("blocks.9.attn1.to_q.scale_weight", false);
        check("blocks.0.attn1.to_q.bias", false);
    }
}

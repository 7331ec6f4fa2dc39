//! Which type each tensor has in memory.

use loadline_core::{Component, DType, Knobs, TensorSpec};

use crate::params;

/// The storage type of one tensor under given knobs; for many tensors, ask a [`StorageRule`].
#[must_use]
pub fn storage_of(component: &Component, tensor: &TensorSpec, knobs: &Knobs) -> DType {
    StorageRule::new(component, knobs).of(tensor)
}

/// The storage types of a component's tensors under given knobs.
///
/// A plain type is every tensor's, but for those that the reference keeps in f32. A type with scales is that of the
/// matrices of the repeated blocks whose rows are whole blocks of it: norms, biases, tables, convolutions and what
/// stands before and after the blocks stay plain, as the published files keep them. A file that holds a type with
/// scales keeps its mixture when that type is asked for, or none.
#[derive(Clone, Copy, Debug)]
pub struct StorageRule {
    storage: DType,
    keeps_f32: bool,
    /// Whether types are those of the file, because most of it has the type that is wanted.
    as_filed: bool,
    lists: &'static [&'static str],
}

impl StorageRule {
    /// The rule of a component. It looks at every tensor once, to find the type that most of the file has.
    ///
    /// The reference keeps T5's `wo` in f32 only beside f16, whose range is too small for it.
    #[must_use]
    pub fn new(component: &Component, knobs: &Knobs) -> Self {
        let file = component.file_dtype();
        let only_beside_f16 = component.class.ends_with("T5EncoderModel");
        let lists = params::block_lists(&component.class).unwrap_or(&[]);
        let rule = |storage: DType| Self {
            storage,
            keeps_f32: !only_beside_f16 || storage == DType::F16,
            as_filed: !storage.is_plain() && file == Some(storage),
            lists,
        };
        let asked = rule(knobs.storage_of(&component.name).or(file).unwrap_or(DType::Bf16));
        let of_use = asked.storage.is_plain() || component.tensors.iter().any(|t| !asked.of(t).is_plain());
        if of_use { asked } else { rule(file.filter(|d| d.is_plain()).unwrap_or(DType::Bf16)) }
    }

    /// The type that most weights have, which decides the type that is computed in. A type with scales that fits no
    /// tensor of the component is not this one.
    #[must_use]
    pub fn storage(&self) -> DType {
        self.storage
    }

    /// The storage type of one tensor.
    #[must_use]
    pub fn of(&self, tensor: &TensorSpec) -> DType {
        if tensor.keep_f32 && self.keeps_f32 {
            return DType::F32;
        }
        if self.storage.is_plain() {
            return self.storage;
        }
        let wanted = if self.as_filed { tensor.file_dtype.unwrap_or(self.storage) } else { self.storage };
        if wanted.is_plain() || self.is_packable(tensor) && row(tensor).is_multiple_of(wanted.block_elements()) {
            wanted
        } else {
            tensor.file_dtype.filter(|d| d.is_plain()).unwrap_or(DType::Bf16)
        }
    }

    /// Whether a tensor is multiplied by a kernel that takes weights with scales: a matrix of a repeated block.
    fn is_packable(&self, tensor: &TensorSpec) -> bool {
        let listed = |list: &&str| tensor.name.strip_prefix(list).is_some_and(|rest| rest.starts_with('.'));
        // T5's table of relative positions is looked up, not multiplied.
        let looked_up = tensor.name.ends_with("relative_attention_bias.weight");
        tensor.shape.len() == 2 && !looked_up && self.lists.iter().any(listed)
    }
}

/// Values of a row.
fn row(tensor: &TensorSpec) -> u64 {
    tensor.shape.last().copied().unwrap_or(1)
}

/// Matrices that stay plain because a type with scales was asked for of which their rows are not whole blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptPlain {
    /// The component.
    pub component: String,
    /// The type that was asked for.
    pub asked: DType,
    /// How many tensors.
    pub tensors: usize,
    /// The first of them.
    pub first: String,
    /// Values of its rows.
    pub row: u64,
    /// Its type.
    pub kept: DType,
}

impl std::fmt::Display for KeptPlain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { component, asked, tensors, first, row, kept } = self;
        let block = asked.block_elements();
        write!(
            f,
            "{component}: {tensors} tensors are not stored as {asked}, since their rows are not whole blocks of {block}; \
             the first is {first}, whose rows of {row} stay {kept}"
        )
    }
}

/// The matrices of a component that cannot be stored as the knobs ask, if there are any.
#[must_use]
pub fn kept_plain(component: &Component, knobs: &Knobs) -> Option<KeptPlain> {
    let asked = knobs.storage_of(&component.name).filter(|d| !d.is_plain())?;
    let rule = StorageRule::new(component, knobs);
    let refused = |t: &&TensorSpec| {
        let kept_f32 = t.keep_f32 && rule.keeps_f32;
        rule.is_packable(t) && !kept_f32 && !row(t).is_multiple_of(asked.block_elements()) && rule.of(t).is_plain()
    };
    let mut all = component.tensors.iter().filter(refused);
    let first = all.next()?;
    Some(KeptPlain {
        component: component.name.clone(),
        asked,
        tensors: 1 + all.count(),
        first: first.name.clone(),
        row: row(first),
        kept: rule.of(first),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn tensor(name: &str, shape: &[u64], file_dtype: Option<DType>) -> TensorSpec {
        TensorSpec {
            name: name.into(),
            shape: shape.into(),
            file_dtype,
            keep_f32: name.contains("table"),
            buffer: false,
        }
    }

    fn component(tensors: Vec<TensorSpec>) -> Component {
        let class = "WanTransformer3DModel".to_owned();
        Component { name: "transformer".into(), class, tensors, blocks: vec![], absent: false }
    }

    fn types(component: &Component, asked: Option<DType>) -> Vec<&'static str> {
        let storage = asked.map(|d| ("transformer".to_owned(), d)).into_iter().collect();
        let rule = StorageRule::new(component, &Knobs { storage, ..Knobs::default() });
        component.tensors.iter().map(|t| rule.of(t).name()).collect()
    }

    /// A component as a config tells of it, or as files of these types hold it.
    fn wan(types: [Option<DType>; 6]) -> Component {
        let [patch, q, bias, ffn, odd, table] = types;
        component(vec![
            tensor("patch_embedding.weight", &[512, 16, 1, 2, 2], patch),
            tensor("blocks.0.attn1.to_q.weight", &[512, 512], q),
            tensor("blocks.0.attn1.to_q.bias", &[512], bias),
            tensor("blocks.0.ffn.net.2.weight", &[512, 1024], ffn),
            tensor("blocks.0.attn2.add_k_proj.weight", &[512, 96], odd),
            tensor("blocks.0.scale_shift_table", &[1, 6, 512], table),
        ])
    }

    #[test]
    fn a_type_with_scales_is_for_matrices_of_whole_blocks() {
        let known = |dtype| wan([Some(dtype); 6]);
        let check = |component: &Component, asked, expected: [&str; 6]| {
            assert_eq!(types(component, asked), expected, "{asked:?}");
        };
        check(&wan([None; 6]), Some(DType::Q4K), ["bf16", "q4_k", "bf16", "q4_k", "bf16", "f32"]);
        check(&wan([None; 6]), Some(DType::Q8_0), ["bf16", "q8_0", "bf16", "q8_0", "q8_0", "f32"]);
        check(&known(DType::F16), Some(DType::Q4K), ["f16", "q4_k", "f16", "q4_k", "f16", "f32"]);
        check(&known(DType::F32), Some(DType::F8E4M3), ["f32", "f8e4m3", "f32", "f8e4m3", "f8e4m3", "f32"]);
        check(&known(DType::F16), Some(DType::Bf16), ["bf16", "bf16", "bf16", "bf16", "bf16", "f32"]);
        check(&known(DType::F16), None, ["f16", "f16", "f16", "f16", "f16", "f32"]);
    }

    #[test]
    fn a_file_keeps_its_mixture_unless_another_type_is_asked_for() {
        use DType::{Bf16, F16, F32, Q4K, Q6K, Q8_0};
        let file = wan([Some(F16), Some(Q4K), Some(F32), Some(Q6K), Some(F16), Some(F32)]);
        // The largest part decides what the file is said to hold.
        assert_eq!(file.file_dtype(), Some(Q6K));
        let as_filed = ["f16", "q4_k", "f32", "q6_k", "f16", "f32"];
        assert_eq!(types(&file, None), as_filed);
        assert_eq!(types(&file, Some(Q6K)), as_filed);
        assert_eq!(types(&file, Some(Q8_0)), ["f16", "q8_0", "f32", "q8_0", "q8_0", "f32"]);
        assert_eq!(types(&file, Some(Bf16)), ["bf16", "bf16", "bf16", "bf16", "bf16", "f32"]);
    }

    #[test]
    fn a_packed_table_of_a_file_becomes_plain() {
        let file = wan([Some(DType::F8E4M3); 6]);
        assert_eq!(types(&file, None), ["bf16", "f8e4m3", "bf16", "f8e4m3", "f8e4m3", "f32"]);
    }

    #[test]
    fn what_does_not_fit_anywhere_leaves_the_component_as_it_is() {
        let narrow = |dtype| {
            component(vec![
                tensor("blocks.0.to_q.weight", &[64, 64], dtype),
                tensor("proj_out.weight", &[8, 64], dtype),
            ])
        };
        assert_eq!(types(&narrow(Some(DType::F32)), Some(DType::Q4K)), ["f32", "f32"]);
        assert_eq!(types(&narrow(None), Some(DType::Q4K)), ["bf16", "bf16"]);
        let vae = Component { class: "AutoencoderKLWan".into(), ..narrow(Some(DType::F32)) };
        assert_eq!(types(&vae, Some(DType::Q8_0)), ["f32", "f32"]);
    }

    #[test]
    fn what_stays_plain_is_told() {
        let told = |asked| {
            let storage = vec![("transformer".to_owned(), asked)];
            kept_plain(&wan([None; 6]), &Knobs { storage, ..Knobs::default() })
        };
        let text = told(DType::Q4K).unwrap().to_string();
        let expected = "transformer: 1 tensors are not stored as q4_k, since their rows are not whole blocks of 256; the \
                        first is blocks.0.attn2.add_k_proj.weight, whose rows of 96 stay bf16";
        assert_eq!(text, expected);
        assert_eq!((told(DType::Q8_0), told(DType::F16)), (None, None));
    }
}

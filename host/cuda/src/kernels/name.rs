//! Which kernels there are, and in which module each of them is.

/// The modules: the PTX that `cargo xtask cuda-kernels` makes of each file in `kernels/`.
pub(super) const MODULES: [(&str, &str); 9] = [
    ("linear", include_str!("../../ptx/linear.ptx")),
    ("conv", include_str!("../../ptx/conv.ptx")),
    ("attention_bf16", include_str!("../../ptx/attention_bf16.ptx")),
    ("attention_plain", include_str!("../../ptx/attention_plain.ptx")),
    ("norms", include_str!("../../ptx/norms.ptx")),
    ("groups", include_str!("../../ptx/groups.ptx")),
    ("elements", include_str!("../../ptx/elements.ptx")),
    ("stored", include_str!("../../ptx/stored.ptx")),
    ("moves", include_str!("../../ptx/moves.ptx")),
];

macro_rules! names {
    ($($module:literal: $($name:ident = $symbol:literal),* $(,)?;)*) => {
        /// A kernel.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(missing_docs)] // their files say what they compute
        pub enum Name { $($($name,)*)* }

        impl Name {
            /// Every kernel, in the order of the variants.
            pub const ALL: &'static [Self] = &[$($(Self::$name,)*)*];

            /// The symbol in its module.
            #[must_use]
            pub const fn symbol(self) -> &'static str {
                match self { $($(Self::$name => $symbol,)*)* }
            }

            /// The module's name, which is its file's.
            #[must_use]
            pub const fn module(self) -> &'static str {
                match self { $($(Self::$name => $module,)*)* }
            }
        }
    };
}

names! {
    "linear":
        LinearBf16Large = "linear_bf16_large", LinearBf16Small = "linear_bf16_small",
        LinearBf16Odd = "linear_bf16_odd", LinearF32Large = "linear_f32_large",
        LinearF32Small = "linear_f32_small", LinearF32Odd = "linear_f32_odd",
        LinearFewBf16 = "linear_few_bf16", LinearFewF32 = "linear_few_f32";
    "conv":
        ConvBf16Large = "conv_bf16_large", ConvBf16Small = "conv_bf16_small",
        ConvBf16Narrow = "conv_bf16_narrow", ConvBf16Odd = "conv_bf16_odd",
        ConvF32Large = "conv_f32_large", ConvF32Small = "conv_f32_small",
        ConvF32Narrow = "conv_f32_narrow", ConvF32Odd = "conv_f32_odd";
    "attention_bf16":
        Attention64 = "attention_bf16_64", Attention96 = "attention_bf16_96", Attention128 = "attention_bf16_128";
    "attention_plain":
        AttentionPlainBf16 = "attention_plain_bf16", AttentionPlainF32 = "attention_plain_f32",
        AttentionWideBf16 = "attention_wide_bf16", AttentionWideF32 = "attention_wide_f32";
    "norms":
        NormWarpBf16 = "norm_warp_bf16", NormWarpF32 = "norm_warp_f32",
        NormBlockBf16 = "norm_block_bf16", NormBlockF32 = "norm_block_f32";
    "groups":
        GroupMeasureBf16 = "group_measure_bf16", GroupMeasureF32 = "group_measure_f32", GroupJoin = "group_join",
        GroupApplyBf16 = "group_apply_bf16", GroupApplyF32 = "group_apply_f32";
    "elements":
        PairBf16 = "pair_bf16", PairF32 = "pair_f32", GatedBf16 = "gated_bf16", GatedF32 = "gated_f32",
        ActivateBf16 = "activate_bf16", ActivateF32 = "activate_f32", AffineBf16 = "affine_bf16",
        AffineF32 = "affine_f32", RopeBf16 = "rope_bf16", RopeF32 = "rope_f32", Combine = "combine_f32",
        MeansBf16 = "means_bf16", MeansF32 = "means_f32";
    "stored":
        UnpackBf16 = "unpack_bf16", UnpackF32 = "unpack_f32", ReorderBf16 = "reorder_bf16",
        ReorderF32 = "reorder_f32", RelativeBias = "relative_bias";
    "moves":
        Move2 = "move_2", Move4 = "move_4", Move8 = "move_8", Move16 = "move_16";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_is_in_its_module() {
        for (index, name) in Name::ALL.iter().enumerate() {
            assert_eq!(*name as usize, index, "handles are found by the variant's number");
            let entry = format!(".entry {}(", name.symbol());
            let module = MODULES.iter().find(|(module, _)| *module == name.module());
            assert!(module.is_some_and(|(_, ptx)| ptx.contains(&entry)), "{} has no {}", name.module(), name.symbol());
        }
        let entries: usize = MODULES.iter().map(|(_, ptx)| ptx.matches(".visible .entry").count()).sum();
        assert_eq!(entries, Name::ALL.len(), "a module has a kernel that nobody launches");
    }
}

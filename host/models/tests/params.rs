//! The tensor lists, against what the reference libraries count and write, and against broken configs.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use loadline_models::catalog;
use loadline_models::params::{ConfigError, Param, block_lists, classes, params};
use serde_json::{Value, json};

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The prefix that published names have in front of those of transformers 5.
fn hub_prefix(class: &str) -> &'static str {
    match class {
        "CLIPTextModel" => "text_model.",
        "CLIPVisionModel" => "vision_model.",
        _ => "",
    }
}

fn hub_name(class: &str, name: &str) -> String {
    let name = name
        .replace("parametrizations.weight.original0", "weight_g")
        .replace("parametrizations.weight.original1", "weight_v");
    format!("{}{name}", hub_prefix(class))
}

fn count<'a>(list: impl IntoIterator<Item = &'a Param>) -> u64 {
    list.into_iter().map(Param::elements).sum()
}

/// The same numbers as `sizes.json` has, which torch counted on its meta device.
fn sizes(class: &str, list: &[Param]) -> Value {
    let trained: Vec<&Param> = list.iter().filter(|p| !p.buffer).collect();
    let total = count(trained.iter().copied());
    let kept = count(trained.iter().copied().filter(|p| p.keep_f32));
    let blocks = blocks(class, &trained);
    let outside = total - blocks.iter().flat_map(|(_, each)| each).sum::<u64>();
    let most = trained.iter().map(|p| p.elements()).max().unwrap();
    let largest = trained.iter().find(|p| p.elements() == most).unwrap();
    json!({
        "class": class, "params": total, "tensors": trained.len(), "bf16_bytes": 2 * total, "f32_bytes": 4 * total,
        "kept_f32_params": kept, "mixed_bytes": 2 * total + 2 * kept,
        "persistent_buffer_params": count(list.iter().filter(|p| p.buffer)),
        "largest_tensor": {"name": largest.name, "shape": largest.shape, "bf16_bytes": 2 * most},
        "block_lists": blocks.iter().map(|(name, each)| (name.clone(), block_sizes(each))).collect::<serde_json::Map<_, _>>(),
        "non_block_params": outside, "non_block_bf16_bytes": 2 * outside,
    })
}

/// Parameters of each block of each list.
fn blocks(class: &str, list: &[&Param]) -> Vec<(String, Vec<u64>)> {
    let sum = |prefix: &str| {
        let mut each = BTreeMap::<usize, u64>::new();
        for param in list {
            let Some(rest) = param.name.strip_prefix(prefix).and_then(|r| r.strip_prefix('.')) else {
                continue;
            };
            *each.entry(rest.split('.').next().unwrap().parse().unwrap()).or_default() += param.elements();
        }
        assert!(each.keys().copied().eq(0..each.len()), "{class} {prefix}: blocks are not numbered without gaps");
        each.into_values().collect()
    };
    block_lists(class).unwrap().iter().map(|prefix| ((*prefix).to_owned(), sum(prefix))).collect()
}

fn block_sizes(each: &[u64]) -> Value {
    let mut distinct = each.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    json!({"count": each.len(), "params_each": distinct, "bf16_bytes_each": distinct.iter().map(|n| 2 * n).collect::<Vec<_>>()})
}

/// `sizes.json` under the names of the published files.
fn published(mut expected: Value) -> Value {
    let class = expected["class"].as_str().unwrap().to_owned();
    let name = expected["largest_tensor"]["name"].as_str().unwrap().to_owned();
    expected["largest_tensor"]["name"] = json!(hub_name(&class, &name));
    let lists = expected["block_lists"].as_object().unwrap().clone();
    expected["block_lists"] =
        lists.into_iter().map(|(name, list)| (format!("{}{name}", hub_prefix(&class)), list)).collect();
    expected
}

#[test]
fn every_catalog_component_has_the_sizes_that_torch_counts() {
    let mut checked = 0;
    for name in catalog::names() {
        let expected = read(&root().join("catalog").join(name).join("sizes.json"));
        let mut seen = Vec::new();
        for component in catalog::find(name).unwrap().components() {
            let Some(config) = component.config else {
                continue;
            };
            let list = params(&component.class, &config).unwrap();
            assert_eq!(
                sizes(&component.class, &list),
                published(expected[&component.name].clone()),
                "{name} {}",
                component.name
            );
            seen.push(component.name);
        }
        assert_eq!(seen.len(), expected.as_object().unwrap().len(), "{name}: {seen:?}");
        checked += seen.len();
    }
    assert_eq!(checked, 65);
}

#[test]
fn every_fixture_has_exactly_the_tensors_that_the_reference_wrote() {
    check_tensors("fixture_tensors.json", "fixtures", 23);
}

/// Narrow models for what no published model turns on, or none of the catalog: other norms, biases, levels.
#[test]
fn every_variant_has_exactly_the_tensors_that_the_reference_builds() {
    check_tensors("variant_tensors.json", "variants", 27);
}

fn check_tensors(file: &str, title: &str, count: usize) {
    let rows = read(&root().join("tests/data").join(file));
    for row in rows.as_array().unwrap() {
        let list = params(row["class"].as_str().unwrap(), &row["config"]).unwrap();
        let found: BTreeMap<String, Value> = list.iter().map(|p| (p.name.clone(), json!(p.shape))).collect();
        assert_eq!(found.len(), list.len(), "{}: a name twice", row[title]);
        let expected: BTreeMap<String, Value> = serde_json::from_value(row["tensors"].clone()).unwrap();
        assert_eq!(found, expected, "{}", row[title]);
    }
    assert_eq!(rows.as_array().unwrap().len(), count);
}

#[test]
fn blocks_are_listed_one_after_another_between_head_and_tail() {
    for name in catalog::names() {
        for component in catalog::find(name).unwrap().components() {
            let Some(config) = component.config else {
                continue;
            };
            let list = params(&component.class, &config).unwrap();
            let places: Vec<_> = list.iter().filter_map(|p| place(&component.class, &p.name)).collect();
            assert!(places.is_sorted(), "{name} {}: {places:?}", component.name);
        }
    }
}

/// The position of a tensor's block: which list, which block.
fn place(class: &str, name: &str) -> Option<(usize, usize)> {
    let lists = block_lists(class).unwrap();
    let index = |prefix: &str| name.strip_prefix(prefix)?.strip_prefix('.')?.split('.').next()?.parse().ok();
    lists.iter().enumerate().find_map(|(i, prefix)| Some((i, index(prefix)?)))
}

#[test]
fn an_empty_config_is_the_class_default() {
    let check = |class: &str, tensors: usize, parameters: u64| {
        let list = params(class, &json!({})).unwrap();
        assert_eq!((list.len(), count(&list)), (tensors, parameters), "{class}");
    };
    // The published models that are exactly the defaults of their class.
    check("WanTransformer3DModel", 1095, 14_288_491_584);
    check("WanVACETransformer3DModel", 1331, 17_337_592_896);
    check("AutoencoderKLWan", 194, 126_892_531);
    check("CogVideoXTransformer3DModel", 736, 1_693_783_872);
    check("AutoencoderKLCogVideoX", 436, 215_583_907);
    check("HunyuanVideoTransformer3DModel", 1264, 12_821_012_544);
    check("AutoencoderKLHunyuanVideo", 248, 246_478_803);
    check("LTXVideoTransformer3DModel", 715, 1_923_385_472);
    check("AutoencoderKLLTXVideo", 190, 419_193_905);
    check("Wav2Vec2Model", 211, 94_371_712);
    classes().for_each(|class| assert!(!params(class, &json!({})).unwrap().is_empty(), "{class}"));
}

/// Class, config, message.
const REFUSED: &str = r#"
WanTransformer3DModel | [1] | expected a JSON object, found [1]
WanTransformer3DModel | {"ffn_dim": 0} | field `ffn_dim` is 0, expected a whole number from 1 to 16777216
WanTransformer3DModel | {"ffn_dim": -1} | field `ffn_dim` is -1, expected a whole number from 1 to 16777216
WanTransformer3DModel | {"ffn_dim": "13824"} | field `ffn_dim` is "13824", expected a whole number from 1 to 16777216
WanTransformer3DModel | {"ffn_dim": 1.5} | field `ffn_dim` is 1.5, expected a whole number from 1 to 16777216
WanTransformer3DModel | {"ffn_dim": null} | field `ffn_dim` is null, expected a whole number from 1 to 16777216
WanTransformer3DModel | {"ffn_dim": 2199023255552} | field `ffn_dim` is 2199023255552, expected a whole number from 1 to 16777216
WanTransformer3DModel | {"num_layers": 1000000} | field `num_layers` is 1000000, expected a whole number from 1 to 4096
WanTransformer3DModel | {"cross_attn_norm": 1} | field `cross_attn_norm` is 1, expected true or false
WanTransformer3DModel | {"eps": 0} | field `eps` is 0, expected a number above 0 and at most 1
WanTransformer3DModel | {"patch_size": [1, 2]} | field `patch_size` is [1,2], expected a list of 3 whole numbers from 1 to 16777216
WanTransformer3DModel | {"attention_head_dim": 127} | field `attention_head_dim` is 127, expected an even number
WanTransformer3DModel | {"image_dim": {}} | field `image_dim` is {}, expected null or a whole number from 1 to 16777216
WanTransformer3DModel | {"num_attention_heads": 1048576, "attention_head_dim": 1048576} | with tensor `condition_embedder.time_embedder.linear_2.weight` of shape [1099511627776, 1099511627776] the model has more than 1125899906842624 values; look for a size with a digit too many
WanVACETransformer3DModel | {"num_layers": 30} | field `vace_layers` is missing, expected block numbers below num_layers = 30
WanVACETransformer3DModel | {"vace_layers": [5, 10]} | field `vace_layers` is [5,10], expected block numbers that start with 0
AutoencoderKLWan | {"dim_mult": []} | field `dim_mult` is [], expected a list of 1 to 64 whole numbers from 1 to 16777216
AutoencoderKLWan | {"dim_mult": [1, 2]} | field `temperal_downsample` is missing, expected a list of 1 true/false values
AutoencoderKLWan | {"z_dim": 48} | field `latents_mean` is missing, expected a list of 48 finite numbers
AutoencoderKLWan | {"base_dim": 3, "dim_mult": [1, 1, 1, 1]} | field `base_dim` is 3, expected a number that makes the channels of each upsampled level even
CLIPVisionModel | {"num_attention_heads": 7} | field `num_attention_heads` is 7, expected a divisor of hidden_size = 768
CLIPVisionModel | {"patch_size": 448} | field `patch_size` is 448, expected at most image_size = 224
T5EncoderModel | {"feed_forward_proj": "x"} | field `feed_forward_proj` is "x", expected "relu" or "gated-gelu"
AutoencoderKL | {"norm_num_groups": 7} | field `norm_num_groups` is 7, expected a divisor of all block_out_channels, [64]
AutoencoderKLCogVideoX | {"down_block_types": ["X"]} | field `down_block_types` is ["X"], expected a list of 4 times "CogVideoXDownBlock3D", one per block_out_channels
CogVideoXTransformer3DModel | {"use_learned_positional_embeddings": true} | field `use_learned_positional_embeddings` is true, expected false where use_rotary_positional_embeddings is false
FluxTransformer2DModel | {"attention_head_dim": 64} | field `axes_dims_rope` is missing, expected three even numbers that add up to attention_head_dim = 64
Wav2Vec2Model | {"add_adapter": true} | field `add_adapter` is true, expected false
"#;

#[test]
fn a_wrong_config_is_refused_by_field_value_and_expectation() {
    let check = |class: &str, config: &str, expected: &str| {
        let config = serde_json::from_str(config).unwrap();
        let error = params(class, &config).unwrap_err().to_string();
        assert_eq!(error, format!("config of {class}: {expected}"));
    };
    for line in REFUSED.trim().lines() {
        let parts: Vec<&str> = line.split(" | ").collect();
        check(parts[0], parts[1], parts[2]);
    }
}

#[test]
fn an_unknown_class_names_the_known_ones() {
    let error = params("UNet2DConditionModel", &json!({})).unwrap_err();
    assert!(matches!(error, ConfigError::UnknownClass { .. }));
    assert!(
        error
            .to_string()
            .starts_with("model class `UNet2DConditionModel` is not supported; supported are T5EncoderModel, "),
        "{error}"
    );
    assert_eq!(block_lists("UNet2DConditionModel"), None);
}

/// Values that some field does not expect; 16777216 is the largest size accepted.
const NONSENSE: &str = r#"[null, true, 0, 1, -1, 3, 0.5, 4096, 16777216, 1099511627776, 18446744073709551615, -9223372036854775808,
    1e300, 123456789012345678901234567890, "", "relu", [], [0], [1], [1, 2, 3], [16777216, 16777216, 16777216], [[]], {}]"#;

/// Every field of every config, replaced by every kind of nonsense: an error or a sane list, never a panic, and
/// never more than some hundred thousand tensors.
#[test]
fn no_value_of_any_field_panics() {
    let mut nonsense: Vec<Value> = serde_json::from_str(NONSENSE).unwrap();
    nonsense.extend([json!(vec![1; 5000]), json!(vec![true; 64])]);
    for row in read(&root().join("tests/data/fixture_tensors.json")).as_array().unwrap() {
        check_fields(row["class"].as_str().unwrap(), &row["config"], &nonsense);
    }
    for component in
        ["hunyuanvideo", "ltx-video-0.9.0"].iter().flat_map(|name| catalog::find(name).unwrap().components())
    {
        check_fields(&component.class, &component.config.unwrap(), &nonsense);
    }
}

fn check_fields(class: &str, config: &Value, nonsense: &[Value]) {
    for field in config.as_object().unwrap().keys() {
        for value in nonsense {
            let mut broken = config.clone();
            broken[field] = value.clone();
            if let Err(error) = params(class, &broken) {
                let text = error.to_string();
                assert!(text.starts_with(&format!("config of {class}: ")) && text.len() < 600, "{text}");
            }
        }
    }
}

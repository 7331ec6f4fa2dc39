//! The tensor lists, against what the reference libraries count and write, and against broken configs.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use loadline_models::catalog;
use loadline_models::params::{ConfigError, Param, block_lists, classes, params};
use serde_json::{Value, json};

/// A text that is a number too large for a JSON integer.
const HUGE: &str = "123456789012345678901234567890";

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
            let Some(rest) = param
                .name
                .strip_prefix(prefix)
                .and_then(|r| r.strip_prefix('.'))
            else {
                continue;
            };
            *each
                .entry(rest.split('.').next().unwrap().parse().unwrap())
                .or_default() += param.elements();
        }
        assert!(
            each.keys().copied().eq(0..each.len()),
            "{class} {prefix}: blocks are not numbered without gaps"
        );
        each.into_values().collect()
    };
    block_lists(class)
        .unwrap()
        .iter()
        .map(|prefix| ((*prefix).to_owned(), sum(prefix)))
        .collect()
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
    let name = expected["largest_tensor"]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    expected["largest_tensor"]["name"] = json!(hub_name(&class, &name));
    let lists = expected["block_lists"].as_object().unwrap().clone();
    expected["block_lists"] = lists
        .into_iter()
        .map(|(name, list)| (format!("{}{name}", hub_prefix(&class)), list))
        .collect();
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
        assert_eq!(
            seen.len(),
            expected.as_object().unwrap().len(),
            "{name}: {seen:?}"
        );
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
        let found: BTreeMap<String, Value> = list
            .iter()
            .map(|p| (p.name.clone(), json!(p.shape)))
            .collect();
        assert_eq!(found.len(), list.len(), "{}: a name twice", row[title]);
        let expected: BTreeMap<String, Value> =
            serde_json::from_value(row["tensors"].clone()).unwrap();
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
            let places: Vec<_> = list
                .iter()
                .filter_map(|p| place(&component.class, &p.name))
                .collect();
            assert!(places.is_sorted(), "{name} {}: {places:?}", component.name);
        }
    }
}

/// The position of a tensor's block: which list, which block.
fn place(class: &str, name: &str) -> Option<(usize, usize)> {
    let lists = block_lists(class).unwrap();
    let index = |prefix: &str| {
        name.strip_prefix(prefix)?
            .strip_prefix('.')?
            .split('.')
            .next()?
            .parse()
            .ok()
    };
    lists
        .iter()
        .enumerate()
        .find_map(|(i, prefix)| Some((i, index(prefix)?)))
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

#[test]
fn a_wrong_config_is_refused_by_field_value_and_expectation() {
    let check = |class: &str, config: Value, expected: &str| {
        assert_eq!(
            params(class, &config).unwrap_err().to_string(),
            format!("config of {class}: {expected}")
        );
    };
    let (wan, vae, clip) = (
        "WanTransformer3DModel",
        "AutoencoderKLWan",
        "CLIPVisionModel",
    );
    let size = "expected a whole number from 1 to 16777216";
    check(wan, json!([1]), "expected a JSON object, found [1]");
    check(
        wan,
        json!({"ffn_dim": 0}),
        &format!("field `ffn_dim` is 0, {size}"),
    );
    check(
        wan,
        json!({"ffn_dim": -1}),
        &format!("field `ffn_dim` is -1, {size}"),
    );
    check(
        wan,
        json!({"ffn_dim": "13824"}),
        &format!("field `ffn_dim` is \"13824\", {size}"),
    );
    check(
        wan,
        json!({"ffn_dim": 1.5}),
        &format!("field `ffn_dim` is 1.5, {size}"),
    );
    check(
        wan,
        json!({"ffn_dim": f64::NAN}),
        &format!("field `ffn_dim` is null, {size}"),
    );
    check(
        wan,
        json!({"ffn_dim": 1u64 << 41}),
        &format!("field `ffn_dim` is 2199023255552, {size}"),
    );
    check(
        wan,
        json!({"num_layers": 1_000_000}),
        "field `num_layers` is 1000000, expected a whole number from 1 to 4096",
    );
    check(
        wan,
        json!({"cross_attn_norm": 1}),
        "field `cross_attn_norm` is 1, expected true or false",
    );
    check(
        wan,
        json!({"eps": 0}),
        "field `eps` is 0, expected a number above 0 and at most 1",
    );
    check(
        wan,
        json!({"patch_size": [1, 2]}),
        "field `patch_size` is [1,2], expected a list of 3 whole numbers from 1 to 16777216",
    );
    check(
        wan,
        json!({"attention_head_dim": 127}),
        "field `attention_head_dim` is 127, expected an even number",
    );
    check(
        wan,
        json!({"image_dim": {}}),
        "field `image_dim` is {}, expected null or a whole number from 1 to 16777216",
    );
    check(
        vae,
        json!({"dim_mult": []}),
        "field `dim_mult` is [], expected a list of 1 to 64 whole numbers from 1 to 16777216",
    );
    check(
        vae,
        json!({"dim_mult": [1, 2]}),
        "field `temperal_downsample` is missing, expected a list of 1 true/false values",
    );
    check(
        vae,
        json!({"z_dim": 48}),
        "field `latents_mean` is missing, expected a list of 48 finite numbers",
    );
    check(
        vae,
        json!({"base_dim": 3, "dim_mult": [1, 1, 1, 1]}),
        "field `base_dim` is 3, expected a number that makes the channels of each upsampled level even",
    );
    check(
        clip,
        json!({"num_attention_heads": 7}),
        "field `num_attention_heads` is 7, expected a divisor of hidden_size = 768",
    );
    check(
        clip,
        json!({"patch_size": 448}),
        "field `patch_size` is 448, expected at most image_size = 224",
    );
    check(
        "T5EncoderModel",
        json!({"feed_forward_proj": "x"}),
        "field `feed_forward_proj` is \"x\", expected \"relu\" or \"gated-gelu\"",
    );
    check(
        "AutoencoderKL",
        json!({"norm_num_groups": 7}),
        "field `norm_num_groups` is 7, expected a divisor of all block_out_channels, [64]",
    );
    check(
        "Wav2Vec2Model",
        json!({"add_adapter": true}),
        "field `add_adapter` is true, expected false",
    );
    check(
        "FluxTransformer2DModel",
        json!({"attention_head_dim": 64}),
        "field `axes_dims_rope` is missing, expected three even numbers that add up to attention_head_dim = 64",
    );
    check(
        "WanVACETransformer3DModel",
        json!({"num_layers": 30}),
        "field `vace_layers` is missing, expected block numbers below num_layers = 30",
    );
    check(
        wan,
        json!({"num_attention_heads": 1 << 20, "attention_head_dim": 1 << 20}),
        "with tensor `condition_embedder.time_embedder.linear_2.weight` of shape [1099511627776, 1099511627776] the model has more \
         than 1125899906842624 values; look for a size with a digit too many",
    );
}

#[test]
fn an_unknown_class_names_the_known_ones() {
    let error = params("UNet2DConditionModel", &json!({})).unwrap_err();
    assert!(matches!(error, ConfigError::UnknownClass { .. }));
    assert!(
        error.to_string().starts_with(
            "model class `UNet2DConditionModel` is not supported; supported are T5EncoderModel, "
        ),
        "{error}"
    );
    assert_eq!(block_lists("UNet2DConditionModel"), None);
}

/// Every field of every config, replaced by every kind of nonsense: an error or a sane list, never a panic, and
/// never more than some hundred thousand tensors.
#[test]
fn no_value_of_any_field_panics() {
    let huge: Value = serde_json::from_str(HUGE).unwrap();
    let nonsense = [
        json!(null),
        json!(true),
        json!(0),
        json!(1),
        json!(-1),
        json!(3),
        json!(0.5),
        json!(4096),
        json!(1 << 24),
        json!(1u64 << 40),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1e300),
        huge,
        json!(""),
        json!("relu"),
        json!([]),
        json!([0]),
        json!([1]),
        json!([1, 2, 3]),
        json!([1 << 24, 1 << 24, 1 << 24]),
        json!([[]]),
        json!(vec![1; 5000]),
        json!(vec![true; 64]),
        json!({}),
    ];
    for row in read(&root().join("tests/data/fixture_tensors.json"))
        .as_array()
        .unwrap()
    {
        check_fields(row["class"].as_str().unwrap(), &row["config"], &nonsense);
    }
    for component in ["hunyuanvideo", "ltx-video-0.9.0"]
        .iter()
        .flat_map(|name| catalog::find(name).unwrap().components())
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
                assert!(
                    text.starts_with(&format!("config of {class}: ")) && text.len() < 600,
                    "{text}"
                );
            }
        }
    }
}

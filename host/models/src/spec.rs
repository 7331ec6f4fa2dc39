//! From configs and weight files to a [`ModelSpec`].

mod folder;
mod names;
mod scales;
mod storage;

use loadline_core::{BlockSpec, Component, ModelSpec, TensorSpec};
use serde_json::Value;

pub use folder::{Folder, FolderComponent, SpecError};
pub use scales::scale_of;
pub use storage::{KeptPlain, StorageRule, kept_plain, storage_of};

use crate::arch::{cogvideox_vae, kl_vae, wan_vae};
use crate::catalog::CatalogEntry;
use crate::params::{self, CogVideoXVaeConfig, ConfigError, HunyuanVideoVaeConfig, KlVaeConfig, WanVaeConfig};

/// Tables whose rows are gathered on the host where they lie; they are in no block.
const GATHERED: [&str; 4] = [
    "shared.weight",
    "encoder.embed_tokens.weight",
    "text_model.embeddings.token_embedding.weight",
    "embed_tokens.weight",
];

/// Whether the rows of this tensor are gathered on the host instead of being loaded as a block.
#[must_use]
pub fn is_gathered(tensor: &str) -> bool {
    GATHERED.contains(&tensor)
}

/// The model of a catalog entry, whose files nobody has read: types are unknown.
///
/// # Errors
/// If an embedded config is damaged, which the tests rule out.
pub fn catalog_model(entry: &CatalogEntry) -> Result<ModelSpec, ConfigError> {
    let component = |c: crate::catalog::Component| match c.config {
        Some(config) => component(&c.name, &c.class, &config),
        None => Ok(Component { name: c.name, class: c.class, tensors: vec![], blocks: vec![], absent: true }),
    };
    let components = entry.components().into_iter().map(component).collect::<Result<_, _>>()?;
    let index = entry.json("model_index.json");
    let class = index.as_ref().and_then(|v| v.get("_class_name")).and_then(Value::as_str);
    Ok(ModelSpec { name: entry.name.to_owned(), pipeline: class.unwrap_or("none").to_owned(), components })
}

/// One component from its class and config.
///
/// # Errors
/// If the class is unknown or a config value is absurd.
pub fn component(name: &str, class: &str, config: &Value) -> Result<Component, ConfigError> {
    let tensors: Vec<TensorSpec> = params::params(class, config)?.into_iter().map(tensor).collect();
    let blocks = match named_blocks(class, config)? {
        Some(named) => prefixed_blocks(named, &tensors),
        None => listed_blocks(params::block_lists(class).unwrap_or(&[]), &tensors),
    };
    Ok(Component { name: name.to_owned(), class: class.to_owned(), tensors, blocks, absent: false })
}

fn tensor(param: params::Param) -> TensorSpec {
    TensorSpec {
        shape: param.shape.iter().map(|d| *d as u64).collect(),
        name: param.name,
        file_dtype: None,
        keep_f32: param.keep_f32,
        buffer: param.buffer,
    }
}

/// A block's name and the prefixes of its tensors.
type NamedBlock = (String, Vec<String>);

/// The blocks of a VAE, whose levels differ from each other; nothing for classes with lists of equal blocks.
fn named_blocks(class: &str, config: &Value) -> Result<Option<Vec<NamedBlock>>, ConfigError> {
    let both = |mut encoder: Vec<NamedBlock>, decoder| {
        encoder.extend(decoder);
        Some(encoder)
    };
    Ok(match class {
        "AutoencoderKLWan" => {
            let config = WanVaeConfig::from_json(config)?;
            both(wan_vae::encoder_blocks(&config), wan_vae::decoder_blocks(&config))
        }
        "AutoencoderKLCogVideoX" => {
            let config = CogVideoXVaeConfig::from_json(config)?;
            both(cogvideox_vae::encoder_blocks(&config), cogvideox_vae::decoder_blocks(&config))
        }
        "AutoencoderKLHunyuanVideo" => {
            Some(kl_vae::blocks(HunyuanVideoVaeConfig::from_json(config)?.block_out_channels.len()))
        }
        "AutoencoderKL" => Some(kl_vae::blocks(KlVaeConfig::from_json(config)?.block_out_channels.len())),
        _ => None,
    })
}

fn prefixed_blocks(named: Vec<NamedBlock>, tensors: &[TensorSpec]) -> Vec<BlockSpec> {
    let block = |(name, prefixes): NamedBlock| {
        let inside = |t: &TensorSpec| prefixes.iter().any(|p| t.name.starts_with(p.as_str()));
        let members = tensors.iter().zip(0..).filter(|(t, _)| inside(t)).map(|(_, i)| i).collect();
        BlockSpec { name, tensors: members }
    };
    named.into_iter().map(block).collect()
}

/// Which block a tensor belongs to.
#[derive(PartialEq, Eq, PartialOrd, Ord, Clone)]
enum Place {
    Front,
    List(usize, u64),
    Tail,
}

/// The blocks of the class's lists, with what stands before the first and after the last of them.
fn listed_blocks(lists: &[&str], tensors: &[TensorSpec]) -> Vec<BlockSpec> {
    let listed = |t: &TensorSpec| {
        lists.iter().enumerate().find_map(|(i, list)| {
            let rest = t.name.strip_prefix(list)?.strip_prefix('.')?;
            Some(Place::List(i, rest.split('.').next()?.parse().ok()?))
        })
    };
    let mut blocks: Vec<(Place, BlockSpec)> = Vec::new();
    let mut seen_list = false;
    for (tensor, index) in tensors.iter().zip(0..) {
        if is_gathered(&tensor.name) {
            continue;
        }
        let place = listed(tensor).unwrap_or(if seen_list { Place::Tail } else { Place::Front });
        seen_list |= matches!(place, Place::List(..));
        match blocks.iter_mut().find(|(p, _)| *p == place) {
            Some((_, block)) => block.tensors.push(index),
            None => blocks.push((place.clone(), BlockSpec { name: place.name(lists), tensors: vec![index] })),
        }
    }
    blocks.sort_by(|a, b| a.0.cmp(&b.0));
    blocks.into_iter().map(|(_, block)| block).collect()
}

impl Place {
    fn name(&self, lists: &[&str]) -> String {
        match self {
            Self::Front => "front".to_owned(),
            Self::List(list, index) => format!("{}.{index}", lists[*list]),
            Self::Tail => "tail".to_owned(),
        }
    }
}

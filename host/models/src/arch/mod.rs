//! Architectures, each written once over the op layer.

mod cache;
pub mod clip;
pub mod cogvideox;
pub mod cogvideox_vae;
mod common;
pub mod flux;
pub mod hunyuan;
pub mod hunyuan_vae;
pub mod kl_vae;
pub mod llama;
pub mod t5;
mod tiles;
pub mod wan_dit;
pub mod wan_vae;

pub use cache::FeatureCache;
pub use tiles::{Blend, Picture, Tile, blend_values, tiles};

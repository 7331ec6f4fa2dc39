//! Architectures, each written once over the op layer.

pub mod t5;
pub mod wan_dit;
pub mod wan_vae;

//! The component that ships says the same as the library.

#[path = "../../component.rs"]
mod component;

use component::says_the_same;
use manual_swap::ManualSwap;

#[test]
fn the_component_says_the_same_as_the_library() {
    let settings: [&[&str]; 3] = [
        &["blocks_to_swap=-1", "bandwidth_target=0.5"],
        &["blocks_to_swap=30", "vace_blocks_to_swap=4", "offload_txt_emb=true", "slots=3"],
        &["residency=leading", "offload_text_encoder=true", "prefetch=4"],
    ];
    says_the_same(&ManualSwap, "manual-swap", &settings);
}

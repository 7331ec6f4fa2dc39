//! The component that ships says the same as the library.

#[path = "../../component.rs"]
mod component;

use component::says_the_same;
use device_map::DeviceMap;

#[test]
fn the_component_says_the_same_as_the_library() {
    let settings: [&[&str]; 2] = [
        &["map=sequential", "max_memory_device=6", "prefetch=2"],
        &["map=custom", "text_encoder=disk", "transformer=host", "max_memory_pinned=1"],
    ];
    says_the_same(&DeviceMap, "device-map", &settings);
}

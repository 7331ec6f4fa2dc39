//! The component that ships says the same as the library.

#[path = "../../component.rs"]
mod component;

use component::says_the_same;
use offload::Offload;

#[test]
fn the_component_says_the_same_as_the_library() {
    let settings: [&[&str]; 3] = [&["strategy=none"], &["strategy=model"], &["strategy=sequential", "percent=70"]];
    says_the_same(&Offload, "offload", &settings);
}

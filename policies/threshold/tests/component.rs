//! The component that ships says the same as the library.

#[path = "../../component.rs"]
mod component;

use component::says_the_same;
use threshold::Threshold;

#[test]
fn the_component_says_the_same_as_the_library() {
    let settings: [&[&str]; 2] = [&["percent=100", "reserve_percent=0"], &["slots=4", "host_percent=20"]];
    says_the_same(&Threshold, "threshold", &settings);
}

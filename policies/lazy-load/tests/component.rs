//! The component that ships says the same as the library.

#[path = "../../component.rs"]
mod component;

use component::says_the_same;
use lazy_load::LazyLoad;

#[test]
fn the_component_says_the_same_as_the_library() {
    let settings: [&[&str]; 2] = [&["granularity=block", "prefetch=2"], &["share=false"]];
    says_the_same(&LazyLoad, "lazy-load", &settings);
}

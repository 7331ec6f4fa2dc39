//! The component that ships says the same as the library.

#[path = "../../component.rs"]
mod component;

use auto_tune::AutoTune;
use component::says_the_same;

#[test]
fn the_component_says_the_same_as_the_library() {
    says_the_same(&AutoTune, "auto-tune", &[&["most_slots=3", "gap_percent=0", "keep=false"]]);
}

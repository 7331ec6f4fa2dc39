//! The component and the library are the same policy: in every scenario both ask, log and decide the same.

use loadline_policy_sdk::testing::same_as_component;
use policy::MyPolicy;

#[test]
fn the_component_says_the_same_as_the_library() {
    same_as_component(&MyPolicy, env!("CARGO_MANIFEST_DIR")).unwrap_or_else(|difference| panic!("{difference}"));
}

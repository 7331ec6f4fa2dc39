//! What the tests of all policies here share: the component that ships says the same as the library.

use loadline_policy_sdk::Policy;
use loadline_policy_sdk::testing::recorded;

/// Asks the committed component of a policy every scenario of `policies/scenarios`, and the library the same; once with
/// the settings as they are by default, and once with each of these lists of settings.
#[track_caller]
pub fn says_the_same(policy: &impl Policy, name: &str, settings: &[&[&str]]) {
    // Tests run in the folder of their package.
    let (scenarios, component) = ("../scenarios", format!("../components/{name}.wasm"));
    for set in [&[][..]].iter().chain(settings) {
        let mut arguments = vec![scenarios, "--policy", &component];
        arguments.extend(set.iter().flat_map(|pair| ["--set", *pair]));
        let compared = recorded(&arguments).and_then(|transcript| transcript.compare(policy));
        let compared = compared.unwrap_or_else(|difference| panic!("with {set:?}, {difference}"));
        assert!(compared.scenarios >= 9 && compared.decisions > compared.scenarios, "{set:?}: {compared:?}");
    }
}

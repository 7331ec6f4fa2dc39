//! Schemas and settings: what is taken, and what is said about what is not.
#![allow(clippy::unwrap_used)]

use loadline_core::SettingValue::{Boolean, Integer, Number, Text};
use loadline_policy::settings::{Schema, resolve, resolve_json};

const SCHEMA: &str = r#"{
  "type": "object",
  "properties": {
    "blocks_to_swap": {"type": "integer", "minimum": 0, "maximum": 64, "default": 20},
    "share": {"type": "boolean", "default": true},
    "gap": {"type": "number", "minimum": 0, "default": 0.5, "title": "Gap"},
    "offload_vae": {"type": "string", "enum": ["auto", "true", "false"], "default": "auto"},
    "note": {"type": "string", "maxLength": 4, "default": ""}
  }
}"#;

fn given(key: &str, text: &str) -> Result<loadline_core::Settings, String> {
    let schema = Schema::parse(SCHEMA).unwrap();
    resolve(&schema, &[(key.to_owned(), text.to_owned())]).map_err(|error| error.to_string())
}

#[test]
fn values_are_read_as_their_kind() {
    let check = |key: &str, text: &str, expected| assert_eq!(given(key, text).unwrap()[key], expected);
    check("blocks_to_swap", "64", Integer(64));
    check("share", "off", Boolean(false));
    check("gap", "1e3", Number(1000.0));
    check("offload_vae", "false", Text("false".into()));
    check("note", "text", Text("text".into()));
}

#[test]
fn what_is_not_given_has_its_default() {
    let settings = given("share", "no").unwrap();
    assert_eq!(settings.len(), 5);
    assert_eq!(settings["blocks_to_swap"], Integer(20));
}

#[test]
fn messages_say_what_would_fit() {
    let check = |key: &str, text: &str, expected: &str| assert_eq!(given(key, text).unwrap_err(), expected);
    let known = "blocks_to_swap, share, gap, offload_vae, note";
    check(
        "block_to_swap",
        "1",
        &format!("there is no setting 'block_to_swap', did you mean 'blocks_to_swap'?; known are {known}"),
    );
    check("colour", "1", &format!("there is no setting 'colour'; known are {known}"));
    check("blocks_to_swap", "65", "setting 'blocks_to_swap': '65' is not a whole number from 0 to 64 (default 20)");
    check("blocks_to_swap", "1.5", "setting 'blocks_to_swap': '1.5' is not a whole number from 0 to 64 (default 20)");
    check("share", "perhaps", "setting 'share': 'perhaps' is not true or false (default true)");
    check("gap", "NaN", "setting 'gap': 'NaN' is not a number of at least 0 (default 0.5)");
    check("gap", "-1", "setting 'gap': '-1' is not a number of at least 0 (default 0.5)");
    check("offload_vae", "maybe", "setting 'offload_vae': 'maybe' is not one of auto, true, false (default auto)");
    check("note", "too long", "setting 'note': 'too long' is not a text of at most 4 bytes (default )");
    let schema = Schema::parse(SCHEMA).unwrap();
    let twice = [("share".to_owned(), "on".to_owned()), ("share".to_owned(), "off".to_owned())];
    assert_eq!(resolve(&schema, &twice).unwrap_err().to_string(), "setting 'share' is given twice");
    let none = resolve(&Schema::default(), &twice).unwrap_err().to_string();
    assert_eq!(none, "there is no setting 'share'; the policy has no settings");
}

#[test]
fn json_values_are_taken_as_they_are() {
    let schema = Schema::parse(SCHEMA).unwrap();
    let take = |text: &str| resolve_json(&schema, &serde_json::from_str(text).unwrap());
    let settings = take(r#"{"blocks_to_swap": 3, "offload_vae": true, "gap": 2}"#).unwrap();
    assert_eq!((&settings["blocks_to_swap"], &settings["offload_vae"]), (&Integer(3), &Text("true".into())));
    assert_eq!(settings["gap"], Number(2.0));
    let error = take(r#"{"blocks_to_swap": "3"}"#).unwrap_err().to_string();
    assert_eq!(error, "setting 'blocks_to_swap': '3' is not a whole number from 0 to 64 (default 20)");
}

#[test]
fn schemas_that_mean_less_than_they_seem_to_are_refused() {
    let check = |schema: &str, expected: &str| {
        let error = Schema::parse(schema).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let setting = |text: &str| format!(r#"{{"type": "object", "properties": {{"key": {text}}}}}"#);
    check("[]", "must be of type 'object'");
    check("{", "not JSON");
    check(r#"{"type": "object", "properties": {}, "required": ["x"]}"#, "without other keywords");
    check(&setting(r#"{"type": "integer"}"#), "setting 'key': it has no 'default'");
    check(&setting(r#"{"type": "integer", "default": 1, "minimun": 0}"#), "the keyword 'minimun' is not known");
    check(
        &setting(r#"{"type": "integer", "default": 1, "minimum": 2}"#),
        "its default 1 is not a whole number of at least 2",
    );
    check(
        &setting(r#"{"type": "integer", "default": 1, "minimum": 2, "maximum": 1}"#),
        "its minimum is above its maximum",
    );
    check(&setting(r#"{"type": "array", "default": []}"#), "its type is 'array'");
    check(&setting(r#"{"type": "string", "enum": [1], "default": "a"}"#), "its enum is not a list of texts");
    check(&setting("{}").replace("key", "Key"), "lower-case letters");
    check(&" ".repeat(70_000).replace("   ", "{{{"), "at most 65536 are read");
}

#[test]
fn the_schemas_of_shipped_policies_have_words_for_everything() {
    let engine = loadline_policy::PolicyEngine::new(loadline_policy::Limits::default()).unwrap();
    for built in loadline_policy::builtin() {
        let policy = engine.load(built.component).unwrap();
        assert_eq!(policy.id().name, built.name);
        assert!(policy.summary().ends_with('.'), "{}", policy.summary());
        let settings = policy.schema().settings();
        assert!(!settings.is_empty() && settings.iter().all(|s| s.description.len() > 20), "{}", built.name);
        assert!(resolve(policy.schema(), &[]).is_ok());
    }
}

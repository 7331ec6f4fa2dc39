//! `loadline policy show`.

use loadline::core::{Bytes, SettingValue};
use loadline::policies::{self, Found};
use loadline::workshop::imports;
use loadline::{Code, Error, Policy, PolicyLimits, PolicySetting};
use serde_json::{Value, json};

use super::list::{class, origin};
use super::places;

pub(super) fn run(name: &str, json: bool) -> Result<(), Error> {
    let places = places();
    let limits = super::limits();
    let found = policies::find(name, &places, &limits)?;
    let policy = policies::load_bytes(name, &found.component, &places, limits)?;
    let limits = limits.of(found.component.len());
    if json {
        say!("{}", as_json(&policy, &found, &limits)?);
        return Ok(());
    }
    heading(&policy, &found);
    settings(policy.schema().settings());
    allowed(&limits);
    Ok(())
}

fn heading(policy: &Policy, found: &Found) {
    let id = policy.id();
    let bytes = found.component.len();
    say!("{} {}\n{}\n", id.name, id.version, policy.summary());
    say!("  where      {}", origin(&found.origin));
    say!("  hash       {}", id.hash);
    say!("  size       {}, {}", Bytes(bytes as u64), class(bytes));
    say!("  contract   {}", policy.contract());
    say!("  imports    {}", imports(&found.component).join(", "));
    say!("  code       {}", code(policy.code()));
}

fn code(code: &Code) -> String {
    match code {
        Code::Cached => "compiled before, taken from the cache".to_owned(),
        Code::Kept => "compiled now, and put into the cache".to_owned(),
        Code::Compiled => "compiled now; nothing is kept".to_owned(),
        Code::NotKept { reason } => format!("compiled now, and not kept: {reason}"),
        // Ways that are to come are still worth a line.
        other => format!("{other:?}"),
    }
}

fn settings(settings: &[PolicySetting]) {
    if settings.is_empty() {
        say!("\nno settings");
        return;
    }
    let keys = settings.iter().map(|s| s.key.chars().count()).max().unwrap_or_default().max("setting".len());
    let defaults = settings.iter().map(|s| value(&s.default).chars().count()).max().unwrap_or_default();
    let defaults = defaults.max("default".len());
    say!("\n  {:<keys$}  {:<defaults$}  takes", "setting", "default");
    for setting in settings {
        say!("  {:<keys$}  {:<defaults$}  {}", setting.key, value(&setting.default), setting.kind);
        say!("  {:keys$}  {}", "", setting.description);
    }
}

fn value(value: &SettingValue) -> String {
    match value {
        SettingValue::Boolean(value) => value.to_string(),
        SettingValue::Integer(value) => value.to_string(),
        SettingValue::Number(value) => value.to_string(),
        SettingValue::Text(value) => value.clone(),
    }
}

fn allowed(limits: &PolicyLimits) {
    let bytes = |bytes: usize| Bytes(bytes as u64);
    say!("\nlimits");
    say!("  memory     {}, stack {}", bytes(limits.memory_bytes), bytes(limits.stack_bytes));
    say!("  tables     4 of {} entries", limits.table_entries);
    say!("  answer     {} in one call", bytes(limits.result_bytes));
    say!("  fuel       {} and {} more for each block of the job", limits.decide_fuel, limits.decide_fuel_per_block);
    say!("  calls      {} forecasts, {} probes", limits.forecast_calls, limits.probe_calls);
    say!("  log        {}, {} a line", bytes(limits.log_bytes), bytes(limits.log_line_bytes));
    if let Some(time) = limits.watchdog {
        say!("  time       {time:?} in a decision, forecasts not counted");
    }
    say!("\nYou set these with --policy-memory, --policy-fuel and so on; a policy cannot.");
}

fn as_json(policy: &Policy, found: &Found, limits: &PolicyLimits) -> Result<Value, Error> {
    let id = policy.id();
    let schema = policy.schema().json();
    let schema: Value = if schema.is_empty() { Value::Null } else { parsed(schema)? };
    Ok(json!({
        "name": id.name,
        "version": id.version,
        "hash": id.hash.as_str(),
        "summary": policy.summary(),
        "origin": origin(&found.origin),
        "bytes": found.component.len(),
        "class": class(found.component.len()),
        "contract": policy.contract(),
        "imports": imports(&found.component),
        "cached": matches!(policy.code(), Code::Cached | Code::Kept),
        "settings": schema,
        "limits": {
            "memory_bytes": limits.memory_bytes,
            "table_entries": limits.table_entries,
            "stack_bytes": limits.stack_bytes,
            "result_bytes": limits.result_bytes,
            "decide_fuel": limits.decide_fuel,
            "decide_fuel_per_block": limits.decide_fuel_per_block,
            "forecast_calls": limits.forecast_calls,
            "probe_calls": limits.probe_calls,
            "log_bytes": limits.log_bytes,
            "log_line_bytes": limits.log_line_bytes,
        },
    }))
}

fn parsed(schema: &str) -> Result<Value, Error> {
    serde_json::from_str(schema).map_err(|error| Error::Settings(format!("the policy's settings: {error}")))
}

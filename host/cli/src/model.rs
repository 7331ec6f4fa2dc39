//! `loadline model`.

use std::path::Path;

use loadline::core::{Component, DType};
use loadline::{Error, Model, Support, catalog};
use serde_json::json;

use crate::args::ModelCommand;

pub(crate) fn run(command: &ModelCommand) -> Result<(), Error> {
    match command {
        ModelCommand::List { json } => list(*json),
        ModelCommand::Inspect { model, json } => inspect(model, *json),
        ModelCommand::Synth(args) => crate::synth::run(args),
    }
}

fn list(as_json: bool) -> Result<(), Error> {
    let models =
        catalog::names().map(|name| Ok((name, Model::open_cataloged(name)?))).collect::<Result<Vec<_>, Error>>()?;
    if as_json {
        let entry = |(name, m): &(&str, Model)| {
            let params: u64 = m.spec.components.iter().map(Component::params).sum();
            json!({ "name": name, "pipeline": m.spec.pipeline, "params": params, "support": support(m) })
        };
        print_json(&models.iter().map(entry).collect::<Vec<_>>().into());
        return Ok(());
    }
    say!("{:<26} {:>14} {:>10} {:>10}  runs", "model", "parameters", "bf16", "f32");
    for (name, model) in &models {
        let total = |dtype| model.spec.components.iter().map(|c| c.uniform_bytes(dtype)).sum::<loadline::core::Bytes>();
        let params: u64 = model.spec.components.iter().map(Component::params).sum();
        let (bf16, f32) = (total(DType::Bf16), total(DType::F32));
        say!("{name:<26} {:>14} {bf16:>10} {f32:>10}  {}", grouped(params), support(model));
    }
    say!("\nLook into one with `loadline model inspect NAME`; forecast it with `loadline plan NAME --gpu PROFILE`.");
    Ok(())
}

fn support(model: &Model) -> String {
    match model.support() {
        Support::Runs => "yes".to_owned(),
        Support::ShapeOnly(reason) => format!("shape only: {reason}"),
        Support::WeightsOnly(reason) => format!("weights only: {reason}"),
    }
}

fn inspect(name: &str, as_json: bool) -> Result<(), Error> {
    let path = Path::new(name);
    if path.is_file() {
        return inspect_file(path, as_json);
    }
    let model = Model::open(name)?;
    if as_json {
        print_json(&model_json(&model));
        return Ok(());
    }
    say!("{} ({}), runs: {}\n", model.spec.name, model.spec.pipeline, support(&model));
    for component in &model.spec.components {
        show_component(component);
    }
    Ok(())
}

fn model_json(model: &Model) -> serde_json::Value {
    let block = |c: &Component, b: &loadline::core::BlockSpec| {
        json!({
            "name": b.name, "params": c.block_params(b), "tensors": b.tensors.len(),
            "bf16_bytes": DType::Bf16.bytes(c.block_params(b)), "slab_bytes": c.slab_bytes(b, DType::Bf16),
        })
    };
    let component = |c: &Component| {
        json!({
            "name": c.name, "class": c.class, "absent": c.absent,
            "params": c.params(), "tensors": c.tensors.iter().filter(|t| !t.buffer).count(),
            "bf16_bytes": c.uniform_bytes(DType::Bf16), "f32_bytes": c.uniform_bytes(DType::F32),
            "mixed_bytes": c.mixed_bytes(DType::Bf16), "file_dtype": c.file_dtype(),
            "blocks": c.blocks.iter().map(|b| block(c, b)).collect::<Vec<_>>(),
        })
    };
    json!({
        "name": model.spec.name, "pipeline": model.spec.pipeline, "hash": model.spec.hash(), "support": support(model),
        "components": model.spec.components.iter().map(component).collect::<Vec<_>>(),
    })
}

fn show_component(c: &Component) {
    if c.absent {
        say!("{} ({}): absent, no config was published\n", c.name, c.class);
        return;
    }
    say!("{} ({})", c.name, c.class);
    let dtype = c.file_dtype().map_or("not read".to_owned(), |d| d.to_string());
    say!("  parameters {:>16}   in the files {dtype}", grouped(c.params()));
    say!("  bf16       {:>16}   {} bytes", c.uniform_bytes(DType::Bf16), c.uniform_bytes(DType::Bf16).0);
    say!("  f32        {:>16}   {} bytes", c.uniform_bytes(DType::F32), c.uniform_bytes(DType::F32).0);
    say!(
        "  mixed      {:>16}   {} bytes (bf16 with what the reference keeps in f32)",
        c.mixed_bytes(DType::Bf16),
        c.mixed_bytes(DType::Bf16).0
    );
    for (first, count, params) in runs(c) {
        let name = if count == 1 { first } else { format!("{first} and {} more", count - 1) };
        say!("  {name:<40} {:>14} parameters each, {}", grouped(params), DType::Bf16.bytes(params));
    }
    say!();
}

/// Blocks in a row that are equally large: the first's name, how many, and the parameters of each.
fn runs(c: &Component) -> Vec<(String, usize, u64)> {
    let mut runs: Vec<(String, usize, u64)> = Vec::new();
    for block in &c.blocks {
        let params = c.block_params(block);
        match runs.last_mut() {
            Some((_, count, last)) if *last == params => *count += 1,
            _ => runs.push((block.name.clone(), 1, params)),
        }
    }
    runs
}

fn inspect_file(path: &Path, as_json: bool) -> Result<(), Error> {
    let index = loadline::weight_file(path)?;
    if as_json {
        let tensor = |t: &loadline::TensorEntry| {
            let dtype = t.dtype.name();
            json!({ "name": t.name, "shape": t.shape, "dtype": dtype, "offset": t.offset, "bytes": t.bytes })
        };
        print_json(&json!({
            "file": path.display().to_string(),
            "tensors": index.tensors.iter().map(tensor).collect::<Vec<_>>(),
        }));
        return Ok(());
    }
    let bytes: u64 = index.tensors.iter().map(|t| t.bytes).sum();
    say!("{}: {} tensors, {}", path.display(), index.tensors.len(), loadline::core::Bytes(bytes));
    for t in &index.tensors {
        say!("  {:<70} {:<8} {:>12} {:?}", t.name, t.dtype.name(), loadline::core::Bytes(t.bytes), t.shape);
    }
    Ok(())
}

pub(crate) fn print_json(value: &serde_json::Value) {
    say!("{value:#}");
}

/// `5680910336` as `5,680,910,336`.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let lead = digits.len() % 3;
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && i % 3 == lead {
            out.push(',');
        }
        out.push(c);
    }
    out
}

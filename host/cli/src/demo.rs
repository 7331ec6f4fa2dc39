//! `loadline demo`: the whole main path on what the program brings with it.

use std::path::Path;

use loadline::core::{Bytes, Size};
use loadline::{Asked, Error, JobSpec, Model, Planner, ResultSink, Session, SessionOptions, policies};

use crate::args::DemoArgs;
use crate::telling::Telling;
use crate::{policy, run, setup, show, stepping};

/// A Wan model with two heads of 32 channels and three blocks, random weights, 2.4 MB.
macro_rules! tiny {
    ($($path:literal),* $(,)?) => {
        [$(($path, include_bytes!(concat!("../../../tests/fixtures/wan_t2v/model/", $path)).as_slice())),*]
    };
}

const TINY: [(&str, &[u8]); 15] = tiny![
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/tokenizer.json",
    "transformer/config.json",
    "transformer/diffusion_pytorch_model.safetensors.index.json",
    "transformer/diffusion_pytorch_model-00001-of-00003.safetensors",
    "transformer/diffusion_pytorch_model-00002-of-00003.safetensors",
    "transformer/diffusion_pytorch_model-00003-of-00003.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors.index.json",
    "vae/diffusion_pytorch_model-00001-of-00003.safetensors",
    "vae/diffusion_pytorch_model-00002-of-00003.safetensors",
    "vae/diffusion_pytorch_model-00003-of-00003.safetensors",
];

pub(crate) fn run(args: &DemoArgs) -> Result<(), Error> {
    say!("1. A forecast for a card that is not here: Wan 2.1 14B (37 GiB of weights) on a 12 GB card\n");
    say!("$ loadline plan wan2.1-t2v-14b --gpu rtx-3060-12gb --vram 10GiB\n");
    forecast()?;
    say!("\n2. A run on this machine: a tiny Wan model with random weights, streamed through a budget of 6 MiB\n");
    let folder = unpacked()?;
    make(folder.path(), &args.output)?;
    say!(
        "\nThe weights are random, so the video is colourful noise; every byte of it is real. Memory is forecast to the \
         byte; the times of a model this tiny are those of waking threads, which the CPU profile does not know. Next:"
    );
    say!("  loadline model list");
    say!("  loadline plan wan2.1-t2v-1.3b --gpu rtx-4090 --frames 81");
    say!("  loadline run YOUR_MODEL_FOLDER --prompt \"...\" --vram 4GiB -o out.mp4");
    Ok(())
}

/// A folder that is gone when nobody has it any more.
pub(crate) fn folder() -> Result<tempfile::TempDir, Error> {
    tempfile::tempdir().map_err(|e| Error::Output { path: std::env::temp_dir(), detail: e.to_string() })
}

/// The tiny model in a folder of its own.
pub(crate) fn unpacked() -> Result<tempfile::TempDir, Error> {
    let folder = folder()?;
    unpack(folder.path())?;
    Ok(folder)
}

fn forecast() -> Result<(), Error> {
    let model = Model::open_cataloged("wan2.1-t2v-14b")?;
    let machine = setup::machine("rtx-3060-12gb")?;
    let policy = policy::open("auto-tune")?;
    let settings = policies::settings(&policy, &[])?;
    let asked = Asked { vram: Some(Bytes::gib(10)), ..Asked::new(setup::usual_request(&model)?) };
    let planner = Planner::new(&model, &machine, &policy, &settings);
    show::plan(&planner.plan(&asked)?, &machine);
    Ok(())
}

fn unpack(folder: &Path) -> Result<(), Error> {
    for (name, bytes) in TINY {
        let path = folder.join(name);
        let write = || {
            path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            std::fs::write(&path, bytes)
        };
        write().map_err(|e| Error::Output { path: path.clone(), detail: e.to_string() })?;
    }
    Ok(())
}

fn make(folder: &Path, output: &Path) -> Result<(), Error> {
    let model = Model::open(&folder.to_string_lossy())?;
    let policy = policy::open("auto-tune")?;
    let settings = policies::settings(&policy, &[])?;
    let machine = setup::this_machine("cpu")?;
    let mut request = setup::usual_request(&model)?;
    (request.size, request.frames, request.steps) = (Size { width: 96, height: 64 }, 33, 12);
    let asked = Asked { vram: Some(Bytes::mib(6)), ram: Some(Bytes::gib(1)), ..Asked::new(request) };
    let spec = JobSpec {
        prompt: "a red ball on a beach".into(),
        negative_prompt: "blurry".into(),
        asked,
        seed: 7,
        latents: None,
        output: ResultSink::from_path(output)?,
        dump: None,
        resume: false,
        more_to_come: false,
    };
    let options = SessionOptions::new(model, policy, settings, machine.clone());
    let mut session = Session::new(options)?;
    let stop = run::stop_on_signal()?;
    let outcome = run::one(&mut session, &spec, &stop, Telling::new(false).job(&machine, &spec, None))?;
    run::report(&outcome, &machine, &spec.output, &stepping::Said::default());
    Ok(())
}
